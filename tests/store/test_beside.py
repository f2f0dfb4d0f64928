"""Feedback while the store is held by somebody, or the disk is full: it is kept, once, and nobody waits for it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import loopkit
from loopkit import _assemble
from loopkit._json import to_json
from loopkit.store import beside
from loopkit.store.beside import Beside, waiting_beside
from loopkit.store.sqlite import FILE, Store
from loopkit.types import Feedback


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_assemble, "_APPEND_SECONDS", 0.05)


@contextmanager
def held(home: Path) -> Iterator[None]:
    """Another program has the store to itself."""
    other = sqlite3.connect(home / FILE, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def test_feedback_waits_beside_a_store_that_is_held(clean_environment: Path) -> None:
    loopkit.init("svc")
    loopkit.feedback("order:0", "helpful", True)
    assert loopkit.flush()
    with held(clean_environment):
        started = time.monotonic()
        for number in range(1, 6):
            with loopkit.span(f"call {number}"):
                loopkit.feedback(f"order:{number}", "helpful", True)
        assert time.monotonic() - started < 5
        loopkit.flush()
        assert waiting_beside(clean_environment) == 5
        loopkit.feedback("order:6", "helpful", True)
        loopkit.flush()
        assert waiting_beside(clean_environment) == 6  # behind spans that wait
    loopkit.feedback("order:7", "helpful", True)
    assert loopkit.flush()
    assert waiting_beside(clean_environment) == 0
    store = loopkit.open_store()
    assert sorted(event.target for event in store.feedback()) == [f"order:{number}" for number in range(8)]
    assert len(store.spans()) == 5
    health = loopkit.health()
    assert health is not None
    assert health.dropped == 0


SCRIPT = """
import os, signal, sqlite3, sys
import loopkit
from loopkit import _assemble
from loopkit._json import to_json
_assemble._APPEND_SECONDS = 0.05
loopkit.init("svc")
loopkit.flush()
other = sqlite3.connect(sys.argv[1], isolation_level=None)
other.execute("BEGIN EXCLUSIVE")
for number in range(20):
    with loopkit.span("call"):
        loopkit.feedback(f"order:{number}", "helpful", True)
    if number % 5 == 0:
        loopkit.flush()
loopkit.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_brought_over_once(clean_environment: Path) -> None:
    Store(clean_environment)
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(clean_environment / FILE)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert waiting_beside(clean_environment) == 20
    (left,) = clean_environment.glob("feedback-*.waiting")
    with left.open("ab") as file:
        file.write(b'{"id": "torn')
    for _ in range(2):
        loopkit.init("svc")
        loopkit.feedback("order:new", "helpful", True)
        loopkit.flush()
        loopkit.shutdown()
    targets = sorted(event.target for event in Store(clean_environment).feedback())
    assert targets == sorted([*(f"order:{number}" for number in range(20)), "order:new", "order:new"])
    assert not left.exists()


def test_a_living_processs_file_is_left_to_it(clean_environment: Path) -> None:
    store = Store(clean_environment)
    theirs, ours = Beside(clean_environment), Beside(clean_environment)
    theirs.append([Feedback(id="e1", target="t", name="n", value=True, at=1, arrived_at=1)])
    (path,) = clean_environment.glob("feedback-*.waiting")
    path.rename(clean_environment / "feedback-1.waiting")  # as if it were of another process
    ours.bring_over(lambda events: store.append(None, events))
    assert store.feedback() == []
    theirs.close()
    ours.bring_over(lambda events: store.append(None, events))
    assert [event.id for event in store.feedback()] == ["e1"]
    assert waiting_beside(clean_environment) == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_on_a_full_disk_it_waits_in_memory_and_is_not_lost(clean_environment: Path) -> None:
    loopkit.init("svc")
    loopkit.flush()
    full = clean_environment / "full"
    with held(clean_environment), pytest.MonkeyPatch.context() as patch:
        patch.setattr(beside, "_opened", lambda _: (full, Path("/dev/full").open("ab", buffering=0)))  # noqa: SIM115
        loopkit.feedback("order:1", "helpful", True)
        assert not loopkit.flush()
    assert loopkit.flush()
    assert [event.target for event in loopkit.open_store().feedback()] == ["order:1"]


def event(id: str) -> Feedback:
    return Feedback(id=id, target="t", name="n", value=True, at=1, arrived_at=1)


def test_two_containers_with_one_process_id_have_a_file_each(clean_environment: Path) -> None:
    store = Store(clean_environment)
    first, second = Beside(clean_environment), Beside(clean_environment)
    first.append([event("a1")])
    second.append([event("b1")])
    first.bring_over(lambda events: store.append(None, events))
    second.append([event("b2")])
    second.bring_over(lambda events: store.append(None, events))
    assert sorted(each.id for each in store.feedback()) == ["a1", "b1", "b2"]
    assert waiting_beside(clean_environment) == 0


def test_a_forked_child_brings_over_what_the_dead_left(clean_environment: Path) -> None:
    Store(clean_environment)
    script = """
        import os, loopkit
        from loopkit.store.beside import Beside
        from loopkit.types import Feedback
        loopkit.init("svc")
        loopkit.flush()
        child = os.fork()
        if not child:
            dead = Beside(loopkit.open_store().directory)
            dead.append([Feedback(id="e1", target="t", name="n", value=True, at=1, arrived_at=1)])
            dead.close()
            assert loopkit.flush()
            os._exit(0 if [e.id for e in loopkit.open_store().feedback()] == ["e1"] else 3)
        raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], timeout=60, check=False)
    assert done.returncode == 0


def test_flushing_brings_it_over(clean_environment: Path) -> None:
    loopkit.init("svc")
    loopkit.flush()
    with held(clean_environment):
        loopkit.feedback("order:1", "helpful", True)
        loopkit.flush()
        assert waiting_beside(clean_environment) == 1
    assert loopkit.flush()
    assert waiting_beside(clean_environment) == 0
    assert len(loopkit.open_store().feedback()) == 1


def test_what_cant_be_read_is_put_aside(clean_environment: Path) -> None:
    store = Store(clean_environment)
    (clean_environment / "feedback-1-a.waiting").write_bytes(
        b'{"what": "is this"}\n' + to_json(event("e1")).encode() + b"\n"
    )
    Beside(clean_environment).bring_over(lambda events: store.append(None, events))
    assert [each.id for each in store.feedback()] == ["e1"]
    (aside,) = clean_environment.glob("*.damaged")
    assert b"what" in aside.read_bytes()


def test_a_file_that_cant_be_brought_over_costs_no_batch(
    clean_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise FileNotFoundError("gone")

    loopkit.init("svc")
    monkeypatch.setattr(Beside, "bring_over", fail)
    with loopkit.span("once"):
        pass
    assert loopkit.flush()
    monkeypatch.undo()
    store = loopkit.open_store()
    with store.reading() as connection:
        assert connection.execute("SELECT count(*) FROM batch").fetchone() == (1,)
