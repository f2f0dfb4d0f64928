"""Forgetting a person: what was recorded of them goes from the store, the spools, the ring and the dead letters.

Whole traces go in which a span bears the user id, with what was said of them, what was learned from them, and what the
person said themselves. Backends that were told of feedback by their API are told that it holds no longer; spans that
were delivered are others' to remove.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopkit._json import utf8
from loopkit._pseudonyms import pseudonym
from loopkit.capture import slot
from loopkit.capture.recorder import Recorder
from loopkit.config import home_directory
from loopkit.errors import InvalidInput, NotFound
from loopkit.export.place import spools
from loopkit.export.spool import DiskSpool, Spool
from loopkit.export.statements import is_statement
from loopkit.observe.outbox import OutboxSink
from loopkit.store import ring
from loopkit.store.sqlite import FILE, Store

if TYPE_CHECKING:
    from loopkit.export.otlp import OtlpSink

_FLUSH_SECONDS = 5.0
_BUSY_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """What went."""

    traces: tuple[str, ...]
    spans: int
    """From the store."""
    feedback: int
    examples: int
    """From datasets and variants, which keep their ids."""
    waiting: int
    """Batches in spools and dead letters out of which something was taken."""
    held: int
    """Parts of traces that waited in the ring."""
    unreachable: int
    """Segments of spools that other living processes write: they hold what those processes recorded last. Deliver them,
    or end the processes, and forget again."""


def forget(
    user: str, *, home: str | os.PathLike[str] | None = None, store: str | os.PathLike[str] | None = None
) -> Forgotten:
    """Remove what was recorded of a user, by the id that spans bear.

    `home` is the service's home directory, `store` its store's where that is another (`init(store=)`); by default those
    of the recording process, else `LOOPKIT_HOME`. Made for requests to be forgotten: it can't be undone. In a recording
    process what is under way is written down first. Run it again if `unreachable` isn't 0.

    Raises `InvalidInput` for an empty user, `NotFound` where nothing has been recorded.
    """
    if not isinstance(user, str) or not user.strip():
        raise InvalidInput(f"the user is {user!r}: give the id that spans bear as user.id")
    place = _place(home, store)
    recorder = place.recorder
    if recorder is None:
        return _forget(utf8(user), place)
    recorder.worker.flush(_FLUSH_SECONDS)
    # Who records appends to the spools too: the same thread does both, or it would lose what it is writing.
    return recorder.worker.done(lambda: _forget(utf8(user), place), _BUSY_SECONDS)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where to look."""

    home: Path
    store: Path | None
    recorder: Recorder | None
    """That records there, in this process."""

    def spools(self) -> list[Spool]:
        """What waits there; of a recording process its own objects, which may close what they write."""
        own = [sink.spool for sink in self.sending()]
        directories = {spool.directory for spool in own if isinstance(spool, DiskSpool)}
        return [*own, *(spool for spool in spools(self.home).values() if spool.directory not in directories)]

    def sending(self) -> list[OtlpSink]:
        """The recording process's own senders."""
        if self.recorder is None or not self.recorder.settings.destinations:
            return []
        from loopkit.export.otlp import OtlpSink

        return [sink for sink in self.recorder.worker.sinks if isinstance(sink, OtlpSink)]

    def telling(self) -> list[OutboxSink]:
        """The recording process's own that tell of feedback."""
        return [] if self.recorder is None else [s for s in self.recorder.worker.sinks if isinstance(s, OutboxSink)]


def _place(home: Any, store: Any) -> _Place:
    recorder = slot.recorder
    directory = Path(home or (home_directory() if recorder is None else recorder.settings.home)).absolute()
    if recorder is not None and recorder.settings.home.absolute() != directory:
        recorder = None
    if store is None and recorder is not None:
        return _Place(directory, recorder.settings.store, recorder)
    kept: Path = Path(store) if store is not None else directory
    has_store = (kept / FILE).exists()
    if not has_store and (store is not None or not ((directory / "spool").exists() or ring.exists(directory))):
        raise NotFound(f"nothing was recorded in {kept}: give the service's home directory, and its store's if another")
    return _Place(directory, kept if has_store else None, recorder)


def _forget(user: str, place: _Place) -> Forgotten:
    waiting = place.spools()
    author = pseudonym(user, place.store or place.home)
    names = {user, author}
    traces = {trace for spool in waiting for data in _batches(spool) for trace in _traces_of(names, data)}
    held = ring.forget(place.home, user)
    traces |= held.traces
    spans = examples = 0
    events: set[str] = set()
    with ExitStack() as pauses:
        for sink in place.telling():
            pauses.enter_context(sink.paused())
        if place.store is not None:
            traces, spans, events, examples = Store(place.store).forget(user, author, traces, _Learned().without)
    held_too = ring.forget(place.home, user, traces)
    changed, unreachable = 0, 0
    with ExitStack() as pauses:
        for sender in place.sending():
            pauses.enter_context(sender.paused())
        for spool in waiting:
            done, left = spool.rewrite(_without(traces, names | events))
            changed, unreachable = changed + done, unreachable + left
    return Forgotten(
        traces=tuple(sorted(traces)), spans=spans, feedback=len(events), examples=examples, waiting=changed,
        held=held.rows + held_too.rows, unreachable=unreachable,
    )  # fmt: skip


def _batches(spool: Spool) -> list[bytes]:
    letters = [letter.read_bytes() for letter, _ in spool.letters()]
    return [batch.data for batch in spool.waiting()] + letters


def _traces_of(names: set[str], data: bytes) -> set[str]:
    """The traces in which a span has one of these as an attribute, whatever a destination calls it."""
    if not any(name.encode() in data for name in names):
        return set()
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    try:
        request = ExportTraceServiceRequest.FromString(data)
    except Exception:  # noqa: BLE001  # a dead letter may be anything
        return set()
    return {
        span.trace_id.hex()
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
        if not is_statement(span) and _bears(span, names)
    }


class _Learned:
    """What documents hold of spans: examples, wherever they stand, and experiments' rows on those."""

    def __init__(self) -> None:
        self._gone: set[str] = set()
        """The examples that went. A dataset comes before the experiments on it."""

    def without(self, body: Any, spans: set[str]) -> tuple[Any, int]:
        """A document without them, and how many examples went."""
        before = len(self._gone)
        made = self._kept(body, spans)
        if len(self._gone) > before and isinstance(made.get("report"), dict):  # it counts labels by what they say
            said = {str(each.get("expected")) for each in made.get("examples") or ()}
            labels: dict[str, int] = made["report"].get("labels") or {}
            made["report"]["labels"] = {name: n for name, n in labels.items() if name in said}
        return made, len(self._gone) - before

    def _kept(self, value: Any, spans: set[str]) -> Any:
        inside: Any = value  # isinstance makes it a container of unknown types; this stays Any
        if isinstance(value, dict):
            return {name: self._kept(item, spans) for name, item in inside.items()}
        if not isinstance(value, list):
            return inside
        return [self._kept(item, spans) for item in inside if not self._goes(item, spans)]

    def _goes(self, item: Any, spans: set[str]) -> bool:
        fields: Any = item  # isinstance makes `item` a dict of unknown types; this stays Any
        if not isinstance(item, dict):
            return False
        if not spans.isdisjoint(fields.get("spans") or ()):
            self._gone.add(str(fields.get("id")))
            return True
        return bool(fields.get("example") in self._gone)


def _without(traces: set[str], names: set[str]) -> Callable[[bytes], bytes]:
    """A batch without the spans of these traces, and the statements that bear one of the names: empty where none is
    left, or where it can't be read and has a name."""
    ids = {bytes.fromhex(trace) for trace in traces} | {name.encode() for name in names}

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
                kept = [span for span in scope.spans if span.trace_id not in ids and not _is_said(span, names)]
                del scope.spans[:]
                scope.spans.extend(kept)
                left += len(kept)
        return bytes(request.SerializeToString()) if left else b""

    return change


def _is_said(span: Any, names: set[str]) -> bool:
    """What they said of somebody else's call, or what was said of theirs under a name that is no trace's."""
    return is_statement(span) and _bears(span, names)


def _bears(span: Any, names: set[str]) -> bool:
    return any(item.value.string_value in names for item in span.attributes)
