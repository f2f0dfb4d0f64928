"""Feedback: on the calling thread, from many processes, folded, by token, and from browsers."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import loopkit
from loopkit import web
from loopkit.signals.fold import fold
from loopkit.signals.tokens import read_token
from loopkit.store.sqlite import Store
from loopkit.types import Feedback

CALLS = 2_000
EACH = 10_000
PROCESSES = 4
EVENTS = 1_000_000
REQUESTS = 6_000
TOGETHER = 64


@contextmanager
def home() -> Iterator[str]:
    """A store of its own."""
    with tempfile.TemporaryDirectory(prefix="loopkit-bench-") as directory:
        before = os.environ.get("LOOPKIT_HOME")
        os.environ["LOOPKIT_HOME"] = directory
        try:
            yield directory
        finally:
            loopkit.shutdown()
            if before is None:
                del os.environ["LOOPKIT_HOME"]
            else:
                os.environ["LOOPKIT_HOME"] = before


def _p50(call: Callable[[int], object], calls: int = CALLS) -> float:
    """Microseconds."""
    times: list[int] = []
    for number in range(calls):
        started = time.perf_counter_ns()
        call(number)
        times.append(time.perf_counter_ns() - started)
    return statistics.median(times) / 1000


def _say_many(directory: str, worker: int, barrier: Any) -> None:
    os.environ["LOOPKIT_HOME"] = directory
    loopkit.init("bench")
    barrier.wait()
    for number in range(EACH):
        loopkit.feedback(f"order:{worker}-{number}", "helpful", True)
        if number % 100 == 99:
            time.sleep(0.01)  # an application does other things too
    loopkit.flush(60)
    barrier.wait()


def _from_processes(directory: str) -> tuple[float, int, int]:
    """Events a second, how many came and how many of them twice."""
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(PROCESSES + 1)
    workers = [spawn.Process(target=_say_many, args=(directory, number, barrier)) for number in range(PROCESSES)]
    for worker in workers:
        worker.start()
    barrier.wait()
    started = time.perf_counter()
    barrier.wait()
    took = time.perf_counter() - started
    for worker in workers:
        worker.join()
    events = Store(directory).feedback()
    return len(events) / took, len(events), len(events) - len({event.target for event in events})


def _folded() -> float:
    """Seconds for a million events on a quarter as many targets."""
    events = [
        Feedback(
            id=f"{n:032x}", target=f"order:{n % (EVENTS // 4)}", name=("helpful", "stars")[n % 2], value=bool(n % 3),
            by=f"anon-{n % 5000}", at=n, arrived_at=n, key=f"k{n}" if n % 2 else None,
        )
        for n in range(EVENTS)
    ]  # fmt: skip
    started = time.perf_counter()
    fold(events)
    return time.perf_counter() - started


async def _requests() -> float:
    """Requests a second that the ASGI app answers, with what they said on disk, many at a time."""
    app = web.FeedbackApp(per_minute=10**9, per_address=10**9)
    statuses: list[int] = []

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def one(number: int) -> None:
        body = json.dumps({"t": tokens[number % 50], "n": "thumbs", "v": True, "id": str(number)}).encode()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        scope = {"type": "http", "method": "POST", "path": "/f", "headers": [], "client": ("127.0.0.1", 1)}
        await app(scope, receive, send)

    async def client(numbers: range) -> None:
        for number in numbers:
            await one(number)

    tokens = [loopkit.feedback_token(f"order:{n}") for n in range(50)]
    started = time.perf_counter()
    await asyncio.gather(*(client(range(start, REQUESTS, TOGETHER)) for start in range(TOGETHER)))
    took = time.perf_counter() - started
    if set(statuses) != {204}:
        raise RuntimeError(f"answers were {set(statuses)}")
    return REQUESTS / took


def rows() -> list[dict[str, object]]:
    """See the table."""
    found: list[dict[str, object]] = []

    def row(what: str, figure: float, unit: str, aim: str) -> None:
        found.append({"what": what, "measured": round(figure, 2), "unit": unit, "aim": aim})

    with home():
        loopkit.init("bench")
        row("feedback() by id, p50", _p50(lambda n: loopkit.feedback(f"order:{n}", "helpful", True)), "µs", "50")
        given: dict[str, Any] = {"comment": "too short", "by": "ana", "metadata": {"page": 3}}
        row(
            "feedback() with an author and more, p50",
            _p50(lambda n: loopkit.feedback(f"order:{n}", "stars", 4, **given)),
            "µs",
            "50",
        )
        row("feedback_token(), p50", _p50(lambda n: loopkit.feedback_token(f"order:{n}")), "µs", "30")
        token = loopkit.feedback_token("order:1")
        row("checking a token, p50", _p50(lambda _: read_token(token)), "µs", "30")
        row("requests with what they said on disk, 64 at a time", asyncio.run(_requests()), "a second", "1500")
    with home() as directory:
        loopkit.init("bench")
        loopkit.shutdown()
        rate, count, twice = _from_processes(directory)
        row(f"from {PROCESSES} processes into one store", rate, "a second", "5000")
        row("of 40,000 of them there", count, "events", "40000")
        row("there twice", twice, "events", "0")
    row("fold of 1,000,000 events", _folded(), "s", "10")
    return found
