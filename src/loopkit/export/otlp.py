"""Spans to an OTLP receiver: spooled on the worker's thread, sent on a thread of its own.

At least once: a batch is struck off when the receiver has acknowledged it, so only a crash in between delivers it
twice, byte for byte the same. What is needed is imported here and not when it is first used, on a thread of ours: a
fork amid an import leaves the child with a lock that nobody holds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tenacity import (
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_when_event_set,
    wait_exponential,
    wait_random,
)

from loopkit import _host
from loopkit.capture.places import Place
from loopkit.capture.sinks import Batch
from loopkit.config import Destination, Settings
from loopkit.export.place import spool_of
from loopkit.export.reshape import Reshape, service_in, with_resource
from loopkit.export.sender import Sender, until
from loopkit.export.spool import Waiting
from loopkit.export.statements import Shown, encode_statement, statement_values
from loopkit.export.transport import NotNow, Refused, Transport, transport_to
from loopkit.export.vitals import Delivery
from loopkit.types import Feedback
from loopkit.wire.encode import encode_request, spans_in

_LARGEST_BATCH = 2 << 20
_LONGEST_WAIT = 30.0
_OWN_WAIT = wait_exponential(multiplier=0.2, max=_LONGEST_WAIT) + wait_random(0, 0.2)
_POLL = 0.02
_OTHERS_POLL = 0.5
"""Seconds between looks while another process delivers."""


class OtlpSink(Sender[Transport]):
    """One destination."""

    def __init__(
        self,
        destination: Destination,
        settings: Settings,
        resource: Callable[[], bytes],
        version: str,
        transport: Any = None,
        served: Callable[[], bool] = lambda: True,
    ) -> None:
        """`served` says whether this destination is still ours to serve; `transport` replaces httpx's.

        Raises `InvalidSetting` or `OSError` for a spool that can't be.
        """
        self._shown = Shown(destination, settings)
        self._reshape = Reshape(destination, settings.limits, settings.service, settings.store or settings.home)
        self._resource = resource
        self._more_resource = tuple(destination.resource.items())
        self._version = version
        self._http = transport
        self._served = served
        self.spool = spool_of(settings.home, destination)
        self.spooled = self.delivered = self.refused = 0
        """Spans, since this process started."""
        self.seconds = 0.0
        """Processor time of its own thread."""
        super().__init__(destination, "loopkit-otlp")
        if any(self.spool.waiting()):
            self._wake()  # what an earlier process left

    @property
    def durable(self) -> bool | None:
        """See `Sink.durable`."""
        return self.spool.durable if self._served() else None

    def accept(self, batch: Batch) -> None:
        """See `Sink.accept`: on return the batch is in the spool."""
        said = batch.feedback if self.destination.feedback == "span" else ()
        if not (batch.spans or said) or not self._served():
            return
        dropped = self.spool.dropped
        try:
            service = None if batch.resource is None else service_in(batch.resource)
            reshaped = (
                self._reshape(span.exported(content=self._shown.content), crowded=span.crowded, service=service)
                for span in batch.spans
            )
            statements = (self._reshape(self._statement(event, batch.places), crowded=False) for event in said)
            spans = [span for span in (*reshaped, *statements) if span is not None]
            for portion in _portions(spans):
                resource = batch.resource or self._encoded_resource
                if self._more_resource:
                    resource = with_resource(resource, self._more_resource)
                self.spool.append(encode_request(resource, "loopkit", self._version, portion))
                self.spooled += len(portion)
        finally:
            self._wake()
        if self.spool.dropped > dropped:
            _host.warn_now_and_then(
                f"spool of {self.destination.endpoint}",
                f"the spool for {self.destination.endpoint} is full: {self.spool.dropped} batches were dropped so far",
            )

    def _statement(self, event: Feedback, places: Mapping[str, Place]) -> bytes:
        place = places.get(event.id)
        return encode_statement(event, statement_values(self._shown.placed(event, place)), place)

    def sync(self) -> None:
        """See `Sink.sync`."""
        self.spool.sync()

    def drained(self, timeout: float) -> bool:
        """See `Drainable.drained`."""
        deadline = time.monotonic() + timeout
        while self._served() and any(self.spool.waiting()):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL)
        return True

    @property
    def lost(self) -> int:
        """See `Drainable.lost`."""
        return self.refused + self.spool.dropped

    def delivery(self) -> Delivery:
        """How it is going here."""
        return Delivery(
            endpoint=self.destination.endpoint,
            spooled=self.spooled,
            delivered=self.delivered,
            refused=self.refused,
            dropped=self.spool.dropped,
        )

    def close(self, timeout: float) -> None:
        """Deliver what can be delivered within `timeout`; the rest stays in the spool for the next start."""
        deadline = time.monotonic() + timeout
        if self._thread is not None:
            self.drained(timeout)
        self._end(until(deadline) + _POLL)
        self.spool.close()

    def after_fork(self) -> None:
        """See `Sink.after_fork`."""
        self.spool.after_fork()
        self._start_fresh()

    def _start_fresh(self) -> None:
        super()._start_fresh()
        self._encoded_resource = self._resource()

    def _connected(self) -> Transport:
        return transport_to(self.destination, self._http)

    def _send_all(self, client: Transport, stop: threading.Event) -> None:
        while not stop.is_set():
            self._work.wait()
            self._work.clear()
            done = False
            with _host.Shielded("delivering spans"):
                self._drain(client, stop)
                done = True
            if not done:  # a full disk, say: it may pass
                stop.wait(_OTHERS_POLL)
                self._work.set()

    def _drain(self, transport: Transport, stop: threading.Event) -> None:
        """Deliver until nothing waits, or somebody else is delivering it."""
        while not stop.is_set():
            with self.spool.held() as ours:
                if ours:
                    self._deliver_all(transport, stop)
                    return
            if not any(self.spool.waiting()):
                return
            stop.wait(_OTHERS_POLL)

    def _deliver_all(self, transport: Transport, stop: threading.Event) -> None:
        while not stop.is_set():
            delivered, began = 0, time.thread_time()
            for batch in self.spool.waiting():
                if stop.is_set() or not self._deliver(transport, batch, stop):
                    return
                delivered += 1
            self.seconds += time.thread_time() - began
            if not delivered:
                self.spool.sweep()
                return

    def _deliver(self, transport: Transport, batch: Waiting, stop: threading.Event) -> bool:
        """Send one batch until it is acknowledged or refused for good, waiting longer each time; False when stopped."""
        retrying = Retrying(
            retry=retry_if_exception_type(NotNow),
            wait=_wait,
            stop=stop_when_event_set(stop),
            sleep=sleep_using_event(stop),
            before_sleep=lambda state: self._say_unreachable(state.outcome.exception() if state.outcome else None),
            reraise=True,
        )
        spans, endpoint = spans_in(batch.data), self.destination.endpoint
        try:
            rejected = retrying(transport.send, batch.data)
        except NotNow:
            return False  # stopped while waiting: it stays in the spool
        except Refused as refusal:
            _host.warn_once(f"refused {endpoint}", f"{endpoint} refuses: {refusal}")
            try:
                self.spool.bury(batch, str(refusal))
            except OSError as full:  # those behind it would wait for ever, and their delivery makes room
                _host.warn_once(f"letters {endpoint}", f"a refused batch can't be put aside, and is gone: {full}")
                self.spool.strike_off(batch)
            self.refused += spans
            return True
        self.spool.strike_off(batch)
        not_taken = min(max(rejected.spans, 0), spans)
        self.delivered += spans - not_taken
        self.refused += not_taken
        if not_taken:
            _host.warn_once(f"rejected {endpoint}", f"{endpoint}: {not_taken} spans rejected: {rejected.said}")
        return True

    def _say_unreachable(self, error: BaseException | None) -> None:
        _host.warn_once(
            f"unreachable {self.destination.endpoint}",
            f"{self.destination.endpoint} can't take spans now ({error}): they wait in the spool",
        )


def _portions(spans: list[bytes]) -> Iterator[list[bytes]]:
    """So many together as receivers take: gRPC's limit is 4 MiB, some proxies' is less."""
    portion: list[bytes] = []
    size = 0
    for span in spans:
        if portion and size + len(span) > _LARGEST_BATCH:
            yield portion
            portion, size = [], 0
        portion.append(span)
        size += len(span)
    if portion:
        yield portion


def _wait(state: Any) -> float:
    """As long as the receiver asked for, and exponentially longer with some jitter at least."""
    error = state.outcome.exception()
    asked = error.seconds if isinstance(error, NotNow) and error.seconds is not None else 0.0
    return max(min(asked, _LONGEST_WAIT), _OWN_WAIT(state))
