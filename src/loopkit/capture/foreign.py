"""Spans of model calls that other OpenTelemetry instrumentations make: how to know one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loopkit.wire import names

_OPERATIONS = frozenset(("chat", "text_completion", "generate_content", "embeddings"))


def tells_of_a_model(span: Any) -> bool:
    """Whether a running span that isn't ours is somebody's record of a model call."""
    found: Any = getattr(span, "attributes", None)
    if not isinstance(found, Mapping) or not span.is_recording():
        return False
    found = span.attributes  # isinstance made it a mapping of unknown types
    return found.get(names.OPERATION) in _OPERATIONS or found.get(names.OI_KIND) in ("LLM", "EMBEDDING")
