"""What came of a router's decisions: for policies that learn, for the learned router, and for what another would have
earned."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from loopkit._prices import cost_of
from loopkit.observe.guarding import texts_of
from loopkit.observe.prices import prices
from loopkit.route.dropin import TEXT
from loopkit.route.source import Logged
from loopkit.signals.calls import calls_and_statements, outcome
from loopkit.signals.state import held
from loopkit.store.locate import open_store
from loopkit.store.sqlite import Store
from loopkit.types import JSON, Span
from loopkit.wire import names


def logged(
    task: str, *, since: int | None = None, newest: int | None = None, store: Store | None = None
) -> list[Logged]:
    """The task's whole calls that a router has decided, oldest first, each with what came of it so far.

    `since` is in nanoseconds since the epoch; `newest` leaves all but the last so many spans unread. A call's reward is
    its outcome as everywhere (corrected or not, else the weightiest vote); one whose variant failed has 0, whatever the
    default then answered. Failures are known without anybody's word: of those that nobody judged as many have their 0
    as would have been judged, had they been answers (the draw is the span id's own), or whoever fails would look far
    worse than it is.
    """
    store = store or open_store()
    spans = store.spans(task=task, since=since, newest=newest)
    calls, said = calls_and_statements(task, spans, held(store))
    decided = [call for call in calls if call.variant is not None and call.kind != "route"]
    costs = _costs(decided, spans, store)
    outcomes = {call.id: outcome(call, said.get(call.id, ())) for call in decided}
    answered = [call for call in decided if not has_failed(call)]
    judged = sum(outcomes[call.id] is not None for call in answered) / len(answered) if answered else 1.0
    return [
        Logged(
            id=call.id,
            at=call.started_at,
            variant=call.variant or "",
            propensity=call.propensity,
            inputs=_inputs(call),
            reward=_reward(call, outcomes[call.id], judged),
            seconds=call.duration,
            cost=costs.get(call.id),
            failed=has_failed(call),
            weight=call.weight,
            user_id=call.user_id,
            session_id=call.session_id,
            tags=call.tags,
            metadata=call.metadata,
        )
        for call in decided
    ]


def _reward(call: Span, said: float | None, judged: float) -> float | None:
    if not has_failed(call):
        return said
    is_judged = said is not None or int(call.span_id, 16) / 2**64 < judged
    return 0.0 if is_judged else None


def has_failed(call: Span) -> bool:
    """Whether the variant that was drawn failed, even where the default then answered."""
    return call.status == "error" or bool(call.attributes.get(names.ROUTE_FALLBACK))


def _inputs(call: Span) -> Mapping[str, JSON]:
    """A task's by name; of a model's call what it was asked, as a policy saw it."""
    if call.model_call is not None:
        return {TEXT: "\n".join(text for text, tool in texts_of(call, "input") if tool is None)}
    given: Any = call.input  # isinstance makes a mapping of unknown types; this stays Any
    return given if isinstance(call.input, Mapping) else {}


def _costs(calls: Sequence[Span], spans: Sequence[Span], store: Store) -> dict[str, float]:
    """Of each call what the model calls in it cost, where all their prices are known."""
    own = prices(store)
    by_id = {span.id: span for span in spans}
    tops = {call.id for call in calls}
    found: dict[str, list[float | None]] = defaultdict(list)
    for span in spans:
        if span.model_call is None:
            continue
        above: Span | None = span
        while above is not None and above.id not in tops:
            above = None if above.parent_id is None else by_id.get(f"{above.trace_id}-{above.parent_id}")
        if above is not None:
            found[above.id].append(cost_of(span.model_call, own))
    return {id: sum(cost or 0.0 for cost in each) for id, each in found.items() if None not in each}
