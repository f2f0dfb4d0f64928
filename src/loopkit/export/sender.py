"""A sink's own thread that sends: started when there is something to send, and ended to pause or to close."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from opentelemetry import context as otel_context

from loopkit import _host
from loopkit.config import Destination

_GRACE = 0.5
"""Seconds beyond a request's own that a thread has to end."""


class Closable(Protocol):
    """What it sends with."""

    def close(self) -> None:
        """Give back connections."""
        ...


Client = TypeVar("Client", bound=Closable)


class Sender(Generic[Client]):
    """The base of sinks that send to one destination on a thread of their own."""

    def __init__(self, destination: Destination, thread_name: str) -> None:
        self.destination = destination
        self._thread_name = thread_name
        self._start_fresh()

    @contextmanager
    def paused(self) -> Generator[None]:
        """Nothing is sent meanwhile, so that what waits can be changed."""
        self._end(self.destination.timeout + _GRACE)
        try:
            yield
        finally:
            self._start_fresh()
            self._wake()

    def _start_fresh(self) -> None:
        self._stop = threading.Event()
        self._work = threading.Event()
        self._thread: threading.Thread | None = None

    def _wake(self) -> None:
        self._work.set()
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=self._run, args=(self._stop,), name=self._thread_name, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter is ending: what waits is on disk, and the next start sends it
                return
            self._thread = thread

    def _end(self, seconds: float) -> bool:
        """Have the thread end; whether it has, in so many seconds."""
        self._stop.set()
        self._work.set()
        if self._thread is not None:
            self._thread.join(max(seconds, 0.0))
        return self._thread is None or not self._thread.is_alive()

    def _run(self, stop: threading.Event) -> None:
        # Instrumentation of httpx or gRPC must not see our own sending as the application's work; the SDK's own
        # exporters say so with the same key.
        suppress = otel_context._SUPPRESS_INSTRUMENTATION_KEY  # pyright: ignore[reportPrivateUsage]
        otel_context.attach(otel_context.set_value(suppress, True))
        try:
            client = self._connected()
        except Exception as error:  # noqa: BLE001  # say, a file with certificates that has gone since init()
            _host.report(f"connecting to {self.destination.endpoint}", error)
            return  # what comes next tries again
        try:
            self._send_all(client, stop)
        finally:
            client.close()

    def _connected(self) -> Client:
        """A client of the destination's, made on its thread."""
        raise NotImplementedError

    def _send_all(self, client: Client, stop: threading.Event) -> None:
        """Send what there is, and wait for more, until `stop`."""
        raise NotImplementedError


def until(deadline: float) -> float:
    """Seconds that are left, by the monotonic clock."""
    return max(deadline - time.monotonic(), 0.0)
