"""From captured calls and the folded feedback to examples: what the output should have been, and who says so."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from loopkit._json import as_text, canonical
from loopkit.signals.calls import calls_and_statements, corrects, decisive, disagree, expected_output, judges
from loopkit.signals.credit import Method, StepJudge
from loopkit.signals.state import held
from loopkit.store.sqlite import Store
from loopkit.types import Example, Feedback, Span

_NOBODY: Mapping[str, float] = {}


@dataclass(frozen=True, slots=True)
class Selection:
    """Examples without a split yet, and what was left out."""

    examples: list[Example]
    calls: int
    left_out: Mapping[str, int]
    conflicts: int
    """Calls on which people disagreed; the most trusted, then the latest word was taken."""


def from_feedback(
    store: Store, task: str, *, credit: Method | StepJudge | None = None, trusted: Mapping[str, float] = _NOBODY
) -> Selection:
    """An example for each call of the task whose right output is known: corrected, or called good.

    `trusted` are shown signals that stand for a verdict where nobody said anything, with their weights.
    """
    spans = store.spans(task=task)
    shown = _shown(store, spans) if credit == "touched" else {}
    calls, said = calls_and_statements(task, spans, held(store), credit=credit, shown=shown)
    left_out: Counter[str] = Counter()
    examples: list[Example] = []
    conflicts = 0
    for call in calls:
        events = said.get(call.id, [])
        expected, why_not = _expected(call, events, trusted)
        conflicts += disagree(events)
        if why_not is not None:
            left_out[why_not] += 1
        else:
            examples.append(_example(call, expected, events, _weight(decisive(events, trusted=trusted), trusted)))
    return Selection(examples, len(calls), dict(left_out), conflicts)


def _shown(store: Store, spans: Sequence[Span]) -> dict[str, str]:
    """What users saw in the end: of each trace the root's output."""
    traces = {span.trace_id for span in spans}
    roots = (span for span in store.spans(trace_ids=traces) if span.parent_id is None and span.output is not None)
    return {root.trace_id: as_text(root.output) for root in roots}


def _expected(call: Span, events: Sequence[Feedback], trusted: Collection[str]) -> tuple[object, str | None]:
    if call.status != "ok":
        return None, "that failed or were stopped"
    if not isinstance(call.input, dict) or call.content_status != "kept":
        return None, "without recorded inputs"
    if not events:
        return None, "without feedback"
    return expected_output(call, events, trusted=trusted)


def _weight(said: Feedback | None, trusted: Mapping[str, float]) -> float:
    """Of an example: what was said of it weighs, and, where that was only shown, how far the signal is to be
    trusted."""
    if said is None:
        return 1.0
    own = 1.0 if said.weight is None else said.weight
    return own if judges(said) or corrects(said) else own * trusted.get(said.name, 1.0)


def _example(call: Span, expected: object, events: Sequence[Feedback], weight: float) -> Example:
    inputs = call.input
    rejected = call.output if expected != call.output else None
    digest = hashlib.sha256(canonical([inputs, expected, call.id]).encode()).hexdigest()
    return Example(
        id=digest[:16],
        input=inputs,
        expected=expected,
        chosen=expected if rejected is not None else None,
        rejected=rejected,
        group=call.user_id or call.session_id or call.id,
        spans=(call.id,),
        feedback=tuple(event.id for event in events),
        weight=weight,
        at=call.started_at,
    )
