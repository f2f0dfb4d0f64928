"""Crashes and forks for real, in child processes."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import loopkit
from loopkit.store.sqlite import Store

WRITER = """
    import sys, loopkit
    loopkit.init("writer", export=["http://127.0.0.1:9/v1/traces"])
    for number in range(100_000):
        with loopkit.span(f"call {number}", task="t") as s:
            loopkit.feedback(s.id, "n", 1.0, key=str(number))
        if number % 3 == 0 and loopkit.flush():
            print(s.id, flush=True)
"""


def start(code: str, home: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "LOOPKIT_HOME": str(home)}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True, env=environment
    )


@pytest.mark.parametrize("seed", range(6))
def test_kill_9_loses_nothing_that_flush_acknowledged(seed: int, tmp_path: Path) -> None:
    process = start(WRITER, tmp_path)
    assert process.stdout is not None
    first = process.stdout.readline().strip()
    time.sleep(random.Random(seed).uniform(0.0, 0.6))
    process.send_signal(signal.SIGKILL)
    acknowledged = [first, *(line.strip() for line in process.stdout if line.endswith("\n"))]
    process.wait(10)
    process.stdout.close()
    store = Store(tmp_path)
    spans = {span.id for span in store.spans(task="t")}
    assert set(acknowledged) <= spans
    targets = [event.target for event in store.feedback()]
    assert set(acknowledged) <= set(targets)
    assert len(targets) == len(set(targets))
    spooled = b"".join(batch.data for spool in loopkit.spools(tmp_path).values() for batch in spool.waiting())
    for id in acknowledged:
        assert bytes.fromhex(id[33:]) in spooled


def test_a_forked_child_records_by_itself_and_repeats_nothing(tmp_path: Path) -> None:
    code = """
        import os, loopkit
        loopkit.init("forking")
        with loopkit.span("parent before", task="t"): pass
        child = os.fork()
        with loopkit.span("child" if child == 0 else "parent after", task="t"): pass
        assert loopkit.flush()
        if child == 0: os._exit(0)
        os.waitpid(child, 0)
    """
    process = start(code, tmp_path)
    assert process.wait(20) == 0
    names = sorted(span.name for span in Store(tmp_path).spans())
    assert names == ["child", "parent after", "parent before"]


def in_a_child(number: int) -> None:
    with loopkit.span(f"child {number}", task="t"):
        pass


def test_multiprocessing_children_flush_when_they_end(clean_environment: Path) -> None:
    loopkit.init("parent")
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=in_a_child, args=(number,)) for number in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(20)
    assert sorted(span.name for span in loopkit.open_store().spans()) == ["child 0", "child 1", "child 2"]


def test_leaving_without_shutdown_flushes(tmp_path: Path) -> None:
    process = start("import loopkit; loopkit.init('s')\nwith loopkit.span('last', task='t'): pass", tmp_path)
    assert process.wait(20) == 0
    assert [span.name for span in Store(tmp_path).spans()] == ["last"]


def test_a_dead_collector_does_not_hold_up_the_exit(tmp_path: Path) -> None:
    code = """
        import loopkit
        loopkit.init("s", export=["http://127.0.0.1:9/v1/traces"])
        for _ in range(2000):
            with loopkit.span("x", task="t"): pass
    """
    started = time.monotonic()
    process = start(code, tmp_path)
    assert process.wait(60) == 0
    assert time.monotonic() - started < 5 * 2.0 + 5  # the promise is 2 s; starting the interpreter comes on top
    assert [batch for spool in loopkit.spools(tmp_path).values() for batch in spool.waiting()]


FULL_DISK = """
    import loopkit, resource, sys
    loopkit.init("s")
    with loopkit.span("before", task="t"): pass
    assert loopkit.flush()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))
    import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for _ in range(100):
        with loopkit.span("during", task="t"): pass
    assert loopkit.flush(3) is False
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert loopkit.flush(5)
"""


def test_a_full_disk_never_reaches_the_application(tmp_path: Path) -> None:
    process = start(FULL_DISK.replace("(1, 1))", "(1, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))"), tmp_path)
    assert process.wait(30) == 0
    names = [span.name for span in Store(tmp_path).spans()]
    assert (names.count("before"), names.count("during")) == (1, 100)  # written when there was room again


FORKS_BESIDE_A_WRITER = """
import os, threading
from pathlib import Path
from loopkit.store.sqlite import Store
from loopkit.types import Feedback

store = Store(os.environ["LOOPKIT_HOME"])
stop = threading.Event()

def event(name):
    return Feedback(id=name, target="t", name="n", value=True, at=1, arrived_at=1)

def write():
    number = 0
    while not stop.is_set():
        store.append(None, [event(f"parent-{number}-{i}") for i in range(50)])
        number += 1

store.append(None, [event("first")])
writer = threading.Thread(target=write)
writer.start()
failed = 0
for number in range(40):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            store.append(None, [event(f"child-{number}")])
            status = 0
        finally:
            os._exit(status)
    failed += os.waitpid(child, 0)[1] != 0
stop.set()
writer.join()
print(failed, sum(event.id.startswith("child-") for event in store.feedback()))
"""


def test_children_forked_while_another_thread_writes_can_write(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS_BESIDE_A_WRITER],
        env={**os.environ, "LOOPKIT_HOME": str(tmp_path)}, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["0", "40"]
