"""A model call through a hook, whatever SDK it hangs in: begun, sent through the interceptors, recorded once.

A call may pass several that would tell of it: a framework's callbacks, a wrapped client inside an instrumented class, a
library that calls another's SDK, another instrumentation. The first to see it starts the span. A framework that knows
little leaves its span without an exchange, and the hook below fills it in; whatever else is below says nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping
from typing import Any, TypeGuard

from opentelemetry import context as otel_context
from opentelemetry import trace as otel_trace

from loopkit import _host
from loopkit.capture import slot
from loopkit.capture.chain import Call, Filter, Interceptor, stream_filters
from loopkit.capture.dialects._protocol import Dialect
from loopkit.capture.exchange import Exchange
from loopkit.capture.foreign import span_id_of, tells_of_a_model
from loopkit.capture.live import LiveSpan
from loopkit.capture.offer import take_offer
from loopkit.capture.readable import readable
from loopkit.capture.recorder import Recorder
from loopkit.capture.recording import TOLD, Recording
from loopkit.capture.stream import watch_generator, watch_raw, watch_stream
from loopkit.errors import Unguarded
from loopkit.types import Kind

_starting = _host.Shielded("starting a call")
_receiving = _host.Shielded("recording a response")


class HookedCall:
    """One on its way."""

    __slots__ = ("call", "extra", "given", "interceptors", "recording")

    def __init__(
        self,
        call: Call,
        recording: Recording,
        interceptors: tuple[Interceptor, ...],
        extra: Mapping[str, Any],
        given: Mapping[str, Any],
    ) -> None:
        self.call = call
        self.given = given
        """The request as it came."""
        self.recording = recording
        self.interceptors = interceptors
        self.extra = extra
        """What the request says besides, that isn't JSON: files."""

    def sent(self, send: Callable[[Call], Any]) -> Callable[[Call], Any]:
        """`send`, under which nobody else tells of this call, and with what interceptors changed written down.

        Where there are none, the recording says so by itself, with the context that makes its span current.
        """
        if not self.interceptors:
            return send

        def telling(call: Call) -> Any:
            with self._told(call):
                return send(call)

        return telling

    def asent(self, send: Callable[[Call], Any]) -> Callable[[Call], Any]:
        """`sent`, awaiting."""
        if not self.interceptors:
            return send

        async def telling(call: Call) -> Any:
            with self._told(call):
                return await send(call)

        return telling

    def is_changed(self, call: Call) -> bool:
        """Whether interceptors have made another request of it, or it had to be read to be seen."""
        return call.request is not self.given

    @contextlib.contextmanager
    def _told(self, call: Call) -> Generator[None]:
        if self.recording.exchange is not None and self.is_changed(call):
            self.recording.exchange.ask({**call.request, **self.extra})
        self.recording.is_telling = True
        token = otel_context.attach(otel_context.set_value(TOLD, self.recording))
        try:
            yield
        finally:
            self.recording.is_telling = False
            otel_context.detach(token)

    def received(self, result: Any) -> Any:
        """Record the result, or watch it until it has been read."""
        if self.recording.live is None and not self.interceptors:
            self.recording.remember(result)
            return result
        filters = self.filters() if self.interceptors else ()
        with _receiving:
            # A whole answer is by far the most frequent, and asking it for what it lacks is dear: pydantic looks long.
            if hasattr(result.__class__, "model_dump_json"):
                self.recording.returned(result)
                return result
            return self._watched(result, filters)
        if filters:  # what was to be checked and can't be watched isn't given out
            raise Unguarded("a stream could not be watched, so what its guards would have stopped can't be known")
        self.recording.dropped()
        return result

    def received_whole(self, result: Any) -> Any:
        """Record a whole answer that is no pydantic object."""
        with _receiving:
            self.recording.returned(result)
        return result

    def filters(self) -> tuple[Filter, ...]:
        """What the interceptors want to see of the stream."""
        return stream_filters(self.interceptors, self.call)

    def _watched(self, result: Any, filters: tuple[Filter, ...]) -> Any:
        if hasattr(result, "_iterator") and hasattr(result, "response"):
            return watch_stream(result, self.recording, filters)
        if hasattr(result, "generator") and hasattr(result, "response"):
            return watch_stream(result, self.recording, filters, "generator")
        if hasattr(result, "http_response") and hasattr(result, "parse"):
            return self._raw(result, filters)
        if self.call.stream and (hasattr(result, "__next__") or hasattr(result, "__anext__")):
            return watch_generator(result, self.recording, filters)
        self.recording.returned(result)
        return result

    def _raw(self, raw: Any, filters: Any) -> Any:
        response = raw.http_response
        if not response.is_closed:
            return watch_raw(raw, self.recording, filters)
        self.recording.remember(raw)
        self.recording.answered(response.text)
        return raw


def begin(
    dialect: Dialect,
    provider: str,
    request: Mapping[str, Any],
    *,
    stream: bool = False,
    interceptors: tuple[Interceptor, ...] = (),
    extra: Mapping[str, Any] | None = None,
    server: str | None = None,
) -> HookedCall:
    """The call about to be made, its span started. `server` is the URL that it goes to, or its beginning."""
    recorder = slot.recorder
    recording = Recording(None, None)
    given = request
    if interceptors:
        request = readable(request)
    if recorder is not None:
        with _starting:
            recording = _recording(recorder, Exchange(dialect, provider, bare=False, server=server), request, extra)
            recording.tells = not interceptors
    task = None if recording.live is None else recording.live.task
    call = Call(task=task, request=request, dialect=dialect, provider=provider, stream=stream)
    return HookedCall(call, recording, interceptors, extra or {}, given)


def _recording(
    recorder: Recorder, exchange: Exchange, request: Mapping[str, Any], extra: Mapping[str, Any] | None
) -> Recording:
    dialect = exchange.dialect
    around = otel_context.get_current()
    told: Recording | None = around.get(TOLD)  # type: ignore[assignment]
    if told is not None and told.is_telling and (told.exchange is None or told.exchange.dialect.kind == dialect.kind):
        return Recording(None, None)
    here = otel_trace.get_current_span(around)
    live, is_current = take_offer(), False
    is_offered = live is not None
    if live is None and _is_bare_model_call(here, dialect.kind):
        live, is_current = here, True
    adopted = live is not None
    if live is None:
        if (
            here is not otel_trace.INVALID_SPAN
            and not isinstance(here, LiveSpan)
            and tells_of_a_model(here, dialect.kind)
        ):
            if here.get_span_context().span_id in recorder.others:
                return Recording(recorder, None, is_current=True, told_as=span_id_of(here))
            is_current = True
        around_us = here.get_span_context().span_id
        if around_us in recorder.others:
            recorder.others[around_us].add(dialect.kind)
        live = recorder.start(f"{dialect.operation} {_model_in(request)}".rstrip(), dialect.kind)
        if live is None:
            return Recording(recorder, None)
        live.is_known_to_host = is_current
    exchange.bare = live.bare
    exchange.ask({**request, **extra} if extra else request)
    return Recording(recorder, live, exchange, adopted=adopted, ends_if_cancelled=is_offered, is_current=is_current)


def _model_in(request: Mapping[str, Any]) -> str:
    """The model's name, without asking an object of the caller's for its text."""
    model = request.get("model") or request.get("modelId")
    return str.__str__(model) if isinstance(model, str) else ""


def _is_bare_model_call(span: object, kind: Kind) -> TypeGuard[LiveSpan]:
    """Whether it is a framework's span of a model call of this kind, which nobody has filled in yet."""
    return isinstance(span, LiveSpan) and span.kind == kind and span.exchange is None and span.is_recording()
