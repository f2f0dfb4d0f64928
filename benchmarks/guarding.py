"""What a guard costs its caller: around a call, beside one, and in a stream; without recording."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from typing import Any

import httpx2
from openai import AsyncOpenAI, OpenAI

import loopkit
from benchmarks.clients import CHUNKS, MESSAGES, _call, _client
from benchmarks.measure import Case, rounds
from loopkit import checks
from loopkit.checks import Trip
from loopkit.testing import chat_completion

CHECK_SECONDS, CALL_SECONDS = 0.3, 0.8
TEXT = ("My card was declined twice on Monday, and nobody could tell me why. " * 15)[:1000]


def rows() -> list[dict[str, object]]:
    """The table."""
    guard = loopkit.Guard(input=[checks.pii(), checks.secrets(), checks.injection()])
    plain, guarded = (lambda text: text), loopkit.trace(guard=guard)(lambda text: text)
    costs = rounds({"plain": Case(lambda: plain(TEXT)), "guarded": Case(lambda: guarded(TEXT))}, calls=300, repeat=9)
    around = statistics.median(b - a for a, b in zip(costs["plain"].p50, costs["guarded"].p50, strict=True))

    bare = _client()
    watched = loopkit.wrap(_client(), guard=loopkit.Guard(output=[checks.pii(), checks.secrets()]))
    cases = {
        name: Case(lambda client=each: _call(client, True)) for name, each in (("bare", bare), ("guarded", watched))
    }
    streams = rounds(cases, calls=4, repeat=9)
    chunk = statistics.median(b - a for a, b in zip(streams["bare"].cpu, streams["guarded"].cpu, strict=True)) / CHUNKS

    return [
        {"case": "the default input checks, 1,000 characters, µs", "median": round(around)},
        {"case": "a chunk of a stream under pii() and secrets(), µs", "median": round(chunk)},
        {"case": "the same chunk in the OpenAI client itself, µs", "median": round(
            statistics.median(streams["bare"].cpu) / CHUNKS
        )},
        {"case": "async: added by a parallel check of 300 ms to a call of 800 ms, ms", "median": added(_async)},
        {"case": "sync: added by a parallel check of 300 ms to a call of 800 ms, ms", "median": added(_sync)},
        {"case": "async: from the verdict to the caller's release, ms", "median": released(_async)},
        {"case": "sync: from the verdict to the caller's release, ms", "median": released(_sync)},
    ]  # fmt: skip


def added(call: Callable[[Any], None]) -> float:
    """What a check that passes adds to a call that takes longer than it, milliseconds."""
    found: list[float] = []
    for _ in range(8):
        times: list[float] = []
        for guard in (None, loopkit.Guard(input=[checks.passes(_waits(None, []), run="parallel")])):
            began = time.perf_counter()
            call(guard)
            times.append(time.perf_counter() - began)
        found.append(times[1] - times[0])
    return round(statistics.median(found) * 1000, 1)


def released(call: Callable[[Any], None]) -> float:
    """How long after its verdict a check that blocks has its caller go on, milliseconds."""
    found: list[float] = []
    for _ in range(8):
        said: list[float] = []
        try:
            call(loopkit.Guard(input=[checks.passes(_waits(Trip("block", "no"), said), run="parallel")]))
        except loopkit.Blocked:
            found.append(time.perf_counter() - said[0])
    return round(statistics.median(found) * 1000, 1)


def _waits(trip: Trip | None, said: list[float]) -> Any:
    async def looks(text: str) -> Trip | None:
        await asyncio.sleep(CHECK_SECONDS)
        said.append(time.perf_counter())
        return trip

    return looks


def _async(guard: Any) -> None:
    async def answer(request: httpx2.Request) -> httpx2.Response:
        await asyncio.sleep(CALL_SECONDS)
        return httpx2.Response(200, json=chat_completion("fine"))

    async def run() -> None:
        async with AsyncOpenAI(
            api_key="k", http_client=httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
        ) as client:
            if guard is not None:
                loopkit.wrap(client, guard=guard)
            await client.chat.completions.create(model="m", messages=MESSAGES)  # type: ignore[arg-type]

    asyncio.run(run())


def _sync(guard: Any) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        time.sleep(CALL_SECONDS)
        return httpx2.Response(200, json=chat_completion("fine"))

    client = OpenAI(api_key="k", http_client=httpx2.Client(transport=httpx2.MockTransport(answer)))
    if guard is not None:
        loopkit.wrap(client, guard=guard)
    client.chat.completions.create(model="m", messages=MESSAGES)  # type: ignore[arg-type]
