"""Interleaved rounds, medians, ratios: machines are shared and noisy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cost:
    """Microseconds a call, one figure a round: on the calling thread (the round's median), and CPU of all threads."""

    p50: list[float]
    cpu: list[float]


def nothing() -> None:
    """Where a case needs no starting or settling."""


@dataclass(frozen=True)
class Case:
    """A call, and what stands around a round of it. Only `call` and `settle` are measured."""

    call: Callable[[], object]
    start: Callable[[], object] = field(default=nothing)
    settle: Callable[[], object] = field(default=nothing)
    """Waits until what was queued has been delivered."""


def rounds(cases: Mapping[str, Case], *, calls: int, repeat: int = 5) -> dict[str, Cost]:
    """Each case in turn, `repeat` times, after a round that warms up."""
    costs = {name: Cost([], []) for name in cases}
    for number in range(repeat + 1):
        for name, case in cases.items():
            case.start()
            before = time.process_time_ns()
            times = []
            for _ in range(calls):
                started = time.perf_counter_ns()
                case.call()
                times.append(time.perf_counter_ns() - started)
            case.settle()
            used = time.process_time_ns() - before
            if number:
                costs[name].p50.append(statistics.median(times) / 1000)
                costs[name].cpu.append(used / 1000 / calls)
    return costs


def ratio(part: list[float], whole: list[float]) -> float:
    """The median of the rounds' ratios: a machine that slows down slows down both."""
    return statistics.median(a / b for a, b in zip(part, whole, strict=True))


def against(costs: Mapping[str, Cost], reference: str) -> list[dict[str, object]]:
    """Rows with ratios to a reference, after the cost of the bare call was taken off."""
    bare, base = costs["bare"], costs[reference]
    rows: list[dict[str, object]] = []
    for name, cost in costs.items():
        row: dict[str, object] = {"case": name}
        for label, own, its, free in (
            ("p50", cost.p50, base.p50, bare.p50),
            ("CPU of all threads", cost.cpu, base.cpu, bare.cpu),
        ):
            extra = [a - b for a, b in zip(own, free, strict=True)]
            row[f"{label}, µs"] = round(statistics.median(own), 1)
            row[f"extra {label}, µs"] = round(statistics.median(extra), 1)
            reference_extra = [a - b for a, b in zip(its, free, strict=True)]
            row[f"extra {label} × {reference}"] = round(ratio(extra, reference_extra), 2)
        rows.append(row)
    return rows


def markdown(title: str, rows: list[dict[str, object]]) -> str:
    """A table: the first row's keys are its head."""
    head = list(rows[0])
    lines = [f"## {title}\n", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(row.get(name, "")) for name in head) + " |" for row in rows]
    return "\n".join(lines) + "\n"
