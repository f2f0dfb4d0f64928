"""The recorder: starts spans, takes finished ones and feedback, and hands them to its worker."""

from __future__ import annotations

import os
import random
import threading
import weakref
from collections.abc import Callable
from functools import cached_property
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace as otel_trace

from loopkit._ids import Clock, Ids
from loopkit.capture.ambient import ambient
from loopkit.capture.identity import Identities
from loopkit.capture.live import LiveSpan
from loopkit.capture.sinks import Sink
from loopkit.capture.worker import Worker
from loopkit.config import Settings
from loopkit.types import Feedback, Kind

_DROPPED = otel_context.create_key("loopkit-dropped")
_recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()


class Recorder:
    """What `init()` makes, once in a process. Everything it needs is passed in."""

    def __init__(self, settings: Settings, sinks: tuple[Sink, ...], clock: Clock, ids: Ids) -> None:
        self.settings = settings
        self.clock = clock
        self.ids = ids
        self.identities = Identities()
        self.worker = Worker(settings, sinks)
        self._random = random.SystemRandom()  # forked workers must not draw alike
        self._services: dict[str, Any] = {}
        self.samples_root: Callable[[int, str, Kind], bool] | None = None
        """Whether the application's own OpenTelemetry samples a trace that begins here; None where it has none."""
        self.provider_came: Callable[[], object] | None = None
        """Called when the application has set a tracer provider, or another one."""
        self._provider_seen: Any = None
        _recorders.add(self)

    def start(self, name: str, kind: Kind, task: str | None = None) -> LiveSpan | None:
        """A span under the current one, not yet current itself; None where it is sampled out."""
        here = otel_context.get_current()
        parent = otel_trace.get_current_span(here)
        if isinstance(parent, LiveSpan):
            live = self._child(parent, name, kind)
        else:
            probability = self.settings.sample
            if probability < 1.0 and (here.get(_DROPPED) or self._random.random() >= probability):
                return None
            live = self._local_root(parent.get_span_context(), name, kind)
            live.sampling_probability = probability
        if task is not None:
            live.task = task
        around = ambient(here)
        live.ambient = around
        return live

    def current(self, live: LiveSpan | None) -> object:
        """Make the span (or the fact that it was dropped) current; give back what `leave` wants."""
        if live is None:
            return otel_context.attach(otel_context.set_value(_DROPPED, True))
        return otel_context.attach(otel_trace.set_span_in_context(live))

    @staticmethod
    def leave(token: Any) -> None:
        """Make current again what was before."""
        otel_context.detach(token)

    def put(self, live: LiveSpan) -> None:
        """Queue a finished span."""
        self.worker.put(live)

    def say(self, target: str, name: str, value: Any = None, **fields: Any) -> Feedback:
        """Stamp a statement with id and times, and queue it."""
        now = self.clock.now()
        fields.setdefault("at", now)
        event = Feedback(id=self.ids.event_id(now), target=target, name=name, value=value, arrived_at=now, **fields)
        self.worker.put(event)
        return event

    def provide(self, name: str, make: Callable[[], Any]) -> None:
        """Offer a part of a higher floor by name (the variants' registry); made when first asked for."""
        self._services[name] = _Lazy(make)

    def service(self, name: str) -> Any:
        """Such a part, or None."""
        lazy = self._services.get(name)
        return None if lazy is None else lazy.get()

    def _child(self, parent: LiveSpan, name: str, kind: Kind) -> LiveSpan:
        live = LiveSpan(self, name, kind, parent.trace_id, self.ids.span_id(), self.clock.now())
        live.parent, live.parent_id = parent, parent.span_id
        live.task, live.variant = parent.task, parent.variant
        live.propensity, live.prompt_version = parent.propensity, parent.prompt_version
        live.sampling_probability = parent.sampling_probability
        live.sampled = parent.sampled
        return live

    def _local_root(self, parent: otel_trace.SpanContext, name: str, kind: Kind) -> LiveSpan:
        # Read where it lies: get_tracer_provider() also looks into the environment, which costs more than the rest.
        provider = getattr(otel_trace, "_TRACER_PROVIDER", None)
        if provider is not self._provider_seen:
            self._provider_seen = provider
            if self.provider_came is not None:
                self.provider_came()
        trace_id = parent.trace_id if parent.is_valid else self.ids.trace_id()
        live = LiveSpan(self, name, kind, trace_id, self.ids.span_id(), self.clock.now())
        if parent.is_valid:
            live.parent_id = parent.span_id
            live.sampled = parent.trace_flags.sampled
        elif self.samples_root is not None:
            live.sampled = self.samples_root(trace_id, name, kind)
        return live


class _Lazy:
    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._lock = threading.Lock()

    @cached_property
    def _made(self) -> Any:
        return self._make()

    def get(self) -> Any:
        with self._lock:
            return self._made


def _after_fork_in_child() -> None:
    for recorder in list(_recorders):
        recorder.ids.after_fork()
        recorder.worker.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
