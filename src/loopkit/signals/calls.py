"""What was said of whole calls: feedback on a model call below a task's span counts for the call.

Pure functions over spans and the fold's state: datasets, figures and rollouts all read feedback through them, so
that "right" means one thing everywhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from loopkit._json import canonical
from loopkit.signals.credit import Method, StepJudge, credits
from loopkit.signals.fold import State
from loopkit.signals.rewards import MEANINGS, reward_of
from loopkit.types import Feedback, Span

_TRUST = {"reviewer": 2, "user": 1}
_CALL_KINDS = ("task", "agent", "llm")
_NOTHING_SHOWN: Final[Mapping[str, str]] = {}


def calls_and_statements(
    task: str,
    spans: Iterable[Span],
    state: State,
    *,
    credit: Method | StepJudge | None = "last",
    shown: Mapping[str, str] = _NOTHING_SHOWN,
) -> tuple[list[Span], dict[str, list[Feedback]]]:
    """The task's whole calls, oldest first, and by call id what is held to be said of it, oldest first.

    A whole call is the outermost span of the task, of kind task, agent or llm. What is said of a trace or a session is
    said of the calls in it that had begun by then and that `credit` names, of each with its part as the weight, where
    nobody said anything of such a call itself, or of its trace. A correction of a whole trace is one of its root alone.
    `shown` is what users saw in the end, by trace.
    """
    of_task = [span for span in spans if span.task == task]
    by_id = {span.id: span for span in of_task}
    tops = {span.id: _outermost(span, by_id) for span in of_task}
    calls = [span for span in of_task if tops[span.id] == span.id and span.kind in _CALL_KINDS]
    said: dict[str, list[Feedback]] = defaultdict(list)
    wider: dict[str, list[Feedback]] = {"trace": [], "session": []}
    for (target, *_), event in state.current.items():
        if target in tops:
            said[tops[target]].append(event)
        elif (level := target.partition(":")[0]) in wider:
            wider[level].append(replace(event, target=target))
    for events in wider.values():
        told = {id for id, each in said.items() if any(map(_is_verdict, each))}
        for id, event in _credited(calls, events, credit, shown):
            if id not in told:
                said[id].append(event)
    for events in said.values():
        events.sort(key=_order)
    return calls, said


def _credited(
    calls: Sequence[Span], wider: Sequence[Feedback], credit: Method | StepJudge | None, shown: Mapping[str, str]
) -> Iterator[tuple[str, Feedback]]:
    """What was said of whole traces and sessions, by call."""
    if not wider:
        return
    steps: dict[str, list[Span]] = defaultdict(list)
    for call in sorted(calls, key=lambda call: (call.started_at, call.id)):
        steps[f"trace:{call.trace_id}"].append(call)
        if call.session_id is not None:
            steps[f"session:{call.session_id}"].append(call)
    for event in wider:
        everyone = steps.get(event.target, [])
        at = min(event.at, event.arrived_at)
        found = [call for call in everyone if call.started_at <= at] or everyone  # early: of what it was about then
        seen = shown.get(found[-1].trace_id) if found else None
        for call, part in zip(found, credits(found, event, credit, shown=seen), strict=True):
            if part:
                weight = event.weight if part == 1.0 else (1.0 if event.weight is None else event.weight) * part
                correction = event.correction if call.parent_id is None else None
                yield call.id, replace(event, weight=weight, correction=correction)


def expected_output(
    call: Span, events: Sequence[Feedback], *, trusted: Collection[str] = ()
) -> tuple[object, str | None]:
    """What the output should have been, or None and why that isn't known.

    A correction counts before a vote, a reviewer's word before a user's, the later before the earlier. `trusted` are
    the names of shown signals that were found to tell good from bad (`Calibration.trains`): they stand for a verdict
    too.
    """
    found = decisive(events, trusted=trusted)
    if found is None:
        return None, "with feedback that names no right output"
    if corrects(found) or (found.name in trusted and found.correction is not None):
        return found.correction, None
    good = goodness(found)
    if good == 1.0:
        return call.output, None
    return None, "called wrong without a correction" if good == 0.0 else "with feedback that names no right output"


def decisive(events: Sequence[Feedback], *, trusted: Collection[str] = ()) -> Feedback | None:
    """The statement that counts of these: a correction before a vote, then by trust and time.

    What people only showed, of trusted signals, counts where nobody said anything, and where it is definite.
    """
    corrections = [e for e in events if corrects(e)]
    votes = [e for e in events if judges(e) and goodness(e) is not None]
    shown = [e for e in events if e.name in trusted and e.correction_status != "rejected"]
    definite = [e for e in shown if e.correction is not None or goodness(e) in (0.0, 1.0)]
    return max(corrections or votes or definite, key=_weight, default=None)


def outcome(call: Span, events: Sequence[Feedback]) -> float | None:
    """How good a call was, between 0 and 1; None where nobody said.

    Corrected or not, else the weightiest vote or rating.
    """
    found = decisive(events)
    if found is None:
        return None
    return float(found.correction == call.output) if corrects(found) else goodness(found)


def judges(event: Feedback) -> bool:
    """Whether its value says that a call was good or bad. What people only show is to be calibrated before it does."""
    meaning = MEANINGS.get(event.name)
    is_shown = event.kind != "explicit" if meaning is None else meaning.kind != "explicit"
    return event.name == "outcome" or not is_shown


def corrects(event: Feedback) -> bool:
    """Whether it says what the output should have been. What became of it counts when somebody has accepted that."""
    if event.correction is None or event.correction_status == "rejected":
        return False
    return judges(event) or event.correction_status == "accepted"


def goodness(event: Feedback) -> float | None:
    """How good it calls a call, from 0 to 1: by the table of meanings, else a yes, a no, or a number in between."""
    if event.name in MEANINGS:
        found = reward_of(event)
        return None if found is None else (found.value + 1) / 2
    is_between = isinstance(event.value, (bool, float)) and 0 <= event.value <= 1
    return float(event.value or 0) if is_between else None


def _is_verdict(event: Feedback) -> bool:
    return corrects(event) or (judges(event) and goodness(event) is not None)


def first_outcome(call: Span, events: Sequence[Feedback]) -> tuple[int, float] | None:
    """When a call's outcome was first known (nanoseconds, by arrival), and what it was then."""
    arrived = sorted(events, key=lambda event: (event.arrived_at, event.id))
    for number, event in enumerate(arrived, start=1):
        value = outcome(call, arrived[:number])
        if value is not None:
            return event.arrived_at, value
    return None


def disagree(events: Sequence[Feedback]) -> bool:
    """Whether people said different things of one call."""
    corrections = {canonical(e.correction) for e in events if corrects(e)}
    votes = {e.value for e in events if isinstance(e.value, bool) and judges(e)}
    return len(corrections) > 1 or len(votes) > 1


def _outermost(span: Span, by_id: Mapping[str, Span]) -> str:
    while span.parent_id is not None:
        parent = by_id.get(f"{span.trace_id}-{span.parent_id}")
        if parent is None:
            break
        span = parent
    return span.id


def _weight(event: Feedback) -> tuple[int, bool, tuple[int, str]]:
    return _TRUST.get(event.source, 0), event.correction_status == "accepted", _order(event)


def _order(event: Feedback) -> tuple[int, str]:
    return min(event.at, event.arrived_at), event.id
