"""What hangs into web services: traces that go on from one to the next, and feedback from browsers."""

from __future__ import annotations

from loopkit.capture.propagation import TraceMiddleware, WsgiTraceMiddleware, incoming, outgoing_headers
from loopkit.signals.serve import FEEDBACK_HEADER, FeedbackApp, FeedbackWsgiApp, feedback_event

__all__ = [
    "FEEDBACK_HEADER",
    "FeedbackApp",
    "FeedbackWsgiApp",
    "TraceMiddleware",
    "WsgiTraceMiddleware",
    "feedback_event",
    "incoming",
    "outgoing_headers",
]
