"""Spans to an OTLP/HTTP receiver: spooled on the worker's thread, posted on a thread of its own.

At least once: a batch is struck off when the receiver has acknowledged it, so only a crash in between delivers
it twice, byte for byte the same. https://opentelemetry.io/docs/specs/otlp/#otlphttp

httpx is imported here, on the thread that calls `init()`, and not later on ours: openai 3 looks into
`sys.modules` for httpx while it is being imported, and fails when it finds it half-imported by another thread.
"""

from __future__ import annotations

import hashlib
import threading
import time
from pathlib import Path
from typing import Any

import httpx

from loopkit import _host
from loopkit.capture.sinks import Batch
from loopkit.config import Destination, Settings
from loopkit.export.spool import Spool
from loopkit.wire.encode import encode_request

_RETRYABLE = frozenset((429, 502, 503, 504))
_LONGEST_WAIT = 30.0
_POLL = 0.02


class OtlpSink:
    """One destination."""

    def __init__(
        self,
        destination: Destination,
        settings: Settings,
        resource: bytes,
        version: str,
        transport: Any = None,
    ) -> None:
        self.destination = destination
        asked = destination.content
        self._content = settings.content == "export" if asked is None else asked and settings.content != "off"
        self._resource = resource
        self._version = version
        self._transport: httpx.BaseTransport | None = transport
        self.spool = Spool(spool_directory(settings.home, destination), destination.spool_bytes, time.time_ns)
        self.delivered = 0
        self._start_fresh()
        if self.spool.waiting():
            self._wake()  # what an earlier process left

    def accept(self, batch: Batch) -> None:
        """See `Sink.accept`: on return the batch is in the spool."""
        if batch.spans:
            spans = [span.bytes_with(content=self._content, local=False) for span in batch.spans]
            self.spool.append(encode_request(self._resource, "loopkit", self._version, spans))
            self._wake()

    def close(self, timeout: float) -> None:
        """Deliver what can be delivered within `timeout`; the rest stays in the spool for the next start."""
        deadline = time.monotonic() + timeout
        while self.spool.waiting() and self._thread is not None and time.monotonic() < deadline:
            time.sleep(_POLL)
        self._stop.set()
        self._work.set()
        if self._thread is not None:
            self._thread.join(max(deadline - time.monotonic(), 0.0) + _POLL)

    def after_fork(self) -> None:
        """See `Sink.after_fork`."""
        self._start_fresh()

    def _start_fresh(self) -> None:
        self._stop = threading.Event()
        self._work = threading.Event()
        self._thread: threading.Thread | None = None

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="loopkit-otlp", daemon=True)
            self._thread.start()
        self._work.set()

    def _run(self) -> None:
        with httpx.Client(transport=self._transport, timeout=self.destination.timeout) as client:
            while not self._stop.is_set():
                self._work.wait()
                self._work.clear()
                with _host.Shielded("delivering spans"):
                    self._drain(client)

    def _drain(self, client: httpx.Client) -> None:
        while not self._stop.is_set():
            with self.spool.held() as ours:
                if ours:
                    self._deliver_all(client)
            if not self.spool.waiting():
                return
            self._stop.wait(0.25)  # another process is delivering, or more has come

    def _deliver_all(self, client: httpx.Client) -> None:
        while batches := self.spool.waiting():
            for batch in batches:
                if self._stop.is_set():
                    return
                self._deliver(client, batch)

    def _deliver(self, client: httpx.Client, batch: Path) -> None:
        """Post one batch until it is acknowledged or refused for good, waiting longer each time."""
        from tenacity import Retrying, retry_if_exception_type, sleep_using_event, stop_when_event_set

        retrying = Retrying(
            retry=retry_if_exception_type(_NotNow),
            wait=_wait,
            stop=stop_when_event_set(self._stop),
            sleep=sleep_using_event(self._stop),
            reraise=True,
        )
        try:
            retrying(self._post, client, batch)
        except _NotNow:
            return  # stopped while waiting: it stays in the spool
        except FileNotFoundError:
            return  # dropped for the bound meanwhile
        except _Refused as refusal:
            _host.warn_once("refused spans", f"{self.destination.endpoint} refuses spans: {refusal}")
            self.spool.bury(batch, str(refusal))

    def _post(self, client: httpx.Client, batch: Path) -> None:
        headers = {"content-type": "application/x-protobuf", **self.destination.headers}
        try:
            response = client.post(self.destination.endpoint, content=batch.read_bytes(), headers=headers)
        except httpx.TransportError as error:
            raise _NotNow(None) from error
        if response.is_success:
            self.spool.strike_off(batch)
            self.delivered += 1
        elif response.status_code in _RETRYABLE:
            raise _NotNow(_retry_after(response))
        else:
            raise _Refused(f"HTTP {response.status_code}: {response.text[:500]}")


class _NotNow(Exception):  # a state, not an error
    """The receiver can't take it now."""

    def __init__(self, seconds: float | None) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class _Refused(Exception):
    """The receiver will never take it."""


def spool_directory(home: Path, destination: Destination) -> Path:
    """Where a destination's batches wait."""
    return home / "spool" / hashlib.sha256(destination.endpoint.encode()).hexdigest()[:16]


def _wait(state: Any) -> float:
    """As long as the receiver asked for, else exponentially longer with some jitter."""
    from tenacity import wait_exponential_jitter

    error = state.outcome.exception()
    if isinstance(error, _NotNow) and error.seconds is not None:
        return min(error.seconds, _LONGEST_WAIT)
    return wait_exponential_jitter(initial=0.2, max=_LONGEST_WAIT, jitter=0.2)(state)


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return max(float(response.headers.get("retry-after", "")), 0.0)
    except ValueError:
        return None
