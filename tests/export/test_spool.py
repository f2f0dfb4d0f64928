"""The spool: what was appended waits in order until it is struck off, whatever happens to processes and bytes."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from loopkit import _host
from loopkit.export.spool import DiskSpool, MemorySpool


def spool_in(directory: Path, limit: int = 1 << 30, **given: Any) -> DiskSpool:
    ticks = itertools.count()
    return DiskSpool(directory, limit, lambda: next(ticks), **given)


def contents(spool: DiskSpool | MemorySpool) -> list[bytes]:
    return [batch.data for batch in spool.waiting()]


class Spooling(RuleBasedStateMachine):
    """Against the simplest model there is: a list."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.place = tempfile.TemporaryDirectory()
        self.ticks = itertools.count()
        self.model: list[bytes] = []
        self.numbers = itertools.count()
        self.open()

    def open(self) -> None:
        # segments of 100 bytes, so that several come about
        self.spool = DiskSpool(Path(self.place.name), 1 << 20, lambda: next(self.ticks))
        self.spool._segment_size = 100

    @rule(size=st.integers(0, 150))
    def append(self, size: int) -> None:
        data = f"{next(self.numbers)}".encode() + b"x" * size
        self.spool.append(data)
        self.model.append(data)

    @rule()
    def strike_off(self) -> None:
        with self.spool.held() as ours:
            assert ours
            for batch in itertools.islice(self.spool.waiting(), 1):
                self.spool.strike_off(batch)
                self.model.remove(batch.data)
            self.spool.sweep()

    @rule()
    def bury(self) -> None:
        for batch in itertools.islice(self.spool.waiting(), 1):
            self.spool.bury(batch, "no")
            self.model.remove(batch.data)

    @rule()
    def replay(self) -> None:
        letters = [letter.read_bytes() for letter, _ in self.spool.letters()]
        assert self.spool.replay() == len(letters)
        self.model += letters

    @rule()
    def restart(self) -> None:
        self.spool.close()
        self.open()

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        assert contents(self.spool) == self.model
        assert self.spool.dropped == 0

    def teardown(self) -> None:
        self.spool.close()
        self.place.cleanup()


Spooling.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestSpooling = Spooling.TestCase


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=6), st.data())
def test_a_segment_that_is_cut_at_any_byte_still_gives_what_was_whole(
    tmp_path: Path, batches: list[bytes], data: st.DataObject
) -> None:
    directory = tmp_path / os.urandom(4).hex()
    spool = spool_in(directory)
    ends = []
    for batch in batches:
        spool.append(batch)
        ends.append(spool.segments()[0].stat().st_size)
    spool.close()
    (segment,) = spool.segments()
    cut = data.draw(st.integers(0, ends[-1]))
    os.truncate(segment, cut)
    after = spool_in(directory)
    assert contents(after) == batches[: sum(end <= cut for end in ends)]
    after.append(b"and on it goes")
    assert b"and on it goes" in contents(after)
    after.close()


def test_a_damaged_part_is_put_aside_and_what_was_before_it_is_delivered(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    for batch in (b"first" * 9, b"second" * 9, b"third" * 9):
        spool.append(batch)
    spool.close()
    (segment,) = spool.segments()
    whole = bytearray(segment.read_bytes())
    whole[whole.index(b"second") + 3] ^= 1
    segment.write_bytes(whole)
    (batch,) = spool.waiting()
    assert batch.data == b"first" * 9
    spool.strike_off(batch)
    spool.sweep()
    assert spool.segments() == []
    assert spool.dropped == 1
    (aside,) = spool.dead.glob("*.damaged")
    assert b"third" in aside.read_bytes()


def test_a_segment_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    newer = tmp_path / "00000000000000000000-1-aaaaaa.seg"
    newer.write_bytes(b"LKSPOOL\x02 who knows")
    spool = spool_in(tmp_path)
    spool.append(b"ours")
    assert contents(spool) == [b"ours"]
    spool.close()
    spool.sweep()
    assert newer.read_bytes() == b"LKSPOOL\x02 who knows"
    assert _host.faults["newer spool"]


@pytest.mark.parametrize(("drop", "kept"), [("oldest", [6, 7]), ("newest", [0, 1])])
def test_it_is_bounded_and_drops_by_policy(tmp_path: Path, drop: Any, kept: list[int]) -> None:
    spool = spool_in(tmp_path, limit=250, drop=drop)
    for number in range(8):
        spool.append(bytes([number]) * 100)
    assert [batch[0] for batch in contents(spool)] == kept
    assert spool.dropped == 6


def test_sampling_drops_either_by_chance(tmp_path: Path) -> None:
    draws = itertools.cycle([0.9, 0.1])
    spool = spool_in(tmp_path, limit=250, drop="sampled", chance=lambda: next(draws))
    for number in range(8):
        spool.append(bytes([number]) * 100)
    assert [batch[0] for batch in contents(spool)] == [4, 6]
    assert spool.dropped == 6


def test_dead_letters_are_bounded_too(tmp_path: Path) -> None:
    spool = spool_in(tmp_path, limit=350)
    for number in range(8):
        spool.append(bytes([number]) * 100)
        (batch,) = spool.waiting()
        spool.bury(batch, f"reason {number}")
    assert [(letter.read_bytes()[0], reason) for letter, reason in spool.letters()] == [
        (5, "reason 5"), (6, "reason 6"), (7, "reason 7"),
    ]  # fmt: skip
    assert len(list(spool.dead.iterdir())) == 6


def test_a_full_disk_keeps_nothing_of_a_batch_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = spool_in(tmp_path)
    spool.append(b"before")
    write = os.write

    def half(descriptor: int, data: bytes) -> int:
        write(descriptor, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", half)
        with pytest.raises(OSError, match="no space"):
            spool.append(b"torn")
    spool.append(b"after")
    assert contents(spool) == [b"before", b"after"]


LOOKER = """
import sys, pathlib
from loopkit.export.spool import DiskSpool
spool = DiskSpool(pathlib.Path(sys.argv[1]), 1 << 20, lambda: 0)
with spool.held() as ours:
    spool.sweep()
    print(ours, [batch.data for batch in spool.waiting()])
"""


def look(directory: Path) -> str:
    arguments = [sys.executable, "-c", LOOKER, str(directory)]
    return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.strip()


def test_one_delivers_at_a_time_and_sees_what_others_are_writing(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    spool.append(b"live")
    with spool.held() as ours:
        assert ours is True
        assert look(tmp_path) == "False [b'live']"
    (batch,) = spool.waiting()
    assert look(tmp_path) == "True [b'live']"
    spool.strike_off(batch)
    assert look(tmp_path) == "True []"
    spool.append(b"its segment is still there")
    assert look(tmp_path) == "True [b'its segment is still there']"


def test_a_child_holds_neither_its_parents_spool_nor_its_segment(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    spool.append(b"parent")
    (ready, say_ready), (looked, say_looked) = os.pipe(), os.pipe()
    with spool.held() as ours:
        assert ours
        child = os.fork()
        if child == 0:
            spool.after_fork()
            os.write(say_ready, b".")
            os.read(looked, 1)  # lives on, until the parent has looked
            os._exit(0)
    os.read(ready, 1)
    assert look(tmp_path) == "True [b'parent']"
    os.write(say_looked, b".")
    os.waitpid(child, 0)
    for descriptor in (ready, say_ready, looked, say_looked):
        os.close(descriptor)


def test_in_memory_it_is_the_same_until_the_process_ends() -> None:
    spool = MemorySpool(250)
    for number in range(4):
        spool.append(bytes([number]) * 100)
    assert [batch[0] for batch in contents(spool)] == [2, 3]
    assert spool.dropped == 2
    spool.strike_off(next(spool.waiting()))
    spool.bury(next(spool.waiting()), "no")
    assert contents(spool) == []


def test_a_process_whose_segment_another_one_dropped_loses_nothing_more(tmp_path: Path) -> None:
    ours, other = spool_in(tmp_path, limit=80_000), spool_in(tmp_path, limit=80_000)
    ours.append(b"first")
    for number in range(20):
        other.append(bytes([number]) * 9_000)
    assert ours.append(b"second") is True
    assert b"second" in contents(ours)
    assert other.dropped > 0


def test_what_a_full_spool_does_not_take_stays_a_dead_letter(tmp_path: Path) -> None:
    spool = spool_in(tmp_path, limit=250, drop="newest")
    spool.append(b"a" * 100)
    spool.bury(next(spool.waiting()), "no")
    for _ in range(3):
        spool.append(b"b" * 100)
    assert spool.replay() == 0
    assert [reason for _, reason in spool.letters()] == ["no"]


def test_a_wrong_length_is_noticed_and_zeros_are_no_batches(tmp_path: Path) -> None:
    spool = spool_in(tmp_path)
    for number in range(3):
        spool.append(bytes([65 + number]) * 50)
    spool.close()
    (segment,) = spool.segments()
    whole = bytearray(segment.read_bytes())
    whole[whole.index(b"B" * 50) - 6] = 7  # the length's second byte: now it is longer than what is left
    segment.write_bytes(whole + bytes(4096))
    assert contents(spool) == [b"A" * 50]
    spool.strike_off(next(spool.waiting()))
    spool.sweep()
    assert (spool.dropped, spool.segments()) == (1, [])
    assert spool.clear() == 1
    assert not list(spool.dead.glob("*.damaged"))


def test_a_full_disk_lets_what_was_delivered_be_struck_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = spool_in(tmp_path)
    spool.append(b"delivered")
    opened = os.open

    def no_new_files(path: Any, flags: int, *rest: Any) -> int:
        if flags & os.O_CREAT and not os.path.exists(path):
            raise OSError(errno.ENOSPC, "no space")
        return opened(path, flags, *rest)

    monkeypatch.setattr(os, "open", no_new_files)
    spool.strike_off(next(spool.waiting()))
    assert contents(spool) == []
