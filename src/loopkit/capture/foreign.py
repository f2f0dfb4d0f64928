"""Spans of model calls that other OpenTelemetry instrumentations make: how to know one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loopkit.types import Kind
from loopkit.wire.others import kind_of

MODEL_KINDS = ("llm", "embedding")


def tells_of_a_model(span: Any, kind: Kind) -> bool:
    """Whether a running span that isn't ours is somebody's record of a model call of this kind."""
    attributes: Any = getattr(span, "attributes", None)
    return isinstance(attributes, Mapping) and span.is_recording() and kind_of(span.attributes) == kind


def span_id_of(span: Any) -> str:
    """Trace id and span id in one string."""
    context = span.get_span_context()
    return f"{context.trace_id:032x}-{context.span_id:016x}"
