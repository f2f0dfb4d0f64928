"""Tags and metadata given afterwards, and forgetting a person everywhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import loopkit
from loopkit.config import Sampling
from loopkit.errors import InvalidInput, NotFound
from loopkit.testing import MemorySink
from loopkit.wire.decode import decode_request
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
    for wrong in (None, 5, {"a": 1}, [""]):
        with pytest.raises(InvalidInput, match="tags is"):
            loopkit.annotate(span, tags=wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="metadata is"):
        loopkit.annotate(span, metadata=["a"])  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="nothing to say"):
        loopkit.annotate(span)


def test_they_are_redacted_and_bounded(stored: MemorySink) -> None:
    with loopkit.span("answer") as span:
        pass
    loopkit.annotate(span, tags=["mail:bob@example.com", "x" * 1000], metadata={"card": "4111 1111 1111 1111"})
    found = loopkit.open_store().span(span.id)
    assert found.metadata == {"card": "[CARD]"}
    assert found.tags == ("mail:[EMAIL]", "x" * 200, "card:[CARD]")


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
    with pytest.raises(NotFound, match=r"nothing was recorded in .*home: give the service's home directory"):
        loopkit.forget("nobody", home=home)
    loopkit.init("svc")
    say("ana-1", "ALPHA")
    loopkit.shutdown()
    assert loopkit.forget("nobody", home=home).traces == ()
    with pytest.raises(NotFound, match="nothing was recorded in"):
        loopkit.forget("nobody", store=home / "elsewhere")
    assert loopkit.forget("\ud800x", home=home).traces == ()


def test_another_home_is_not_the_recording_ones(home: Path, tmp_path: Path) -> None:
    loopkit.init("svc")
    say("ana-1", "ALPHA")
    loopkit.shutdown()
    loopkit.init("svc", store=tmp_path / "other")
    say("ana-1", "BRAVO")
    loopkit.flush()
    assert loopkit.forget("ana-1", home=home, store=home).spans == 2
    assert len(loopkit.open_store(tmp_path / "other").spans()) == 2
    loopkit.shutdown()
    assert loopkit.forget("ana-1", store=tmp_path / "other").spans == 2


def test_delivered_batches_that_still_lie_in_a_segment_go_too(home: Path) -> None:
    collector = Collector()
    loopkit.init("svc", store=None, export=[loopkit.Destination(endpoint=collector.endpoint, content=True)])
    try:
        say("ana-1", "ALPHA")
        assert loopkit.flush(10, delivered=True)
        collector.answers = lambda number: (503, {})
        say("bob-1", "BRAVO")
        loopkit.flush()
        assert b"ALPHA" in bytes_below(home)
        loopkit.forget("ana-1")
        assert b"ALPHA" not in bytes_below(home)
        assert b"BRAVO" in bytes_below(home)
    finally:
        loopkit.shutdown(0.2)
        collector.stop()


@pytest.mark.parametrize(
    "destination", [{"pseudonyms": True}, {"renames": {"user.id": "enduser.id"}}], ids=["pseudonyms", "renames"]
)
def test_people_are_found_in_spools_whatever_they_are_called_there(home: Path, destination: dict[str, Any]) -> None:
    collector = Collector()
    collector.answers = lambda number: (503, {})
    loopkit.init(
        "svc", store=None, export=[loopkit.Destination(endpoint=collector.endpoint, content=True, **destination)]
    )
    try:
        say("ana-1", "ALPHA")
        say("bob-1", "BRAVO")
        loopkit.flush()
        gone = loopkit.forget("ana-1")
        assert (len(gone.traces), gone.unreachable) == (1, 0)
        assert b"ALPHA" not in bytes_below(home)
        assert b"BRAVO" in bytes_below(home)
    finally:
        loopkit.shutdown(0.2)
        collector.stop()


def test_what_waits_in_memory_is_not_sent_after_all(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_disk(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "no disk")

    monkeypatch.setattr("loopkit.export.place.DiskSpool", no_disk)
    collector = Collector()
    collector.answers = lambda number: (503, {})
    loopkit.init("svc", export=[loopkit.Destination(endpoint=collector.endpoint, content=True)])
    try:
        say("ana-1", "ALPHA")
        say("bob-1", "BRAVO")
        loopkit.flush()
        loopkit.forget("ana-1")
        collector.answers = lambda number: (200, {})
        assert loopkit.flush(10, delivered=True)
        taken = b"".join(collector.accepted)
        assert b"BRAVO" in taken
        assert b"ALPHA" not in taken
    finally:
        loopkit.shutdown()
        collector.stop()


def test_what_was_learned_of_a_person_goes(home: Path) -> None:
    loopkit.init("svc")
    hers, his = say("ana-1", "ALPHA"), say("bob-1", "BRAVO")
    for each, correction in ((hers, "DELTA"), (his, "ECHO")):
        loopkit.feedback(each, correction=correction)
    dataset = loopkit.Dataset.create("triage", golden=0, test=0)
    variant = loopkit.tune(loopkit.Variant(model="m", prompt="{t}"), dataset, "few-shot")
    registry = loopkit.Registry(loopkit.open_store())
    registry.add("triage", variant, name="taught")
    assert b"ALPHA" in bytes_below(home)
    assert loopkit.forget("ana-1").examples == 1
    (left,) = registry.variant("triage", "taught").demonstrations
    assert left.expected == "ECHO"
    loopkit.shutdown()
    assert b"ALPHA" not in bytes_below(home)
    assert b"DELTA" not in bytes_below(home)


def test_words_on_words_go_too(home: Path) -> None:
    loopkit.init("svc")
    said = loopkit.feedback(say("ana-1", "ALPHA"), "good", True)
    assert said is not None
    more = loopkit.feedback(f"event:{said.id}", "note", True, comment="SECRET")
    assert more is not None
    loopkit.feedback(f"event:{more.id}", "note", True, comment="SECRET")
    loopkit.flush()
    assert loopkit.forget("ana-1").feedback == 3
    loopkit.shutdown()
    assert b"SECRET" not in bytes_below(home)


def test_forgetting_while_others_are_recorded_loses_nothing(home: Path) -> None:
    collector = Collector()
    collector.answers = lambda number: (503, {})
    loopkit.init(
        "svc",
        export=[loopkit.Destination(endpoint=collector.endpoint, content=True)],
        limits=loopkit.Limits(append_delay=0.001),
    )
    stop = threading.Event()
    recorded = [0]

    def record() -> None:
        while not stop.is_set():
            with loopkit.context(user_id="bob-1"), loopkit.span("answer"):
                recorded[0] += 1
            time.sleep(0.0005)

    thread = threading.Thread(target=record)
    thread.start()
    for _ in range(10):
        say("ana-1", "ALPHA")
        loopkit.forget("ana-1")
    stop.set()
    thread.join()
    loopkit.shutdown(0.2)
    collector.stop()
    (spool,) = loopkit.spools(home).values()
    kept = [span for batch in spool.waiting() for span, _ in decode_request(batch.data)]
    assert len(kept) == recorded[0]
    assert {span.user_id for span in kept} == {"bob-1"}
    assert (spool.directory / ".lock").stat().st_size == 0


def test_who_was_pruned_can_be_forgotten(home: Path) -> None:
    loopkit.init("svc")
    hers, his = say("ana-1", "ALPHA"), say("bob-1", "BRAVO")
    with loopkit.context(user_id="ana-1", order="77"), loopkit.span("answer", task="triage", input={"t": "x"}):
        pass
    for each, correction in ((hers, "DELTA"), (his, "ECHO")):
        loopkit.feedback(each, correction=correction)
    loopkit.feedback("order:77", "note", True, comment="FOXTROT")
    dataset = loopkit.Dataset.create("triage", golden=0, test=0)
    loopkit.annotate(hers, tags=["GOLF"])
    store = loopkit.open_store()
    store.prune(days=0)
    assert store.spans() == []
    loopkit.feedback(hers, "late", True, comment="HOTEL")
    loopkit.flush()
    gone = loopkit.forget("ana-1")
    assert (gone.feedback, gone.examples) == (3, 2)
    assert [example.expected for example in loopkit.Dataset.load(dataset.id).examples] == ["ECHO"]
    loopkit.shutdown()
    below = bytes_below(home)
    for word in (b"ALPHA", b"DELTA", b"FOXTROT", b"GOLF", b"HOTEL", b"ana-1"):
        assert word not in below, word
    assert b"ECHO" in below


def test_damaged_parts_of_spools_that_name_a_person_go(home: Path) -> None:
    collector = Collector()
    collector.answers = lambda number: (503, {})
    loopkit.init("svc", export=[loopkit.Destination(endpoint=collector.endpoint, content=True)])
    say("bob-1", "BRAVO")
    loopkit.shutdown(0.2)
    collector.stop()
    (spool,) = loopkit.spools(home).values()
    spool.dead.mkdir(exist_ok=True)
    for name, said in (("hers", b"\xff ana-1 ALPHA"), ("his", b"\xff bob-1 CHARLIE")):
        (spool.dead / f"{name}.damaged").write_bytes(said)
    (segment,) = spool.segments()
    with segment.open("ab") as file:
        file.write(b"torn ana-1 ALPHA")
    loopkit.forget("ana-1", home=home)
    below = bytes_below(home)
    assert b"ALPHA" not in below
    assert b"CHARLIE" in below
    assert [span.user_id for batch in spool.waiting() for span, _ in decode_request(batch.data)] == ["bob-1"] * 2


def test_who_was_pruned_can_be_forgotten_with_the_whole_trace_and_nobody_else(home: Path) -> None:
    loopkit.init("svc")
    outer = loopkit.span("root", task="triage", input={"t": "x"})  # of nobody, but in ana's trace
    with outer as root, loopkit.context(user_id="ana-1", order="1"), loopkit.span("inner"):
        loopkit.record_model_call(provider="acme", model="m", response_id="r-1")
    loopkit.feedback(root, correction="DELTA")
    loopkit.flush()
    store = loopkit.open_store()
    store.prune(days=0)
    with loopkit.context(user_id="bob-1", order="1"), loopkit.span("answer", task="triage", input={"t": "y"}):
        loopkit.record_model_call(provider="acme", model="m", response_id="r-1")
    loopkit.feedback("order:1", "note", True, comment="ECHO")
    loopkit.feedback("r-1", "note", True, comment="ECHO")
    loopkit.flush()
    assert loopkit.forget("ana-1").feedback == 1
    assert [event.comment for event in loopkit.open_store().feedback()] == ["ECHO", "ECHO"]
    loopkit.shutdown()
    assert b"DELTA" not in bytes_below(home)
