"""Spans of model calls that other OpenTelemetry instrumentations make: how to know one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loopkit.wire import names

_OPERATIONS = frozenset(("chat", "text_completion", "generate_content", "embeddings"))


def tells_of_a_model(span: Any) -> bool:
    """Whether a running span that isn't ours is somebody's record of a model call."""
    attributes: Any = getattr(span, "attributes", None)
    if not isinstance(attributes, Mapping) or not span.is_recording():
        return False
    attributes = span.attributes  # isinstance made it a mapping of unknown types
    return attributes.get(names.OPERATION) in _OPERATIONS or attributes.get(names.OI_KIND) in ("LLM", "EMBEDDING")


def span_id_of(span: Any) -> str:
    """Trace id and span id in one string."""
    context = span.get_span_context()
    return f"{context.trace_id:032x}-{context.span_id:016x}"
