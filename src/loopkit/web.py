"""What hangs into web services: traces that go on from one to the next."""

from __future__ import annotations

from loopkit.capture.propagation import TraceMiddleware, WsgiTraceMiddleware, incoming, outgoing_headers

__all__ = ["TraceMiddleware", "WsgiTraceMiddleware", "incoming", "outgoing_headers"]
