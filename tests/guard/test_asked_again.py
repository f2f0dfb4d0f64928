"""Streams whose model is asked again: they are read to their end first, and what is given out is one answer alone."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
from anthropic import Anthropic, AsyncAnthropic
from openai import APIConnectionError, AsyncOpenAI, OpenAI

import loopkit
from loopkit import checks
from loopkit.testing import MemorySink, chat_completion
from tests.guard.test_chunks import Body, Chat, Messages
from tests.guard.test_plain_streams import OTHERS, answering, saying, text_of

WAYS = {"openai": (Chat, OpenAI, AsyncOpenAI), "anthropic": (Messages, Anthropic, AsyncAnthropic)}


def client_of(way: str, colour: str, answers: list[list[str]], *guards: Any) -> tuple[Any, list[Any]]:
    dialect, client, aclient = WAYS[way]
    left, bodies = iter(answers), []

    def handler(request: Any) -> Any:
        body = Body(dialect.events(next(left), []), dialect.named)
        bodies.append((request, body))
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=body)

    transport = httpx2.MockTransport(handler)
    options: dict[str, Any] = {"api_key": "k", "max_retries": 0}
    made: Any
    if colour == "sync":
        made = client(http_client=httpx2.Client(transport=transport), **options)
    else:
        made = aclient(http_client=httpx2.AsyncClient(transport=transport), **options)
    return loopkit.wrap(made, interceptors=guards), bodies


def said(way: str, colour: str, client: Any) -> str:
    dialect = WAYS[way][0]

    async def read() -> list[Any]:
        return [chunk async for chunk in await dialect.ask(client)]

    return dialect.told(list(dialect.ask(client)) if colour == "sync" else asyncio.run(read()))[0]


GUARD = loopkit.Guard(output=[checks.required(["fine"]), checks.pii()])


@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize("way", WAYS)
def test_the_model_is_told_and_its_other_answer_is_given_out(way: str, colour: str, recorded: MemorySink) -> None:
    client, bodies = client_of(way, colour, [["not ", "yet"], ["it is ", "fine, ana@", "example.org "]], GUARD)
    assert said(way, colour, client) == "it is fine, [EMAIL] "
    assert b"has to say 'fine'" in bodies[1][0].content
    assert b"not yet" in bodies[1][0].content
    assert bodies[0][1].is_closed
    verdicts = [span.name for span in recorded.spans() if span.kind == "guardrail"]
    assert verdicts == ["guardrail required", "guardrail pii"]
    (call,) = [span for span in recorded.spans() if span.kind == "llm"]
    assert call.status == "ok"
    assert call.model_call is not None
    assert "it is fine" in call.model_call.output[0].text


@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize("way", WAYS)
def test_what_stays_wrong_is_blocked_and_nothing_leaves(way: str, colour: str) -> None:
    client, bodies = client_of(way, colour, [["not yet"], ["nor now"]], GUARD)
    with pytest.raises(loopkit.Blocked, match="required"):
        said(way, colour, client)
    assert len(bodies) == 2


def test_what_is_right_at_once_is_asked_once_and_judged_once() -> None:
    judged: list[str] = []

    def is_fine(text: str) -> bool:
        judged.append(text)
        return True

    guard = loopkit.Guard(output=[checks.pii(), checks.passes(is_fine, action="retry")])
    client, bodies = client_of("openai", "sync", [["it is ", "fine"]], guard)
    assert said("openai", "sync", client) == "it is fine"
    assert (len(bodies), judged) == (1, ["it is fine"])


def test_whoever_judges_gets_what_the_others_left() -> None:
    judged: list[str] = []

    def is_fine(text: str) -> bool:
        judged.append(text)
        return True

    guard = loopkit.Guard(output=[checks.pii(), checks.passes(is_fine, action="retry")])
    client, _ = client_of("openai", "sync", [["ask ana@", "example.org now"]], guard)
    assert said("openai", "sync", client) == "ask [EMAIL] now"
    assert set(judged) == {"ask [EMAIL] now"}


def test_every_attempt_is_counted() -> None:
    guard = loopkit.Guard(input=[checks.budget(tokens=6, seconds=3600)], output=[checks.required(["fine"])])
    client, _ = client_of("openai", "sync", [["no"], ["fine"], ["fine"]], guard)
    assert said("openai", "sync", client) == "fine"  # three tokens each
    with pytest.raises(loopkit.Blocked, match="6 tokens"):
        said("openai", "sync", client)


def test_a_stream_that_breaks_meanwhile_raises_what_the_provider_did() -> None:
    class Breaks(httpx2.SyncByteStream):
        def __iter__(self) -> Any:
            yield b'data: {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": []}\n\n'
            raise httpx2.ReadError("gone")

    transport = httpx2.MockTransport(
        lambda _: httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Breaks())
    )
    client = loopkit.wrap(
        OpenAI(api_key="k", max_retries=0, http_client=httpx2.Client(transport=transport)), guard=GUARD
    )
    with pytest.raises(APIConnectionError):
        Chat.ask(client)


@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize("row", [row for row in OTHERS if "bedrock" not in row.name], ids=lambda row: row.name)
def test_others_are_asked_again_too(row: Any, colour: str) -> None:
    answers = iter([["not ", "yet"], ["it is ", "fine"]])

    async def go() -> str:
        client = row.make(colour, lambda request: answering(row, saying(row, next(answers)))(request))
        loopkit.wrap(client, guard=GUARD)
        stream = row.stream(client)
        if hasattr(stream, "__await__"):
            stream = await stream
        if hasattr(stream, "__aiter__"):
            return "".join([text_of(row, chunk) async for chunk in stream])
        return "".join(text_of(row, chunk) for chunk in stream)

    assert asyncio.run(go()) == "it is fine"


# several guards


def said_no(text: str) -> bool:
    return "bad" not in text


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_each_attempt_of_an_outer_guard_is_judged_by_the_inner_one(colour: str) -> None:
    inner = loopkit.Guard(output=[checks.passes(said_no, name="clean", action="retry")])
    client, bodies = client_of("openai", colour, [["clean"], ["bad one"], ["bad and fine"]], GUARD, inner)
    with pytest.raises(loopkit.Blocked, match="clean"):
        said("openai", colour, client)
    assert len(bodies) == 3


def test_an_interceptor_that_asks_twice_gets_no_unjudged_answer() -> None:
    class Twice:
        def around(self, call: Any) -> Any:
            list((yield call))
            return (yield call)

    inner = loopkit.Guard(output=[checks.passes(said_no, action="retry")], retries=0)
    client, _ = client_of("openai", "sync", [["clean"], ["bad one"]], Twice(), inner)
    with pytest.raises(loopkit.Blocked):
        said("openai", "sync", client)


def test_the_outer_one_judges_what_the_inner_one_lets_pass(recorded: MemorySink) -> None:
    judged: list[str] = []

    def judge(text: str) -> bool:
        judged.append(text)
        return True

    outer = loopkit.Guard(output=[checks.passes(judge, action="retry")])
    client, _ = client_of(
        "openai", "sync", [["ask ana@", "example.org now"]], outer, loopkit.Guard(output=[checks.pii()])
    )
    assert said("openai", "sync", client) == "ask [EMAIL] now"
    assert judged == ["ask [EMAIL] now"]
    assert [span.name for span in recorded.spans() if span.kind == "guardrail"] == ["guardrail pii"]
    (call,) = [span.model_call for span in recorded.spans() if span.kind == "llm"]
    assert call is not None
    assert call.output[0].text == "ask [EMAIL] now"


def test_what_the_inner_one_blocks_the_outer_one_doesnt_ask_for_again() -> None:
    inner = loopkit.Guard(output=[checks.banned(["acme"])])
    client, bodies = client_of("openai", "sync", [["acme ", "it is"], ["fine"]], GUARD, inner)
    with pytest.raises(loopkit.Blocked, match="banned"):
        said("openai", "sync", client)
    assert len(bodies) == 1


@pytest.mark.parametrize("field", ["note", "reasoning"])
def test_what_providers_add_is_judged_too(field: str) -> None:
    events = Chat.events(["all is well"], [])
    events[1]["choices"][0]["delta"][field] = "bad thing"
    transport = httpx2.MockTransport(
        lambda _: httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Body(events, Chat.named))
    )
    made = OpenAI(api_key="k", max_retries=0, http_client=httpx2.Client(transport=transport))
    guard = loopkit.Guard(output=[checks.passes(said_no, action="retry")])
    with pytest.raises(loopkit.Blocked):
        said("openai", "sync", loopkit.wrap(made, guard=guard))


@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize("order", ["budget outside", "budget inside", "one guard"])
def test_each_attempt_is_counted_once_whoever_asks_again(order: str, is_stream: bool) -> None:
    budget, fine = checks.budget(tokens=1000, seconds=10**9), checks.required(["fine"])
    counts, asks = loopkit.Guard(input=[budget]), loopkit.Guard(output=[fine])
    chain = {
        "budget outside": [counts, asks],
        "budget inside": [asks, counts],
        "one guard": [loopkit.Guard(input=[budget], output=[fine])],
    }[order]
    if is_stream:
        client, _ = client_of("openai", "sync", [["no"], ["it is fine"]], *chain)
        assert said("openai", "sync", client) == "it is fine"
        assert round(1000 - budget.allowances.left(None)) == 2 * 3  # three tokens each
        return
    bodies = iter([chat_completion("no"), chat_completion("fine")])
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=next(bodies)))
    made = loopkit.wrap(
        OpenAI(api_key="k", max_retries=0, http_client=httpx2.Client(transport=transport)), interceptors=chain
    )
    made.chat.completions.create(model="m", messages=[{"role": "user", "content": "q"}])
    each = chat_completion("")["usage"]["total_tokens"]
    assert round(1000 - budget.allowances.left(None)) == 2 * each
