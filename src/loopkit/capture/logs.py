"""Log records that say in which span they were written."""

from __future__ import annotations

import logging

from opentelemetry import trace as otel_trace


class LogIds(logging.Filter):
    """Gives every record `trace_id` and `span_id` (hex, empty outside of spans) and `span`, the two in one string.

    The ids are OpenTelemetry's: in spans of other instrumentations they are theirs.

        handler.addFilter(loopkit.LogIds())
        handler.setFormatter(logging.Formatter("%(levelname)s %(span)s %(message)s"))
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets every record pass."""
        context = otel_trace.get_current_span().get_span_context()
        known = context.is_valid
        trace_id, span_id = (f"{context.trace_id:032x}", f"{context.span_id:016x}") if known else ("", "")
        record.trace_id, record.span_id = trace_id, span_id
        record.span = f"{trace_id}-{span_id}" if known else ""
        return True
