"""What models use is counted, whatever way they are called, and who has spent what there was is stopped."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import time
from typing import Any

import httpx2
import openai
import pydantic
import pytest
from openai import OpenAI

import loopkit
from loopkit import checks
from loopkit.errors import InvalidInput
from loopkit.testing import MemorySink, ScriptedProvider, chat_completion
from tests.colours import collect, value
from tests.guard.test_chunks import Body, Chat
from tests.providers.contract import ROWS, Row


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def guard_of(tokens: int = 15, seconds: float = 60, clock: Clock | None = None, **how: Any) -> loopkit.Guard:
    return loopkit.Guard(input=[checks.budget(tokens=tokens, seconds=seconds, now=clock or Clock(), **how)])


def client_of(guard: Any, answers: list[Any] | None = None) -> Any:
    provider = ScriptedProvider(answers or [chat_completion("ok") for _ in range(20)])
    client = OpenAI(api_key="k", max_retries=0, http_client=httpx2.Client(transport=provider.transport(httpx2)))
    return loopkit.wrap(client, guard=guard)


def ask(client: Any, content: Any = "Hello?") -> str:
    made = client.chat.completions.create(model="m", messages=[{"role": "user", "content": content}])
    return str(made.choices[0].message.content)


@pytest.mark.parametrize("way", ["call", "stream"])
@pytest.mark.parametrize(
    ("row", "colour"),
    [pytest.param(row, colour, id=f"{row.name} {colour}") for row in ROWS for colour in row.colours],
)
def test_every_providers_calls_are_counted(row: Row, colour: str, way: str) -> None:
    """Each uses 19 tokens of input and 10 of output."""

    async def run(tokens: int) -> int:
        client = loopkit.wrap(row.make(colour, row.answer), guard=guard_of(tokens))
        for count in range(4):
            try:
                if way == "call":
                    await value(row.call(client))
                else:
                    await collect(await value(row.stream(client)))
            except loopkit.Blocked:
                return count
        return 4

    assert [asyncio.run(run(29)), asyncio.run(run(30)), asyncio.run(run(59))] == [1, 2, 3]


def test_it_comes_back_and_each_user_has_one() -> None:
    clock = Clock()
    client = client_of(guard_of(15, 60, clock))

    def passes(user: str | None) -> bool:
        with loopkit.context(user_id=user):
            try:
                return ask(client) == "ok"
            except loopkit.Blocked:
                return False

    assert [passes("ana"), passes("ana"), passes("bo"), passes(None), passes("bo"), passes(None)] == [
        True, False, True, True, False, False,
    ]  # fmt: skip
    clock.now = 4.0  # a token is back
    assert [passes("ana"), passes("ana")] == [True, False]
    clock.now = 56.0  # 14 tokens were owed: 13 came back
    assert not passes("ana")
    clock.now = 1000.0
    assert [passes("ana"), passes("ana")] == [True, False]


def test_the_reason_says_what_is_spent_and_when_there_is_more() -> None:
    clock = Clock()
    guard = guard_of(10, 60, clock)
    client = client_of(guard)
    ask(client)
    with pytest.raises(loopkit.Blocked, match=r"10 tokens in 60 s are spent; more in 36\.0 s"):
        ask(client)
    verdict = guard.check("by hand")
    assert (verdict.action, verdict.check) == ("block", "budget")


def test_dollars() -> None:
    prices = {"m": (1_000_000 / 12, 0.0)}  # a dollar a call
    guard = loopkit.Guard(input=[checks.budget(cost=2, seconds=60, prices=prices, now=Clock())])
    client = client_of(guard)
    assert [ask(client), ask(client)] == ["ok", "ok"]
    with pytest.raises(loopkit.Blocked, match=r"2 US dollars in 60 s are spent"):
        ask(client)


def test_what_is_known_of_prices_is_used() -> None:
    row = ROWS[0]  # gpt-4.1
    client = loopkit.wrap(
        row.make("sync", row.answer), guard=loopkit.Guard(input=[checks.budget(cost=1e-9, seconds=60)])
    )
    row.call(client)
    with pytest.raises(loopkit.Blocked, match="1e-09 US dollars"):
        row.call(client)


@pytest.mark.parametrize(("on_error", "passes"), [(None, False), ("open", True)])
def test_a_model_without_a_price(on_error: Any, passes: bool, recorded: MemorySink) -> None:
    client = client_of(loopkit.Guard(input=[checks.budget(cost=1, seconds=60, on_error=on_error)]))
    if passes:
        assert ask(client) == "ok"
    else:
        with pytest.raises(loopkit.Blocked, match=r"no price of openai's m is known: give budget\(prices=\)"):
            ask(client)
    assert [span.name for span in recorded.spans()].count("guardrail budget") == 1


def test_around_a_function_it_says_where_it_belongs() -> None:
    @loopkit.trace(guard=guard_of())
    def answer(question: str) -> str:
        return question

    with pytest.raises(loopkit.Blocked, match=r"give its guard to loopkit\.wrap"):
        answer("x")


def test_another_attempt_is_counted_too() -> None:
    guard = loopkit.Guard(input=[checks.budget(tokens=30, seconds=60, now=Clock())], output=[checks.required(["fine"])])
    client = client_of(guard, [chat_completion("no"), chat_completion("fine"), chat_completion("fine")])
    assert ask(client) == "fine"
    with pytest.raises(loopkit.Blocked, match="30 tokens"):
        ask(client)


def streaming(events: list[Any], guard: Any) -> Any:
    def handler(_: Any) -> Any:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Body(events, named=False))

    client = OpenAI(api_key="k", max_retries=0, http_client=httpx2.Client(transport=httpx2.MockTransport(handler)))
    return loopkit.wrap(client, guard=guard)


@pytest.mark.parametrize("way", ["close", "drop", "break", "block"])
@pytest.mark.parametrize("is_recorded", [False, True])
def test_a_stream_given_up_is_estimated(way: str, is_recorded: bool, request: pytest.FixtureRequest) -> None:
    """Nobody has said what it used: one token of input, ten of output."""
    if is_recorded:
        request.getfixturevalue("recorded")
    clock = Clock()
    output = [checks.banned(["forbidden"])] if way == "block" else []
    guard = loopkit.Guard(input=[checks.budget(tokens=12, seconds=60, now=clock)], output=output)
    pieces = ["abc "] * 6 + (["forbidden", " end"] if way == "block" else ["abc "] * 6)
    client = streaming(Chat.events(pieces, []), guard)

    def spend() -> None:
        stream = Chat.ask(client)
        if way == "block":
            with pytest.raises(loopkit.Blocked, match="one of the list"):
                list(stream)
            return
        for count, _ in enumerate(stream, 0):
            if count == 10:  # the role, and ten pieces
                break
        if way == "close":
            stream.close()

    spend()
    gc.collect()
    left = guard.check("x")
    assert left.action == "allow"
    spend()
    gc.collect()
    with pytest.raises(loopkit.Blocked, match="12 tokens"):
        Chat.ask(client)


def test_what_fails_is_not_counted() -> None:
    client = client_of(guard_of(15), [ValueError("no"), chat_completion("ok"), chat_completion("ok")])

    def one() -> str:
        try:
            return ask(client)
        except loopkit.Blocked:
            return "blocked"
        except Exception:  # the provider's
            return "failed"

    assert [one(), one(), one()] == ["failed", "ok", "blocked"]


PICTURE = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]


@pytest.mark.parametrize("check", ["budget", "rate"])
def test_calls_without_a_text_are_counted_and_those_with_many_once(check: str) -> None:
    made = checks.rate(2, 60) if check == "rate" else checks.budget(tokens=29, seconds=60)
    client = client_of(loopkit.Guard(input=[made]))
    many = [{"type": "text", "text": text} for text in "abcd"]
    assert [ask(client, PICTURE), ask(client, many)] == ["ok", "ok"]
    with pytest.raises(loopkit.Blocked):
        ask(client, PICTURE)


def test_only_the_tasks_it_is_for_are_counted(recorded: MemorySink) -> None:
    client = client_of(guard_of(15, tasks=["chat"]))

    @loopkit.trace(task="chat")
    def chat() -> str:
        return ask(client)

    @loopkit.trace(task="batch")
    def batch() -> str:
        return ask(client)

    assert [batch(), batch(), chat(), batch()] == ["ok"] * 4
    with pytest.raises(loopkit.Blocked):
        chat()


def test_shadow_and_raw_responses() -> None:
    client = client_of(guard_of(1, shadow=True))
    assert [ask(client), ask(client)] == ["ok", "ok"]
    with pytest.raises(InvalidInput, match="counts what they use"):
        client.chat.completions.with_raw_response.create(model="m", messages=[])


def test_threads_share_it() -> None:
    client = client_of(guard_of(15 * 40), [chat_completion("ok") for _ in range(100)])
    outcomes: list[str] = []

    def asks() -> None:
        for _ in range(10):
            try:
                outcomes.append(ask(client))
            except loopkit.Blocked:
                outcomes.append("blocked")

    threads = [threading.Thread(target=asks) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 40 <= outcomes.count("ok") < 40 + 8  # those under way aren't counted yet
    assert len(outcomes) == 80


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: checks.budget(seconds=60), "one of tokens= and cost="),
        (lambda: checks.budget(tokens=1, cost=1, seconds=60), "one of tokens= and cost="),
        (lambda: checks.budget(tokens=0, seconds=60), "tokens is 0"),
        (lambda: checks.budget(cost=float("nan"), seconds=60), "cost is nan"),
        (lambda: checks.budget(tokens=5, seconds=0), "seconds is 0"),
        (lambda: checks.budget(tokens=5, seconds=True), "seconds is True"),
        (lambda: checks.budget(cost=5, seconds=1, prices={"m": 3}), "the price of 'm' is 3"),  # type: ignore[dict-item]
        (lambda: checks.budget(cost=5, seconds=1, prices={"m": (1, -1)}), r"the price of 'm' is \(1, -1\)"),
        (lambda: checks.budget(tokens=5, seconds=1, action="redact"), "action is 'redact'"),
    ],
)
def test_what_is_no_budget_is_refused(make: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        make()


def test_a_strange_usage_does_not_reach_the_caller() -> None:
    body = json.loads(json.dumps(chat_completion("ok")))
    body["usage"] = {"prompt_tokens": "many", "completion_tokens": None, "total_tokens": -4}
    client = client_of(guard_of(2), [body, body, body])
    assert ask(client) == "ok"


def test_what_was_used_comes_back_from_then_on() -> None:
    clock = Clock()
    made = checks.budget(tokens=15, seconds=60, now=clock)
    client = client_of(loopkit.Guard(input=[made]))
    ask(client)
    clock.now = 1000.0  # nobody has asked meanwhile
    assert [ask(client), made.check("x") is None] == ["ok", False]


@pytest.mark.parametrize("is_outer", [True, False])
def test_what_another_guard_blocks_was_used(is_outer: bool) -> None:
    made = checks.budget(tokens=15, seconds=3600)
    guards = [loopkit.Guard(input=[made]), loopkit.Guard(output=[checks.banned(["ok"])])]
    provider = ScriptedProvider([chat_completion("ok")])
    client = OpenAI(api_key="k", max_retries=0, http_client=httpx2.Client(transport=provider.transport(httpx2)))
    loopkit.wrap(client, interceptors=guards if is_outer else guards[::-1])
    with pytest.raises(loopkit.Blocked):
        ask(client, "a question of more than sixty characters, which are fifteen tokens")
    assert made.check("x") is not None


def test_what_another_guard_never_let_go_was_not() -> None:
    made = checks.budget(tokens=15, seconds=3600)
    guards = [loopkit.Guard(input=[made]), loopkit.Guard(input=[checks.banned(["question"])])]
    provider = ScriptedProvider([])
    client = OpenAI(api_key="k", max_retries=0, http_client=httpx2.Client(transport=provider.transport(httpx2)))
    loopkit.wrap(client, interceptors=guards)
    with pytest.raises(loopkit.Blocked):
        ask(client, "a question of more than sixty characters, which are fifteen tokens")
    assert made.check("x") is None


def test_what_an_sdk_cant_parse_was_used() -> None:
    class Answer(pydantic.BaseModel):
        word: str

    body = chat_completion('{"wo')
    body["choices"][0]["finish_reason"] = "length"
    made = checks.budget(tokens=15, seconds=3600)
    client = client_of(loopkit.Guard(input=[made]), [body])
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(model="m", messages=[{"role": "user", "content": "x"}], response_format=Answer)
    assert made.check("x") is not None


def test_a_stream_that_a_parallel_check_blocks_was_used() -> None:
    def slow(text: str) -> bool:
        time.sleep(0.1)
        return False

    made = checks.budget(tokens=1, seconds=3600)
    guard = loopkit.Guard(input=[made, checks.passes(slow, run="parallel")])
    with pytest.raises(loopkit.Blocked):
        list(Chat.ask(streaming(Chat.events(["abc"], []), guard)))
    assert made.check("x") is not None
