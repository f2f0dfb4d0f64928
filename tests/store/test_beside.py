"""Feedback while the store is held by somebody, or the disk is full: it is kept, once, and nobody waits for it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import loopkit
from loopkit import _assemble
from loopkit.store.beside import waiting_beside
from loopkit.store.sqlite import FILE, Store


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
_assemble._APPEND_SECONDS = 0.05
loopkit.init("svc")
loopkit.flush()
other = sqlite3.connect(sys.argv[1], isolation_level=None)
other.execute("BEGIN EXCLUSIVE")
for number in range(20):
    loopkit.feedback(f"order:{number}", "helpful", True)
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
    from loopkit.store.beside import Beside
    from loopkit.types import Feedback

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
    full = clean_environment / f"feedback-{os.getpid()}.waiting"
    full.symlink_to("/dev/full")
    with held(clean_environment):
        loopkit.feedback("order:1", "helpful", True)
        assert not loopkit.flush()
        full.unlink()  # reading it would never end
    assert loopkit.flush()
    assert [event.target for event in loopkit.open_store().feedback()] == ["order:1"]
