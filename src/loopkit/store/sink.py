"""The store as a sink of the recorder's worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from loopkit import _host
from loopkit._ids import Clock
from loopkit.capture.sinks import Batch, NotTaken
from loopkit.config import Limits
from loopkit.errors import StoreUnusable
from loopkit.store.beside import Beside
from loopkit.store.sqlite import Store
from loopkit.wire.encode import encode_request

_LOOK_BYTES = 1 << 20
_LOOK_NANOSECONDS = 60 * 10**9
"""How much may be written, or how long it may be, until room is looked for."""


class StoreSink:
    """Appends each batch, with what only the local store may have."""

    durable = True

    def __init__(self, store: Store, resource: Callable[[], bytes], version: str, limits: Limits, clock: Clock) -> None:
        self.store = store
        self._limits = limits
        self._clock = clock
        self._look_at = 0
        self._written = 0
        self._resource = resource
        self._encoded_resource = resource()
        self._version = version
        self._beside = Beside(store.directory)
        self._is_anything_beside = True  # of a process before, maybe

    def accept(self, batch: Batch) -> None:
        """See `Sink.accept`."""
        data = None
        media: dict[str, bytes] = {}
        if batch.spans:
            spans = [span.stored() for span in batch.spans]
            data = encode_request(batch.resource or self._encoded_resource, "loopkit", self._version, spans)
            for span in batch.spans:
                media.update(span.media)
        try:
            self.store.append(data, batch.feedback, media)
        except StoreUnusable as error:
            raise self._put_beside(batch, error) from error
        self._bring_over()
        self._written += len(data or b"") + sum(map(len, media.values()))
        self._make_room()

    def _put_beside(self, batch: Batch, error: StoreUnusable) -> OSError:
        """Feedback is kept all the same; the spans wait in memory."""
        if not batch.feedback:
            return error
        try:
            self._beside.append(batch.feedback)
        except OSError:  # a full disk: it waits in memory too
            return error
        self._is_anything_beside = True
        return NotTaken(str(error), replace(batch, feedback=()))

    def _bring_over(self) -> None:
        """What lies beside is no matter of the batch that was just written: it may fail, and is tried again."""
        if self._is_anything_beside:
            try:
                self._beside.bring_over(lambda events: self.store.append(None, events))
                self._is_anything_beside = False
            except OSError as error:
                _host.warn_now_and_then("beside", f"what lies beside the store can't be brought over yet: {error}")

    def _make_room(self) -> None:
        """A portion at a time, so that nothing waits long for it; again with the next batch while there is more."""
        now = self._clock.now()
        if self._written < _LOOK_BYTES and now < self._look_at:
            return
        limits = self._limits
        if not self.store.make_room(days=limits.store_days, bytes=limits.store_bytes).goes_on:
            self._look_at, self._written = now + _LOOK_NANOSECONDS, 0
            self._is_anything_beside = True  # of a process that has died meanwhile, maybe

    def sync(self) -> None:
        """See `Sink.sync`."""
        self._bring_over()
        self.store.sync()
        self._beside.sync()

    def close(self, timeout: float) -> None:
        """See `Sink.close`."""
        self._beside.close()
        self.store.close()

    def after_fork(self) -> None:
        """See `Sink.after_fork`: every store looks after its own connections."""
        self._encoded_resource = self._resource()
        self._beside = Beside(self.store.directory)
        self._is_anything_beside = True
