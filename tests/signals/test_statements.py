"""Parts of targets, declared signals, corrections under schemas, many statements at once, one in another's place."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import openai
import pytest

import loopkit
from loopkit.config import Signal
from loopkit.errors import InvalidInput, InvalidSetting
from loopkit.testing import MemorySink, recording
from loopkit.types import Message, Part

QUEUE = {"type": "object", "properties": {"queue": {"enum": ["cards", "loans"]}}, "required": ["queue"]}


def ask(id: str = "chatcmpl-1", **given: Any) -> Any:
    """A call of the real client, whose answer must have a shape."""
    body = {
        "id": id, "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "{}"}}],
    }  # fmt: skip
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=body))
    client = loopkit.wrap(openai.OpenAI(api_key="k", http_client=httpx2.Client(transport=transport)))
    shape: Any = {"type": "json_schema", "json_schema": {"name": "queue", "schema": QUEUE}}
    messages: Any = [{"role": "user", "content": "x"}]
    return client.chat.completions.create(model="m", messages=messages, **{"response_format": shape, **given})


def test_documents_and_ranges_are_parts_of_what_is_meant(stored: MemorySink) -> None:
    found = [{"id": "faq-1", "content": "a"}, {"id": "faq-2", "content": "b"}]
    with loopkit.context(order="7"), loopkit.span("search", kind="retrieval", input={"query": "q"}) as s:
        s.set(output=found)
    loopkit.feedback(s, "relevant", True, document="faq-1")
    loopkit.feedback(s.id, "relevant", False, document="faq-2")
    loopkit.feedback("order:7", "wrong", True, range=(3, 9))
    loopkit.feedback(s, "helpful", True)
    store = loopkit.open_store()
    state = loopkit.held(store)
    assert {slot[0].removeprefix(s.id): event.value for slot, event in state.current.items()} == {
        "": True,
        "#document=faq-1": True,
        "#document=faq-2": False,
        "#range=3-9": True,
    }
    assert len(store.feedback(s.id)) == 3
    assert loopkit.orphans(store) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"document": ""}, "document is ''"),
        ({"document": -1}, "document is -1"),
        ({"document": True}, "document is True"),
        ({"range": (3, 3)}, r"range is \(3, 3\)"),
        ({"range": (0.5, 3)}, "range is"),
        ({"range": "abc"}, "range is 'abc'"),
        ({"range": (0, 1), "document": "d"}, "two parts"),
        ({"metadata": [1]}, r"metadata is \[1\]"),
        ({"correction_status": "accepted"}, "without a correction"),
        ({"correction": "x", "correction_status": "maybe"}, "correction_status is 'maybe'"),
        ({"reason": 5}, "reason is 5"),
    ],
)
def test_wrong_parts_are_one_sentence(given: dict[str, Any], message: str, recorded: MemorySink) -> None:
    with pytest.raises(InvalidInput, match=message):
        loopkit.feedback("t", "n", 1, **given)
    assert recorded.events() == []


def test_a_key_given_later_leads_to_the_call(stored: MemorySink) -> None:
    with loopkit.span("call") as s:
        pass
    early = loopkit.feedback("order:9", "resolved", True)
    store = loopkit.open_store()
    assert early is not None
    assert loopkit.orphans(store) == [early]
    loopkit.annotate(s.id, tags=["order:9"])
    assert store.resolve(early) == s.id
    assert loopkit.orphans(store) == []


SIGNALS = [
    Signal("helpful", type=bool, optimize="max", level="span"),
    Signal("stars", type=int, range=(1, 5)),
    Signal("share", type=float, range=(0, 1)),
    Signal("tone", type=str, range=("friendly", "curt")),
]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("helpful", 1, "True or False"),
        ("helpful", "yes", "True or False"),
        ("stars", 0, "a whole number from 1 to 5"),
        ("stars", 2.5, "a whole number from 1 to 5"),
        ("stars", True, "a whole number from 1 to 5"),
        ("share", 1.01, "a number from 0 to 1"),
        ("tone", "rude", "one of 'friendly', 'curt'"),
        ("tone", 3, "one of 'friendly', 'curt'"),
    ],
)
def test_what_is_declared_holds(name: str, value: Any, said: str) -> None:
    with recording(signals=SIGNALS) as sink:
        with pytest.raises(InvalidInput, match=f"the value of '{name}' is {value!r}: it is declared as {said}"):
            loopkit.feedback("t", name, value)
        with pytest.raises(InvalidInput, match="'helpful' is said of a session"):
            loopkit.feedback("session:1", "helpful", True)
        assert sink.events() == []
        for good in (("helpful", True), ("stars", 5), ("stars", 4.0), ("share", 0), ("tone", "curt"), ("other", "x")):
            assert loopkit.feedback("order:1", *good) is not None


@pytest.mark.parametrize(
    "given",
    [
        {"name": ""}, {"name": "n", "type": list}, {"name": "n", "type": int, "range": (5, 1)},
        {"name": "n", "range": (1, 5)}, {"name": "n", "type": bool, "range": (0, 1)},
        {"name": "n", "type": str, "range": (1, 2)}, {"name": "n", "optimize": "up"}, {"name": "n", "level": "word"},
        {"name": "n", "type": float, "range": (float("nan"), 1)}, {"name": "n", "type": int, "range": 5},
    ],
)  # fmt: skip
def test_wrong_declarations(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidSetting, match="the signal"):
        Signal(**given)


@pytest.mark.parametrize("signals", [5, "helpful", [5], [Signal("a"), Signal("a")]])
def test_wrong_lists_of_signals(signals: Any) -> None:
    with pytest.raises(InvalidSetting, match="signals"):
        loopkit.init("svc", signals=signals)


def test_a_correction_that_breaks_a_known_schema_is_refused(stored: MemorySink) -> None:
    response = ask()
    for target in (response, response.id):
        for bad in ({"queue": "tech"}, '{"queue": "tech"}', {"role": "assistant", "content": '{"queue": 1}'}):
            with pytest.raises(InvalidInput, match=r"breaks the JSON schema that its call asked for, at \$\.queue: .*"):
                loopkit.feedback(target, correction=bad)
    with pytest.raises(InvalidInput, match="'queue' is a required property"):
        loopkit.feedback(response, correction={})
    assert stored.events() == []
    message = Message(role="assistant", parts=(Part(type="text", content="x"),))
    for good in ({"queue": "cards"}, '{"queue": "loans"}', {"role": "assistant", "content": '{"queue": "cards"}'}):
        assert loopkit.feedback(response, correction=good) is not None
    assert loopkit.feedback(response, correction="no JSON", correction_status="rejected") is not None
    assert loopkit.feedback("elsewhere", correction=message) is not None


def test_a_correction_that_is_found_out_later_counts_as_rejected(stored: MemorySink) -> None:
    early = loopkit.feedback("chatcmpl-7", correction={"queue": "tech"}, by="ana")
    other = loopkit.feedback("chatcmpl-7", correction={"queue": "cards"}, by="bo")
    ask("chatcmpl-7")
    assert early is not None
    assert other is not None
    store = loopkit.open_store()
    state = {event.id: event for event in loopkit.held(store).current.values()}
    assert (state[early.id].correction_status, state[other.id].correction_status) == ("rejected", "proposed")
    assert "is not one of ['cards', 'loans']" in str(state[early.id].reason)
    assert {event.correction_status for event in store.feedback()} == {"proposed"}  # what was said stays as it was


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"$ref": "http://127.0.0.1:1/schema.json"}, {"type": 5}])
def test_a_schema_that_is_none_judges_nothing(schema: Any, stored: MemorySink) -> None:
    shape: Any = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    response = ask(response_format=shape)
    assert loopkit.feedback(response, correction={"queue": "tech"}) is not None


def test_several_people_correct_and_a_reviewer_accepts(stored: MemorySink) -> None:
    with loopkit.span("call") as s:
        s.set(output="x")
    first = loopkit.feedback(s, correction="a", by="ana")
    loopkit.feedback(s, correction="b", by="bo")
    assert first is not None
    accepted = loopkit.supersede(first, correction_status="accepted", reason="checked")
    assert accepted is not None
    assert (accepted.by, accepted.correction, accepted.supersedes) == (first.by, "a", first.id)
    about = loopkit.held(loopkit.open_store()).about(s.id)
    assert sorted((event.correction, event.correction_status) for event in about) == [
        ("a", "accepted"),
        ("b", "proposed"),
    ]
    with pytest.raises(InvalidInput, match="is no event"):
        loopkit.supersede("e1", value=True)  # type: ignore[arg-type]


def test_another_correction_has_no_verdict_yet(stored: MemorySink) -> None:
    ask("chatcmpl-9")
    early = loopkit.feedback("chatcmpl-9", correction={"queue": "cards"}, source="reviewer", by="ana")
    assert early is not None
    assert early.correction_status == "accepted"
    other = loopkit.supersede(early, correction={"queue": "loans"}, source="user", by="bo")
    assert other is not None
    assert (other.correction_status, other.at) == ("proposed", early.at)
    for bad in ({"foo": 1}, {"supersedes": "x"}, {"key": "k"}):
        with pytest.raises(InvalidInput, match="can't change"):
            loopkit.supersede(early, **bad)


def test_what_was_redacted_is_not_judged(stored: MemorySink) -> None:
    schema = {"type": "object", "properties": {"mail": {"type": "string", "pattern": r"^\S+@\S+$"}}}
    shape: Any = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    response = ask("chatcmpl-8", response_format=shape)
    assert loopkit.feedback(response, correction={"mail": "ana@example.org"}) is not None
    (event,) = loopkit.held(loopkit.open_store()).current.values()
    assert event.correction == {"mail": "[EMAIL]"}
    assert event.correction_status == "proposed"


def test_documents_are_redacted_as_in_the_spans_that_found_them(stored: MemorySink) -> None:
    with loopkit.span("search", kind="retrieval") as s:
        s.set(output=[{"id": "ana@example.org", "content": "x"}])
    loopkit.feedback(s, "relevant", True, document="ana@example.org")
    loopkit.feedback(s, "relevant", False, document=0)
    loopkit.feedback(s, "relevant", True, document="0")
    store = loopkit.open_store()
    assert [event.part for event in store.feedback()] == ["document=[EMAIL]", "position=0", "document=0"]
    assert len(store.feedback(f"{s.id}#position=0")) == 1


def test_what_was_said_of_pruned_calls_does_not_wait(stored: MemorySink) -> None:
    with loopkit.context(session_id="s"), loopkit.span("call") as s:
        pass
    for target in (s.id, f"trace:{s.trace_id}", "session:s"):
        loopkit.feedback(target, "helpful", True)
    store = loopkit.open_store()
    assert len(store.spans()) == 1
    store.prune(days=0)
    assert store.spans() == []
    assert loopkit.orphans(store) == []


def test_many_statements_are_written_or_none(recorded: MemorySink) -> None:
    good: list[dict[str, Any]] = [{"target": f"order:{n}", "name": "helpful", "value": n % 2 == 0} for n in range(50)]
    for bad, said in (
        ({"target": "t", "name": "n", "value": [1]}, "statement 51: the value of 'n'"),
        ({"name": "n", "value": 1}, "statement 51: .* has no target"),
        ({"target": "t", "nam": "n"}, "statement 51: unknown field 'nam'"),
    ):
        with pytest.raises(InvalidInput, match=said):
            loopkit.feedback_batch([*good, bad])
    assert recorded.events() == []
    assert recorded.events() == []
    assert [event.id for event in loopkit.feedback_batch(good)] == [event.id for event in recorded.events()]


def test_awaited_feedback_is_on_disk(stored: MemorySink) -> None:
    async def say() -> Any:
        return await asyncio.gather(*(loopkit.afeedback(f"order:{n}", "helpful", True) for n in range(20)))

    events = asyncio.run(say())
    sink: Any = next(batch for batch in [stored.batches])
    assert sorted(event.id for batch in sink for event in batch.feedback) == sorted(event.id for event in events)


def test_declared_signals_are_known_at_the_desk(stored: MemorySink) -> None:
    loopkit.shutdown()
    loopkit.init("svc", signals=SIGNALS)
    loopkit.flush()
    bodies = loopkit.open_store().documents("signal")
    assert [body["name"] for body in bodies] == ["helpful", "stars", "share", "tone"]
    loopkit.init("svc", signals=[*SIGNALS[:3], Signal("tone", type=str)])
    loopkit.flush()
    loopkit.init("svc", signals=SIGNALS[:2])
    loopkit.flush()
    bodies = loopkit.open_store().documents("signal")
    assert len(bodies) == 5
    assert json.dumps(bodies[-1]["range"]) == "[]"
