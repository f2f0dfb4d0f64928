"""5,000 calls a second for ten seconds: how long each takes, how late it is, and whether all of it arrives.

Calls come in bursts of five each millisecond, from one thread that sleeps in between, as an event loop does. A call is
late by the time from its millisecond to its end: that is where a worker that keeps the GIL for itself shows.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

from benchmarks.decorated import TICKET, batching, by_hand, fresh, work
from benchmarks.receiver import received, receiver

RATE = 5000
SECONDS = 10
BURST = 5


def rows() -> list[dict[str, object]]:
    """Five runs each, in turn; the median run by its 99 % quantile."""
    found: dict[str, list[dict[str, float]]] = {"otel-manual": [], "loopkit": []}
    for _ in range(5):
        for name, runs in found.items():
            with receiver() as endpoint:
                run = subprocess.run(
                    [sys.executable, "-m", "benchmarks.rate", name, endpoint], capture_output=True, check=True
                )
                runs.append({**json.loads(run.stdout), "delivered": received(endpoint) / (RATE * SECONDS)})
    table: list[dict[str, object]] = []
    reference = _middle(found["otel-manual"])
    for name, runs in found.items():
        run = _middle(runs)
        table.append(
            {
                "case": name,
                "p50, µs": round(run["p50"], 1),
                "p99, µs": round(run["p99"], 1),
                "p99 × otel-manual": round(run["p99"] / reference["p99"], 2),
                "late p99, µs": round(run["late"]),
                "late p99.9, µs": round(run["later"]),
                "CPU, %": round(run["cpu"] * 100),
                "delivered": f"{run['delivered']:.2%}",
            }
        )
    return table


def _middle(runs: list[dict[str, float]]) -> dict[str, float]:
    return sorted(runs, key=lambda run: run["p99"])[len(runs) // 2]


def _run(name: str, endpoint: str) -> dict[str, float]:
    if name == "otel-manual":
        provider, processor = batching(endpoint)
        call, end = by_hand(provider), processor.force_flush
    else:
        import loopkit
        from loopkit import _assemble
        from loopkit.config import Destination

        _assemble.start(fresh(export=[Destination(endpoint=endpoint, content=True)]))
        traced = loopkit.trace(work)
        call, end = (lambda: traced(TICKET)), lambda: loopkit.shutdown(60)
    for _ in range(200):
        call()
    time.sleep(1)
    durations, lateness = [], []
    cpu = time.process_time()
    start = time.perf_counter_ns() + 10_000_000
    for burst in range(RATE * SECONDS // BURST - 200 // BURST):
        due = start + burst * 1_000_000
        pause = due - time.perf_counter_ns()
        if pause > 0:
            time.sleep(pause / 1e9)
        for _ in range(BURST):
            began = time.perf_counter_ns()
            call()
            ended = time.perf_counter_ns()
            durations.append(ended - began)
            lateness.append(ended - due)
    cpu = time.process_time() - cpu
    end()
    durations.sort()
    lateness.sort()

    def at(values: list[int], q: float) -> float:
        return values[int(len(values) * q)] / 1000

    return {
        "p50": at(durations, 0.5), "p99": at(durations, 0.99), "late": at(lateness, 0.99),
        "later": at(lateness, 0.999), "cpu": cpu / SECONDS,
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(_run(sys.argv[1], sys.argv[2])))
