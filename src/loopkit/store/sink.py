"""The store as a sink of the recorder's worker."""

from __future__ import annotations

from collections.abc import Callable

from loopkit.capture.sinks import Batch
from loopkit.store.sqlite import Store
from loopkit.wire.encode import encode_request


class StoreSink:
    """Appends each batch, with what only the local store may have."""

    durable = True

    def __init__(self, store: Store, resource: Callable[[], bytes], version: str) -> None:
        self.store = store
        self._resource = resource
        self._encoded_resource = resource()
        self._version = version

    def accept(self, batch: Batch) -> None:
        """See `Sink.accept`."""
        data = None
        if batch.spans:
            spans = [span.stored() for span in batch.spans]
            data = encode_request(batch.resource or self._encoded_resource, "loopkit", self._version, spans)
        self.store.append(data, batch.feedback)

    def sync(self) -> None:
        """See `Sink.sync`."""
        self.store.sync()

    def close(self, timeout: float) -> None:
        """See `Sink.close`."""
        self.store.close()

    def after_fork(self) -> None:
        """See `Sink.after_fork`: every store looks after its own connections."""
        self._encoded_resource = self._resource()
