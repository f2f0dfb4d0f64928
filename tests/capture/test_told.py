"""Calls that no dialect knows: told by who made them, or read off an HTTP client."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timezone
from typing import Any

import httpx
import httpx2
import pytest

import loopkit
from loopkit.errors import InvalidInput, UnsupportedClient
from loopkit.testing import MemorySink
from loopkit.types import Message, ModelCall, Part, Span, Usage
from tests.colours import Entered, collect, value


def only(recorded: MemorySink) -> tuple[Span, ModelCall]:
    (span,) = recorded.spans()
    assert span.model_call is not None
    return span, span.model_call


def test_a_call_told_by_hand(recorded: MemorySink) -> None:
    with loopkit.span("outer") as outer:
        handle = loopkit.record_model_call(
            provider="acme", model="acme-1", input="How are you?",
            output={"role": "assistant", "content": "Fine.", "finish_reason": "stop"},
            usage={"input_tokens": 4, "output_tokens": 2}, parameters={"temperature": 0.5}, response_id="r1",
            response_model="acme-1b", cost=0.25, time_to_first_token=0.125,
            started_at=datetime(2026, 1, 1, tzinfo=timezone.utc),
        )  # fmt: skip
    span = next(span for span in recorded.spans() if span.kind == "llm")
    call = span.model_call
    assert call is not None
    assert (span.id, span.parent_id) == (handle.id, outer.id.partition("-")[2])
    assert (span.name, call.provider, call.model, call.response_model) == ("chat acme-1", "acme", "acme-1", "acme-1b")
    assert (call.input[0].text, call.output[0].text, call.finish_reasons) == ("How are you?", "Fine.", ("stop",))
    assert call.usage == Usage(input_tokens=4, output_tokens=2)
    assert (call.cost, call.time_to_first_token, call.parameters) == (0.25, 0.125, {"temperature": 0.5})
    assert span.started_at == 1_767_225_600_000_000_000
    assert loopkit.feedback("r1", "helpful", True) is not None


def test_messages_of_every_shape(recorded: MemorySink) -> None:
    loopkit.record_model_call(
        provider="acme", model="acme-1",
        input=[
            Message(role="system", parts=(Part(type="text", content="Be brief."),)),
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {"role": "assistant", "parts": [{"type": "reasoning", "content": "hm"}]},
            "And now?",
        ],
        usage=Usage(input_tokens=1), operation="embeddings",
    )  # fmt: skip
    span, call = only(recorded)
    assert span.kind == "embedding"
    assert [(message.role, message.parts[0].content) for message in call.input] == [
        ("system", "Be brief."), ("user", "Hi"), ("assistant", "hm"), ("user", "And now?"),
    ]  # fmt: skip


def test_what_is_told_wrongly_is_said(recorded: MemorySink) -> None:
    with pytest.raises(InvalidInput, match="model is None"):
        loopkit.record_model_call(provider="acme", model=None)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="started_at is 'now'"):
        loopkit.record_model_call(provider="acme", model="m", started_at="now")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="a message is int"):
        loopkit.record_model_call(provider="acme", model="m", input=[1])  # type: ignore[list-item]
    for wrong in ({"cost": "0.1"}, {"usage": 7}, {"parameters": [1]}, {"started_at": datetime.min}, {"output": b"x"}):
        with pytest.raises(InvalidInput):
            loopkit.record_model_call(provider="acme", model="m", **wrong)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedClient, match=r"builtins\.object.*record_model_call"):
        loopkit.wrap(object())


def test_before_init_nothing_is_told() -> None:
    assert loopkit.record_model_call(provider="acme", model="m").id == "unrecorded"


_BODY = {
    "id": "c1", "object": "chat.completion", "created": 1, "model": "m-1",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello there!"}}],
    "usage": {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29},
}  # fmt: skip
_CHUNKS = [
    {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m-1", "choices": [
        {"index": 0, "delta": {"content": piece}, "finish_reason": reason}]}
    for piece, reason in (("Hello", None), (" there", None), ("!", "stop"))
]  # fmt: skip


def _answer(library: Any) -> Any:
    def answer(request: Any) -> Any:
        if request.url.path == "/other":
            return library.Response(200, json={"a": 1})
        if json.loads(request.content).get("model") == "none":
            return library.Response(404, json={"error": "no such model"})
        if json.loads(request.content).get("stream"):
            text = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in _CHUNKS) + "data: [DONE]\n\n"
            return library.Response(200, headers={"content-type": "text/event-stream"}, text=text)
        return library.Response(200, json=_BODY)

    return answer


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_an_http_client_is_recorded(library: Any, colour: str, recorded: MemorySink) -> None:
    async def run() -> Any:
        made = library.Client if colour == "sync" else library.AsyncClient
        client = loopkit.wrap(made(transport=library.MockTransport(_answer(library)), base_url="http://127.0.0.1:8000"))
        asked = {"model": "m", "messages": [{"role": "user", "content": "How are you?"}]}
        response = await value(client.post("/v1/chat/completions", json=asked))
        assert response.json() == _BODY
        await value(client.post("/other", json={"a": 1}))
        async with Entered(client.stream("POST", "/v1/chat/completions", json={**asked, "stream": True})) as stream:
            await collect(stream.aiter_lines() if colour == "async" else stream.iter_lines())
        await value(client.post("/v1/chat/completions", json={**asked, "model": "none"}))
        loopkit.unwrap(client)
        await value(client.post("/v1/chat/completions", json=asked))
        return response

    asyncio.run(run())
    whole, streamed, refused = recorded.spans()
    for span in (whole, streamed):
        assert span.model_call is not None
        assert (span.status, span.model_call.output[0].text) == ("ok", "Hello there!")
        assert (span.model_call.provider, span.model_call.response_id) == ("openai", "c1")
    assert whole.model_call is not None
    assert whole.model_call.usage.input_tokens == 19
    assert (refused.status, refused.error and refused.error.message) == ("error", "HTTP 404")


def test_an_sdk_over_a_recorded_transport_is_one_span(recorded: MemorySink) -> None:
    import openai

    http = loopkit.wrap(httpx2.Client(transport=httpx2.MockTransport(_answer(httpx2))))
    client = loopkit.wrap(openai.OpenAI(api_key="test", http_client=http))
    client.chat.completions.create(model="m", messages=[{"role": "user", "content": "How are you?"}])
    only(recorded)
