"""What holds for many calls, wherever they run: threads, services, logs; and what of them is kept near."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import json
import logging
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import httpx2
import openai
import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace as otel_trace
from starlette.responses import StreamingResponse

import loopkit
from loopkit import web
from loopkit.errors import InvalidInput
from loopkit.testing import MemorySink, chat_completion, recording

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
HEADERS = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


def test_a_function_carries_what_holds_where_it_was_handed_over(recorded: MemorySink) -> None:
    def work(number: int) -> int:
        with loopkit.span(f"work {number}"):
            return number

    with loopkit.context(user_id="u-1", order="7"), loopkit.span("outer") as outer, ThreadPoolExecutor(4) as pool:
        carried = loopkit.carried(work)
        assert carried.__name__ == "work"
        assert sorted(pool.map(carried, range(8))) == list(range(8))
        thread = threading.Thread(target=loopkit.carried(work), args=(8,))
        thread.start()
        thread.join()
    spans = [span for span in recorded.spans() if span.name != "outer"]
    assert len(spans) == 9
    assert {span.parent_id for span in spans} == {outer.id.partition("-")[2]}
    assert {(span.user_id, span.tags) for span in spans} == {("u-1", ("order:7",))}


def test_log_records_say_in_which_span_they_were_written(recorded: MemorySink) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(loopkit.LogIds())
    handler.setFormatter(logging.Formatter("%(trace_id)s|%(span_id)s|%(span)s|%(message)s"))
    logger = logging.getLogger("test_context")
    logger.addHandler(handler)
    try:
        logger.warning("before")
        with loopkit.span("outer") as outer:
            logger.warning("inside")
    finally:
        logger.removeHandler(handler)
    before, inside = stream.getvalue().splitlines()
    assert before == "|||before"
    assert inside == f"{outer.trace_id}|{outer.id.partition('-')[2]}|{outer.id}|inside"


def service(**settings: Any) -> TestClient:
    app = FastAPI()
    app.add_middleware(web.TraceMiddleware, **settings)

    @app.get("/whole")
    async def whole(request: Request) -> str:
        with loopkit.span("answer") as span:
            return span.id

    @app.get("/pieces")
    async def pieces() -> StreamingResponse:
        async def made() -> Any:
            with loopkit.span("piece") as span:
                yield span.id

        return StreamingResponse(made())

    return TestClient(app)


@pytest.mark.parametrize("path", ["/whole", "/pieces"])
def test_a_request_goes_on_with_its_callers_trace(path: str, recorded: MemorySink) -> None:
    client = service()
    assert TRACE in client.get(path, headers=HEADERS).text
    client.get(path)
    first, second = recorded.spans()
    assert (first.trace_id, first.parent_id) == (TRACE, PARENT)
    assert second.parent_id is None
    assert otel_trace.get_current_span() is otel_trace.INVALID_SPAN


def test_baggage_is_believed_where_it_is_to_be(recorded: MemorySink) -> None:
    said = {**HEADERS, "baggage": "loopkit.user_id=u%2F1;p=1, loopkit.session_id=s-1,other=x,broken"}
    service().get("/whole", headers=said)
    service(trust_baggage=True).get("/whole", headers=said)
    first, second = recorded.spans()
    assert (first.user_id, first.session_id) == (None, None)
    assert (second.user_id, second.session_id) == ("u/1", "s-1")


def test_a_wsgi_application_too(recorded: MemorySink) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])

        def made() -> Iterator[bytes]:
            for number in range(2):
                with loopkit.span(f"piece {number}"):
                    pass
                yield b"x"

        return made()

    body = web.WsgiTraceMiddleware(app)({"HTTP_TRACEPARENT": HEADERS["traceparent"]}, lambda *_: None)
    assert b"".join(body) == b"xx"
    assert {span.trace_id for span in recorded.spans()} == {TRACE}
    assert len(recorded.spans()) == 2


def test_a_trace_goes_on_in_the_next_service(recorded: MemorySink) -> None:
    seen: list[httpx.Headers] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers)
        return httpx.Response(200)

    client = httpx.Client(transport=httpx.MockTransport(answer))
    with loopkit.context(user_id="u/1", session_id="s-1"), loopkit.span("outer") as outer:
        for url in (
            "https://api.internal/x",
            "https://a.b.internal/x",
            "https://evil.example",
            "https://api.openai.com",
        ):
            client.get(
                url, headers=web.outgoing_headers(url, baggage_to=["api.internal", ".internal", "api.openai.com"])
            )
    assert {headers["traceparent"][3:35] for headers in seen} == {outer.trace_id}
    said = "loopkit.user_id=u%2F1,loopkit.session_id=s-1"
    assert [headers.get("baggage") for headers in seen] == [said, said, None, None]
    assert web.outgoing_headers("https://api.internal/x", baggage_to=["api.internal"]) == {}


@given(st.text(), st.text())
def test_no_header_hurts(traceparent: str, baggage: str) -> None:
    with web.incoming({"traceparent": traceparent, "baggage": baggage}, trust_baggage=True):
        pass
    assert otel_trace.get_current_span() is otel_trace.INVALID_SPAN


def test_arguments_are_redacted_by_name_or_by_function(recorded: MemorySink) -> None:
    class Fault(Exception):
        pass

    def fail(value: object) -> object:
        raise Fault

    @loopkit.trace(redact=["pin"], exclude=["token"])
    def one(card: str, pin: str, token: str = "t") -> str:
        return card

    @loopkit.trace(redact={"card": lambda card: f"…{card[-4:]}"})
    def two(card: str) -> int:
        return len(card)

    assert one("c", "1234", token="t") == "c"
    assert two("12345678") == 8
    first, second = recorded.spans()
    assert first.input == {"card": "c", "pin": "[REDACTED]"}
    assert second.input == {"card": "…5678"}
    with pytest.raises(InvalidInput, match="redact is 'card'"):
        loopkit.trace(redact="card")
    with pytest.raises(InvalidInput, match="redact has 7 for 'card'"):
        loopkit.trace(redact={"card": 7})  # type: ignore[dict-item]


def test_a_redaction_that_fails_hides_the_argument() -> None:
    def fail(value: object) -> object:
        raise ValueError(value)

    @loopkit.trace(redact={"card": fail})
    def pay(card: str) -> str:
        return "paid"

    with recording(strict=False) as recorded:
        assert pay("12345678") == "paid"
        assert recorded.spans()[0].input == {"card": "[REDACTED]"}


def test_objects_that_can_be_called_are_traced(recorded: MemorySink) -> None:
    class Greeter:
        def __call__(self, name: str) -> str:
            return f"Hello {name}"

    class Later:
        async def __call__(self, name: str) -> str:
            return f"Hello {name}"

    assert loopkit.trace(Greeter())("Ana") == "Hello Ana"
    assert asyncio.run(loopkit.trace(name="later")(Later())("Ana")) == "Hello Ana"
    first, second = recorded.spans()
    assert first.name.endswith("Greeter")
    assert (first.input, first.output) == ({"name": "Ana"}, "Hello Ana")
    assert (second.name, second.input) == ("later", {"name": "Ana"})


def sent(recorded: MemorySink) -> tuple[bytes, bytes]:
    loopkit.flush()
    spans = [span for batch in recorded.batches for span in batch.spans]
    return b"".join(span.exported(content=True) for span in spans), b"".join(span.stored() for span in spans)


@pytest.mark.parametrize("way", ["trace", "span", "context"])
@pytest.mark.parametrize("content", ["off", "local"])
def test_a_call_may_keep_its_content_nearer(way: str, content: Any) -> None:
    with recording(content="export") as recorded:

        def inner() -> None:
            loopkit.record_model_call(provider="acme", model="m", input="SECRET")
            with loopkit.span("inner", input="SECRET"):
                pass

        if way == "trace":
            loopkit.trace(content=content)(inner)()
        elif way == "span":
            with loopkit.span("outer", content=content):
                inner()
        else:
            with loopkit.context(content=content):
                inner()
        away, stored = sent(recorded)
        spans = recorded.spans()
    assert b"SECRET" not in away
    assert (b"SECRET" in stored) == (content == "local")
    assert {span.content_status for span in spans} == {content}


def test_what_is_said_elsewhere_goes_as_far_as_ever(recorded: MemorySink) -> None:
    with loopkit.span("near", content="off", input="SECRET"):
        pass
    with loopkit.span("far", input="KNOWN"):
        pass
    assert [span.content_status for span in recorded.spans()] == ["off", "kept"]
    for wrong in ("export", "no", 1):
        with pytest.raises(InvalidInput, match="less than init"):
            loopkit.span("x", content=wrong)  # type: ignore[arg-type]


def test_a_coroutine_function_can_be_carried_and_a_generator_cant(recorded: MemorySink) -> None:
    async def work() -> str:
        await asyncio.sleep(0)
        with loopkit.span("work"):
            return "done"

    with loopkit.span("outer") as outer:
        carried = loopkit.carried(work)
    results: list[str] = []
    thread = threading.Thread(target=lambda: results.append(asyncio.run(carried())))
    thread.start()
    thread.join()
    assert results == ["done"]
    assert recorded.spans()[1].parent_id == outer.id.partition("-")[2]
    with pytest.raises(InvalidInput, match="generator function"):
        loopkit.carried(lambda: (yield))


@pytest.mark.parametrize("url", ["http://[bad", "", "https://api.openai.com./v1", httpx.URL("https://api.openai.com")])
def test_no_address_hurts_or_gets_what_it_shouldnt(url: Any, recorded: MemorySink) -> None:
    with loopkit.context(user_id="u-1"), loopkit.span("outer"):
        for allowed in ([""], ["."], ["api.openai.com"], ["api.openai.com."]):
            with contextlib.suppress(ValueError):  # strict: the fault is told
                assert "baggage" not in web.outgoing_headers(url, baggage_to=allowed)
    with loopkit.context(user_id="\ud800"), loopkit.span("outer"):
        headers = web.outgoing_headers("https://x.internal", baggage_to=[".internal"])
    assert headers["baggage"] == "loopkit.user_id=%3F"


def test_headers_that_are_texts_are_read_too(recorded: MemorySink) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with loopkit.span("inside"):
            pass

    scope: Any = {"type": "http", "headers": [("traceparent", HEADERS["traceparent"])]}
    asyncio.run(web.TraceMiddleware(app)(scope, None, None))
    (span,) = recorded.spans()
    assert span.trace_id == TRACE


def test_a_call_made_by_a_task_that_outlives_the_one_it_was_begun_in_is_told(recorded: MemorySink) -> None:
    tasks: list[Any] = []

    async def background() -> None:
        await asyncio.sleep(0.02)
        await made.chat.completions.create(model="later", messages=[])

    async def on_request(_: Any) -> None:
        if not tasks:
            tasks.append(asyncio.create_task(background()))

    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=chat_completion("fine")))
    http = httpx2.AsyncClient(transport=transport, event_hooks={"request": [on_request]})
    made: Any = loopkit.wrap(openai.AsyncOpenAI(api_key="test", http_client=http))

    async def main() -> None:
        await made.chat.completions.create(model="first", messages=[])
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert [span.name for span in recorded.spans()] == ["chat first", "chat later"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_end_its_parents_spans(tmp_path: Path) -> None:
    chunks = "".join(
        f"data: {json.dumps({**chat_completion('x'), 'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"
        for choice in ({"index": 0, "delta": {"content": piece}, "finish_reason": None} for piece in "abc")
    )
    events = httpx2.Response(200, text=chunks + "data: [DONE]\n\n", headers={"content-type": "text/event-stream"})
    client = openai.OpenAI(api_key="test", http_client=httpx2.Client(transport=httpx2.MockTransport(lambda _: events)))
    loopkit.init("svc", store=tmp_path)
    stream: Any = loopkit.wrap(client).chat.completions.create(model="m", messages=[], stream=True)
    next(iter(stream))
    child = os.fork()
    if child == 0:
        del stream
        gc.collect()
        loopkit.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    for _ in stream:
        pass
    (span,) = loopkit.open_store(tmp_path).spans()
    assert span.status == "ok"
    assert span.model_call is not None
    assert span.model_call.output[0].text == "abc"
