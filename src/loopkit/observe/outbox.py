"""Feedback on its way out, to backends that take it by their own APIs: what holds of a target, whenever that changes.

The store's log is what is told from, so that feedback from anywhere goes out, late or early, of this process or of
another, and a crash loses nothing. What a backend doesn't know yet waits, and so does what isn't known here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from opentelemetry import context as otel_context

from loopkit import _host
from loopkit._ids import Clock, is_span_id
from loopkit.capture.sinks import Batch
from loopkit.config import Destination, Settings, Signal
from loopkit.errors import StoreUnusable
from loopkit.export.apis import Api, Missing, Statement, statement_id
from loopkit.export.statements import shown
from loopkit.export.transport import NotNow, Refused
from loopkit.signals.fold import fold
from loopkit.store.outbox import LEASE_SECONDS, Due, Outbox, said_about
from loopkit.store.sqlite import Store
from loopkit.types import Feedback, split_target

_AT_ONCE: Final = 20
_LOOK_SECONDS: Final = 5.0
"""Between looks for what other processes said."""
_POLL: Final = 0.02
_LONGEST_WAIT: Final = 3600.0
_LONGEST_PAUSE: Final = 30.0
_PLACED: Final = ("trace:", "session:")


class OutboxSink:
    """One destination's, on a thread of its own."""

    durable = None
    """The log is the store's."""

    def __init__(self, destination: Destination, settings: Settings, clock: Clock, transport: Any = None) -> None:
        """Raises `StoreUnusable`. `transport` replaces httpx's."""
        self._destination = destination
        self._name = destination.endpoint if destination.name is None else f"{destination.endpoint} {destination.name}"
        asked = destination.content
        self._content = settings.content == "export" if asked is None else asked and settings.content != "off"
        self._service = settings.service
        self._signals: Mapping[str, Signal] = settings.signals
        self._transport = transport
        self._clock = clock
        self._store = Store(settings.store or settings.home, clock=clock)
        self._outbox = Outbox(self._store, self._name, clock.now)
        self.lost = 0
        """Nothing ever is: what is refused stays in the outbox, with the reason."""
        self.seconds = 0.0
        """Processor time of its own thread."""
        self._start_fresh()
        self._wake()

    def accept(self, batch: Batch) -> None:
        """See `Sink.accept`: the store has the events, this only wakes."""
        if batch.feedback:
            self._wake()

    def sync(self) -> None:
        """See `Sink.sync`."""

    def drained(self, timeout: float) -> bool:
        """See `Drainable.drained`: True when everything was tried, and what isn't known there or here waits."""
        deadline = time.monotonic() + timeout
        while True:
            asked = self._wake()
            while self._looked < asked:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(_POLL)
            if self._outbox.untried() == 0:
                return True
            time.sleep(_POLL)  # another process has taken some

    def close(self, timeout: float) -> None:
        """Tell what can be told within `timeout`; the rest is told by the next process."""
        deadline = time.monotonic() + timeout
        with suppress(StoreUnusable):
            if self._thread is not None and self._outbox.untried():
                self.drained(timeout)
        self._stop.set()
        self._work.set()
        if self._thread is not None:
            self._thread.join(max(deadline - time.monotonic(), 0.0) + _POLL)
        self._store.close()

    def after_fork(self) -> None:
        """See `Sink.after_fork`."""
        self._start_fresh()

    def _start_fresh(self) -> None:
        self._stop = threading.Event()
        self._work = threading.Event()
        self._asked = self._looked = 0
        self._thread: threading.Thread | None = None

    def _wake(self) -> int:
        """Have it look. Gives how often it has been asked to: it has looked since when `_looked` is as much."""
        self._asked += 1
        self._work.set()
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=self._run, name="loopkit-outbox", daemon=True)
            with suppress(RuntimeError):  # the interpreter is ending: the next process tells
                thread.start()
                self._thread = thread
        return self._asked

    def _run(self) -> None:
        suppressed = otel_context._SUPPRESS_INSTRUMENTATION_KEY  # pyright: ignore[reportPrivateUsage]
        otel_context.attach(otel_context.set_value(suppressed, True))
        api = Api(self._destination, self._service, self._transport)
        try:
            while not self._stop.is_set():
                self._work.clear()
                asked, began = self._asked, time.thread_time()
                wait = _LOOK_SECONDS
                with _host.Shielded("telling of feedback"):
                    wait = self._tell_all(api)
                self.seconds += time.thread_time() - began
                self._looked = asked
                self._work.wait(wait)
        finally:
            api.close()

    def _tell_all(self, api: Api) -> float:
        """Tell of everything that it is time for. Gives the seconds until there is more to be done."""
        self._outbox.collect()
        while not self._stop.is_set():
            due = self._outbox.take(_AT_ONCE)
            if not due:
                break
            taken_at = time.monotonic()
            for number, each in enumerate(due):
                if time.monotonic() - taken_at > LEASE_SECONDS / 2:
                    break  # somebody else may have them soon
                pause = _LOOK_SECONDS if self._stop.is_set() else self._tell_of(api, each)
                if pause is not None:  # nobody there: the others needn't try
                    for later in due[number + 1 :]:
                        self._outbox.put_back(later, "the backend can't be reached", pause)
                    break
        next_due = self._outbox.next_due()
        left = _LOOK_SECONDS if next_due is None else (next_due - self._clock.now()) / 1e9
        return min(max(left, 0.05), _LOOK_SECONDS)

    def _tell_of(self, api: Api, due: Due) -> float | None:
        """Tell what holds of one target. Where the backend can't be reached, how long to wait, in seconds."""
        wait = min(2.0**due.tries, _LONGEST_WAIT)
        statements = self._statements(due)
        if statements is None:
            self._outbox.put_back(due, "the target isn't known here yet", wait)
            return None
        refused: list[str] = []
        try:
            for statement in statements:
                try:
                    api.tell(statement)
                except Refused as error:  # this one; the others may do
                    refused.append(str(error))
        except NotNow as error:
            seconds = min(error.seconds or wait, _LONGEST_PAUSE)
            _host.warn_once(f"feedback {self._name}", f"{self._name} can't take feedback now ({error}): it waits")
            self._outbox.put_back(due, str(error), seconds)
            return seconds
        except Missing as error:
            self._outbox.put_back(due, f"the target isn't known there yet ({error})", wait)
            return None
        if refused:
            _host.warn_once(f"feedback refused {self._name}", f"{self._name} refuses feedback: {refused[0]}")
            self._outbox.put_back(due, refused[0], None)
        else:
            self._outbox.told(due)
        return None

    def _statements(self, due: Due) -> list[Statement] | None:
        """All that holds of a target, and what held once; None where nobody knows what it stands for."""
        said = said_about(self._store, due.target)
        targets = {id(event): target for event, target in said}
        wholes = {split_target(target)[0] for _, target in said}
        if any(not (is_span_id(whole) or whole.startswith(_PLACED)) for whole in wholes):
            return None
        state = fold((event for event, _ in said), lambda event: targets[id(event)])
        found = [self._statement(slot[0], event, holds=True) for slot, event in state.current.items()]
        ids = {statement.id for statement in found}
        for event, target in said:
            if event.retracts is None:
                gone = self._statement(target, event, holds=False)
                if gone.id not in ids:
                    ids.add(gone.id)
                    found.append(gone)
        return found

    def _statement(self, target: str, event: Feedback, *, holds: bool) -> Statement:
        id = statement_id(target, event.name, event.by, event.source)
        return Statement(id, shown(event, content=self._content, signals=self._signals), target, holds)
