"""What is still to be told to others of the feedback in a store: by destination, the targets of which something came.

The log itself is the queue: nothing is copied. A destination keeps the place up to which it has looked, and the targets
that it has not told of yet, so that a crash loses nothing. Several processes may serve one destination: who takes a
target has it for a while, and whoever is killed meanwhile gives it back by that.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from loopkit.store.database import begun
from loopkit.store.sqlite import Store, events_in
from loopkit.types import Feedback, split_target

_PORTION: Final = 1000
LEASE_SECONDS: Final = 20
"""That a taken target is somebody's."""


@dataclass(frozen=True, slots=True)
class Due:
    """A target that somebody is to be told of."""

    target: str
    """As it was given, without the part of it that is meant."""
    seq: int
    """The latest event on it that was seen."""
    since: int
    """When the first event came that isn't told of, nanoseconds since the epoch."""
    tries: int


@dataclass(frozen=True, slots=True)
class Untold:
    """Feedback that a destination has not taken, and why."""

    destination: str
    target: str
    since: int
    """Nanoseconds since the epoch."""
    tries: int
    reason: str
    is_refused: bool
    """Whether it is not tried again until something else is said of the target."""


class Outbox:
    """One destination's."""

    def __init__(self, store: Store, destination: str, clock: Callable[[], int]) -> None:
        """A destination that is new begins with what comes from now on."""
        self._store = store
        self._name = destination
        self._clock = clock
        with store.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO told SELECT ?, coalesce(max(seq), 0) FROM feedback", (destination,)
            )

    def collect(self) -> None:
        """Look at what came, and note its targets."""
        while self._collected():
            pass

    def take(self, most: int) -> list[Due]:
        """Targets that it is time for; nobody else gets them meanwhile."""
        now = self._clock()
        query = (
            "UPDATE untold SET leased_until = ?1 WHERE destination = ?2 AND target IN (SELECT target FROM untold"
            " WHERE destination = ?2 AND due <= ?3 AND leased_until <= ?3 ORDER BY due LIMIT ?4)"
            " RETURNING target, seq, since, tries"
        )
        with self._store.transaction() as connection:
            rows = connection.execute(query, (now + LEASE_SECONDS * 10**9, self._name, now, most)).fetchall()
        return sorted((Due(*row) for row in rows), key=lambda due: due.seq)

    def told(self, due: Due) -> None:
        """It was taken: unless something came meanwhile, it is off the list."""
        with self._store.transaction() as connection:
            values = (self._name, due.target, due.seq)
            connection.execute("DELETE FROM untold WHERE destination = ? AND target = ? AND seq = ?", values)
            connection.execute("UPDATE untold SET leased_until = 0 WHERE destination = ? AND target = ?", values[:2])

    def put_back(self, due: Due, reason: str, seconds: float | None) -> None:
        """It was not taken: try again in so many seconds, or, with None, when something else is said of the target."""
        now = self._clock()
        later = None if seconds is None else now + int(seconds * 1e9)
        # what came meanwhile may be told of at once, whatever was wrong before
        query = (
            "UPDATE untold SET leased_until = 0, reason = ?, tries = tries + 1,"
            " due = CASE WHEN seq = ? THEN ? ELSE ? END WHERE destination = ? AND target = ?"
        )
        with self._store.transaction() as connection:
            connection.execute(query, (reason, due.seq, later, now, self._name, due.target))

    def next_due(self) -> int | None:
        """When something is to be tried, nanoseconds since the epoch; None where nothing is."""
        query = "SELECT min(max(due, leased_until)) FROM untold WHERE destination = ? AND due IS NOT NULL"
        with self._store.reading() as connection:
            found: int | None = connection.execute(query, (self._name,)).fetchone()[0]
        return found

    def untried(self) -> int:
        """How many targets wait that nobody has tried to tell of."""
        query = "SELECT count(*) FROM untold WHERE destination = ? AND tries = 0 AND due IS NOT NULL"
        with self._store.reading() as connection:
            found: int = connection.execute(query, (self._name,)).fetchone()[0]
        return found

    def _collected(self) -> bool:
        now = self._clock()
        with self._store.reading() as connection:
            query = "SELECT 1 FROM feedback WHERE seq > (SELECT seq FROM told WHERE destination = ?) LIMIT 1"
            if connection.execute(query, (self._name,)).fetchone() is None:  # no need to keep writers waiting
                return False
            with begun(connection):
                (after,) = connection.execute("SELECT seq FROM told WHERE destination = ?", (self._name,)).fetchone()
                query = "SELECT seq, target FROM feedback WHERE seq > ? ORDER BY seq LIMIT ?"
                rows = connection.execute(query, (after, _PORTION)).fetchall()
                connection.executemany(
                    "INSERT INTO untold (destination, target, seq, since, due) VALUES (?1, ?2, ?3, ?4, ?4)"
                    " ON CONFLICT DO UPDATE SET seq = excluded.seq, due = excluded.due, tries = 0",
                    [(self._name, _root(connection, target), seq, now) for seq, target in rows],
                )
                if rows:
                    values = (rows[-1][0], self._name)
                    connection.execute("UPDATE told SET seq = ? WHERE destination = ?", values)
        return len(rows) == _PORTION


def untold(store: Store) -> list[Untold]:
    """What any destination that has an API for feedback has not taken yet, oldest first."""
    query = "SELECT destination, target, since, tries, coalesce(reason, ''), due IS NULL FROM untold ORDER BY since"
    with store.reading() as connection:
        rows = connection.execute(query).fetchall()
    return [
        Untold(
            destination=destination, target=target, since=since, tries=tries, reason=reason, is_refused=bool(refused)
        )
        for destination, target, since, tries, reason, refused in rows
    ]


def resend(store: Store) -> int:
    """Have what destinations have not taken be tried again at once. Gives of how many targets that is."""
    with store.transaction() as connection:
        return connection.execute("UPDATE untold SET due = ?, tries = 0", (time.time_ns(),)).rowcount


def said_about(store: Store, target: str) -> list[tuple[Feedback, str]]:
    """All events on what this target stands for, under whatever name it was given, and what each is about."""
    with store.reading() as connection:
        given = _events(connection, {target})
    spans = {split_target(resolved)[0] for resolved in store.resolve_all(given)}
    with store.reading() as connection:
        named = {target, *spans}
        for span in spans:
            rows = connection.execute("SELECT response_id FROM span WHERE id = ? AND response_id IS NOT NULL", (span,))
            named |= {response for (response,) in rows}
            named |= {tag for (tag,) in connection.execute("SELECT tag FROM tag WHERE span_id = ?", (span,))}
        events = _events(connection, named)
    about = dict(zip((event.id for event in events), store.resolve_all(events), strict=True))
    roots = {event.id: event for event in events}

    def meant(event: Feedback) -> str:
        """A retraction by an event's id is about what that is about."""
        seen: set[str] = set()
        while event.whole.startswith("event:") and event.id not in seen:
            seen.add(event.id)
            event = roots.get(event.whole.removeprefix("event:"), event)
        return about[event.id]

    return [(event, where) for event in events if split_target(where := meant(event))[0] in spans]


def _events(connection: sqlite3.Connection, targets: Iterable[str]) -> list[Feedback]:
    """Those on these targets, and what is said of those events."""
    found: dict[str, Feedback] = {}
    wanted = set(targets)
    while wanted:
        came: list[Feedback] = []
        for target in wanted:
            rows = connection.execute("SELECT body FROM feedback WHERE target = ? ORDER BY seq", (target,))
            came += events_in(rows)
        wanted = {f"event:{event.id}" for event in came if event.id not in found}
        found |= {event.id: event for event in came}
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
    return target
