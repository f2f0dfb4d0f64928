"""Settings into the wired whole: the only file that knows all parts of recording, and it only wires them."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from loopkit import _host
from loopkit._ids import Clock, Ids
from loopkit._version import __version__
from loopkit.capture import slot
from loopkit.capture.recorder import Recorder
from loopkit.capture.sampling import Tail
from loopkit.capture.sinks import Sink
from loopkit.config import DEFAULT, Destination, Limits, Redactor, Sampling, Settings, Signal, Unset, settings
from loopkit.errors import StoreUnusable
from loopkit.export.host import HostSink
from loopkit.export.vitals import Delivering, Health, VitalsSink
from loopkit.route.source import VariantSource
from loopkit.signals.declared import declare
from loopkit.store.sqlite import Store
from loopkit.wire.encode import encode_resource

_logger = logging.getLogger("loopkit")
_APPEND_SECONDS = 1.0
"""That an append waits for others who write; then it waits beside the store, or in memory."""


def init(
    service: str | None = None,
    *,
    store: str | os.PathLike[str] | Unset | None = DEFAULT,
    export: Iterable[str | Destination] | None = None,
    content: str | None = None,
    redact: Redactor | None = None,
    sample: float | Sampling | None = None,
    strict: bool = False,
    limits: Limits | None = None,
    signals: Iterable[Signal] = (),
) -> None:
    """Start recording in this process.

    `service` is the name spans bear. `store` is the local store's directory (default `LOOPKIT_HOME`, else
    `.loopkit`), None for none. `export` lists OTLP endpoints, URLs or `Destination`s; `OTEL_EXPORTER_OTLP_*` adds one.
    `content` says where inputs and outputs may go: "local" (the store), "export" (over OTLP too), "off" (nowhere).
    `redact` is a function from text to text that runs before anything is kept (default: keys, cards, IBANs,
    e-mail addresses and phone numbers). `sample` is the probability with which a trace is recorded, or a `Sampling`
    (default: what `OTEL_TRACES_SAMPLER` says, else 1). `strict` raises recording's own faults. `limits` say what
    recording may take of memory, time and processor. `signals` declare what feedback may say under their names.
    Calling it again replaces the first cleanly.

    Raises `InvalidSetting` or `StoreUnusable`, with what to do, before anything is changed.
    """
    start(
        settings(
            service, store=store, export=export, content=content, redact=redact, sample=sample, strict=strict,
            limits=limits, signals=signals,
        )
    )  # fmt: skip


def start(made: Settings, *, sinks: tuple[Sink, ...] = (), clock: Clock | None = None, ids: Ids | None = None) -> None:
    """`init` with everything passed in: extra sinks, clock and ids."""
    host = HostSink(made, __version__, lambda: _host_found(recorder, host))
    vitals = VitalsSink(made.home, lambda: _health_of(recorder), health)
    clock = clock or Clock()
    made, tail = _tail(made, clock)
    all_sinks = () if made.disabled else (host, *_sinks(made, host, clock), *sinks, vitals)
    shutdown()
    _host.strict = made.strict
    if made.disabled:
        return
    recorder = Recorder(made, all_sinks, clock, ids or Ids(), tail)
    recorder.provider_came = host.look
    host.look()
    if made.store is not None:
        directory = made.store
        recorder.provide("variants", lambda: _registry(directory, recorder))
        if made.signals:
            recorder.worker.later(lambda: declare(Store(directory), made.signals.values()))
    slot.recorder = recorder
    atexit.register(_at_exit)
    _hook_multiprocessing()


def shutdown(timeout: float | None = None) -> bool:
    """Flush, stop the threads and give everything back; True when all that was recorded is on disk."""
    recorder = slot.recorder
    if recorder is None:
        return True
    slot.recorder = None
    atexit.unregister(_at_exit)
    return recorder.worker.close(recorder.settings.limits.exit_timeout if timeout is None else timeout)


def flush(timeout: float = 5.0, *, delivered: bool = False) -> bool:
    """True when everything recorded so far is on disk (in the store and in every destination's spool).

    False at the timeout, or where there is no disk to be on. With `delivered` it waits until every destination has
    taken it, as a function in the cloud needs that may be frozen or lose its disk when it has answered. Blocks; in an
    event loop use `aflush`.
    """
    recorder = slot.recorder
    return recorder is not None and recorder.worker.flush(timeout, delivered=delivered)


def health() -> Health | None:
    """How recording is in this process: what came, what was dropped, and what it costs; None where it is off."""
    recorder = slot.recorder
    return None if recorder is None else _health_of(recorder)


async def aflush(timeout: float = 5.0, *, delivered: bool = False) -> bool:
    """`flush`, without blocking the event loop."""
    import asyncio

    return await asyncio.to_thread(flush, timeout, delivered=delivered)


async def ashutdown(timeout: float | None = None) -> bool:
    """`shutdown`, without blocking the event loop."""
    import asyncio

    return await asyncio.to_thread(shutdown, timeout)


def _health_of(recorder: Recorder) -> Health:
    worker, made = recorder.worker, recorder.settings
    return Health(
        service=made.service,
        pid=os.getpid(),
        at=recorder.clock.now(),
        recorded=worker.recorded,
        queued=worker.queued,
        capacity=made.limits.queue_items,
        dropped=worker.dropped,
        not_held=worker.tail.lost(),
        redacted=worker.finisher.redacted,
        without_content=worker.finisher.without_content,
        calling_us=recorder.calling.mean(),
        own_us=worker.seconds() * 1e6 / max(worker.recorded, 1),
        level=recorder.budget.level,
        destinations=tuple(sink.delivery() for sink in worker.sinks if isinstance(sink, Delivering)),
    )


def _host_found(recorder: Recorder, host: HostSink) -> None:
    """The application's provider shuts down when the process ends; ours must have handed on everything before."""
    recorder.samples_root = host.samples
    recorder.worker.exports = True
    if slot.recorder is recorder:
        atexit.unregister(_at_exit)
        atexit.register(_at_exit)


def _sinks(made: Settings, host: HostSink, clock: Clock) -> tuple[Sink, ...]:
    sinks: list[Sink] = []
    resource = partial(_resource, made)
    if made.store is not None:
        sinks += _store_sink(made, clock)
    if made.destinations:
        from loopkit.export.otlp import OtlpSink

        def ours(destination: Destination) -> bool:
            """Never the same span twice to the same place."""
            return not host.serves(destination) and not (host.reached and destination.from_environment)

        sinks += [
            OtlpSink(destination, made, resource, __version__, served=partial(ours, destination))
            for destination in made.destinations
        ]
    if made.store is not None:
        by_api = [each for each in made.destinations if each.feedback not in (None, "span")]
        sinks += _outboxes(by_api, made, clock)
    return tuple(sinks)


def _outboxes(destinations: list[Destination], made: Settings, clock: Clock) -> list[Sink]:
    """A store that can't be written now has been told of: what is said meanwhile is told of by the next process."""
    if not destinations:
        return []
    from loopkit.observe.outbox import OutboxSink

    with suppress(StoreUnusable):
        return [OutboxSink(each, made, _store(made, clock), clock) for each in destinations]
    return []


def _store_sink(made: Settings, clock: Clock) -> list[Sink]:
    """A disk that can't be written costs the store, with a warning; a store that is broken is the caller's to mend."""
    from loopkit.store.sink import StoreSink

    try:
        return [StoreSink(_store(made, clock), partial(_resource, made), __version__, made.limits, clock)]
    except StoreUnusable as error:
        if not isinstance(error.__cause__, OSError):
            raise
        _logger.warning("loopkit: nothing is kept on disk, only in memory: %s", error)
        return []


def _store(made: Settings, clock: Clock) -> Store:
    return Store(made.store or made.home, clock=clock, busy_seconds=_APPEND_SECONDS)


def _tail(made: Settings, clock: Clock) -> tuple[Settings, Tail]:
    """What the tail leaves out waits on disk; where that can't be written nothing is left out, with a warning.

    A process that leaves nothing out still brings back what others hold, when it gets feedback on it.
    """
    from loopkit.store.ring import FILE, Ring

    def open_ring() -> Ring | None:
        is_needed = made.sampling.tail < 1.0 or (made.home / FILE).exists()
        return Ring(made.home, made.sampling, clock) if is_needed else None

    tail = Tail(open_ring, partial(_resource, made))
    try:
        if made.sampling.tail < 1.0 and not made.disabled:
            tail.ring()
    except StoreUnusable as error:
        if not isinstance(error.__cause__, OSError):
            raise
        _logger.warning("loopkit: the tail's sampling is off, since what it leaves out can't be kept: %s", error)
        made = replace(made, sampling=replace(made.sampling, tail=1.0))
    return made, tail


def _resource(made: Settings) -> bytes:
    """What is true of every span of this process; made anew in a forked child."""
    return encode_resource(
        {
            "telemetry.sdk.name": "loopkit",
            "telemetry.sdk.language": "python",
            "telemetry.sdk.version": __version__,
            "host.name": _host_name(),
            "process.pid": os.getpid(),
            **made.resource,
        }
    )


def _host_name() -> str:
    if hasattr(os, "uname"):
        return os.uname().nodename
    import platform  # Windows; importing it takes milliseconds

    return platform.node()


def _at_exit() -> None:
    recorder = slot.recorder
    if recorder is not None:
        recorder.worker.close(recorder.settings.limits.exit_timeout)


def _registry(directory: Path, recorder: Recorder) -> VariantSource:
    """The registry as routers see it. Its store doesn't flush before reading: it is read on the worker itself."""
    from loopkit.deploy.registry import Registry

    return Registry(Store(directory), later=recorder.worker.later)


_hooked = False


def _hook_multiprocessing() -> None:
    """Children of multiprocessing leave by os._exit, past atexit: they run their own finalizers instead."""
    global _hooked
    if not _hooked and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_finalize_in_child)
        _hooked = True


def _finalize_in_child() -> None:
    recorder = slot.recorder
    util = sys.modules.get("multiprocessing.util")
    if recorder is not None and util is not None:

        def finalize(_: Recorder) -> None:
            util.Finalize(None, _at_exit, exitpriority=10)

        # Not a Finalize at once: a child of multiprocessing clears its finalizers first, then runs these.
        util.register_after_fork(recorder, finalize)
