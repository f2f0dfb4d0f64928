"""The recorder: starts spans, takes finished ones and feedback, and hands them to its worker."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from functools import cached_property
from itertools import count
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace as otel_trace

from loopkit._ids import Clock, Ids
from loopkit.capture.ambient import ambient, both
from loopkit.capture.identity import Identities
from loopkit.capture.live import LiveSpan
from loopkit.capture.sampling import Tail, head_probability, head_takes
from loopkit.capture.schemas import Schemas
from loopkit.capture.sinks import Sink
from loopkit.capture.worker import Worker
from loopkit.config import Settings
from loopkit.types import Feedback, Kind, Span

_DROPPED = otel_context.create_key("loopkit-dropped")
_recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()


class Recorder:
    """What `init()` makes, once in a process. Everything it needs is passed in."""

    def __init__(self, settings: Settings, sinks: tuple[Sink, ...], clock: Clock, ids: Ids, tail: Tail) -> None:
        self.settings = settings
        self.clock = clock
        self.ids = ids
        self.identities = Identities()
        self.schemas = Schemas()
        self.worker = Worker(settings, sinks, tail)
        self.budget = self.worker.budget
        self.calling = Calling()
        self.process = 0
        """How many forks ago recording began."""
        self._services: dict[str, Any] = {}
        self.samples_root: Callable[[int, str, Kind], bool] | None = None
        """Whether the application's own OpenTelemetry samples a trace that begins here; None where it has none."""
        self.provider_came: Callable[[], object] | None = None
        """Called when the application has set a tracer provider, or another one."""
        self._provider_seen: Any = None
        self.others: dict[int, set[Kind]] = {}
        """Spans of other instrumentations that are under way and come in through a span processor, by id: of which
        kinds the calls are that have been told of below them."""
        _recorders.add(self)

    def start(self, name: str, kind: Kind, task: str | None = None, under: LiveSpan | None = None) -> LiveSpan | None:
        """A span under the current one, or another, not yet current itself; None where it is sampled out."""
        here = otel_context.get_current()
        parent = otel_trace.get_current_span(here)
        if under is not None and not (isinstance(parent, LiveSpan) and parent.is_within(under)):
            parent = under
        if isinstance(parent, LiveSpan):
            live = self._child(parent, name, kind)
        else:
            root = self._local_root(parent.get_span_context(), name, kind, task, here)
            if root is None:
                return None
            live = root
        if task is not None:
            live.task = task
        live.ambient = ambient(here) if under is None else both(under.ambient, ambient(here))
        if live.ambient is not None and live.ambient.content is not None:
            live.keep_near(live.ambient.content)
        return live

    def current(self, live: LiveSpan | None) -> object:
        """Make the span (or the fact that it was dropped) current; give back what `leave` wants."""
        return otel_context.attach(self.entering(live))

    def entering(self, live: LiveSpan | None) -> otel_context.Context:
        """The context in which it is current."""
        if live is None:
            why = self.budget if self.budget.level >= 2 else True  # for the budget, while it lasts
            return otel_context.set_value(_DROPPED, why)
        return otel_trace.set_span_in_context(live)

    @staticmethod
    def leave(token: Any) -> None:
        """Make current again what was before."""
        otel_context.detach(token)

    def put(self, live: LiveSpan | Span) -> None:
        """Queue a finished span, ours or one that was read."""
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
        live.sampling_probability, live.head_probability = parent.sampling_probability, parent.head_probability
        live.tail_probability, live.rescue_seconds = parent.tail_probability, parent.rescue_seconds
        live.sampled = parent.sampled
        live.content = parent.content
        live.bare = self.budget.level > 0 or live.content == "off"
        return live

    def _local_root(
        self, parent: otel_trace.SpanContext, name: str, kind: Kind, task: str | None, here: otel_context.Context
    ) -> LiveSpan | None:
        """A span with none of ours above it; None where the head leaves it out."""
        dropped = here.get(_DROPPED)
        if dropped is not None and (dropped is not self.budget or self.budget.level >= 2):
            return None
        trace_id = parent.trace_id if parent.is_valid else self.ids.trace_id()
        sampling = self.settings.sampling
        head = head_probability(sampling, task) * self.budget.sampling
        if head < 1.0 and not head_takes(sampling, head, trace_id, ambient(here).user_id):
            return None
        # Read where it lies: get_tracer_provider() also looks into the environment, which costs more than the rest.
        provider = getattr(otel_trace, "_TRACER_PROVIDER", None)
        if provider is not self._provider_seen:
            self._provider_seen = provider
            if self.provider_came is not None:
                self.provider_came()
        live = LiveSpan(self, name, kind, trace_id, self.ids.span_id(), self.clock.now())
        live.local_root = True
        live.bare = self.budget.level > 0
        live.head_probability = head
        if sampling.tail < 1.0:
            live.tail_probability, live.rescue_seconds = sampling.tail, sampling.ring_seconds
        live.sampling_probability = head * sampling.tail
        if parent.is_valid:
            live.parent_id = parent.span_id
            live.sampled = parent.trace_flags.sampled
        elif self.samples_root is not None:
            live.sampled = self.samples_root(trace_id, name, kind)
        return live


class Calling:
    """What a traced function costs its caller: the time of one call in 64, which is time enough."""

    def __init__(self) -> None:
        self._turns = count()
        self._nanoseconds = self._calls = 0

    def is_timed(self) -> bool:
        """Whether it is this call's turn."""
        return not next(self._turns) & 63

    def began(self, nanoseconds: int) -> None:
        """What its beginning took."""
        self._nanoseconds += nanoseconds
        self._calls += 1

    def ended(self, nanoseconds: int) -> None:
        """What its end took."""
        self._nanoseconds += nanoseconds

    def mean(self) -> float:
        """Microseconds a call; 0 before the first."""
        return self._nanoseconds / max(self._calls, 1) / 1000


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
        recorder.process += 1
        recorder.ids.after_fork()
        recorder.worker.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
