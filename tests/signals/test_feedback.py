"""feedback(): what may be said of what, what is refused in one sentence, and that nothing is lost for being early."""

from __future__ import annotations

import logging
import threading
from datetime import datetime, timezone
from typing import Any

import pytest

import loopkit
from loopkit.errors import InvalidInput
from loopkit.signals.fold import fold
from loopkit.testing import MemorySink


def call(text: str = "x") -> str:
    with loopkit.span("call", task="t", input={"text": text}) as handle:
        handle.set(output="out")
    return handle.id


def test_an_event_has_its_fields_and_an_author_without_a_name(recorded: MemorySink) -> None:
    when = datetime(2026, 1, 2, tzinfo=timezone.utc)
    event = loopkit.feedback("order:1", "helpful", True, comment="nice", by="ana", weight=0.5, at=when, key="k")
    assert event is not None
    assert (event.target, event.name, event.value, event.comment) == ("order:1", "helpful", True, "nice")
    assert event.at == int(when.timestamp()) * 10**9
    assert event.by is not None
    assert event.by.startswith("anon-")
    assert "ana" not in event.by
    again = loopkit.feedback("order:1", "helpful", False, by="ana")
    assert again is not None
    assert again.by == event.by
    assert recorded.events() == [event, again]


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"correction": "b"}, "correction"),
        ({"preferred_over": "other"}, "preference"),
        ({"ranking": ["a", "b"]}, "ranking"),
        ({"correction": {"queue": 0}, "name": "queue"}, "queue"),
        ({"correction": False}, "correction"),
    ],
)
def test_names_are_implied(arguments: dict[str, Any], name: str, recorded: MemorySink) -> None:
    event = loopkit.feedback("t", **arguments)
    assert event is not None
    assert event.name == name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "t"}, "nothing to say"),
        ({"target": "t", "name": "helpful"}, "says nothing"),
        ({"target": "  ", "name": "n", "value": 1}, "empty string"),
        ({"target": "t", "name": "n", "value": [1]}, r"value of 'n' is \[1\]"),
        ({"target": "t", "name": "n", "value": float("nan")}, "finite number"),
        ({"target": "t", "name": "", "value": 1}, "non-empty string"),
        ({"target": "t", "name": "n", "value": 1, "weight": 2}, "weight is 2"),
        ({"target": "t", "name": "n", "value": 1, "source": "boss"}, "source is 'boss': choose one of user"),
        ({"target": "t", "name": "n", "value": 1, "kind": "loud"}, "kind is 'loud'"),
        ({"target": "t", "name": "n", "value": 1, "at": "noon"}, "at is 'noon'"),
        ({"target": "t", "name": "n", "value": 1, "key": 3}, "key is 3"),
        ({"target": 3.5, "name": "n", "value": 1}, "a float is no target"),
        ({"target": object(), "name": "n", "value": 1}, "a object is no target"),
    ],
)
def test_bad_feedback_is_one_sentence_and_nothing_is_written(
    arguments: dict[str, Any], message: str, recorded: MemorySink
) -> None:
    target = arguments.pop("target")
    with pytest.raises(InvalidInput, match=message):
        loopkit.feedback(target, arguments.pop("name", None), arguments.pop("value", None), **arguments)
    assert recorded.events() == []


def test_before_init_it_says_once_that_it_has_nowhere_to_go(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="loopkit"):
        assert loopkit.feedback("t", "helpful", True) is None
        assert loopkit.feedback("t", "helpful", True) is None
    assert [record.getMessage() for record in caplog.records] == [
        "loopkit: feedback() has nowhere to go: call loopkit.init() first"
    ]


def test_early_feedback_waits_for_its_target(stored: MemorySink) -> None:
    early = loopkit.feedback("order:4432", "helpful", True)
    assert early is not None
    store = loopkit.open_store()
    assert store.resolve(early) == "order:4432"
    with loopkit.context(order="4432"):
        span = call()
    assert store.resolve(early) == span


def test_a_join_key_means_the_latest_call_before_the_feedback(stored: MemorySink) -> None:
    with loopkit.context(order="1"):
        first = call("a")
        middle = loopkit.feedback("order:1", "helpful", False)
        second = call("b")
    late = loopkit.feedback("order:1", "helpful", True)
    store = loopkit.open_store()
    assert middle is not None
    assert late is not None
    assert (store.resolve(middle), store.resolve(late)) == (first, second)


def test_a_join_key_means_the_outermost_span(stored: MemorySink) -> None:
    with loopkit.context(order="1"), loopkit.span("outer") as outer:
        call()
    event = loopkit.feedback("order:1", "helpful", True)
    assert event is not None
    assert loopkit.open_store().resolve(event) == outer.id


def test_retracting_takes_an_event_back(stored: MemorySink) -> None:
    span = call()
    event = loopkit.feedback(span, "helpful", False)
    assert event is not None
    loopkit.retract(event)
    state = fold(loopkit.open_store().feedback())
    assert state.about(span) == []
    assert state.taken_back == 1


def test_true_false_true_from_one_person_ends_true(stored: MemorySink) -> None:
    span = call()
    for value in (True, False, True):
        loopkit.feedback(span, "helpful", value, by="ana")
    store = loopkit.open_store()
    assert len(store.feedback()) == 3
    (event,) = fold(store.feedback()).about(span)
    assert event.value is True


def test_the_same_key_is_the_same_event(stored: MemorySink) -> None:
    span = call()
    for _ in range(3):
        loopkit.feedback(span, "helpful", True, key="click-1")
    state = fold(loopkit.open_store().feedback())
    assert (state.events, state.conflicts) == (1, 0)


def test_many_threads_lose_nothing(stored: MemorySink) -> None:
    def say(number: int) -> None:
        for index in range(200):
            loopkit.feedback(f"order:{number}-{index}", "n", 1.0)

    threads = [threading.Thread(target=say, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = loopkit.open_store().feedback()
    assert len(events) == len({event.id for event in events}) == 1600


def test_unicode_and_lone_surrogates_are_kept_or_replaced(stored: MemorySink) -> None:
    loopkit.feedback("order:ü", "naïve", "日本語 🎈", comment="half a pair: \ud83c", by="Ünï")
    (event,) = loopkit.open_store().feedback()
    assert (event.target, event.value) == ("order:ü", "日本語 🎈")
    assert event.comment is not None
