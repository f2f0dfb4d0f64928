"""What is still to be told to others of the feedback in a store, and what they have been told.

The log itself is the queue: nothing is copied. A destination keeps the place up to which it has looked, the targets
about which something came that it has not told of yet, and which statements it has told, by their ids and a hash. So a
crash loses nothing, what hasn't changed isn't sent again, and what no longer holds is taken back. Several processes may
serve one destination: who takes a target has it for a while, and whoever is killed meanwhile gives it back by that.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from loopkit._ids import is_span_id
from loopkit._json import canonical
from loopkit.store import room
from loopkit.store.database import begun
from loopkit.store.schema import AGAINST
from loopkit.store.sqlite import Store, events_in
from loopkit.types import Feedback, Span, split_target
from loopkit.wire.decode import decode_span

_PORTION: Final = 1000
_PLACED: Final = ("trace:", "session:")


@dataclass(frozen=True, slots=True)
class Due:
    """A target that somebody is to be told of."""

    target: str
    """As it was given, without the part of it that is meant."""
    seq: int
    """The latest event on it that was seen."""
    tries: int
    lease: int
    is_again: bool
    """Whether it was told of, and is looked at once more: what a key stands for may have become known later."""


@dataclass(frozen=True, slots=True)
class Told:
    """A statement that a destination has."""

    id: str
    about: str
    """What it is about there: a span, trace or session, or a part of one."""
    facts: dict[str, Any]
    """What is to be known to take it back; no words."""
    hash: str
    """Of what was told."""


@dataclass(frozen=True, slots=True)
class Untold:
    """Feedback that a destination has not taken, and why."""

    destination: str
    target: str
    since: int
    """When the first of it came, nanoseconds since the epoch."""
    tries: int
    reason: str
    is_refused: bool
    """Whether it is not tried again until something else is said of the target."""


class Outbox:
    """One destination's."""

    def __init__(self, store: Store, destination: str, clock: Callable[[], int], lease: float) -> None:
        """A destination that is new begins with what comes from now on. A taken target is somebody's for `lease`
        seconds, longer than telling one statement can take."""
        self._store = store
        self._name = destination
        self._clock = clock
        self._lease = int(lease * 1e9)
        with store.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO told SELECT ?, coalesce(max(seq), 0) FROM feedback", (destination,)
            )

    def collect(self) -> None:
        """Look at what came, and note its targets."""
        while self._collected():
            pass

    def wake_known(self) -> None:
        """Targets that nobody knew, and somebody does now, are due."""
        query = (
            "UPDATE untold SET state = 'due', due = ?1 WHERE destination = ?2 AND state = 'unknown' AND"
            " (EXISTS (SELECT 1 FROM span WHERE response_id = target) OR EXISTS (SELECT 1 FROM tag WHERE tag = target)"
            " OR EXISTS (SELECT 1 FROM span JOIN body ON body.span_id = span.id WHERE span.id = target)"
            " OR (due <= ?1 AND due > since))"
        )
        with self._store.transaction() as connection:
            connection.execute(query, (self._clock(), self._name))

    def has_unknown(self) -> bool:
        """Whether there are targets that nobody knows."""
        query = "SELECT 1 FROM untold WHERE destination = ? AND state = 'unknown' LIMIT 1"
        with self._store.reading() as connection:
            return connection.execute(query, (self._name,)).fetchone() is not None

    def take(self, most: int) -> list[Due]:
        """Targets that it is time for; nobody else gets them meanwhile."""
        now = self._clock()
        query = (
            "UPDATE untold SET leased_until = ?1 WHERE destination = ?2 AND target IN (SELECT target FROM untold"
            " WHERE destination = ?2 AND state IN ('due', 'again') AND due <= ?3 AND leased_until <= ?3"
            " ORDER BY due LIMIT ?4) RETURNING target, seq, tries, leased_until, state = 'again'"
        )
        with self._store.reading() as connection:
            is_any = "SELECT 1 FROM untold WHERE destination = ? AND state IN ('due', 'again') AND due <= ? LIMIT 1"
            if connection.execute(is_any, (self._name, now)).fetchone() is None:  # no need to keep writers waiting
                return []
            with begun(connection):
                rows = connection.execute(query, (now + self._lease, self._name, now, most)).fetchall()
        return sorted((Due(*row) for row in rows), key=lambda due: due.seq)

    def renew(self, due: Due) -> Due | None:
        """Have it for longer; None where somebody else has it by now."""
        until = self._clock() + self._lease
        query = "UPDATE untold SET leased_until = ? WHERE destination = ? AND target = ? AND leased_until = ?"
        with self._store.transaction() as connection:
            count = connection.execute(query, (until, self._name, due.target, due.lease)).rowcount
        return replace(due, lease=until) if count else None

    def give_back(self, due: Iterable[Due]) -> None:
        """They were not tried."""
        query = "UPDATE untold SET leased_until = 0 WHERE destination = ? AND target = ? AND leased_until = ?"
        with self._store.transaction() as connection:
            connection.executemany(query, [(self._name, each.target, each.lease) for each in due])

    def done(self, due: Due) -> None:
        """All of it was taken: unless something came meanwhile, it is off the list."""
        with self._store.transaction() as connection:
            values = (self._name, due.target, due.seq)
            connection.execute("DELETE FROM untold WHERE destination = ? AND target = ? AND seq = ?", values)
            connection.execute("UPDATE untold SET leased_until = 0 WHERE destination = ? AND target = ?", values[:2])

    def look_again(self, due: Due, seconds: float) -> None:
        """All of it was taken, and in so many seconds it is looked at once more."""
        query = (
            "UPDATE untold SET state = 'again', due = ?, leased_until = 0, tries = 0"
            " WHERE destination = ? AND target = ? AND seq = ?"
        )
        with self._store.transaction() as connection:
            later = self._clock() + int(seconds * 1e9)
            connection.execute(query, (later, self._name, due.target, due.seq))
            values = (self._name, due.target)
            connection.execute("UPDATE untold SET leased_until = 0 WHERE destination = ? AND target = ?", values)

    def put_back(self, due: Due, reason: str, *, seconds: float = 0.0, state: str = "due") -> None:
        """It was not taken: try again in so many seconds, or wait until something else is said ("refused") or until the
        target is known ("unknown")."""
        now = self._clock()
        # what came meanwhile may be told of at once, whatever was wrong before
        query = (
            "UPDATE untold SET leased_until = 0, reason = ?1, tries = tries + 1, state = iif(seq = ?2, ?3, 'due'),"
            " due = iif(seq = ?2, ?4, ?5) WHERE destination = ?6 AND target = ?7"
        )
        with self._store.transaction() as connection:
            later = now + int(seconds * 1e9)
            connection.execute(query, (reason, due.seq, state, later, now, self._name, due.target))

    def next_due(self) -> int | None:
        """When something is to be tried, nanoseconds since the epoch; None where nothing is."""
        query = "SELECT min(max(due, leased_until)) FROM untold WHERE destination = ? AND state IN ('due', 'again')"
        with self._store.reading() as connection:
            found: int | None = connection.execute(query, (self._name,)).fetchone()[0]
        return found

    def pending(self) -> int:
        """How many known targets are not told of yet, tried or not."""
        query = "SELECT count(*) FROM untold WHERE destination = ? AND state = 'due'"
        with self._store.reading() as connection:
            found: int = connection.execute(query, (self._name,)).fetchone()[0]
        return found

    def told_of(self, names: Iterable[str]) -> dict[str, Told]:
        """What this destination has been told for the sake of a target, under any of its names, by id."""
        query = "SELECT id, about, facts, hash FROM statement WHERE destination = ? AND target = ?"
        with self._store.reading() as connection:
            rows = [row for name in names for row in connection.execute(query, (self._name, name)).fetchall()]
        return {id: Told(id, about, json.loads(facts), hash) for id, about, facts, hash in rows}

    def has(self, id: str, hash: str) -> bool:
        """Whether it has been told exactly this."""
        query = "SELECT 1 FROM statement WHERE destination = ? AND id = ? AND hash = ?"
        with self._store.reading() as connection:
            return connection.execute(query, (self._name, id, hash)).fetchone() is not None

    def keep(self, target: str, told: Told) -> None:
        """It was told this."""
        values = (self._name, told.id, target, told.about, canonical(told.facts), told.hash)
        with self._store.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO statement VALUES (?, ?, ?, ?, ?, ?)", values)

    def drop(self, id: str) -> None:
        """It has that no longer."""
        with self._store.transaction() as connection:
            connection.execute("DELETE FROM statement WHERE destination = ? AND id = ?", (self._name, id))

    def _collected(self) -> bool:
        now = self._clock()
        with self._store.reading() as connection:
            query = "SELECT 1 FROM feedback WHERE seq > (SELECT seq FROM told WHERE destination = ?) LIMIT 1"
            if connection.execute(query, (self._name,)).fetchone() is None:  # no need to keep writers waiting
                return False
            with begun(connection):
                (after,) = connection.execute("SELECT seq FROM told WHERE destination = ?", (self._name,)).fetchone()
                query = f"SELECT seq, target, {AGAINST} FROM feedback WHERE seq > ? ORDER BY seq LIMIT ?"
                rows = connection.execute(query, (after, _PORTION)).fetchall()
                meant: dict[str, int] = {}
                for seq, target, against in rows:
                    for each in {target, *((f"event:{against}",) if against else ())}:
                        meant[_root(connection, each)] = seq
                connection.executemany(_NOTE, [(self._name, target, seq, now) for target, seq in meant.items()])
                if rows:
                    values = (rows[-1][0], self._name)
                    connection.execute("UPDATE told SET seq = ? WHERE destination = ?", values)
        return len(rows) == _PORTION


_NOTE: Final = (
    "INSERT INTO untold (destination, target, seq, since, due) VALUES (?1, ?2, ?3, ?4, ?4)"
    " ON CONFLICT DO UPDATE SET seq = excluded.seq, due = excluded.due, tries = 0, state = 'due'"
)


def untold(store: Store) -> list[Untold]:
    """What any destination that has an API for feedback has not taken yet, oldest first."""
    query = (
        "SELECT destination, target, since, tries, coalesce(reason, ''), state FROM untold"
        " WHERE state != 'again' ORDER BY since"
    )
    with store.reading() as connection:
        rows = connection.execute(query).fetchall()
    return [
        Untold(name, target, since, tries, reason, is_refused=state == "refused")
        for name, target, since, tries, reason, state in rows
    ]


def resend(store: Store) -> int:
    """Have what destinations have not taken be tried again at once. Gives of how many targets that is."""
    with store.transaction() as connection:
        query = "UPDATE untold SET due = ?, tries = 0, state = 'due' WHERE state != 'again'"
        return connection.execute(query, (time.time_ns(),)).rowcount


def is_known(target: str) -> bool:
    """Whether it says itself which span, trace or session it is."""
    return target.startswith(_PLACED) or is_span_id(target)


def said_about(store: Store, target: str) -> tuple[list[tuple[Feedback, str]], set[str]]:
    """All events on what this target stands for, each with what it is about, and all names that it has.

    Of what is stored as rows already: nothing is read for it that nobody has read yet.
    """
    with store.reading() as connection:
        given = _events(connection, {target})
        spans = {room.resolved(connection, event) for event in given if not event.whole.startswith("event:")} | {target}
        named = set(spans)
        for span in spans:
            rows = connection.execute("SELECT response_id FROM span WHERE id = ? AND response_id IS NOT NULL", (span,))
            named |= {response for (response,) in rows}
            named |= {tag for (tag,) in connection.execute("SELECT tag FROM tag WHERE span_id = ?", (span,))}
        events = {event.id: event for event in _events(connection, named)}

        def meant(event: Feedback) -> str:
            """A retraction by an event's id is about what that is about; what else is said of an event isn't."""
            seen: set[str] = set()
            while event.retracts is not None and event.whole.startswith("event:") and event.id not in seen:
                seen.add(event.id)
                event = events.get(event.whole.removeprefix("event:"), event)
            whole = room.resolved(connection, event)
            return whole if event.part is None else f"{whole}#{event.part}"

        return [(event, meant(event)) for event in events.values()], named


def stored_span(store: Store, id: str) -> Span | None:
    """A span, where it has been made a row."""
    query = "SELECT data, service FROM body JOIN span ON span.id = body.span_id WHERE id = ?"
    with store.reading() as connection:
        row = connection.execute(query, (id,)).fetchone()
    return None if row is None else decode_span(*row)


def _events(connection: sqlite3.Connection, targets: Collection[str]) -> list[Feedback]:
    """Those on these targets, and what takes those back or replaces them, wherever it was said."""
    found: dict[str, Feedback] = {}
    ids: Collection[str] = ()
    against = f"SELECT body FROM feedback WHERE {AGAINST} = ? ORDER BY seq"
    while targets or ids:
        came: list[Feedback] = []
        for target in targets:
            came += events_in(connection.execute("SELECT body FROM feedback WHERE target = ? ORDER BY seq", (target,)))
        for id in ids:
            came += events_in(connection.execute(against, (id,)))
        fresh = {event.id: event for event in came if event.id not in found}
        found |= fresh
        ids, targets = fresh, {f"event:{id}" for id in fresh}
    return list(found.values())


def _root(connection: sqlite3.Connection, target: str) -> str:
    """What an event on an event is about in the end."""
    seen: set[str] = set()
    while target.startswith("event:") and target not in seen:
        seen.add(target)
        id = target.removeprefix("event:")
        row = connection.execute("SELECT target FROM feedback WHERE id = ?", (id,)).fetchone()
        if row is None:
            break
        target = row[0]
    return split_target(target)[0]
