"""The local store: what was written is found, by anybody, and what is wrong with it is one sentence."""

from __future__ import annotations

import os
import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import loopkit
from loopkit._ids import Clock
from loopkit.config import Limits
from loopkit.errors import InvalidInput, NotFound, StoreUnusable
from loopkit.store.database import bytes_in_use
from loopkit.store.room import ROW, Pruned, held
from loopkit.store.schema import MIGRATIONS, migrate
from loopkit.store.sqlite import FILE, Store
from loopkit.testing import MemorySink, recording
from loopkit.types import Span
from loopkit.wire.encode import encode_request, encode_resource, encode_span
from loopkit.wire.media import name_of


def batch(*numbers: int) -> bytes:
    spans = [
        Span(
            trace_id=f"{number:032x}", span_id=f"{number:016x}", name=f"call {number}", started_at=number * 10,
            ended_at=number * 10 + 5, task="t", session_id=f"s{number % 2}", tags=(f"even:{number % 2 == 0}",),
        )
        for number in numbers
    ]  # fmt: skip
    encoded = [encode_span(span).stored() for span in spans]
    return encode_request(encode_resource({"service.name": "svc"}), "loopkit", "1", encoded)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_spans_are_found_by_what_they_are(store: Store) -> None:
    store.append(batch(1, 2, 3, 4), [])
    assert [span.name for span in store.spans(task="t")] == ["call 1", "call 2", "call 3", "call 4"]
    assert [span.name for span in store.spans(session_id="s1", newest=1)] == ["call 3"]
    assert [span.name for span in store.spans(tag="even:True")] == ["call 2", "call 4"]
    assert [span.name for span in store.spans(since=30)] == ["call 3", "call 4"]
    assert store.spans(task="other") == []
    assert store.spans(task="t")[0].service == "svc"


def test_a_batch_that_comes_twice_is_kept_once(store: Store) -> None:
    store.append(batch(1, 2), [])
    store.append(batch(1, 2), [])
    assert store.stats()["spans"] == 2


def test_a_span_is_found_by_the_beginning_of_its_id(store: Store) -> None:
    store.append(batch(1, 0xABC), [])
    whole = f"{0xABC:032x}-{0xABC:016x}"
    assert store.span(whole).name == "call 2748"
    with pytest.raises(NotFound, match="more than one span begins with '0000'"):
        store.span("0000")
    with pytest.raises(NotFound, match="no span begins with 'f'"):
        store.span("f")


def test_many_threads_and_connections_write_at_once(store: Store) -> None:
    def write(number: int) -> None:
        Store(store.directory).append(batch(*range(number * 10 + 1, number * 10 + 11)), [])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(40)))
    assert store.stats()["spans"] == 400


def test_documents_are_appended_never_overwritten(store: Store) -> None:
    store.put("dataset", "d1", {"n": 1}, task="t")
    store.put("dataset", "d1", {"n": 2}, task="t")
    store.put("variant", "v1", {"n": 3}, task="t")
    assert store.documents("dataset", id="d1") == [{"n": 1}, {"n": 2}]
    assert store.documents("variant", task="t") == [{"n": 3}]


def test_unknown_tasks_are_refused_with_the_known_ones(store: Store) -> None:
    store.append(batch(1), [])
    with pytest.raises(NotFound, match=r"the task 'x' is unknown in .*; known: 't'"):
        store.check_task("x")


def test_only_the_owner_can_read_it_and_version_control_leaves_it_alone(store: Store) -> None:
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.directory.stat().st_mode) == 0o700
    assert (store.directory / ".gitignore").read_text() == "*\n"


def test_a_broken_file_is_one_sentence_and_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"this is no database, but somebody's notes" * 100)
    with pytest.raises(StoreUnusable, match=r"is no loopkit store, or is damaged .*: move the file away"):
        Store(tmp_path)
    with pytest.raises(StoreUnusable):
        loopkit.init("svc", store=tmp_path)
    assert (tmp_path / FILE).read_bytes().startswith(b"this is no database")


def test_a_store_of_a_newer_version_is_left_alone(store: Store) -> None:
    with sqlite3.connect(store.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreUnusable, match="written by a newer loopkit"):
        Store(store.directory)


def test_where_there_is_no_store_the_desk_says_so(clean_environment: Path) -> None:
    with pytest.raises(NotFound, match=r"no store in .*LOOPKIT_HOME"):
        loopkit.open_store()
    assert not clean_environment.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_directory_means_memory_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tmp_path.chmod(0o500)
    loopkit.init("svc", store=tmp_path / "store")
    with loopkit.span("works"):
        pass
    assert loopkit.flush() is False
    assert "only in memory" in caplog.text


def test_a_place_that_cant_be_a_directory_means_memory_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    loopkit.init("svc", store=tmp_path / "file" / "store")
    with loopkit.span("works"):
        pass
    assert loopkit.flush() is False
    assert "only in memory" in caplog.text


def test_reading_in_the_recording_process_flushes_first(stored: MemorySink) -> None:
    with loopkit.span("just now", task="t"):
        pass
    assert [span.name for span in loopkit.open_store().spans()] == ["just now"]


def test_a_store_that_was_open_before_a_fork_serves_both_processes(store: Store) -> None:
    store.append(batch(1), [])
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for number in range(100, 150):
                store.append(batch(number), [])
            status = 0
        finally:
            os._exit(status)
    for number in range(200, 250):
        store.append(batch(number), [])
    assert os.waitpid(child, 0)[1] == 0
    assert store.stats()["spans"] == 101


def test_a_batch_that_cant_be_read_stands_in_nobodys_way(store: Store) -> None:
    store.append(b"these bytes are no spans", [])
    store.append(batch(1), [])
    assert [span.name for span in store.spans()] == ["call 1"]
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("SELECT data FROM aside").fetchall() == [(b"these bytes are no spans",)]


class Hand(Clock):
    """A clock that is set."""

    at = 1_767_225_600_000_000_000

    def now(self) -> int:
        return self.at

    def goes_on(self, days: float) -> None:
        self.at += int(days * 86_400e9)


def test_old_spans_go_and_what_was_said_of_them_stays() -> None:
    clock = Hand()
    with recording(store=True, clock=clock, limits=Limits(store_days=30)):
        with loopkit.span("old", input="early") as old:
            loopkit.feedback(old, "good", True)
        store = loopkit.open_store()
        assert [span.name for span in store.spans()] == ["old"]
        clock.goes_on(29.9)
        with loopkit.span("new"):
            pass
        assert [span.name for span in store.spans()] == ["old", "new"]
        clock.goes_on(0.2)
        with loopkit.span("newer"):
            pass
        loopkit.flush()
        assert [span.name for span in store.spans()] == ["new", "newer"]
        assert [event.name for event in store.feedback()] == ["good"]


def test_a_service_that_nobody_reads_keeps_its_store_within_its_bounds(tmp_path: Path) -> None:
    most = 3_000_000
    with recording(store=True, limits=Limits(store_bytes=most, append_delay=0.01)):
        for number in range(300):
            with loopkit.span(f"call {number}", input="x" * 20_000):
                pass
            if number % 10 == 0:
                loopkit.flush()
        with loopkit.span("last"):
            pass
        loopkit.flush()
        store = loopkit.open_store()
        with store.reading() as connection:
            assert most / 2 < held(connection) < most + 1_500_000  # it looks after every MiB
            assert bytes_in_use(connection) < 2 * most
        names = [span.name for span in store.spans()]
        assert names[-1] == "last"
        assert "call 0" not in names


def test_pruning_by_hand_makes_the_file_smaller(tmp_path: Path) -> None:
    clock = Hand()
    store = Store(tmp_path / "store", clock=clock)
    for number in range(2_000):
        store.append(batch(number + 1), [])
    assert len(store.spans()) == 2_000
    clock.goes_on(1)
    store.append(batch(3_000), [])
    before = store.path.stat().st_size
    gone = store.prune(days=0.5)
    assert gone == Pruned(spans=2_000)
    assert [span.name for span in store.spans()] == ["call 3000"]
    assert store.path.stat().st_size < before / 2
    assert store.prune(bytes=0).spans == 1
    for wrong in (-1, float("inf"), float("nan"), 1e9, True, "7"):
        with pytest.raises(InvalidInput, match="prune's days is"):
            store.prune(days=wrong)  # type: ignore[arg-type]


def test_a_store_of_an_older_version_is_taken_over_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    with sqlite3.connect(tmp_path / "store" / FILE) as connection:
        migrate(connection, "old", MIGRATIONS[:3])
        connection.execute("INSERT INTO batch (data) VALUES (?)", (batch(1),))
    connection.close()
    store = Store(tmp_path / "store")
    assert [span.name for span in store.spans()] == ["call 1"]
    assert store.prune() == Pruned()
    assert len(store.spans()) == 1


def test_a_little_too_much_costs_a_little(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for number in range(40):
        store.append(batch(number + 1) + bytes(0), [])
    for number in range(40):
        picture = bytes([number]) * 100_000
        named = name_of(picture)
        span = Span(trace_id=f"{number + 100:032x}", span_id=f"{number + 100:016x}", name=f"big {number}", started_at=1,
                    ended_at=2, input=f"ni:///sha-256;{named}")  # fmt: skip
        data = encode_request(encode_resource({"service.name": "svc"}), "loopkit", "1", [encode_span(span).stored()])
        store.append(data, [], {named: picture})
    assert store.stats()["media"] == 40
    with store.reading() as connection:
        used = held(connection)
    gone = store.make_room(days=30, bytes=used - 300_000)
    assert 40 < gone.spans <= 45
    assert store.stats()["media"] >= 35


def test_what_stays_for_good_leaves_room_for_the_rest(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.put("dataset", "d1", {"text": "x" * 3_000_000})
    for number in range(20):
        store.append(batch(number + 1), [])
    assert store.stats()["spans"] == 20
    assert store.make_room(days=30, bytes=2_000_000) == Pruned()


def test_what_an_older_version_writes_meanwhile_is_new(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with store.transaction() as connection:
        connection.execute("INSERT INTO batch (data) VALUES (?)", (batch(1),))
    assert store.make_room(days=30, bytes=1 << 30) == Pruned()
    assert len(store.spans()) == 1
    assert store.make_room(days=30, bytes=1 << 30) == Pruned()


def test_feedback_crowds_no_span_out(tmp_path: Path) -> None:
    with recording(store=True, limits=Limits(store_bytes=200_000)):
        for number in range(3_000):
            loopkit.feedback(f"order:{number}", "helpful", True)
        loopkit.flush()
        with loopkit.span("kept"):
            pass
        loopkit.flush()
        store = loopkit.open_store()
        with store.reading() as connection:
            assert bytes_in_use(connection) > 500_000
        assert [span.name for span in store.spans()] == ["kept"]


def test_what_spans_hold_is_counted_exactly(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")

    def counted() -> int:
        rows = "SELECT data FROM batch UNION ALL SELECT data FROM medium"
        with store.reading() as connection:
            plain = [len(data) for (data,) in connection.execute(rows)]
            spans = [len(data) + ROW for (data,) in connection.execute("SELECT data FROM body")]
            assert held(connection) == sum(plain) + sum(spans)
            return held(connection)

    for number in range(30):
        store.append(batch(number + 1), [], {f"{number}": bytes(number)})
    assert counted() > 0
    store.spans()
    store.append(batch(31), [])
    assert counted() > 30_000
    store.prune(days=0)
    assert counted() == 0


def test_many_rounds_of_pruning_leave_room_for_what_is_new(tmp_path: Path) -> None:
    clock = Hand()
    with recording(store=True, clock=clock, limits=Limits(store_bytes=300_000)):
        store = Store(loopkit.open_store().directory, clock=clock)
        for _ in range(6):
            clock.goes_on(0.001)
            for number in range(200):
                with loopkit.context(user_id=f"u-{number}", session_id="s"), loopkit.span("call"):
                    pass
            loopkit.flush()
            assert len(store.spans()) >= 200  # rows take more room than the batches that they are made from
            while store.make_room(days=30, bytes=300_000).goes_on:
                pass
            assert 100 < len(store.spans()) <= 300
