"""Figures of a task: calls, errors, latency, feedback and how often the output was right, by any segment."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loopkit._prices import Price
from loopkit.observe.prices import prices, total_cost
from loopkit.signals.calls import calls_and_statements, expected_output, outcome
from loopkit.signals.state import held
from loopkit.statistics.paired import effective_size, quantile, wilson
from loopkit.store.locate import open_store
from loopkit.store.sqlite import Store
from loopkit.types import Feedback, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One segment of a task's calls. Each call weighs one over the probability with which it was recorded."""

    segment: str
    calls: int
    """That took place; an estimate where calls are sampled, as errors and tokens are then."""
    recorded: int
    """That are here."""
    errors: int
    judged: int
    """Recorded calls that somebody said was right or wrong, or rated."""
    right: float
    """Their mean outcome: 1 for right, 0 for corrected or called wrong; NaN without any."""
    low: float
    high: float
    latency_p50: float
    latency_p95: float
    input_tokens: int
    output_tokens: int
    cost: float | None
    """US dollars; None where a price isn't known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A call that was called wrong: what it said, what it should have said."""

    span: Span
    expected: object
    comment: str | None


def figures(task: str, *, by: str = "variant", store: Store | None = None) -> list[Figures]:
    """A row for each value of a segment, largest first.

    `by` is "variant", "all", or the name of a tag: "segment" groups by tags `segment:…`. Raises `NotFound` for
    an unknown task.
    """
    store = store or open_store()
    store.check_task(task)
    calls, said = _calls(store, task)
    model_calls = _model_calls(store, task)
    groups: dict[str, list[Span]] = defaultdict(list)
    for call in calls:
        groups[_segment(call, by)].append(call)
    own = prices(store)
    rows = [_row(name, spans, said, model_calls, own) for name, spans in groups.items()]
    return sorted(rows, key=lambda row: (-row.calls, row.segment))


def failures(task: str, *, newest: int = 20, store: Store | None = None) -> list[Failure]:
    """The latest calls that were called wrong."""
    store = store or open_store()
    store.check_task(task)
    calls, said = _calls(store, task)
    found: list[Failure] = []
    for call in reversed(calls):
        events = said.get(call.id, ())
        if outcome(call, events) == 0.0:
            expected, _ = expected_output(call, events)
            comment = next((e.comment for e in reversed(events) if e.comment), None)
            found.append(Failure(span=call, expected=expected, comment=comment))
    return found[:newest]


def confusion(task: str, *, variant: str | None = None, store: Store | None = None) -> dict[tuple[str, str], int]:
    """How often each output stood where each other was expected: (expected, output) to a count."""
    store = store or open_store()
    store.check_task(task)
    calls, said = _calls(store, task)
    counts: Counter[tuple[str, str]] = Counter()
    for call in calls:
        if variant is not None and call.variant != variant:
            continue
        expected, why_not = expected_output(call, said.get(call.id, ()))
        if why_not is None:
            counts[str(expected), str(call.output)] += 1
    return dict(counts)


def _calls(store: Store, task: str) -> tuple[list[Span], dict[str, list[Feedback]]]:
    return calls_and_statements(task, store.spans(task=task), held(store))


def _segment(call: Span, by: str) -> str:
    if by == "all":
        return "all"
    if by == "variant":
        return call.variant or "(none)"
    return next((tag.partition(":")[2] for tag in call.tags if tag.startswith(f"{by}:")), "(none)")


def _model_calls(store: Store, task: str) -> dict[str, list[Span]]:
    by_trace: dict[str, list[Span]] = defaultdict(list)
    for span in store.spans(task=task, kind="llm"):
        by_trace[span.trace_id].append(span)
    return by_trace


def _row(
    name: str,
    calls: Sequence[Span],
    said: dict[str, list[Feedback]],
    model_calls: dict[str, list[Span]],
    own: Mapping[tuple[str, str], Price],
) -> Figures:
    weights = [call.weight for call in calls]
    outcomes = [(outcome(call, said.get(call.id, ())), weight) for call, weight in zip(calls, weights, strict=True)]
    judged = [(value, weight) for value, weight in outcomes if value is not None]
    total = sum(weight for _, weight in judged)
    right = sum(value * weight for value, weight in judged) / total if judged else float("nan")
    size = effective_size([weight for _, weight in judged])
    low, high = wilson(right * size if judged else 0.0, size)
    durations = [call.duration for call in calls]
    made = [
        (span.model_call, span.weight)
        for trace in {call.trace_id for call in calls}
        for span in model_calls.get(trace, ())
        if span.model_call is not None
    ]
    return Figures(
        segment=name,
        calls=round(sum(weights)),
        recorded=len(calls),
        errors=round(sum(call.weight for call in calls if call.status == "error")),
        judged=len(judged),
        right=right,
        low=low,
        high=high,
        latency_p50=quantile(durations, 0.5, weights),
        latency_p95=quantile(durations, 0.95, weights),
        input_tokens=round(sum((call.usage.input_tokens or 0) * weight for call, weight in made)),
        output_tokens=round(sum((call.usage.output_tokens or 0) * weight for call, weight in made)),
        cost=total_cost(made, own),
    )
