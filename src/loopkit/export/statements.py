"""Feedback as OpenTelemetry has it: the attributes of `gen_ai.evaluation.result`, and a small span that bears them.

The conventions want a log event below the span that is meant; backends that take no logs get a span there instead.
https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-events/
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from loopkit import _host
from loopkit._ids import is_span_id
from loopkit._pseudonyms import pseudonym
from loopkit.capture.places import Place
from loopkit.config import Destination, Settings
from loopkit.types import Feedback, Span, split_target
from loopkit.wire import names
from loopkit.wire.encode import encode_span
from loopkit.wire.messages import dumps

EVENT: Final = "gen_ai.evaluation.result"
_NAME: Final = "feedback "


def encode_statement(event: Feedback, values: Mapping[str, Any], place: Place | None) -> bytes:
    """A span of no length for the event, below the one that it is about; of a trace of its own where that isn't known.

    The same event gives the same bytes.
    """
    made = hashlib.blake2b(event.id.encode("utf-8", "replace"), digest_size=24).digest()
    at = min(event.at, event.arrived_at)
    span = Span(
        trace_id=f"{int.from_bytes(made[:16], 'big') if place is None else place.trace_id:032x}",
        span_id=made[16:].hex(),
        parent_id=None if place is None or place.span_id is None else f"{place.span_id:016x}",
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


class Shown:
    """What may go to one destination of feedback: words only where content goes, people as it wants them named."""

    def __init__(self, destination: Destination | None, settings: Settings) -> None:
        """Without a destination: to the application's own OpenTelemetry."""
        self.content = settings.sends_content(destination)
        self._signals = settings.signals
        self._filter = None if destination is None else destination.filter
        is_pseudonymous = destination is not None and destination.pseudonyms
        self._key_home = (settings.store or settings.home) if is_pseudonymous else None

    def __call__(self, event: Feedback, *, span: Span | None = None, near: bool = False) -> Feedback:
        """The event as it may go there. `span` is what it is about, or `near` says that its content stays here."""
        event = replace(
            event,
            target=self.target(event.target),
            preferred_over=None if event.preferred_over is None else self.target(event.preferred_over),
            ranking=tuple(map(self.target, event.ranking)),
        )
        stays = near or (span is not None and span.content_status in ("local", "off", "failed"))
        if self.content and not stays:
            return event
        declared = self._signals.get(event.name)
        is_listed = declared is not None and event.value in declared.range  # what a declared signal lists is no words
        value = event.value if is_listed or not isinstance(event.value, str) else None
        return replace(event, value=value, correction=None, comment=None, reason=None, metadata={})

    def placed(self, event: Feedback, place: Place | None) -> Feedback:
        """The event as it may go there, by what is known of its span in this process."""
        return self(event, near=place is not None and not place.content)

    @property
    def asks_spans(self) -> bool:
        """Whether it depends on the span that is meant: by a filter, or since its content may have to stay here."""
        return self.content or self._filter is not None

    @property
    def filters(self) -> bool:
        """Whether spans have to pass a filter."""
        return self._filter is not None

    def target(self, target: str) -> str:
        """What it is about, without what must not be said of that."""
        whole, part = split_target(target)
        if self._key_home is not None and whole.startswith("session:"):
            whole = f"session:{pseudonym(whole.removeprefix('session:'), self._key_home)}"
        if part is not None and part.startswith("document=") and not self.content:  # a document's id may be words
            part = f"document={hashlib.sha256(part.encode('utf-8', 'replace')).hexdigest()[:12]}"
        return whole if part is None else f"{whole}#{part}"

    def passes(self, span: Span) -> bool:
        """Whether this destination gets the span that is meant. A filter that fails lets nothing pass."""
        if self._filter is None:
            return True
        with _host.Shielded("a destination's filter"):
            return bool(self._filter(span))
        return False


def statement_values(event: Feedback) -> dict[str, Any]:
    """The attributes of an event, as it may go there."""
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
