"""A span while it runs: an OpenTelemetry span to everyone else, plain values to us.

The OpenTelemetry SDK's own span costs several times more, because it cleans every attribute and keeps locked,
bounded maps; here attributes are one dict, and everything else waits for the worker's thread.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, Protocol

from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace import SpanContext, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from loopkit import _host
from loopkit._ids import Clock
from loopkit.capture.ambient import Ambient, Less, less_of, tags_of
from loopkit.capture.exchange import Exchange
from loopkit.capture.snapshot import plain_copy, snapshot
from loopkit.types import JSON, Kind

_shield = _host.Shielded("describing a span")
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_UNSAMPLED = TraceFlags(TraceFlags.DEFAULT)
CANCELLED = ("CancelledError", "GeneratorExit", "KeyboardInterrupt", "SystemExit")


class StatusError(Exception):
    """What somebody said of a failure in OpenTelemetry's status, where no exception was recorded."""


class Keeper(Protocol):
    """Who has started a span and takes it when it has ended."""

    clock: Clock
    process: int
    """Changes in a forked child."""

    def put(self, live: LiveSpan, /) -> None:
        """Take it."""
        ...


class LiveSpan(OtelSpan):
    """One unit of work under way. `finish` counts once, whoever comes first."""

    __slots__ = (
        "_open",
        "ambient",
        "attributes",
        "bare",
        "content",
        "ended_at",
        "error",
        "exchange",
        "head_probability",
        "input",
        "is_known_to_host",
        "kept_for",
        "kind",
        "local_root",
        "name",
        "output",
        "parent",
        "parent_id",
        "process",
        "prompt_version",
        "propensity",
        "recorder",
        "rescue_seconds",
        "sampled",
        "sampling_probability",
        "span_id",
        "started_at",
        "status",
        "tail_probability",
        "task",
        "timed",
        "trace_id",
        "variant",
        "weight",
    )

    def __init__(self, recorder: Keeper, name: str, kind: Kind, trace_id: int, span_id: int, started_at: int) -> None:
        self.recorder = recorder
        self.process = recorder.process
        """In which it was begun: a forked child has a copy, and the original is for its parent to end."""
        self.name = name
        self.kind: Kind = kind
        self.trace_id = trace_id
        self.span_id = span_id
        self.started_at = started_at
        self.parent: LiveSpan | None = None
        self.parent_id: int | None = None
        self.ended_at = 0
        self.status: Literal["ok", "error", "cancelled"] = "ok"
        self.error: BaseException | None = None
        self.input: str | None = None
        self.output: str | None = None
        self.exchange: Exchange | None = None
        self.ambient: Ambient | None = None
        self.attributes: dict[str, Any] = {}
        self.task: str | None = None
        self.variant: str | None = None
        self.propensity: float | None = None
        self.prompt_version: str | None = None
        self.bare = False
        """Whether its content is left out: recording has spent its budget, or somebody said so."""
        self.content: Less | None = None
        """How far its content may go, where that is less far than the settings have it."""
        self.timed = False
        self.local_root = False
        """Whether no span of ours is above it."""
        self.sampling_probability = 1.0
        self.head_probability = 1.0
        self.tail_probability = 1.0
        """What of the sampling probability is the tail's draw."""
        self.rescue_seconds = 0.0
        self.kept_for: str | None = None
        """Why it keeps its trace whatever the tail draws."""
        self.sampled = True
        self.is_known_to_host = False
        """Whether another instrumentation has told the host's OpenTelemetry of the same call."""
        self.weight = 0
        """What the queue was charged for it."""
        self._open = [None]

    @property
    def id(self) -> str:
        """Trace id and span id in one string."""
        return f"{self.trace_id:032x}-{self.span_id:016x}"

    def is_within(self, other: LiveSpan) -> bool:
        """Whether it runs, and somewhere below that one."""
        span: LiveSpan | None = self if self.is_recording() else None
        while span is not None and span is not other:
            span = span.parent
        return span is other

    def finish(self, error: BaseException | None = None, *, cancelled: bool = False, at: int | None = None) -> None:
        """End the span, now or at a time that has been, and queue it; later calls do nothing."""
        try:
            self._open.pop()  # atomic, so that two threads can't both finish it
        except IndexError:
            return
        if self.process != self.recorder.process:
            return
        if error is not None:
            self.error = error
            self.status = "cancelled" if type(error).__name__ in CANCELLED else "error"
        elif cancelled:
            self.status = "cancelled"
        self.ended_at = max(self.recorder.clock.now() if at is None else at, self.started_at)
        self.parent = None
        self.recorder.put(self)

    def bind(self, variant: str, task: str, propensity: float | None, prompt_version: str | None) -> None:
        """Say which variant serves the task: on this span and on those of the task that it runs in."""
        span: LiveSpan | None = self
        while span is not None and span.task in (task, None):
            if span.task is None and span is not self:
                return
            span.variant, span.task = variant, task
            span.propensity, span.prompt_version = propensity, prompt_version
            span = span.parent

    def describe(self, metadata: Mapping[str, JSON], tags: tuple[str, ...] = ()) -> None:
        """Add metadata and tags."""
        old, plain = self.ambient or Ambient(), plain_copy(metadata)
        self.ambient = replace(
            old,
            tags=tuple(dict.fromkeys((*old.tags, *tags, *tags_of(plain)))),
            metadata={**old.metadata, **plain},
        )

    def keep_near(self, content: Less | None) -> None:
        """Let its content, and that of what runs in it, go no further than so."""
        self.content = less_of(content, self.content)
        self.bare = self.bare or self.content == "off"

    # What OpenTelemetry's API asks of a span.

    def get_span_context(self) -> SpanContext:
        """The ids, for OpenTelemetry and for propagation."""
        flags = _SAMPLED if self.sampled else _UNSAMPLED
        return SpanContext(self.trace_id, self.span_id, is_remote=False, trace_flags=flags)

    def is_recording(self) -> bool:
        """False once the span has ended."""
        return bool(self._open)

    def set_attribute(self, key: str, value: Any) -> None:
        """One attribute."""
        if self._open:
            self.attributes[key] = value

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Several attributes."""
        if self._open:
            self.attributes.update(attributes)

    def update_name(self, name: str) -> None:
        """Another name."""
        if self._open:
            self.name = name

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        """Span events are on their way out of OpenTelemetry; kept as one attribute so that nothing is lost."""
        if self._open:
            self.attributes[f"event.{name}"] = dict(attributes or {})

    def record_exception(
        self,
        exception: BaseException,
        attributes: Any = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Note the exception; the span's status is set by how it ends."""
        if self._open:
            self.error = exception

    def set_status(self, status: Any, description: str | None = None) -> None:
        """OpenTelemetry's status; OK and UNSET are both ours "ok"."""
        code = status.status_code if isinstance(status, Status) else status
        if self._open:
            self.status = "error" if code is StatusCode.ERROR else "ok"
            said = status.description if isinstance(status, Status) else description
            if said and self.status == "error" and self.error is None:
                self.error = StatusError(said)

    def end(self, end_time: int | None = None) -> None:
        """OpenTelemetry's word for `finish`."""
        self.finish(at=end_time)


UNRECORDED = "unrecorded"
"""The id of a span that isn't recorded: feedback on it is dropped without a word."""


class Handle:
    """A span as the application holds it: its ids, and a way to add to it while it runs. Holds no content."""

    __slots__ = ("_live", "id", "trace_id")

    def __init__(self, live: LiveSpan) -> None:
        self._live = live
        self.id = live.id
        self.trace_id = f"{live.trace_id:032x}"

    def set(
        self,
        *,
        input: JSON = None,
        output: JSON = None,
        name: str | None = None,
        tags: tuple[str, ...] | list[str] = (),
        **metadata: JSON,
    ) -> None:
        """Set input, output or name, or add tags and metadata. After the span has ended it does nothing."""
        live = self._live
        if not live.is_recording():
            return
        with _shield:
            if input is not None:
                live.input = snapshot(input)
            if output is not None:
                live.output = snapshot(output)
            if name is not None:
                live.name = str(name)
            if tags or metadata:
                live.describe(metadata, (tags,) if isinstance(tags, str) else tuple(map(str, tags)))

    def said(self) -> str | None:
        """Its output, where that is a text and still in memory."""
        try:
            output = json.loads(self._live.output or "null")
        except ValueError:
            return None
        return output if isinstance(output, str) else None

    def __repr__(self) -> str:
        return f"<span {self.id}>"


class NoSpan(Handle):
    """What `span()` gives where nothing is recorded: it takes everything and keeps nothing."""

    __slots__ = ()

    def __init__(self) -> None:
        self.id = UNRECORDED
        self.trace_id = UNRECORDED

    def set(self, **_: JSON) -> None:
        """Nothing."""
