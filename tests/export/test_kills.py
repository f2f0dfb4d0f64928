"""kill -9 at random moments: what must arrive does, and what comes twice is explained.

The model is short. `flush()` returned True for these spans: they are in the store once, and at the receiver at least
once. What comes twice comes as a whole batch, byte for byte the same: the window between acknowledgement and striking
off is the only one that allows it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import loopkit
from loopkit.store.sqlite import Store
from loopkit.wire.decode import decode_request
from tests.export.test_delivery import Collector, until

# One process that has imported everything forks a service for each line it reads, and kills it.
ZYGOTE = """
import json, os, signal, sys, time
import loopkit, httpx, tenacity
import loopkit._assemble, loopkit.export.otlp, loopkit.store.sqlite, loopkit.store.sink, loopkit.capture.decorator

def serve(plan, acknowledged):
    os.environ["LOOPKIT_HOME"] = plan["home"]
    loopkit.init("svc", export=[plan["endpoint"]])
    number, unflushed = 0, []
    while True:
        with loopkit.span(f"call {number}", task="t", input="x" * (number * 37 % 5000)) as s:
            pass
        unflushed.append(s.id)
        number += 1
        if number % plan["every"] == 0 and loopkit.flush():
            os.write(acknowledged, ("".join(id + "\\n" for id in unflushed)).encode())
            unflushed = []

for line in sys.stdin:
    plan = json.loads(line)
    found = []
    for lifetime in plan["lifetimes"]:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            try:
                serve(plan, write)
            finally:
                os._exit(1)
        os.close(write)
        time.sleep(lifetime)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(read) as pipe:
            found += [id for id in pipe.read().split("\\n")[:-1]]
    print(json.dumps(found), flush=True)
"""


@pytest.fixture(scope="module")
def zygote() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", ZYGOTE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(20) == 0


SCHEDULES = 50 if os.environ.get("HYPOTHESIS_PROFILE") == "search" else 12
"""200 kills in `make test-all`."""
lifetimes = st.floats(0.005, 0.16)
schedules = st.fixed_dictionaries(
    {"lifetimes": st.lists(lifetimes, min_size=4, max_size=4), "every": st.integers(1, 5)}
)
moods = st.lists(st.sampled_from(["takes it", "takes it", "not now", "hangs a little"]), min_size=1, max_size=6)


@settings(max_examples=SCHEDULES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schedules, moods)
def test_what_flush_acknowledged_is_never_lost(
    zygote: subprocess.Popen[str], schedule: dict[str, Any], moods: list[str]
) -> None:
    """Schedules of four kills each."""
    collector = Collector()
    stopped = threading.Event()

    def answer(number: int) -> Any:
        mood = "takes it" if stopped.is_set() else moods[number % len(moods)]
        if mood == "hangs a little":
            stopped.wait(0.05)
        return (503, {"retry-after": "0.02"}) if mood == "not now" else (200, {})

    collector.answers = answer
    with tempfile.TemporaryDirectory() as home:
        assert zygote.stdin is not None
        assert zygote.stdout is not None
        zygote.stdin.write(json.dumps({"home": home, "endpoint": collector.endpoint, **schedule}) + "\n")
        zygote.stdin.flush()
        acknowledged = json.loads(zygote.stdout.readline())
        stopped.set()
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("LOOPKIT_HOME", home)
            loopkit.init("svc", export=[collector.endpoint])
            until(lambda: not any(any(spool.waiting()) for spool in loopkit.spools(home).values()))
            loopkit.shutdown()
        stored = [span.id for span in Store(home).spans(task="t")]
        assert not list(Path(home).glob("spool/*/*.seg"))
    collector.stop()
    ids = [[span.id for span, _ in decode_request(body)] for body in collector.accepted]
    arrived = Counter(id for batch in ids for id in batch)
    assert set(acknowledged) <= set(stored)
    assert set(acknowledged) <= set(arrived)
    assert len(stored) == len(set(stored))
    for body, batch in zip(collector.accepted, ids, strict=True):
        if any(arrived[id] > 1 for id in batch):
            assert collector.accepted.count(body) == arrived[batch[0]]
