"""Interceptors: order, failure, waiting, streams; the one that ships; what they may do without the call noticing."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI, OpenAI

import loopkit
from loopkit.capture.chain import Begin, Call, Join, Plan
from loopkit.errors import InvalidInput
from loopkit.testing import MemorySink, ScriptedProvider
from tests.capture.test_streams import chunk, client_streaming

ASK: Any = {"model": "m", "messages": [{"role": "user", "content": "who?"}]}


def client_of(answers: Any, *plugins: Any, **wrapped: Any) -> tuple[OpenAI, ScriptedProvider]:
    provider = ScriptedProvider(answers)
    client = OpenAI(api_key="k", max_retries=0, http_client=httpx2.Client(transport=provider.transport(httpx2)))
    return loopkit.wrap(client, interceptors=plugins, **wrapped), provider


def said(response: Any) -> Any:
    return response.choices[0].message.content


class Marks:
    """Writes its letter on what goes in, and on what comes out."""

    def __init__(self, letter: str, priority: int = 0) -> None:
        self.letter = letter
        self.priority = priority

    def around(self, call: Call) -> Plan:
        result = yield call.with_input(lambda text: text + self.letter)
        return call.with_output(result, lambda text: text + self.letter)


def test_the_higher_priority_is_further_out() -> None:
    client, provider = client_of(["-"], Marks("a"), Marks("b", 5), Marks("c"))
    assert said(client.chat.completions.create(**ASK)) == "-cab"
    assert provider.requests[0]["messages"][0]["content"] == "who?bac"


class Fails:
    """At a place of one's choice; open, so that calls go on without it."""

    on_error = "open"

    def __init__(self, at: str) -> None:
        self.at = at
        self.asked = 0

    def around(self, call: Call) -> Plan:
        self.asked += 1
        if self.at == "before":
            raise RuntimeError("ours")
        if self.at == "waiting":
            yield Join((yield Begin(self.waits)))
        try:
            result = yield call
        except Exception:
            if self.at == "handling":
                raise RuntimeError("ours") from None
            raise
        if self.at == "after":
            raise RuntimeError("ours")
        return result

    async def waits(self) -> None:
        raise ConnectionError("ours")

    def filter(self, call: Call) -> Any:
        if self.at == "filter":
            raise RuntimeError("ours")
        return self if self.at in ("feed", "end") else None

    def feed(self, chunk: Any) -> list[Any]:
        if self.at == "feed" and chunk.choices[0].delta.content == "c":
            raise RuntimeError("ours")
        return [chunk] if self.at == "feed" else []

    def end(self) -> list[Any]:
        raise RuntimeError("ours")


@pytest.mark.parametrize("at", ["before", "waiting", "after"])
def test_calls_go_on_without_what_fails_open(at: str) -> None:
    client, provider = client_of(["fine"], Fails(at))
    assert said(client.chat.completions.create(**ASK)) == "fine"
    assert len(provider.requests) == 1


def test_the_providers_exception_is_what_the_caller_gets() -> None:
    def answer(body: Any) -> Any:
        raise httpx2.ConnectError("refused")

    for at in ("handling", "nowhere"):
        client, _ = client_of(answer, Fails(at))
        with pytest.raises(Exception, match="Connection error") as raised:
            client.chat.completions.create(**ASK)
        assert type(raised.value).__name__ == "APIConnectionError"


def test_what_is_closed_raises() -> None:
    failing = Fails("before")
    failing.on_error = "closed"
    client, provider = client_of(["fine"], failing)
    with pytest.raises(RuntimeError, match="ours"):
        client.chat.completions.create(**ASK)
    assert provider.requests == []


def test_what_keeps_failing_is_left_alone() -> None:
    failing = Fails("before")
    client, provider = client_of(["fine"], failing)
    for _ in range(9):
        client.chat.completions.create(**ASK)
    assert (failing.asked, len(provider.requests)) == (5, 9)


@pytest.mark.parametrize("at", ["filter", "feed", "end"])
def test_nothing_of_a_stream_is_lost_where_a_filter_fails(at: str) -> None:
    client = loopkit.unwrap(client_streaming([chunk(content=letter) for letter in "abcde"]))
    loopkit.wrap(client, interceptors=[Fails(at)])
    assert (
        "".join(each.choices[0].delta.content for each in client.chat.completions.create(**ASK, stream=True)) == "abcde"
    )


def test_a_refusal_is_no_failure() -> None:
    class Refuses(Fails):
        def around(self, call: Call) -> Plan:
            raise loopkit.LoopkitError("not now")
            yield call

    client, _ = client_of(["fine"], Refuses("nowhere"))
    with pytest.raises(loopkit.LoopkitError, match="not now"):
        client.chat.completions.create(**ASK)


def test_waiting_is_of_no_colour() -> None:
    class Waits:
        async def looks_up(self) -> str:
            await asyncio.sleep(0.01)
            return " (looked up)"

        def around(self, call: Call) -> Plan:
            running = yield Begin(self.looks_up)
            more = yield Join(running)
            return (yield call.with_input(lambda text: text + more))

    client, provider = client_of(["fine"], Waits())
    client.chat.completions.create(**ASK)
    aclient = AsyncOpenAI(api_key="k", http_client=httpx2.AsyncClient(transport=provider.transport(httpx2)))
    asyncio.run(loopkit.wrap(aclient, interceptors=[Waits()]).chat.completions.create(**ASK))
    assert [body["messages"][0]["content"] for body in provider.requests] == ["who? (looked up)"] * 2


def test_work_that_nobody_asks_about_any_more_ends_with_the_call(recwarn: pytest.WarningsRecorder) -> None:
    class Forgets:
        async def fails(self) -> None:
            await asyncio.sleep(0.01)
            raise ConnectionError("nobody asks")

        def around(self, call: Call) -> Plan:
            yield Begin(self.fails)
            return "an answer of its own"

    client, _ = client_of(["fine"], Forgets())
    for _ in range(3):
        assert client.chat.completions.create(**ASK) == "an answer of its own"  # type: ignore[comparison-overlap]
    time.sleep(0.05)
    assert not recwarn.list


# the one that ships

PAGES = {"cards": "Cards are blocked in the app.", "loans": "Loans take a week."}


def search(question: str) -> list[Any]:
    return [{"id": name, "content": text, "score": 1.0} for name, text in PAGES.items() if name in question]


async def asearch(question: str) -> list[Any]:
    await asyncio.sleep(0)
    return search(question)


@pytest.mark.parametrize("looks", [search, asearch])
def test_what_was_found_is_read_first(looks: Any, recorded: MemorySink) -> None:
    client, provider = client_of(["fine"], loopkit.RetrievedContext(looks))
    client.chat.completions.create(model="m", messages=[{"role": "user", "content": "about cards?"}])
    asked = provider.requests[0]["messages"][0]["content"]
    assert asked.endswith("\n\n[1] Cards are blocked in the app.\n\nabout cards?")
    spans = {span.kind: span for span in recorded.spans()}
    assert spans["retrieval"].output == [{"id": "cards", "content": PAGES["cards"], "score": 1.0}]
    assert spans["retrieval"].parent_id == spans["llm"].span_id
    assert spans["llm"].model_call is not None
    assert "blocked in the app" in spans["llm"].model_call.input[0].text  # what was sent is what is kept


def test_only_the_last_words_are_changed() -> None:
    client, provider = client_of(["fine"], loopkit.RetrievedContext(search, template="{context}|{question}"))
    client.chat.completions.create(
        model="m",
        messages=[
            {"role": "system", "content": "cards"},
            {"role": "user", "content": "loans"},
            {"role": "user", "content": "and cards?"},
        ],
    )
    assert [message["content"] for message in provider.requests[0]["messages"]] == [
        "cards", "loans", "[1] Cards are blocked in the app.|and cards?",
    ]  # fmt: skip


def test_calls_without_words_or_findings_are_as_they_were() -> None:
    client, provider = client_of(["fine"], loopkit.RetrievedContext(search))
    for messages in ([{"role": "user", "content": "hello"}], [{"role": "user", "content": " "}], []):
        client.chat.completions.create(model="m", messages=messages)  # type: ignore[arg-type]
        assert provider.requests[-1]["messages"] == messages


def test_a_search_that_fails_or_hangs_is_gone_without() -> None:
    def fails(question: str) -> Any:
        raise ConnectionError("no index")

    async def hangs(question: str) -> Any:
        await asyncio.sleep(60)

    for looks in (fails, hangs):
        client, provider = client_of(["fine"], loopkit.RetrievedContext(looks, timeout=0.05))
        client.chat.completions.create(**ASK)
        assert provider.requests[0]["messages"][0]["content"] == "who?"
    client, provider = client_of(["fine"], loopkit.RetrievedContext(fails, on_error="closed"))
    with pytest.raises(ConnectionError, match="no index"):
        client.chat.completions.create(**ASK)
    assert provider.requests == []


def test_functions_have_it_too() -> None:
    @loopkit.trace(guard=loopkit.RetrievedContext(search, template="{context}|{question}"))
    def asked(question: str) -> str:
        return question

    assert asked("cards") == "[1] Cards are blocked in the app.|cards"
    assert loopkit.trace(guard=Fails("before"))(lambda text: text)("x") == "x"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: loopkit.RetrievedContext("index"), "got 'index': give a function"),  # type: ignore[arg-type]
        (lambda: loopkit.RetrievedContext(search, on_error="maybe"), "on_error is 'maybe'"),
        (lambda: loopkit.RetrievedContext(search, template="{question}"), "lacks {context}"),
    ],
)
def test_bad_ones_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make()
