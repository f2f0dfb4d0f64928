"""Conversations: what was cleaned when it was new is cleaned each time it is sent again."""

from __future__ import annotations

import asyncio
import gc
import json
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from openai import OpenAI

import loopkit
from loopkit import checks
from loopkit.capture.chain import Call, compose
from loopkit.capture.dialects._content import ReachingBack, heard
from loopkit.testing import MemorySink, ScriptedProvider, chat_completion
from tests.colours import value
from tests.providers.contract import ROWS, Row

MAIL = "I am ana@example.org"


def client_of(guard: Any, answers: int = 5) -> tuple[Any, ScriptedProvider]:
    provider = ScriptedProvider([chat_completion("hello") for _ in range(answers)])
    client = OpenAI(api_key="k", max_retries=0, http_client=httpx2.Client(transport=provider.transport(httpx2)))
    return loopkit.wrap(client, guard=guard), provider


TURNS: list[Any] = [
    {"role": "system", "content": "Write to desk@example.org"},
    {"role": "user", "content": MAIL},
    {"role": "assistant", "content": "hello ana@example.org"},
    {"role": "tool", "tool_call_id": "t", "content": MAIL},
    {"role": "assistant", "content": "and?"},
    {"role": "user", "content": [{"type": "text", "text": "and now? " + MAIL}]},
]


def test_what_was_taken_out_before_is_not_sent_later(recorded: MemorySink) -> None:
    client, provider = client_of(loopkit.Guard(input=[checks.pii()]))
    client.chat.completions.create(model="m", messages=TURNS)
    sent = provider.requests[0]["messages"]
    assert [each["content"] for each in sent] == [
        "Write to desk@example.org", "I am [EMAIL]", "hello ana@example.org", "I am [EMAIL]", "and?",
        [{"type": "text", "text": "and now? I am [EMAIL]"}],
    ]  # fmt: skip
    assert sum(span.kind == "guardrail" for span in recorded.spans()) == 1  # nothing is said twice
    assert TURNS[1]["content"] == MAIL


@pytest.mark.parametrize("check", [checks.pii(action="block"), checks.pii(shadow=True), checks.pii(run="after")])
def test_what_is_not_taken_out_is_looked_at_when_it_is_new(check: Any) -> None:
    client, provider = client_of(loopkit.Guard(input=[check]))
    turns = [*TURNS[:-1], {"role": "user", "content": "and now?"}]
    client.chat.completions.create(model="m", messages=turns)
    assert provider.requests[0]["messages"] == turns


def test_what_tools_gave_before_is_cleaned_by_their_checks() -> None:
    client, provider = client_of(loopkit.Guard(tool_result=[checks.pii()]))
    client.chat.completions.create(model="m", messages=TURNS)
    assert [each["content"] for each in provider.requests[0]["messages"][1:4]] == [
        MAIL, "hello ana@example.org", "I am [EMAIL]",
    ]  # fmt: skip


class Fails:
    name, on_error, action = "fails", "closed", "redact"

    def find(self, text: str) -> Any:
        if "ana" in text:
            raise ValueError
        return []

    def check(self, text: str) -> None:
        return None

    def open_at(self, text: str, start: int) -> int:
        return len(text)

    def why(self, found: Any) -> str:
        return ""


def test_a_failure_on_what_was_said_before_stops_the_call() -> None:
    client, provider = client_of(loopkit.Guard(input=[Fails()]))
    with pytest.raises(loopkit.Blocked, match="failed"):
        client.chat.completions.create(model="m", messages=[*TURNS[:3], {"role": "user", "content": "x"}])
    assert provider.requests == []


@pytest.mark.parametrize("row", [row for row in ROWS if row.name.split()[0] in ("openai", "anthropic", "bedrock")])
def test_dialects_reach_back(row: Row) -> None:
    """Whatever the shape of a conversation, the turns that aren't the model's are all there, and can be changed."""
    calls: list[Call] = []

    class Sees:
        def around(self, call: Call) -> Any:
            calls.append(call)
            return (yield call)

    asyncio.run(_called(row, Sees()))
    (call,) = calls
    turn = "input" if "input" in call.request else "messages"
    given: Any = call.request[turn]
    first = [{"role": "user", "content": given}] if isinstance(given, str) else list(given)
    asked = [each for each in first if each["role"] == "user"]
    said = {"role": "assistant", "content": [{"text": "yes"}] if "bedrock" in row.name else "yes"}
    longer = replace(call, request={**call.request, turn: [*asked, said, *asked]})
    assert [each.text for each in heard(longer.with_input, ReachingBack)] == [each.text for each in longer.asks()] * 2
    changed = longer.with_input(ReachingBack(lambda said: said.text.upper()))
    assert json.dumps(changed.request).count("HOW ARE YOU?") == 2


async def _called(row: Row, plugin: Any) -> None:
    client = loopkit.wrap(row.make("sync", row.answer), interceptors=[plugin])
    await value(row.call(client))


def test_a_call_is_no_circle() -> None:
    class Passes:
        def around(self, call: Call) -> Any:
            return (yield call)

    def run() -> None:
        plan = compose((Passes(),), Call(task=None, request={"x": Big()}))
        next(plan)
        with pytest.raises(StopIteration):
            plan.send(1)

    alive: list[int] = []

    class Big:
        def __del__(self) -> None:
            alive.append(1)

    gc.disable()
    try:
        run()
        assert alive == [1]
    finally:
        gc.enable()


def test_what_a_plugin_makes_anew_is_known_as_sent() -> None:
    class Anew:
        def around(self, call: Call) -> Any:
            request = {"messages": [{"role": "user", "content": "The bank opened 45 branches in 2019."}], "model": "m"}
            return (yield Call(task=None, request=request, dialect=call.dialect))

    provider = ScriptedProvider([chat_completion("The bank opened 45 branches in 2019.")])
    client = OpenAI(api_key="k", max_retries=0, http_client=httpx2.Client(transport=provider.transport(httpx2)))
    guard = loopkit.Guard(output=[checks.grounded(action="block")])
    loopkit.wrap(client, interceptors=[guard, Anew()])
    client.chat.completions.create(model="m", messages=[{"role": "user", "content": "How many branches?"}])


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_check_that_raises_stop_iteration_has_failed(colour: str) -> None:
    def first(text: str) -> bool:
        raise StopIteration

    guard = loopkit.Guard(output=[checks.passes(first, run="parallel")])
    if colour == "sync":
        verdict = guard.check("x", stage="output")
    else:
        verdict = asyncio.run(asyncio.wait_for(guard.acheck("x", stage="output"), 5))
    assert (verdict.action, verdict.failed, verdict.reason) == ("block", True, "the check itself failed: RuntimeError")


def test_data_is_a_source_with_its_names_and_numbers() -> None:
    @loopkit.trace(guard=loopkit.Guard(output=[checks.grounded(action="block")]))
    def answer(question: str, facts: Any, notes: Any) -> str:
        return "The bank opened 45 branches in 2019."

    assert answer("how many?", {"branches opened by the bank": 45, "year": 2019}, None)
    assert answer("how many?", None, ["Our report:", "The bank opened 45 branches, in 2019"])
    with pytest.raises(loopkit.Blocked):
        answer("how many?", {"branches opened by the bank": 54, "year": 2019}, None)
