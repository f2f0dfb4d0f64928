"""Other OpenTelemetry instrumentations: a span processor that reads what they tell of models, tools and agents.

Their spans keep their ids, so that ours and theirs make one tree. They go into the local store and to our own
destinations, never back to the application's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from opentelemetry import trace as otel_trace

from loopkit import _host
from loopkit.capture import slot
from loopkit.capture.ambient import Less, ambient, less_of
from loopkit.capture.foreign import MODEL_KINDS
from loopkit.capture.live import LiveSpan
from loopkit.capture.recorder import Recorder
from loopkit.types import Kind
from loopkit.wire import names
from loopkit.wire.decode import decode_span
from loopkit.wire.encode import encode_foreign
from loopkit.wire.others import kind_of, translated

_shield = _host.Shielded("reading another instrumentation's span")
_MOST_OPEN = 10_000


class OthersProcessor:
    """See OpenTelemetry's `SpanProcessor`, which it has the shape of."""

    def __init__(self) -> None:
        self._told: dict[int, None] = {}
        """Spans of model calls below a span of ours that tells of the same call."""
        self._near: dict[int, Less] = {}
        """How far the content of spans under way may go, where that is less far than the settings have it."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        """A call that we tell of already isn't told again."""
        recorder = slot.recorder
        if recorder is not None:
            recorder.others[span.get_span_context().span_id] = set()
            while len(recorder.others) > _MOST_OPEN:
                recorder.others.pop(next(iter(recorder.others)), None)
        above = otel_trace.get_current_span(parent_context)
        near = above.content if isinstance(above, LiveSpan) else self._near.get(above.get_span_context().span_id)
        near = less_of(near, ambient(parent_context).content)
        if near is not None:
            self._near[span.get_span_context().span_id] = near
            while len(self._near) > _MOST_OPEN:
                self._near.pop(next(iter(self._near)), None)
        is_within = isinstance(above, LiveSpan) and above.kind in MODEL_KINDS and above.is_recording()
        if isinstance(above, LiveSpan) and is_within and kind_of(span.attributes or {}) == above.kind:
            self._told[span.get_span_context().span_id] = None
            above.is_known_to_host = True  # it gets theirs
            while len(self._told) > _MOST_OPEN:
                self._told.pop(next(iter(self._told)), None)

    def on_end(self, span: Any) -> None:
        """Read it, where it is about what we record."""
        recorder = slot.recorder
        if recorder is None:
            return
        told_below: set[Kind] = recorder.others.pop(span.context.span_id, set())
        near = self._near.pop(span.context.span_id, None)
        with _shield:
            attributes: Mapping[str, Any] = span.attributes or {}
            kind = None if span.instrumentation_scope.name == "loopkit" else kind_of(attributes)
            is_told = span.context.span_id in self._told
            self._told.pop(span.context.span_id, None)
            if kind is not None and kind in MODEL_KINDS:
                _tell_above(recorder, span, {kind})
            elif kind in (None, "task"):
                _tell_above(recorder, span, told_below)
            if kind is None or (is_told and kind in MODEL_KINDS):
                return
            if kind in told_below and kind in MODEL_KINDS:
                kind = "task"  # it stands around a call that is told of by itself
            values = translated(attributes, kind)
            if names.PROVIDER in values:
                values[names.PROVIDER] = str(values[names.PROVIDER]).lower()
            read = decode_span(encode_foreign(span, values), recorder.settings.service)
            recorder.put(read if near is None else replace(read, content_status=near))

    def _on_ending(self, span: Any) -> None:
        """Nothing is to be changed."""

    def shutdown(self) -> None:
        """Nothing is kept here."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """The recorder's own flush does that."""
        return True


def _tell_above(recorder: Recorder, span: Any, kinds: set[Kind]) -> None:
    """Some frameworks have several spans for one model call, one within the other: the innermost tells of it."""
    if span.parent is not None and span.parent.span_id in recorder.others:
        recorder.others[span.parent.span_id] |= kinds
