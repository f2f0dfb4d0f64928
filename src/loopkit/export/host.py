"""The application's own OpenTelemetry: its processors get a copy of each of our spans when it has ended.

Ours are no spans of the SDK, and real processors and exporters want what its `ReadableSpan` has, so they get one,
made from the bytes that go on the wire. They are called on a thread of their own: what holds a processor up, a
collector that hangs behind a SimpleSpanProcessor say, holds up nothing of ours.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from loopkit import _host
from loopkit.capture.places import Place
from loopkit.capture.sinks import Batch
from loopkit.config import Destination, Settings
from loopkit.export.statements import EVENT, Shown, encode_statement, statement_values
from loopkit.types import Feedback, Kind
from loopkit.wire.decode import attributes_of
from loopkit.wire.names import OUR_PREFIXES

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

_QUEUE_LIMIT = 20_000
_SYNC_SECONDS = 1.0
_POLL = 0.005
_asking = _host.Shielded("asking the application's sampler")
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class HostSink:
    """Hands spans on to the processors of the global tracer provider, once there is one that can be reached."""

    durable = None
    """Whether the application's exporters keep what they get is theirs to say."""

    def __init__(self, settings: Settings, version: str, found: Callable[[], None]) -> None:
        """`found` is called once, when a provider was found."""
        self.reached = False
        self.endpoints: frozenset[str] = frozenset()
        """Where the application's exporters send, as far as they say."""
        self.dropped = 0
        self._shown = Shown(None, settings)
        self._version = version
        self._found = found
        self._provider: Any = None
        self._logs: Any = None
        self._start_empty()

    def serves(self, destination: Destination) -> bool:
        """Whether an exporter of the application's sends to this destination already, as far as they say."""
        return place_of(destination.endpoint, grpc=destination.protocol == "grpc") in self.endpoints

    def look(self) -> Any:
        """The provider whose processors can be reached, or None. It may come, or be replaced, at any time."""
        self._look_for_logs()
        given = trace.get_tracer_provider()
        found = next((each for each in (given, getattr(given, "provider", None)) if _processors(each)), None)
        if found is not self._provider:
            self._provider = found
            self.reached = found is not None
            self.endpoints = frozenset(_endpoints(found)) if found is not None else frozenset()
            if found is not None:
                self._found()
        if found is None and not isinstance(given, trace.ProxyTracerProvider):
            _host.warn_once(
                "host provider",
                f"the application's tracer provider ({type(given).__module__}.{type(given).__qualname__}) has no "
                "processors that can be reached: loopkit exports by itself, as if there were none",
            )
        return found

    def samples(self, trace_id: int, name: str, kind: Kind) -> bool:
        """Whether the application's sampler would take a trace that begins here. It governs its processors alone."""
        sampler = getattr(self._provider, "sampler", None)
        otel_kind = SpanKind.CLIENT if kind in ("llm", "embedding", "retrieval") else SpanKind.INTERNAL
        with _asking:
            return sampler is None or sampler.should_sample(None, trace_id, name, otel_kind).decision.is_sampled()
        return True

    def accept(self, batch: Batch) -> None:
        """See `Sink.accept`."""
        is_reached = self.look() is not None
        logs = self._logs
        for span in batch.spans if is_reached else ():
            if span.sampled:
                self._put(span.exported(content=self._shown.content))
        for event in batch.feedback if is_reached or logs is not None else ():
            place = batch.places.get(event.id)
            if place is not None and not place.sampled:
                continue
            values = statement_values(self._shown.placed(event, place))
            if is_reached:
                self._put(encode_statement(event, values, place))
            if logs is not None:
                self._put(partial(_emit, logs, self._version, event, values, place))
        self._wake()

    def _put(self, item: bytes | Callable[[], object]) -> None:
        if len(self._queue) >= _QUEUE_LIMIT:
            self.dropped += 1
            _host.warn_now_and_then("host queue", f"the application's processors are behind: {self.dropped} dropped")
            return
        self._accepted += 1
        self._queue.append(item)

    def _look_for_logs(self) -> None:
        """For the application's logger provider, where it has set one: at any time, as the other."""
        module = sys.modules.get("opentelemetry._logs")
        given = None if module is None else module.get_logger_provider()
        is_set = given is not None and type(given).__name__ not in ("ProxyLoggerProvider", "NoOpLoggerProvider")
        if is_set and self._logs is None:
            self._found()
        self._logs = given if is_set else None

    def sync(self) -> None:
        """See `Sink.sync`: wait a little until the processors have what was accepted."""
        self._wait_for_processors(_SYNC_SECONDS)

    def close(self, timeout: float) -> None:
        """See `Sink.close`."""
        if self._thread is not None:
            self._wait_for_processors(timeout)
            self._stopped = True
            self._work.set()
            self._thread.join(0.1)

    def after_fork(self) -> None:
        """See `Sink.after_fork`."""
        self._start_empty()

    def _start_empty(self) -> None:
        self._queue: deque[bytes | Callable[[], object]] = deque()
        self._work = threading.Event()
        self._accepted = self._handed_on = 0
        self._stopped = False
        self._thread: threading.Thread | None = None

    def _wake(self) -> None:
        if not self._queue:
            return
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="loopkit-host", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter is ending: now, on this thread, or never
                self._hand_on()
                return
            self._thread = thread
        self._work.set()

    def _run(self) -> None:
        while not self._stopped:
            self._work.wait()
            self._work.clear()
            self._hand_on()

    def _wait_for_processors(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while self._handed_on < self._accepted and self._thread is not None and time.monotonic() < deadline:
            time.sleep(_POLL)

    def _hand_on(self) -> None:
        while self._queue:
            item = self._queue.popleft()
            with _host.Shielded("handing a span to the application's processors"):
                provider = self._provider
                if callable(item):
                    item()
                elif provider is not None:
                    provider._active_span_processor.on_end(readable(item, provider, self._version))
            self._handed_on += 1


def readable(data: bytes, provider: Any, version: str) -> ReadableSpan:
    """The SDK's record of the span in these bytes."""
    from opentelemetry.attributes import BoundedAttributes
    from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan
    from opentelemetry.sdk.trace import ReadableSpan, SpanLimits
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    message = OtlpSpan.FromString(data)
    limits = getattr(provider, "_span_limits", None) or SpanLimits()
    trace_id = int.from_bytes(message.trace_id, "big")
    values = [(name, _hashable(value)) for name, value in attributes_of(message)]
    if limits.max_span_attributes is not None and len(values) > limits.max_span_attributes:
        # The SDK would let the first ones go, which are ours: the application's last ones go.
        values = sorted(values, key=lambda item: not item[0].startswith(OUR_PREFIXES))[: limits.max_span_attributes]

    def context(span_id: bytes) -> SpanContext:
        return SpanContext(trace_id, int.from_bytes(span_id, "big"), is_remote=False, trace_flags=_SAMPLED)

    failed = message.status.code == message.status.STATUS_CODE_ERROR
    return ReadableSpan(
        name=message.name,
        context=context(message.span_id),
        parent=context(message.parent_span_id) if message.parent_span_id else None,
        resource=provider.resource,
        attributes=BoundedAttributes(
            limits.max_span_attributes,
            dict(values),
            max_value_len=limits.max_span_attribute_length,
        ),
        kind=SpanKind.CLIENT if message.kind == message.SPAN_KIND_CLIENT else SpanKind.INTERNAL,
        status=Status(StatusCode.ERROR, message.status.message or None) if failed else Status(StatusCode.UNSET),
        start_time=message.start_time_unix_nano,
        end_time=message.end_time_unix_nano,
        instrumentation_scope=InstrumentationScope("loopkit", version),
    )


def _emit(logs: Any, version: str, event: Feedback, values: Mapping[str, Any], place: Place | None) -> None:
    """The conventions' log event, below the span that is meant."""
    from opentelemetry import context as otel_context
    from opentelemetry._logs import SeverityNumber

    around = otel_context.Context()
    if place is not None:
        about = SpanContext(place.trace_id, place.span_id or 0, is_remote=True, trace_flags=_SAMPLED)
        around = trace.set_span_in_context(trace.NonRecordingSpan(about), around)
    logs.get_logger("loopkit", version).emit(
        timestamp=event.at,
        observed_timestamp=event.arrived_at,
        context=around,
        severity_number=SeverityNumber.INFO,
        attributes=dict(values),
        event_name=EVENT,
    )


def _hashable(value: Any) -> Any:
    given: Any = value  # isinstance makes `value` a list of unknown types; this stays Any
    return tuple(given) if isinstance(value, list) else value


def _processors(provider: Any) -> Any:
    """What the SDK's provider hands its own spans to. There is no public way to it but adding another."""
    if "opentelemetry.sdk.trace" not in sys.modules:
        return None
    found = getattr(provider, "_active_span_processor", None)
    return found if hasattr(found, "on_end") and hasattr(provider, "resource") else None


def _endpoints(provider: Any) -> Iterator[str]:
    for processor in getattr(_processors(provider), "_span_processors", ()):
        endpoint = getattr(getattr(processor, "span_exporter", None), "_endpoint", None)
        if isinstance(endpoint, str):
            yield place_of(endpoint, grpc="//" not in endpoint)  # gRPC's exporter keeps host and port alone


def place_of(endpoint: str, *, grpc: bool) -> str:
    """Host, port and path: the same for all ways to write one place."""
    try:
        parts = urlsplit(endpoint if "//" in endpoint else f"//{endpoint}")
        port = parts.port or (4317 if grpc else 443 if parts.scheme == "https" else 80)
    except ValueError:  # such as dns:collector:4317, which gRPC understands
        return endpoint
    return f"{parts.hostname}:{port}" + ("" if grpc else parts.path.rstrip("/"))
