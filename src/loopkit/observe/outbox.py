"""Feedback on its way out, to backends that take it by their own APIs: what holds of a target, whenever that changes.

The store's log is what is told from, so that feedback from anywhere goes out, late or early, of this process or of
another, and a crash loses nothing. What a backend doesn't know yet waits, and so does what isn't known here.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeAlias

from loopkit import _host
from loopkit._ids import Clock, is_span_id
from loopkit._json import as_text, canonical, to_dict
from loopkit.capture.sinks import Batch
from loopkit.config import Destination, Settings
from loopkit.errors import StoreUnusable
from loopkit.export.apis import Api, Missing, Statement, statement_id
from loopkit.export.sender import Sender, until
from loopkit.export.statements import Shown
from loopkit.export.transport import NotNow, Refused
from loopkit.signals.calls import corrects
from loopkit.signals.fold import fold
from loopkit.store.beside import lies_beside
from loopkit.store.outbox import Due, Outbox, Told, is_known, said_about, stored_span
from loopkit.store.sqlite import Store
from loopkit.types import Feedback, split_target

_AT_ONCE: Final = 20
_LOOK_SECONDS: Final = 5.0
"""Between looks for what other processes said."""
_LONGEST_LOOK: Final = 60.0
"""Between looks for targets that nobody knew, when they stay unknown."""
_POLL: Final = 0.02
_AGAIN_SECONDS: Final = 60.0
"""After which a key is looked at once more: the span that bears it outermost may have ended later than others."""
_FIRST_WAIT: Final = 0.25
_LONGEST_WAIT: Final = 3600.0
_GONE_SECONDS: Final = 3600.0
"""After which a span that isn't here is taken to have gone: it would have ended."""
_MOST_TRIES: Final = 16


_Change: TypeAlias = tuple[Statement, Callable[[], None]]
"""What is to be told, and what notes that it was."""


class OutboxSink(Sender[Api]):
    """One destination's, on a thread of its own."""

    durable = None
    """The log is the store's."""

    def __init__(
        self, destination: Destination, settings: Settings, store: Store, clock: Clock, transport: Any = None
    ) -> None:
        """The store is its own to close. Raises `StoreUnusable`. `transport` replaces httpx's."""
        self._name = destination.place
        self._shown = Shown(destination, settings)
        self._resource = settings.resource
        self._transport = transport
        self._clock = clock
        self._store = store
        lease = max(20.0, 2 * destination.timeout + 5)  # twice the timeout is the longest that an answer takes
        self._outbox = Outbox(self._store, self._name, clock.now, lease)
        self.lost = 0
        """Nothing ever is: what is refused stays in the outbox, with the reason."""
        self._not_before = 0.0
        """The backend wants to be left alone until then, by the monotonic clock."""
        self._look_for_unknown_at = 0.0
        self._between_looks = _LOOK_SECONDS
        super().__init__(destination, "loopkit-outbox")
        self._wake()

    def accept(self, batch: Batch) -> None:
        """See `Sink.accept`: the store has the events, this only wakes."""
        if batch.feedback:
            self._wake()

    def sync(self) -> None:
        """See `Sink.sync`."""

    def drained(self, timeout: float) -> bool:
        """See `Drainable.drained`: True when it has been told of everything that is known, but what it refused."""
        deadline = time.monotonic() + timeout
        while True:
            asked = self._ask()
            while self._looked < asked:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(_POLL)
            if self._pending == 0 and not lies_beside(self._store.directory):
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL)

    def close(self, timeout: float) -> None:
        """Tell what can be told within `timeout`; the rest is told by the next process."""
        deadline = time.monotonic() + timeout
        if self._thread is not None:
            self.drained(timeout)
        if self._end(until(deadline) + _POLL):
            self._store.close()

    def after_fork(self) -> None:
        """See `Sink.after_fork`."""
        self._start_fresh()

    def _start_fresh(self) -> None:
        super()._start_fresh()
        self._asked = self._looked = 0
        self._pending = 0

    def _ask(self) -> int:
        """Have it look. Gives how often it has been asked to: it has looked since when `_looked` is as much."""
        self._asked += 1
        self._wake()
        return self._asked

    def _connected(self) -> Api:
        return Api(self.destination, self._resource, self._transport)

    def _send_all(self, client: Api, stop: threading.Event) -> None:
        while not stop.is_set():
            self._work.clear()
            asked, wait = self._asked, _LOOK_SECONDS
            with _host.Shielded("telling of feedback"):
                wait = self._tell_all(client, stop)
                self._looked = asked
            self._work.wait(wait)

    def _tell_all(self, api: Api, stop: threading.Event) -> float:
        """Tell of everything that it is time for. Gives the seconds until there is more to be done."""
        self._outbox.collect()
        self._look_for_unknown(stop)
        while not stop.is_set() and time.monotonic() >= self._not_before:
            due = self._outbox.take(_AT_ONCE)
            if not due:
                break
            if self._shown.asks_spans or not all(is_known(each.target) for each in due):
                self._store.make_rows(stop.is_set)
            for number, each in enumerate(due):
                if stop.is_set():
                    self._outbox.give_back(due[number:])
                    break
                if not self._tell_of(api, each, stop):
                    self._outbox.give_back(due[number + 1 :])
                    break
        self._pending = self._outbox.pending()
        next_due = self._outbox.next_due()
        left = _LOOK_SECONDS if next_due is None else (next_due - self._clock.now()) / 1e9
        return min(max(left, self._not_before - time.monotonic(), 0.05), _LOOK_SECONDS)

    def _look_for_unknown(self, stop: threading.Event) -> None:
        """Targets that nobody knew may be known by now. What was recorded is read for that, without haste."""
        now = time.monotonic()
        if now < self._look_for_unknown_at or not self._outbox.has_unknown():
            return
        self._store.make_rows(stop.is_set)
        self._outbox.wake_known()
        self._between_looks = min(self._between_looks * 1.5, _LONGEST_LOOK)
        self._look_for_unknown_at = now + self._between_looks

    def _tell_of(self, api: Api, due: Due, stop: threading.Event) -> bool:
        """Tell what changed of one target. False where the backend wants to be left alone, or somebody else tells."""
        wait = min(_FIRST_WAIT * 2.0 ** min(due.tries, _MOST_TRIES), _LONGEST_WAIT)
        try:
            changes = self._changes(due)
            if changes is None:
                self._outbox.put_back(due, "the target isn't known here yet", seconds=_GONE_SECONDS, state="unknown")
                self._between_looks, self._look_for_unknown_at = _LOOK_SECONDS, 0.0
                return True
            told = self._tell_each(api, due, changes, stop)
        except NotNow as error:
            pause = min(max(error.seconds or 0.0, wait), _LONGEST_WAIT)
            _host.warn_once(f"feedback {self._name}", f"{self._name} can't take feedback now ({error}): it waits")
            self._outbox.put_back(due, str(error), seconds=pause)
            self._not_before = time.monotonic() + min(pause, _LOOK_SECONDS if error.seconds is None else pause)
            return False
        except StoreUnusable:
            raise  # somebody holds it: the lease runs out, and it is tried again
        except Exception as error:  # noqa: BLE001  # ours, or what nobody has thought of: the others go on
            _host.report("telling of feedback", error)
            self._outbox.put_back(due, repr(error)[:200], seconds=_LONGEST_WAIT)
            return True
        if told is None:
            return False
        missing, refused = told
        if missing is not None:
            self._outbox.put_back(due, missing, seconds=wait)
        elif refused is not None:
            _host.warn_once(f"feedback refused {self._name}", f"{self._name} refuses feedback: {refused}")
            self._outbox.put_back(due, refused, state="refused")
        elif is_known(due.target) or due.is_again:
            self._outbox.done(due)
        else:
            self._outbox.look_again(due, _AGAIN_SECONDS)
        return True

    def _tell_each(
        self, api: Api, due: Due, changes: list[_Change], stop: threading.Event
    ) -> tuple[str | None, str | None] | None:
        """What was missing, and what was refused first; None where it was left to others."""
        missing: str | None = None
        refused: str | None = None
        lease = due
        for statement, keep in changes:
            if stop.is_set():
                self._outbox.give_back([lease])
                return None
            renewed = self._outbox.renew(lease)
            if renewed is None:
                return None
            lease = renewed
            try:
                api.tell(statement)
                keep()
            except Missing as error:
                missing = f"the target isn't known there yet ({error})"
            except Refused as error:  # this one; the others may do
                refused = refused or str(error)
        return missing, refused

    def _changes(self, due: Due) -> list[_Change] | None:
        """What this destination has to be told of a target, each with what is to be noted afterwards; None where nobody
        knows what the target stands for."""
        said, names = said_about(self._store, due.target)
        before = self._outbox.told_of(names)
        if said and not any(is_known(split_target(target)[0]) for _, target in said):
            if not before:
                return None
            # it was known when it was told, and has gone from here since
            whole = split_target(next(iter(before.values())).about)[0]
            said = [(event, whole if event.part is None else f"{whole}#{event.part}") for event, _ in said]
        targets = {id(event): target for event, target in said}
        state = fold((event for event, _ in said), lambda event: targets[id(event)])
        if any(self._has_to_wait(event, slot[0], before) for slot, event in state.current.items()):
            return None
        changes: list[_Change] = []
        here: set[str] = set()
        for slot, event in state.current.items():
            statement = self._statement(slot[0], event, before) if is_known(split_target(slot[0])[0]) else None
            if statement is None:
                continue
            here.add(statement.id)
            told = Told(statement.id, statement.target, _facts(statement.event, event), _hash(statement))
            if not self._outbox.has(told.id, told.hash):
                changes.append((statement, partial(self._outbox.keep, due.target, told)))
        for statement_name, told in before.items():
            if statement_name not in here:
                gone = Statement(statement_name, _event_of(told), told.about, holds=False)
                changes.append((gone, partial(self._outbox.drop, statement_name)))
        return changes

    def _has_to_wait(self, event: Feedback, target: str, before: Mapping[str, Told]) -> bool:
        """Whether it hangs on the span what may be said, and that isn't here: it may still be under way. What was told
        before may be told again, and without a filter it is told without its words in the end."""
        whole = split_target(target)[0]
        if not self._shown.asks_spans or not is_span_id(whole) or stored_span(self._store, whole) is not None:
            return False
        if statement_id(target, event.name, event.by, event.source) in before:
            return False
        is_gone = self._clock.now() - event.arrived_at >= _GONE_SECONDS * 1e9
        return self._shown.filters or not is_gone

    def _statement(self, target: str, event: Feedback, before: Mapping[str, Told]) -> Statement | None:
        """As this destination may have it; None where it gets nothing of that span."""
        whole = split_target(target)[0]
        span = stored_span(self._store, whole) if is_span_id(whole) else None
        id = statement_id(target, event.name, event.by, event.source)
        has_gone = span is None and is_span_id(whole) and self._shown.asks_spans
        near = has_gone and not (id in before and before[id].facts.get("words", False))
        if span is not None and not self._shown.passes(span):
            return None
        said = event
        if event.correction is not None and not corrects(event):  # no right answer until somebody accepts it
            said = replace(event, correction=None, comment=event.comment or as_text(event.correction))
        shown = self._shown(said, span=span, near=near)
        return Statement(id, shown, self._shown.target(target), holds=True)


def _facts(shown: Feedback, event: Feedback) -> dict[str, Any]:
    words = (shown.value, shown.comment, shown.correction, shown.reason) == (
        event.value, event.comment, event.correction, event.reason,
    )  # fmt: skip
    return {
        "name": event.name, "by": event.by, "source": event.source, "corrects": event.correction is not None,
        "words": words,
    }  # fmt: skip


def _event_of(told: Told) -> Feedback:
    """As much of it as is known when it is taken back."""
    facts = told.facts
    return Feedback(
        id=told.id, target=told.about, name=facts["name"], by=facts["by"], source=facts["source"], at=0, arrived_at=0,
        correction="" if facts["corrects"] else None,
    )  # fmt: skip


def _hash(statement: Statement) -> str:
    event = {name: value for name, value in to_dict(statement.event).items() if name not in ("id", "arrived_at")}
    return hashlib.sha256(canonical([statement.target, event]).encode("utf-8", "replace")).hexdigest()[:32]
