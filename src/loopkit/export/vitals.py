"""How recording itself is: as OpenTelemetry metrics, and as a small file for `loopkit doctor`.

Names are OpenTelemetry's for an SDK's own metrics where it has some
(https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics/), else ours.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from loopkit import _host
from loopkit._json import from_json, to_json
from loopkit.capture.sinks import Batch

_EVERY = 10.0
"""Seconds between files."""
_DAY = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One destination, since its process started."""

    endpoint: str
    spooled: int
    """Spans that were written to the spool."""
    delivered: int
    """Spans that the receiver took."""
    refused: int
    """Spans that it refused for good, wholly or in part of a batch."""
    dropped: int
    """Batches that the spool's bound cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How recording is in one process, since `init()`."""

    service: str
    pid: int
    at: int
    """Nanoseconds since the epoch."""
    recorded: int
    """Spans that were handed to the store and the destinations."""
    queued: int
    """Spans and feedback that wait in memory now."""
    capacity: int
    """How many may."""
    dropped: int
    """Spans and feedback that the queue's bound cost, or that nothing could write."""
    not_held: int
    """Sampled-out traces, or parts of them, that could not wait for feedback as long as they should."""
    redacted: int
    """Texts in which something was redacted: a span has up to two, a model call two more."""
    without_content: int
    """Spans whose content was left out: a redactor failed, or the budget was spent."""
    calling_us: float
    """Microseconds that a traced function costs its caller, on the average of one call in 64."""
    own_us: float
    """Microseconds of processor time a span on recording's own threads."""
    level: int
    """0: within the budget; 1: without content; from 2 on traces are left out too."""
    destinations: tuple[Delivery, ...] = ()


@runtime_checkable
class Delivering(Protocol):
    """A sink that sends somewhere."""

    def delivery(self) -> Delivery:
        """How that is going."""
        ...


class VitalsSink:
    """Looks after each batch whether it is time to say how things are."""

    durable = None

    def __init__(
        self,
        home: Path,
        health: Callable[[], Health],
        current: Callable[[], Health | None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`health` is that of the recorder this sink belongs to, `current` that of whichever runs now."""
        self._current = current
        self._directory = home / "health"
        self._health = health
        self._now = now
        self._said: float | None = None

    def accept(self, batch: Batch) -> None:
        """See `Sink.accept`."""
        if "opentelemetry.metrics" in sys.modules:  # else nobody here collects any
            meter_health(self._current)
        if self._said is None or self._now() - self._said >= _EVERY:
            self._say()

    def sync(self) -> None:
        """See `Sink.sync`."""

    def close(self, timeout: float) -> None:
        """See `Sink.close`."""
        self._say()

    def after_fork(self) -> None:
        """See `Sink.after_fork`: a child speaks for itself."""
        self._said = None

    def _say(self) -> None:
        self._said = self._now()
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (self._directory / f"{os.getpid()}.json").exists():
                _clear(self._directory)
            new = self._directory / f".{os.getpid()}"
            new.write_text(to_json(self._health()))
            new.replace(self._directory / f"{os.getpid()}.json")
        except OSError:  # read-only or full: the other sinks say so
            return


def healths(home: Path) -> list[Health]:
    """How recording was in the processes of this home directory, as of their last word, the latest last."""
    found: list[Health] = []
    for file in (home / "health").glob("*.json"):
        with _host.Shielded("reading a process's health"):
            found.append(from_json(Health, file.read_bytes()))
    return sorted(found, key=lambda each: each.at)


_metered = False


def meter_health(health: Callable[[], Health | None]) -> None:
    """Let the application's meter provider, whenever it comes, read how recording is; None where nothing records.

    Once in a process: an SDK keeps the instruments of a name that it has, with the callbacks that they had.
    """
    global _metered
    if _metered:
        return
    _metered = True
    from opentelemetry.metrics import Observation, get_meter

    meter = get_meter("loopkit")

    def observed(read: Callable[[Health], Iterable[tuple[float, dict[str, str]]]]) -> Any:
        def callback(_: Any) -> Iterable[Observation]:
            now = health()
            return [] if now is None else [Observation(value, attributes) for value, attributes in read(now)]

        return [callback]

    def exported(now: Health) -> Iterable[tuple[float, dict[str, str]]]:
        for each in now.destinations:
            name = {"otel.component.name": each.endpoint}
            yield each.delivered, name
            yield each.refused, {**name, "error.type": "rejected"}

    meter.create_observable_up_down_counter(
        "otel.sdk.processor.span.queue.size", observed(lambda now: [(now.queued, {})]), "{span}"
    )
    meter.create_observable_up_down_counter(
        "otel.sdk.processor.span.queue.capacity", observed(lambda now: [(now.capacity, {})]), "{span}"
    )
    meter.create_observable_counter(
        "otel.sdk.processor.span.processed",
        observed(lambda now: [(now.recorded, {}), (now.dropped, {"error.type": "queue_full"})]),
        "{span}",
    )
    meter.create_observable_counter("otel.sdk.exporter.span.exported", observed(exported), "{span}")
    meter.create_observable_counter(
        "loopkit.spool.spans",
        observed(lambda now: [(each.spooled, {"otel.component.name": each.endpoint}) for each in now.destinations]),
        "{span}",
        "Spans written to a destination's spool",
    )
    meter.create_observable_counter(
        "loopkit.spool.dropped",
        observed(lambda now: [(each.dropped, {"otel.component.name": each.endpoint}) for each in now.destinations]),
        "{batch}",
        "Batches that a spool's bound cost",
    )
    meter.create_observable_counter("loopkit.ring.lost", observed(lambda now: [(now.not_held, {})]), "{trace}")
    meter.create_observable_counter("loopkit.redacted", observed(lambda now: [(now.redacted, {})]), "{text}")
    meter.create_observable_counter(
        "loopkit.without_content", observed(lambda now: [(now.without_content, {})]), "{span}"
    )
    meter.create_observable_gauge("loopkit.calling_time", observed(lambda now: [(now.calling_us, {})]), "us")
    meter.create_observable_gauge("loopkit.own_time", observed(lambda now: [(now.own_us, {})]), "us")
    meter.create_observable_gauge("loopkit.level", observed(lambda now: [(now.level, {})]))


def _clear(directory: Path) -> None:
    """Forget processes that have said nothing for a day."""
    for file in directory.glob("*.json"):
        with _host.Shielded("clearing away a process's health"):
            if time.time() - file.stat().st_mtime > _DAY:
                file.unlink(missing_ok=True)
