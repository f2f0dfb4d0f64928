"""Feedback from files and into files: nothing is lost on the way out and in, and nothing comes twice."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import loopkit
from loopkit._json import from_dict
from loopkit.errors import InvalidInput
from loopkit.export.scores import datawizz_row, of_datawizz
from loopkit.imports.cells import as_table, uncelled  # the law of cells, without a store for every draw
from loopkit.store.sqlite import Store
from loopkit.testing import MemorySink
from loopkit.types import Feedback

TEXT = st.text(max_size=12) | st.sampled_from(["true", "1", '"x"', "=1+1", "-2", "@a", "'=", "null", "{}", "é\n"])
JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
EVENTS = st.builds(
    Feedback,
    id=st.uuids().map(lambda one: one.hex),
    target=st.text(min_size=1, max_size=20),
    name=st.text(min_size=1, max_size=8),
    value=st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    correction=JSON,
    ranking=st.lists(st.text(min_size=1, max_size=5), max_size=3).map(tuple),
    source=st.sampled_from(["user", "reviewer", "code", "system"]),
    kind=st.sampled_from(["explicit", "implicit", "inferred"]),
    comment=st.none() | TEXT.filter(bool),
    weight=st.none() | st.floats(0, 1),
    metadata=st.dictionaries(st.text(max_size=4).filter(lambda name: name != "loopkit"), JSON, max_size=3),
    at=st.integers(0, 2**62),
    arrived_at=st.integers(0, 2**62),
    key=st.none() | st.text(min_size=1, max_size=8),
)


@given(EVENTS)
def test_an_event_survives_a_datawizz_row(event: Feedback) -> None:
    row = json.loads(json.dumps(datawizz_row(event)))
    assert -1 <= row["score"] <= 1
    assert from_dict(Feedback, of_datawizz(row)) == event


ROWS = st.fixed_dictionaries(
    {"score": st.floats(-1, 1), "inference_log_id": st.text(min_size=1, max_size=9)},
    optional={
        "weight": st.floats(0, 1),
        "improvement": st.fixed_dictionaries({"role": st.just("assistant"), "content": st.text(max_size=9)}),
        "qualitative_feedback": st.text(min_size=1, max_size=9),
        "signal_name": st.text(min_size=1, max_size=9).filter(str.strip),
        "signal_source": st.sampled_from(["user", "system"]),
        "signal_type": st.sampled_from(["explicit", "implicit"]),
        "metadata": st.dictionaries(st.text(max_size=4).filter(lambda name: name != "loopkit"), JSON, max_size=3),
        "created": st.text(max_size=5),
    },
)


@given(ROWS)
def test_a_datawizz_row_survives_an_event(row: dict[str, Any]) -> None:
    said = of_datawizz(row)
    event = Feedback(id="e", at=1, arrived_at=1, **said)
    assert (event.value, event.weight) == (row["score"], row.get("weight"))
    assert datawizz_row(event) == row


@given(st.lists(EVENTS, min_size=1, max_size=4))
def test_events_survive_a_table(events: list[Feedback]) -> None:
    from loopkit._json import to_dict

    text = as_table([to_dict(event) for event in events], "loopkit")
    read = [uncelled(row, "loopkit", is_export=True) for row in csv.DictReader(io.StringIO(text, newline=""))]
    assert [from_dict(Feedback, row) for row in read] == events
    assert not any(
        cell.startswith(("=", "@", "+")) for row in csv.reader(io.StringIO(text, newline="")) for cell in row
    )


def said(store: Store) -> list[Feedback]:
    return sorted(store.feedback(), key=lambda event: event.id)


@pytest.mark.parametrize("name", ["all.jsonl", "all.csv"])
@pytest.mark.parametrize("format", ["loopkit", "datawizz"])
def test_out_and_in_again(name: str, format: str, stored: MemorySink, tmp_path: Path) -> None:
    with loopkit.span("call") as s:
        pass
    first = loopkit.feedback(s, "helpful", True, by="ana", comment="=cmd()", metadata={"a": [1, None]})
    loopkit.feedback("order:1", correction={"queue": "cards"}, source="reviewer", at=5, key="k")
    loopkit.feedback(s, ranking=["a", "b"])
    assert first is not None
    loopkit.retract(first)
    store = loopkit.open_store()
    stands = [event for event in said(store) if format == "loopkit" or event.name in ("correction", "ranking")]
    assert loopkit.export_feedback(tmp_path / name, format=format) == len(stands)
    other = Store(tmp_path / "other")
    for _ in range(2):
        assert loopkit.import_feedback(tmp_path / name, format=format, store=other).feedback == len(stands)
    assert said(other) == stands


def test_rows_by_hand_are_checked_and_come_once(clean_environment: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("target,name,value,by\norder:1,helpful,true,ana\norder:1,helpful,true,ana\norder:2,stars,4.5,\n")
    for _ in range(2):
        loopkit.import_feedback(rows)
    store = loopkit.open_store()
    assert [(event.target, event.value) for event in store.feedback()] == [
        ("order:1", True), ("order:1", True), ("order:2", 4.5),
    ]  # fmt: skip
    assert str(store.feedback()[0].by).startswith("anon-")
    for bad, reason in (
        ("target,name,value\nx,n,[1]\n", "row 1: the value of 'n'"),
        ("target,nam\nx,n\n", "row 1: unknown field 'nam'"),
        ("name,value\nn,1\n", "row 1: .*has no target"),
        ("id,target,name,at,arrived_at\ne,x,n,soon,1\n", "row 1: at: Input should be a valid integer"),
    ):
        rows.write_text(bad)
        with pytest.raises(InvalidInput, match=reason):
            loopkit.import_feedback(rows)
    assert len(store.feedback()) == 3
    with pytest.raises(InvalidInput, match="format is 'excel'"):
        loopkit.import_feedback(rows, format="excel")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"target": 5, "name": "n", "value": 1}, "the target is 5"),
        ({"target": "t", "name": "n", "value": 1, "preferred_over": 5}, "the target is 5"),
        ({"target": "t", "ranking": [5]}, "the target is 5"),
        ({"id": "e", "target": "", "name": "n", "value": 1, "at": 1, "arrived_at": 1}, "empty string"),
        ({"id": "e", "target": "t", "name": "", "value": 1, "at": 1, "arrived_at": 1}, "non-empty string"),
        ({"id": "e", "target": "t", "name": "n", "value": 1, "weight": 9, "at": 1, "arrived_at": 1}, "weight is 9"),
        ({"id": "e", "target": "t", "name": "n", "value": 1, "at": 2**63, "arrived_at": 1}, "at is"),
        ({"id": "e", "target": "t", "name": "n", "value": 1, "at": 1, "arrived_at": 1, "x": 1}, "unknown field 'x'"),
        ({"id": "e", "target": "t", "name": "n", "value": float("nan"), "at": 1, "arrived_at": 1}, "finite number"),
    ],
)
def test_whole_events_are_checked_too(
    row: dict[str, Any], reason: str, clean_environment: Path, tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(InvalidInput, match=f"row 1: .*{reason}"):
        loopkit.import_feedback(tmp_path / "rows.jsonl")


def test_what_was_taken_back_goes_to_nobody(stored: MemorySink, tmp_path: Path) -> None:
    with loopkit.span("call") as s:
        pass
    gone, old = loopkit.feedback(s, "helpful", True), loopkit.feedback(s, "stars", 1)
    assert gone is not None
    assert old is not None
    loopkit.retract(gone)
    loopkit.supersede(old, value=5)
    for format in ("datawizz", "langfuse", "langsmith"):
        assert loopkit.export_feedback(tmp_path / "rows.jsonl", format=format) == 1
        assert "5.0" in (tmp_path / "rows.jsonl").read_text()


def test_declared_signals_hold_for_files(clean_environment: Path, tmp_path: Path) -> None:
    loopkit.init("svc", signals=[loopkit.Signal("stars", type=int, range=(1, 5))])
    loopkit.shutdown()
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"target": "a", "name": "stars", "value": 6}\n')
    with pytest.raises(InvalidInput, match="row 1: the value of 'stars' is 6: it is declared as a whole number"):
        loopkit.import_feedback(rows)


@pytest.mark.parametrize("source", ["langfuse", "langsmith"])
def test_what_others_take_comes_back_from_there(source: str, stored: MemorySink, tmp_path: Path) -> None:
    with loopkit.span("call") as s:
        pass
    loopkit.feedback(s, "helpful", True)
    loopkit.feedback(s, "stars", 4)
    loopkit.feedback(s, "tone", "curt", comment="too short")
    loopkit.feedback("nowhere", "helpful", True)
    file = tmp_path / "scores.jsonl"
    assert loopkit.export_feedback(file, format=source) == 3
    other = Store(tmp_path / "other")
    assert loopkit.import_feedback(file, format=source, store=other).feedback == 3
    values = {event.name: event.value for event in other.feedback()}
    assert values == {"helpful": True if source == "langfuse" else 1.0, "stars": 4.0, "tone": "curt"}
    assert {event.target[:32] for event in other.feedback()} == {s.id[:32]}


def test_what_can_t_be_written_leaves_what_was_there(stored: MemorySink, tmp_path: Path) -> None:
    loopkit.feedback("a", "helpful", True)
    with pytest.raises(InvalidInput, match="can't be written"):
        loopkit.export_feedback(tmp_path / "no" / "such.csv")
    with pytest.raises(InvalidInput, match="format is 'x'"):
        loopkit.export_feedback(tmp_path / "a.csv", format="x")
