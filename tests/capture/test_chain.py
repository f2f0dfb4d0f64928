"""Interceptors: they may change, answer, repeat or stop a call, in both colours."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI, OpenAI

import loopkit
from loopkit.capture.chain import Call
from loopkit.errors import InvalidInput, NotFound, UnsupportedClient
from loopkit.testing import MemorySink, ScriptedProvider


class Retry:
    """Three attempts."""

    def around(self, call: Call) -> Generator[Call, Any, Any]:
        for _ in range(2):
            try:
                return (yield call)
            except ValueError:
                continue
        return (yield call)


class Shout:
    """Changes what goes in and what comes out."""

    def around(self, call: Call) -> Generator[Call, Any, Any]:
        result = yield call.with_input(str.upper)
        return call.with_output(result, lambda text: text + "!")


class Answer:
    """Answers by itself."""

    def around(self, call: Call) -> Generator[Call, Any, Any]:
        return "from the cache"
        yield call


def test_an_interceptor_may_try_again(recorded: MemorySink) -> None:
    tries: list[int] = []

    @loopkit.trace(guard=Retry())
    def flaky() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise ValueError("not yet")
        return "done"

    assert flaky() == "done"
    assert len(tries) == 3
    assert [span.status for span in recorded.spans()] == ["ok"]


def test_the_last_exception_passes_when_attempts_run_out(recorded: MemorySink) -> None:
    @loopkit.trace(guard=Retry())
    def never() -> None:
        raise ValueError("never")

    with pytest.raises(ValueError, match="never"):
        never()


def test_an_interceptor_changes_input_and_output_in_both_colours(recorded: MemorySink) -> None:
    @loopkit.trace(guard=Shout())
    def echo(text: str, times: int) -> str:
        return text * times

    @loopkit.trace(guard=Shout())
    async def aecho(text: str, *, times: int) -> str:
        return text * times

    assert echo("a", 2) == "AA!"
    assert asyncio.run(aecho("a", times=2)) == "AA!"


def test_an_interceptor_may_answer_by_itself(recorded: MemorySink) -> None:
    called: list[int] = []
    assert loopkit.trace(guard=Answer())(lambda: called.append(1))() == "from the cache"
    assert called == []


def test_interceptors_nest_outermost_first() -> None:
    seen: list[str] = []

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        def around(self, call: Call) -> Generator[Call, Any, Any]:
            seen.append(f"in {self.name}")
            result = yield call
            seen.append(f"out {self.name}")
            return result

    provider = ScriptedProvider(["hello"])
    client = OpenAI(api_key="k", http_client=httpx2.Client(transport=provider.transport(httpx2)))
    loopkit.wrap(client, interceptors=[Named("a"), Named("b")])
    client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
    assert seen == ["in a", "in b", "out b", "out a"]


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_clients_request_is_sent_and_recorded_as_changed(colour: str, recorded: MemorySink) -> None:
    provider = ScriptedProvider(["hello"])
    transport = provider.transport(httpx2)
    messages = [{"role": "user", "content": "quiet"}]
    if colour == "sync":
        client = loopkit.wrap(
            OpenAI(api_key="k", http_client=httpx2.Client(transport=transport)), interceptors=[Shout()]
        )
        response = client.with_options(timeout=3).chat.completions.create(model="m", messages=messages)  # type: ignore[call-overload]
    else:
        aclient = loopkit.wrap(
            AsyncOpenAI(api_key="k", http_client=httpx2.AsyncClient(transport=transport)), interceptors=[Shout()]
        )
        response = asyncio.run(aclient.chat.completions.create(model="m", messages=messages))  # type: ignore[call-overload]
    assert provider.requests[0]["messages"][0]["content"] == "QUIET"
    assert response.choices[0].message.content == "hello!"
    assert messages[0]["content"] == "quiet"
    (span,) = recorded.spans()
    assert span.model_call is not None
    assert span.model_call.input[0].text == "QUIET"


def test_wrapping_what_is_no_client_says_what_to_do() -> None:
    with pytest.raises(UnsupportedClient, match=r"builtins\.dict; it knows the clients of: openai, "):
        loopkit.wrap({})
    with pytest.raises(NotFound, match="no interceptor named 'absent'"):
        loopkit.wrap(OpenAI(api_key="k"), interceptors=["absent"])
    with pytest.raises(InvalidInput, match="no method around"):
        loopkit.wrap(OpenAI(api_key="k"), interceptors=[object()])  # type: ignore[list-item]


@given(st.lists(st.sampled_from(["ok", "raise"]), min_size=1, max_size=6))
def test_the_drivers_agree_whatever_the_call_does(script: list[str]) -> None:
    def run(colour: str) -> tuple[str, int]:
        steps = iter(script)
        made: list[str] = []

        def send() -> str:
            made.append(step := next(steps, "ok"))
            if step == "raise":
                raise ValueError("scripted")
            return "fine"

        async def asend() -> str:
            return send()

        try:
            if colour == "sync":
                return loopkit.trace(guard=Retry())(send)(), len(made)
            return asyncio.run(loopkit.trace(guard=Retry())(asend)()), len(made)
        except ValueError:
            return "raised", len(made)

    assert run("sync") == run("async")
