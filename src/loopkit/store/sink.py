"""The store as a sink of the recorder's worker."""

from __future__ import annotations

from collections.abc import Callable

from loopkit.capture.sinks import Batch
from loopkit.config import Settings
from loopkit.store.sqlite import Store
from loopkit.wire.encode import encode_request


class StoreSink:
    """Appends each batch, with its content unless that is off, and with what only the local store may have."""

    durable = True

    def __init__(self, store: Store, settings: Settings, resource: Callable[[], bytes], version: str) -> None:
        self.store = store
        self._content = settings.content != "off"
        self._resource = resource
        self._encoded_resource = resource()
        self._version = version

    def accept(self, batch: Batch) -> None:
        """See `Sink.accept`."""
        data = None
        if batch.spans:
            spans = [span.bytes_with(content=self._content, local=self._content) for span in batch.spans]
            data = encode_request(self._encoded_resource, "loopkit", self._version, spans)
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
