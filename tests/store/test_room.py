"""What goes when there is too much, whole traces of it, and that who was pruned can still be forgotten."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loopkit._ids import Clock
from loopkit.store.room import Pruned, held
from loopkit.store.sqlite import Store
from loopkit.types import Feedback, Span
from loopkit.wire.encode import encode_request, encode_resource, encode_span
from loopkit.wire.media import name_of

RESOURCE = encode_resource({"service.name": "svc"})
DAY = 86_400 * 10**9


class Hand(Clock):
    at = 1_767_225_600_000_000_000

    def now(self) -> int:
        self.at += 1
        return self.at


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def store(tmp_path: Path, clock: Hand) -> Store:
    return Store(tmp_path / "store", clock=clock)


def span_id(trace: int, span: int) -> str:
    return f"{trace:032x}-{span:016x}"


def spans(*given: dict[str, Any]) -> bytes:
    made = [
        Span(
            trace_id=f"{one['trace']:032x}", span_id=f"{one['span']:016x}", name=f"{one['trace']}.{one['span']}",
            started_at=one.get("at", Hand.at), ended_at=one.get("at", Hand.at) + 5, task="t", user_id=one.get("user"),
            session_id=one.get("session"), input=one.get("input"), tags=one.get("tags", ()),
        )
        for one in given
    ]  # fmt: skip
    return encode_request(RESOURCE, "loopkit", "1", [encode_span(span).stored() for span in made])


def said(id: str, target: str) -> Feedback:
    return Feedback(id=id, target=target, name="n", at=Hand.at + 100, arrived_at=Hand.at + 100, comment="words")


def learned(store: Store, *ids: str) -> None:
    store.put("dataset", "d", {"examples": [{"id": id, "spans": [id], "input": "x"} for id in ids]}, task="t")


def forget(store: Store, user: str) -> list[str]:
    """What is left of feedback and of examples."""

    def without(body: Any, gone: set[str]) -> tuple[Any, int]:
        return {"examples": [each for each in body["examples"] if not gone & set(each["spans"])]}, 0

    store.forget(user, f"author {user}", (), without)
    return [event.id for event in store.feedback()] + [
        example["id"] for body in store.documents("dataset") for example in body["examples"]
    ]


def test_as_much_goes_as_is_too_much_in_whole_traces(store: Store) -> None:
    for trace in range(1, 101):  # children end first and are small
        store.append(spans({"trace": trace, "span": 1}), [])
    for trace in range(1, 101):
        store.append(spans({"trace": trace, "span": 2, "input": "x" * 100_000}), [])
    store.spans(newest=1)
    with store.reading() as connection:
        most = held(connection) - 250_000
    gone = store.make_room(days=30, bytes=most)
    with store.reading() as connection:
        assert most - 100_000 < held(connection) <= most
    assert gone.spans == 6
    left = store.spans()
    assert len(left) == 194
    assert len({span.trace_id for span in left}) == 97


def test_pictures_that_datasets_show_crowd_no_span_out(store: Store) -> None:
    picture = bytes(3_000_000)
    named = name_of(picture)
    shown = {"trace": 1, "span": 1, "input": f"ni:///sha-256;{named}"}
    store.append(spans(shown), [], {named: picture})
    store.put("dataset", "d", {"examples": [{"input": f"ni:///sha-256;{named}"}]})
    for trace in range(2, 20):
        store.append(spans({"trace": trace, "span": 1}), [])
    store.spans(newest=1)
    assert store.make_room(days=30, bytes=2_000_000) == Pruned()


def test_a_trace_goes_when_its_newest_span_is_old(store: Store, clock: Hand) -> None:
    store.append(spans({"trace": 1, "span": 1}, {"trace": 2, "span": 1}), [])
    store.spans(newest=1)
    clock.at += 31 * DAY
    store.append(spans({"trace": 1, "span": 2}), [])
    assert store.prune(days=30) == Pruned(spans=1)
    assert [span.name for span in store.spans()] == ["1.1", "1.2"]


def test_a_trace_in_many_unread_batches_goes_whole(store: Store) -> None:
    store.append(spans({"trace": 1, "span": 1}), [said("e1", span_id(1, 1))])
    learned(store, span_id(1, 1))
    for trace in range(100, 200):
        store.append(spans({"trace": trace, "span": 1}), [])
    store.append(spans({"trace": 1, "span": 2, "user": "ana"}), [])
    while store.make_room(days=30, bytes=10_000).goes_on:
        pass
    assert not [span.name for span in store.spans() if span.name.startswith("1.")]
    assert forget(store, "ana") == []


def test_damaged_batches_don_t_end_the_pruning(store: Store, clock: Hand) -> None:
    for _ in range(130):
        store.append(b"\xff damaged", [])
    for trace in range(1, 20):
        store.append(spans({"trace": trace, "span": 1}), [])
    clock.at += 31 * DAY
    assert store.prune(days=30) == Pruned(spans=19)


@pytest.mark.parametrize("users", [("ana", "bob"), ("bob", "ana")])
@pytest.mark.parametrize("is_pruned", [False, True])
def test_a_trace_of_two_people_is_of_both(users: tuple[str, str], is_pruned: bool, store: Store) -> None:
    store.append(
        spans({"trace": 1, "span": 1, "user": users[0]}, {"trace": 1, "span": 2, "user": users[1]}),
        [said("e1", span_id(1, 1)), said("e2", f"trace:{1:032x}")],
    )
    learned(store, span_id(1, 1))
    if is_pruned:
        store.prune(days=0)
    assert forget(store, "ana") == []


@pytest.mark.parametrize("is_pruned", [False, True])
def test_what_comes_after_the_pruning_is_forgotten_too(is_pruned: bool, store: Store) -> None:
    store.append(spans({"trace": 1, "span": 1, "user": "ana", "session": "S"}, {"trace": 2, "span": 1}), [])
    if is_pruned:
        store.prune(days=0)
    late = [span_id(1, 1), f"trace:{1:032x}", "session:S", span_id(2, 1)]
    store.append(None, [said(f"e{number}", target) for number, target in enumerate(late)])
    learned(store, span_id(1, 1), span_id(2, 1))
    assert forget(store, "ana") == ["e3", span_id(2, 1)]


def test_a_shared_key_is_of_the_one_whom_it_meant(store: Store, clock: Hand) -> None:
    store.append(spans({"trace": 1, "span": 1, "user": "ana", "tags": ("order:7",)}), [said("e1", "order:7")])
    store.spans(newest=1)
    clock.at += 10 * DAY
    store.append(spans({"trace": 2, "span": 1, "user": "bob", "tags": ("order:7",), "at": clock.at}), [])
    assert store.prune(days=5) == Pruned(spans=1)
    assert forget(store, "ana") == []


def test_documents_of_an_older_version_are_known(store: Store) -> None:
    with store.transaction() as connection:
        for name in ("gone", "mention", "held", "told", "untold", "statement"):
            connection.execute(f"DROP TABLE {name}")
        connection.execute("DROP INDEX feedback_against")
        for table in ("batch", "body", "medium"):
            for way in ("came", "went"):
                connection.execute(f"DROP TRIGGER {table}_{way}")
        body = json.dumps({"examples": [{"id": "old", "spans": [span_id(1, 1)], "input": "x"}]})
        connection.execute("INSERT INTO document (kind, id, at, body) VALUES ('dataset', 'old', 1, ?)", (body,))
        connection.execute("PRAGMA user_version = 4")
    taken_over = Store(store.directory)
    taken_over.append(spans({"trace": 1, "span": 1, "user": "ana"}, {"trace": 2, "span": 1}), [])
    learned(taken_over, span_id(2, 1))
    taken_over.prune(days=0)
    assert forget(taken_over, "ana") == [span_id(2, 1)]
