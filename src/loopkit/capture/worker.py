"""The one queue and the one thread: finished spans and feedback in, encoded batches out to the sinks.

The calling thread only appends to a deque. Everything dear, translation, redaction, encoding and I/O, happens
here, a fraction of a second later.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from loopkit import _host
from loopkit.capture.finish import finished, redacted_feedback
from loopkit.capture.live import LiveSpan
from loopkit.capture.sinks import Batch, Sink
from loopkit.config import Settings
from loopkit.types import Feedback
from loopkit.wire.encode import EncodedSpan

_BATCH = 512
_HEAVY = 4096
"""Characters of content from which on an item is weighed."""
_HELD_LIMIT = 64
"""Batches kept in memory for a sink that can't take them (a full disk); beyond it the oldest goes."""


class Worker:
    """Drains its queue every `append_delay` seconds while there is something in it."""

    def __init__(self, settings: Settings, sinks: tuple[Sink, ...]) -> None:
        self._settings = settings
        self._sinks = sinks
        self.dropped = 0
        self._awake = False
        self._closed = False
        self._fault: Exception | None = None
        self._start_empty()

    def put(self, item: LiveSpan | Feedback) -> None:
        """Queue an item; where the queue is full the item is dropped and counted."""
        if len(self._queue) >= self._settings.queue_limit or not self._has_room(item):
            self.dropped += 1
            _host.warn_now_and_then("queue", f"the queue is full: {self.dropped} spans were dropped so far")
            return
        self._queue.append(item)
        if not self._awake:
            self._awake = True
            self._wake()

    def later(self, job: Callable[[], object]) -> None:
        """Run a small job on the worker's thread, soon."""
        self._queue.append(job)
        self._awake = True
        self._wake()

    def flush(self, timeout: float) -> bool:
        """True when everything put before is on disk in every sink; False at the timeout, or in memory only.

        Under `strict` it raises what went wrong on the worker's thread since the last time.
        """
        if self._closed:
            return False
        done = threading.Event()
        self._hurry.set()
        self._queue.append(done)
        self._awake = True
        self._wake()
        finished = done.wait(max(timeout, 0.0))
        if self._fault is not None:
            fault, self._fault = self._fault, None
            raise fault
        kept = [sink.durable for sink in self._sinks if sink.durable is not None]
        return finished and bool(kept) and all(kept) and not any(self._held.values())

    def close(self, timeout: float) -> bool:
        """Flush, then close the sinks within what is left of `timeout`."""
        deadline = time.monotonic() + timeout
        try:
            return self.flush(timeout)
        finally:
            self._closed = True
            self._hurry.set()
            self._signal.set()
            if self._thread is not None:
                self._thread.join(max(deadline - time.monotonic(), 0.1))
            for sink in self._sinks:
                with _host.Shielded("closing a sink"):
                    sink.close(max(deadline - time.monotonic(), 0.0))

    def after_fork(self) -> None:
        """In a child: an empty queue (the parent still has its items) and a thread of its own."""
        self._start_empty()
        for sink in self._sinks:
            self._shielded("a sink after a fork", sink.after_fork)

    def _start_empty(self) -> None:
        self._awake = self._closed = False
        self._queue: deque[LiveSpan | Feedback | threading.Event | Callable[[], object]] = deque()
        self._held: dict[int, deque[Batch]] = {index: deque() for index in range(len(self._sinks))}
        self._signal = threading.Event()
        self._hurry = threading.Event()
        self._starting = threading.Lock()
        self._weighing = threading.Lock()
        self._heavy_bytes = 0
        self._fault = None
        self._thread: threading.Thread | None = None

    def _wake(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            with self._starting:
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(target=self._run, name="loopkit-worker", daemon=True)
                    with _host.Shielded("starting the worker"):  # fails at interpreter shutdown
                        self._thread.start()
        self._signal.set()

    def _run(self) -> None:
        while True:
            self._signal.wait()
            if not self._closed:
                self._hurry.wait(self._settings.append_delay)
            self._hurry.clear()
            self._signal.clear()
            self._awake = False
            while self._queue:
                self._step()
            if self._closed:
                return

    def _step(self) -> None:
        """One batch: take, encode, hand on, then answer whoever waits in `flush`."""
        items: list[Any] = []
        waiting: threading.Event | None = None
        for _ in range(_BATCH):
            try:
                item = self._queue.popleft()
            except IndexError:
                break
            if isinstance(item, threading.Event):
                waiting = item
                break
            if isinstance(item, (LiveSpan, Feedback)):
                if isinstance(item, LiveSpan):
                    self._weigh(-item.weight)
                items.append(item)
            else:
                self._shielded("a job", item)
        if items:
            self._shielded("the worker", lambda: self._hand_on(self._encode(items)))
        elif waiting is not None and any(self._held.values()):
            self._shielded("the worker", lambda: self._hand_on(Batch()))  # what a sink could not take before
        if waiting is not None:
            for sink in self._sinks:
                self._shielded("syncing a sink", partial(_sync, sink))
            waiting.set()

    def _encode(self, items: list[LiveSpan | Feedback]) -> Batch:
        spans: list[EncodedSpan] = []
        feedback: list[Feedback] = []
        for item in items:
            if isinstance(item, Feedback):
                feedback.append(redacted_feedback(item, self._settings))
                continue
            try:
                spans.append(finished(item, self._settings))
            except Exception as error:  # noqa: BLE001  # this span's fault: the others go on
                self._note("encoding a span", error)
        return Batch(tuple(spans), tuple(feedback))

    def _hand_on(self, batch: Batch) -> None:
        for index, sink in enumerate(self._sinks):
            held = self._held[index]
            held.append(batch)
            while held:
                try:
                    if held[0].spans or held[0].feedback:
                        sink.accept(held[0])
                except OSError as error:  # the disk's fault: it may pass
                    self._hold(held, error)
                    break
                except Exception as error:  # noqa: BLE001  # this batch's fault: it would fail for ever
                    first, second = _halves(held.popleft())
                    if second is None:
                        self.dropped += len(first.spans) + len(first.feedback)
                        self._note("a sink", error)
                    else:  # down to the one item that can't be written
                        held.extendleft((second, first))
                    continue
                held.popleft()

    def _shielded(self, place: str, job: Callable[[], object]) -> None:
        """Our faults end here: this thread goes on, whatever happens."""
        try:
            job()
        except Exception as error:  # noqa: BLE001  # ours, or a sink's
            self._note(place, error)

    def _note(self, place: str, error: Exception) -> None:
        if not _host.report(place, error):
            self._fault = error

    def _has_room(self, item: LiveSpan | Feedback) -> bool:
        """Whether the queue can take this item's content; only heavy ones are weighed, the count bounds the rest."""
        if isinstance(item, Feedback):
            return True
        item.weight = _weight(item)
        return item.weight == 0 or self._weigh(item.weight)

    def _weigh(self, weight: int) -> bool:
        if weight == 0:
            return True
        with self._weighing:
            if weight > 0 and self._heavy_bytes + weight > self._settings.queue_bytes:
                return False
            self._heavy_bytes += weight
        return True

    def _hold(self, held: deque[Batch], error: Exception) -> None:
        if not (held[-1].spans or held[-1].feedback):
            held.pop()
        _host.warn_now_and_then("sink", f"data can't be written and is kept in memory for now: {error}")
        while len(held) > _HELD_LIMIT:
            lost = held.popleft()
            self.dropped += len(lost.spans) + len(lost.feedback)


def _sync(sink: Sink) -> None:
    sink.sync()


def _weight(item: LiveSpan) -> int:
    """The length of what it carries, where that is heavy; else 0."""
    length = len(item.input or "") + len(item.output or "")
    if item.exchange is not None:
        length += len(item.exchange.request) + len(item.exchange.response or "")
    return length if length > _HEAVY else 0


def _halves(batch: Batch) -> tuple[Batch, Batch | None]:
    """A batch in two; None where it holds one item."""
    spans, feedback = batch.spans, batch.feedback
    if spans and feedback:
        return Batch(spans=spans), Batch(feedback=feedback)
    if len(spans) > 1:
        middle = len(spans) // 2
        return Batch(spans=spans[:middle]), Batch(spans=spans[middle:])
    if len(feedback) > 1:
        middle = len(feedback) // 2
        return Batch(feedback=feedback[:middle]), Batch(feedback=feedback[middle:])
    return batch, None
