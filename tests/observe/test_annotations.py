"""Tags and metadata given afterwards, and forgetting a person everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import loopkit
from loopkit.config import Sampling
from loopkit.errors import InvalidInput, NotFound
from loopkit.testing import MemorySink
from tests.export.test_delivery import Collector


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("LOOPKIT_HOME", str(tmp_path / "home"))
    yield tmp_path / "home"
    loopkit.shutdown(0.1)


def test_stored_spans_can_be_tagged_later(stored: MemorySink) -> None:
    with loopkit.context(tags=["beta"], order="1"), loopkit.span("answer") as span:
        loopkit.record_model_call(provider="acme", model="m", response_id="r-1")
    loopkit.annotate(span, tags=["reviewed"], metadata={"ticket": "7"})
    loopkit.annotate("r-1", tags=["model"])
    store = loopkit.open_store()
    found = store.span(span.id)
    assert found.tags == ("beta", "order:1", "reviewed", "ticket:7")
    assert found.metadata == {"order": "1", "ticket": "7"}
    assert [each.id for each in store.spans(tag="ticket:7")] == [span.id]
    assert "model" in store.spans(kind="llm")[0].tags
    event = loopkit.feedback("ticket:7", "solved", True)
    assert event is not None
    assert store.resolve(event) == span.id


def test_they_can_be_replaced_and_the_last_word_counts(stored: MemorySink) -> None:
    with loopkit.context(tags=["beta"], order="1"), loopkit.span("answer") as span:
        pass
    store = loopkit.open_store()
    loopkit.annotate(span.id, metadata={"order": "2"})
    assert store.span(span.id).metadata == {"order": "2"}
    loopkit.annotate(span.id, tags=["only"], replace=True)
    assert (store.span(span.id).tags, store.span(span.id).metadata) == (("only",), {})
    assert store.spans(tag="beta") == []
    assert [each.id for each in store.spans(tag="only")] == [span.id]


def test_what_is_wrong_is_said(stored: MemorySink) -> None:
    with loopkit.span("answer") as span:
        pass
    with pytest.raises(NotFound, match="known as 'r-9'"):
        loopkit.annotate("r-9", tags=["x"])
    with pytest.raises(NotFound):
        loopkit.annotate(f"{'0' * 32}-{'0' * 16}", tags=["x"])
    with pytest.raises(InvalidInput, match="tags is 'x'"):
        loopkit.annotate(span, tags="x")
    with pytest.raises(InvalidInput, match="nothing to say"):
        loopkit.annotate(span)


def bytes_below(directory: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(directory.rglob("*")) if file.is_file())


def say(user: str, word: str) -> Any:
    with (
        loopkit.context(user_id=user, session_id=f"s-{user}"),
        loopkit.span("answer", task="triage", input={"t": word}) as span,
    ):
        loopkit.record_model_call(provider="acme", model="m", input=word, response_id=f"r-{user}")
    return span


def test_a_person_is_forgotten_everywhere(home: Path) -> None:
    collector = Collector()
    collector.answers = lambda number: (400, {}) if number == 1 else (503, {})
    loopkit.init("svc", export=[loopkit.Destination(endpoint=collector.endpoint, content=True)])
    try:
        say("ana-1", "ALPHA")  # refused: a dead letter
        loopkit.flush(delivered=True)
        hers, his = say("ana-1", "BRAVO"), say("bob-1", "CHARLIE")
        for each, correction in ((hers, "DELTA"), (his, "ECHO")):
            loopkit.feedback(each, correction=correction)
        loopkit.feedback("r-ana-1", "helpful", True, comment="FOXTROT")
        loopkit.feedback(his, "rated", 0.5, by="ana-1", comment="GOLF")
        dataset = loopkit.Dataset.create("triage", golden=0, test=0)
        assert len(dataset.examples) == 2
        gone = loopkit.forget("ana-1")
        assert (len(gone.traces), gone.unreachable) == (2, 0)
        assert (gone.spans, gone.feedback, gone.examples) == (4, 3, 1)
        assert gone.waiting >= 2
        left = loopkit.open_store()
        assert [span.user_id for span in left.spans()] == ["bob-1", "bob-1"]
        assert [event.correction for event in left.feedback()] == ["ECHO"]
        assert len(loopkit.Dataset.load(dataset.id).examples) == 1
        assert loopkit.forget("ana-1").spans == 0
    finally:
        loopkit.shutdown(0.2)
        collector.stop()
    below = bytes_below(home)
    for word in (b"ALPHA", b"BRAVO", b"DELTA", b"FOXTROT", b"GOLF", b"ana-1"):
        assert word not in below, word
    assert b"CHARLIE" in below
    assert b"ECHO" in below


def test_what_waits_for_feedback_is_forgotten_too(home: Path) -> None:
    loopkit.init("svc", sample=Sampling(tail=1e-12))
    say("ana-1", "ALPHA")
    say("bob-1", "BRAVO")
    gone = loopkit.forget("ana-1")
    assert gone.held >= 1
    loopkit.feedback("r-ana-1", "helpful", True)
    loopkit.feedback("r-bob-1", "helpful", True)
    loopkit.flush()
    assert {span.user_id for span in loopkit.open_store().spans()} == {"bob-1"}
    loopkit.shutdown()
    assert b"ALPHA" not in bytes_below(home)


def test_others_still_get_the_rest(home: Path) -> None:
    collector = Collector()
    collector.answers = lambda number: (503, {})
    loopkit.init("svc", export=[loopkit.Destination(endpoint=collector.endpoint, content=True)])
    say("ana-1", "ALPHA")
    say("bob-1", "BRAVO")
    loopkit.shutdown(0.2)
    gone = loopkit.forget("ana-1")
    assert (gone.unreachable, len(gone.traces)) == (0, 1)
    collector.answers = lambda number: (200, {})
    loopkit.init("svc", export=[loopkit.Destination(endpoint=collector.endpoint, content=True)])
    assert loopkit.flush(10, delivered=True)
    loopkit.shutdown()
    collector.stop()
    taken = b"".join(collector.accepted)
    assert b"BRAVO" in taken
    assert b"ALPHA" not in taken


def test_nobody_is_forgotten_by_mistake(home: Path) -> None:
    for wrong in ("", "  ", None):
        with pytest.raises(InvalidInput, match="the user is"):
            loopkit.forget(wrong)  # type: ignore[arg-type]
    assert loopkit.forget("nobody", home=home).traces == ()
