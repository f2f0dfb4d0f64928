"""Forgetting a person: what was recorded of them goes from the store, the spools, the ring and the dead letters.

Whole traces go in which a span bears the user id, with what was said of them, and what the person said themselves. What
was delivered to others is theirs to remove.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loopkit._pseudonyms import pseudonym
from loopkit.capture import slot
from loopkit.config import home_directory
from loopkit.errors import InvalidInput
from loopkit.export.place import spools
from loopkit.export.spool import DiskSpool
from loopkit.store import ring
from loopkit.store.sqlite import FILE, Store
from loopkit.wire.decode import decode_request

if TYPE_CHECKING:
    from loopkit.export.otlp import OtlpSink


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """What went."""

    traces: tuple[str, ...]
    spans: int
    """From the store."""
    feedback: int
    examples: int
    """From datasets, which keep their ids."""
    waiting: int
    """Batches in spools and dead letters out of which something was taken."""
    held: int
    """Parts of traces that waited in the ring."""
    unreachable: int
    """Segments of spools that other living processes write: they hold what those processes recorded last. Deliver them,
    or end the processes, and forget again."""


def forget(user: str, *, home: str | os.PathLike[str] | None = None) -> Forgotten:
    """Remove what was recorded of a user, by the id that spans bear, from this home directory.

    Made for requests to be forgotten: it can't be undone. In a recording process what is under way is written down
    first. Run it where the service's home directory is, and again if `unreachable` isn't 0.

    Raises `InvalidInput` for an empty user.
    """
    if not isinstance(user, str) or not user.strip():
        raise InvalidInput(f"the user is {user!r}: give the id that spans bear as user.id")
    recorder = slot.recorder
    if recorder is not None:
        recorder.worker.flush(5.0)
    directory = home_directory() if home is None else Path(home)
    if home is None and recorder is not None:
        directory = recorder.settings.home
    places = list(_spools(directory).values())
    traces = {trace for spool in places for data in _batches(spool) for trace in _traces_of(user, data)}
    held = ring.forget(directory, user)
    traces |= held.traces
    spans = feedback = examples = 0
    store_directory = directory if recorder is None else recorder.settings.store
    if store_directory is not None and (store_directory / FILE).exists():
        store = Store(store_directory)
        traces, spans, feedback, examples = store.forget(user, pseudonym(user, store_directory), traces)
    held_too = ring.forget(directory, user, traces)
    changed, unreachable = 0, 0
    with ExitStack() as pauses:
        for sink in _sending():
            pauses.enter_context(sink.paused())
        for spool in places:
            done, left = spool.rewrite(_without(traces))
            changed, unreachable = changed + done, unreachable + left
    return Forgotten(
        traces=tuple(sorted(traces)), spans=spans, feedback=feedback, examples=examples, waiting=changed,
        held=held.rows + held_too.rows, unreachable=unreachable,
    )  # fmt: skip


def _spools(directory: Path) -> dict[str, DiskSpool]:
    """Those on disk; of a recording process its own objects, which may close what they write."""
    found = spools(directory)
    for sink in _sending():
        spool = sink.spool
        if isinstance(spool, DiskSpool):
            found.update({name: spool for name, each in found.items() if each.directory == spool.directory})
    return found


def _sending() -> list[OtlpSink]:
    """The recording process's own senders."""
    recorder = slot.recorder
    if recorder is None or not recorder.settings.destinations:
        return []
    from loopkit.export.otlp import OtlpSink

    return [sink for sink in recorder.worker.sinks if isinstance(sink, OtlpSink)]


def _batches(spool: DiskSpool) -> list[bytes]:
    letters = [letter.read_bytes() for letter, _ in spool.letters()]
    return [batch.data for batch in spool.waiting()] + letters


def _traces_of(user: str, data: bytes) -> set[str]:
    if user.encode("utf-8", "replace") not in data:
        return set()
    try:
        return {span.trace_id for span, _ in decode_request(data) if span.user_id == user}
    except Exception:  # noqa: BLE001  # a dead letter may be anything
        return set()


def _without(traces: set[str]) -> Callable[[bytes], bytes]:
    """A batch without the spans of these traces: empty where none is left."""
    ids = {bytes.fromhex(trace) for trace in traces}

    def change(data: bytes) -> bytes:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        if not any(each in data for each in ids):
            return data
        try:
            request = ExportTraceServiceRequest.FromString(data)
        except Exception:  # noqa: BLE001  # damaged: it can't be read, so it goes as a whole
            return b""
        left = 0
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                kept = [span for span in scope.spans if span.trace_id not in ids]
                del scope.spans[:]
                scope.spans.extend(kept)
                left += len(kept)
        return bytes(request.SerializeToString()) if left else b""

    return change
