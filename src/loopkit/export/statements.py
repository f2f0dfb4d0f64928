"""Feedback as OpenTelemetry has it: the attributes of `gen_ai.evaluation.result`, and a small span that bears them.

The conventions want a log event below the span that is meant; backends that take no logs get a span there instead.
https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-events/
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from loopkit._ids import is_span_id
from loopkit.config import Signal
from loopkit.types import Feedback, Span
from loopkit.wire import names
from loopkit.wire.encode import encode_span
from loopkit.wire.messages import dumps

EVENT: Final = "gen_ai.evaluation.result"
_NAME: Final = "feedback "


def encode_statement(
    event: Feedback, values: Mapping[str, Any], trace_id: int | None = None, parent_id: int | None = None
) -> bytes:
    """A span of no length for the event, below the one that it is about; of a trace of its own where that isn't known.

    The same event gives the same bytes.
    """
    made = hashlib.blake2b(event.id.encode("utf-8", "replace"), digest_size=24).digest()
    at = min(event.at, event.arrived_at)
    span = Span(
        trace_id=f"{int.from_bytes(made[:16], 'big') if trace_id is None else trace_id:032x}",
        span_id=made[16:].hex(),
        parent_id=None if parent_id is None else f"{parent_id:016x}",
        name=f"{_NAME}{event.name}",
        kind="evaluation",
        started_at=at,
        ended_at=at,
        attributes=values,
    )
    return encode_span(span).exported(content=False)


def is_statement(span: Any) -> bool:
    """Whether a span (of OTLP's) is such a one, whatever a destination calls its attributes."""
    return bool(span.name.startswith(_NAME) and span.start_time_unix_nano == span.end_time_unix_nano)


def shown(event: Feedback, *, content: bool, signals: Mapping[str, Signal]) -> Feedback:
    """The event as others may see it. Words are content, but those that a declared signal lists."""
    if content:
        return event
    declared = signals.get(event.name)
    is_listed = declared is not None and event.value in declared.range
    value = event.value if is_listed or not isinstance(event.value, str) else None
    return replace(event, value=value, correction=None, comment=None, reason=None, metadata={})


def statement_values(event: Feedback, *, content: bool, signals: Mapping[str, Signal]) -> dict[str, Any]:
    """The attributes of an event, as others may see it."""
    event = shown(event, content=content, signals=signals)
    value = event.value
    label = str(value).lower() if isinstance(value, bool) else value if isinstance(value, str) else None
    session = event.whole.removeprefix("session:") if event.whole.startswith("session:") else None
    is_response = ":" not in event.whole and not is_span_id(event.whole)
    values: dict[str, Any] = {
        names.EVALUATION_NAME: event.name,
        names.EVALUATION_SCORE: float(value) if isinstance(value, (bool, float, int)) else None,
        names.EVALUATION_LABEL: label,
        names.EVALUATION_EXPLANATION: event.comment,
        names.RESPONSE_ID: event.whole if is_response else None,
        names.SESSION_ID: session,
        names.FEEDBACK_ID: event.id,
        names.FEEDBACK_TARGET: event.target,
        names.FEEDBACK_SOURCE: event.source,
        names.FEEDBACK_KIND: event.kind,
        names.FEEDBACK_BY: event.by,
        names.FEEDBACK_WEIGHT: event.weight,
        names.FEEDBACK_PREFERRED_OVER: event.preferred_over,
        names.FEEDBACK_RANKING: list(event.ranking) or None,
        names.FEEDBACK_SUPERSEDES: event.supersedes,
        names.FEEDBACK_RETRACTS: event.retracts,
    }
    if event.correction is not None:
        said = event.correction
        values[names.FEEDBACK_CORRECTION] = said if isinstance(said, str) else dumps(said)
    return {name: value for name, value in values.items() if value is not None}
