"""The one queue and the one thread: finished spans and feedback in, encoded batches out to the sinks.

The calling thread only appends to a deque. Everything dear, translation, redaction, encoding and I/O, happens
here, a fraction of a second later.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace
from functools import partial
from random import random
from typing import Any, TypeVar

from loopkit import _host
from loopkit.capture.budget import Budget
from loopkit.capture.finish import Finisher
from loopkit.capture.live import LiveSpan
from loopkit.capture.places import Places
from loopkit.capture.sampling import Tail, keys_of
from loopkit.capture.sinks import Batch, Drainable, NotTaken, Sink
from loopkit.config import Settings
from loopkit.types import Feedback, Span
from loopkit.wire.encode import EncodedSpan

Result = TypeVar("Result")

_BATCH = 512
_TURN = 32
"""Items in a row; otherwise whoever wants the interpreter meanwhile waits for its switch interval, 5 ms."""
_CROWDED = 2048
"""With so many waiting there is no time for that: threads that compute get it back only after the same interval."""
_HEAVY = 4096
"""Characters of content from which on an item is weighed."""
_GONE = -1
"""The weight of a span that went for a heavier one: it is passed over."""
_HELD_LIMIT = 64
"""Batches kept in memory for a sink that can't take them (a full disk); beyond it the oldest goes."""


class Worker:
    """Drains its queue every `append_delay` seconds while there is something in it."""

    def __init__(self, settings: Settings, sinks: tuple[Sink, ...], tail: Tail) -> None:
        self._limits = settings.limits
        self.sinks = sinks
        self.finisher = Finisher(settings)
        self.tail = tail
        self.places = Places()
        self.exports = bool(settings.destinations)
        """Whether anybody wants to know which span a response's id or a key stands for."""
        self.recorded = 0
        """Spans handed on."""
        self.dropped = 0
        """Spans and feedback that the queue's bound cost, or that no sink could take."""
        self._seconds = 0.0
        self._lost_told = 0
        """What destinations had refused or dropped when somebody last waited for them."""
        self.budget = Budget(settings.limits.budget, self.seconds)
        self._awake = False
        self._closed = False
        self._fault: Exception | None = None
        self._start_empty()

    def put(self, item: LiveSpan | Span | Feedback) -> None:
        """Queue an item; where the queue is full one goes, by `Limits.drop`, and is counted."""
        waiting = len(self._queue)
        full = waiting >= self._limits.queue_items
        if (full and not self._makes_room(item)) or (isinstance(item, LiveSpan) and not self._takes_heavy(item)):
            self._count_dropped()
            return
        self._queue.append(item)
        if not self._awake:
            self._awake = True
            self._wake()
        if waiting == _BATCH:  # enough for one, so why wait
            self._hurry.set()

    @property
    def queued(self) -> int:
        """What waits now."""
        return len(self._queue) - self._gone

    def seconds(self) -> float:
        """Processor time that this thread and the sinks' own threads have taken so far."""
        return self._seconds + sum(getattr(sink, "seconds", 0.0) for sink in self.sinks)

    def later(self, job: Callable[[], object]) -> None:
        """Run a small job on the worker's thread, soon."""
        self._queue.append(job)
        self._awake = True
        self._wake()

    def done(self, job: Callable[[], Result], timeout: float) -> Result:
        """Run a job on the worker's thread, between two batches, and give what it gives, or raise what it raises.

        Raises `TimeoutError` where the thread doesn't come to it; where it has ended, the job is run here.
        """
        if self._closed:
            return job()
        made: Future[Result] = Future()

        def run() -> None:
            if made.set_running_or_notify_cancel():
                try:
                    made.set_result(job())
                except BaseException as error:  # noqa: BLE001  # the caller's to see
                    made.set_exception(error)

        self._hurry.set()
        self.later(run)
        try:
            return made.result(timeout)
        except FutureTimeout:
            if made.cancel():
                raise TimeoutError(f"recording's thread was busy for {timeout:g} s") from None
            return made.result()  # it has begun

    def flush(self, timeout: float, *, delivered: bool = False) -> bool:
        """True when everything put before is on disk in every sink; False at the timeout, or in memory only.

        With `delivered`, True when every destination has taken it. Under `strict` it raises what went wrong on the
        worker's thread since the last time.
        """
        if self._closed or threading.current_thread() is self._thread:  # where one would wait for oneself
            return False
        deadline = time.monotonic() + timeout
        sending = [sink for sink in self.sinks if isinstance(sink, Drainable)]
        told = self._lost_told
        done = threading.Event()
        self._hurry.set()
        self._queue.append(done)
        self._awake = True
        self._wake()
        finished = done.wait(max(timeout, 0.0))
        if self._fault is not None:
            fault, self._fault = self._fault, None
            raise fault
        if not finished or any(self._held.values()):
            return False
        if delivered and sending:
            drained = [sink.drained(max(deadline - time.monotonic(), 0.0)) for sink in sending]
            lost = self._lost_told = sum(sink.lost for sink in sending)
            return all(drained) and lost == told  # what was refused since the last time was not taken
        kept = [sink.durable for sink in self.sinks if sink.durable is not None]
        return bool(kept) and all(kept)

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
            for sink in self.sinks:
                with _host.Shielded("closing a sink"):
                    sink.close(max(deadline - time.monotonic(), 0.0))
            with _host.Shielded("closing the ring"):
                self.tail.close()

    def after_fork(self) -> None:
        """In a child: an empty queue (the parent still has its items) and a thread of its own."""
        self._start_empty()
        self.recorded = self.dropped = 0
        self._seconds = 0.0
        self.finisher.redacted = self.finisher.without_content = 0
        self.tail.after_fork()
        self.budget.reset()
        for sink in self.sinks:
            self._shielded("a sink after a fork", sink.after_fork)

    def _start_empty(self) -> None:
        self._awake = self._closed = False
        self._queue: deque[LiveSpan | Span | Feedback | threading.Event | Callable[[], object]] = deque()
        self._held: dict[int, deque[Batch]] = {index: deque() for index in range(len(self.sinks))}
        self._signal = threading.Event()
        self._hurry = threading.Event()
        self._starting = threading.Lock()
        self._weighing = threading.RLock()  # a stream that is collected while it is held is weighed too
        self._heavy_bytes = 0
        self._heavy: deque[LiveSpan] = deque()
        self._gone = 0
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
                self._hurry.wait(self._limits.append_delay)
            self._hurry.clear()
            self._signal.clear()
            self._awake = False
            while self._queue:
                began = time.thread_time()
                self._step()
                self._seconds += time.thread_time() - began
                self.budget.look()
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
            if isinstance(item, (LiveSpan, Feedback, Span)):
                if isinstance(item, LiveSpan) and item.weight and not self._lightened(item):
                    continue
                items.append(item)
            else:
                self._shielded("a job", item)
        if items:
            self._shielded("the worker", partial(self._handle, items))
        elif waiting is not None and any(self._held.values()):
            self._shielded("the worker", lambda: self._hand_on(Batch()))  # what a sink could not take before
        if waiting is not None:
            for sink in self.sinks:
                self._shielded("syncing a sink", sink.sync)
            waiting.set()

    def _handle(self, items: list[LiveSpan | Span | Feedback]) -> None:
        spans: list[tuple[LiveSpan, EncodedSpan]] = []
        read: list[EncodedSpan] = []
        feedback: list[Feedback] = []
        for number, item in enumerate(items):
            if number % _TURN == 0 and len(self._queue) < _CROWDED:
                time.sleep(1e-6)  # lets a thread of the application have the interpreter
            if isinstance(item, Feedback):
                feedback.append(self.finisher.feedback(item))
                continue
            try:
                if isinstance(item, Span):
                    read.append(self.finisher.read(item))
                else:
                    spans.append((item, self.finisher.span(item)))
                    if self.exports:
                        self.places.note(item, self.finisher.keys(item))
            except Exception as error:  # noqa: BLE001  # this span's fault: the others go on
                self._note("encoding a span", error)
        kept, asked = self.tail.sift(spans, self.finisher.keys)
        kept += read
        if kept or feedback:
            found = ((event.id, self.places.find(event)) for event in feedback)
            places = {id: place for id, place in found if place is not None}
            self._hand_on(Batch(tuple(kept), tuple(feedback), places=places))
        asked |= {key for event in feedback for key in keys_of(event)}
        if asked:
            again = partial(self.tail.release, asked, lambda resource, found: self._hand_on(Batch(found, (), resource)))
            self._shielded("bringing a sampled-out trace back", again)

    def _hand_on(self, batch: Batch) -> None:
        self.recorded += len(batch.spans)
        for index, sink in enumerate(self.sinks):
            held = self._held[index]
            mine = batch
            if held and batch.feedback:  # what people said doesn't wait behind spans
                held.appendleft(replace(batch, spans=()))
                mine = replace(batch, feedback=())
            if mine.spans or mine.feedback or not held:  # an empty one only has what waits be tried again
                held.append(mine)
            while held:
                try:
                    if held[0].spans or held[0].feedback:
                        sink.accept(held[0])
                except OSError as error:  # the disk's fault: it may pass
                    if isinstance(error, NotTaken):
                        held[0] = error.left
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

    def _takes_heavy(self, item: LiveSpan) -> bool:
        """Whether there is room for its content. Heavy ones alone are weighed, and make room for each other alone."""
        weight = _weight(item)
        if weight == 0:
            return True
        with self._weighing:
            while self._heavy_bytes + weight > self._limits.queue_bytes:
                goes = self._limits.drop == "oldest" or (self._limits.drop == "sampled" and random() < 0.5)
                if not goes or not self._heavy or weight > self._limits.queue_bytes:
                    return False
                oldest = self._heavy.popleft()
                self._heavy_bytes -= oldest.weight
                oldest.weight, oldest.input, oldest.output, oldest.exchange = _GONE, None, None, None
                self._gone += 1
                self._count_dropped()
            self._heavy_bytes += weight
            self._heavy.append(item)
            item.weight = weight
        return True

    def _lightened(self, item: LiveSpan) -> bool:
        """Take a heavy one off the scales; False where it has gone meanwhile to make room."""
        with self._weighing:
            if item.weight == _GONE:
                self._gone -= 1
                return False
            self._heavy_bytes -= item.weight
            self._heavy.remove(item)  # the first one or nearly: they come in order
        return True

    def _makes_room(self, item: LiveSpan | Span | Feedback) -> bool:
        """Whether the oldest went for this one. Feedback never goes for a span, and nothing that somebody waits for."""
        if isinstance(item, Feedback) or self._limits.drop == "oldest":
            return self._drops_oldest()
        return self._limits.drop == "sampled" and random() < 0.5 and self._drops_oldest()

    def _drops_oldest(self) -> bool:
        passed: list[Any] = []
        oldest: Any = None
        while len(passed) < _BATCH and not isinstance(oldest, LiveSpan):
            try:
                oldest = self._queue.popleft()
            except IndexError:
                break
            if not isinstance(oldest, LiveSpan):
                passed.append(oldest)
        self._queue.extendleft(reversed(passed))
        if not isinstance(oldest, LiveSpan):
            return False
        if oldest.weight == 0 or self._lightened(oldest):
            self._count_dropped()
        return True

    def _count_dropped(self) -> None:
        self.dropped += 1
        _host.warn_now_and_then("queue", f"the queue is full: {self.dropped} spans were dropped so far")

    def _hold(self, held: deque[Batch], error: Exception) -> None:
        for batch in [each for each in held if not (each.spans or each.feedback)]:
            held.remove(batch)
        _host.warn_now_and_then("sink", f"data can't be written and is kept in memory for now: {error}")
        while len(held) > _HELD_LIMIT:  # spans go before what people said
            lost = next((batch for batch in held if batch.spans), held[0])
            held.remove(lost)
            self.dropped += len(lost.spans) + len(lost.feedback)


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
        return replace(batch, feedback=()), replace(batch, spans=())
    if len(spans) > 1:
        middle = len(spans) // 2
        return replace(batch, spans=spans[:middle]), replace(batch, spans=spans[middle:])
    if len(feedback) > 1:
        middle = len(feedback) // 2
        return replace(batch, feedback=feedback[:middle]), replace(batch, feedback=feedback[middle:])
    return batch, None
