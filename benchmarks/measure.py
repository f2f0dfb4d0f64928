"""Interleaved rounds, medians, ratios: machines are shared and noisy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Microseconds a call: on the calling thread (median of rounds of the median call), and CPU of all threads."""

    p50: float
    cpu: float


def rounds(
    cases: Mapping[str, Callable[[], object]], *, calls: int, settle: Callable[[str], object], repeat: int = 5
) -> dict[str, Cost]:
    """Each case in turn, `repeat` times; `settle` waits until what a case queued has been delivered."""
    walls: dict[str, list[float]] = {name: [] for name in cases}
    cpus: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(repeat + 1):
        for name, case in cases.items():
            before = time.process_time_ns()
            times = []
            for _ in range(calls):
                started = time.perf_counter_ns()
                case()
                times.append(time.perf_counter_ns() - started)
            settle(name)
            if number:  # the first round warms up
                walls[name].append(statistics.median(times) / 1000)
                cpus[name].append((time.process_time_ns() - before) / 1000 / calls)
    return {name: Cost(statistics.median(walls[name]), statistics.median(cpus[name])) for name in cases}


def markdown(title: str, costs: Mapping[str, Cost], *, reference: str) -> str:
    """A table with ratios to a reference, after the cost of the bare call was taken off."""
    bare = costs["bare"]
    extra = {name: Cost(cost.p50 - bare.p50, cost.cpu - bare.cpu) for name, cost in costs.items()}
    lines = [
        f"## {title}\n",
        f"| case | p50, µs | extra, µs | × {reference} | CPU of all threads, µs | extra, µs | × {reference} |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, cost in costs.items():
        own, base = extra[name], extra[reference]
        lines.append(
            f"| {name} | {cost.p50:.1f} | {own.p50:.1f} | {own.p50 / base.p50:.2f} | {cost.cpu:.1f} | {own.cpu:.1f} "
            f"| {own.cpu / base.cpu:.2f} |"
        )
    return "\n".join(lines) + "\n"
