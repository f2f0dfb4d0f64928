"""How much may lie in the store, and how long: the oldest spans go, and media that nobody shows any more."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from loopkit._json import canonical

ANNOTATION = "annotation"
"""The kind of documents that say more of a span, and go with it."""
_SPANS = 500
"""As many go in one transaction, at most, so that no writer waits long."""
ROW = 1000
"""Bytes, roughly, of a span's row with its indexes."""
_SPAN = re.compile(r"[0-9a-f]{32}-[0-9a-f]{16}")
_GIVEN = "SELECT value FROM json_each(?)"
_FOR_EVER = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What went."""

    spans: int = 0

    def __bool__(self) -> bool:
        return bool(self.spans)

    def __add__(self, other: Pruned) -> Pruned:
        return Pruned(spans=self.spans + other.spans)


def held(connection: sqlite3.Connection) -> int:
    """Bytes of spans and their media: triggers keep count. Feedback and documents stay for good, and don't count."""
    size: int = connection.execute("SELECT bytes FROM held").fetchone()[0]
    return size


def is_due(connection: sqlite3.Connection, before: int, most: int) -> bool:
    """Whether something is older, or there is too much."""
    old = "SELECT 1 FROM span WHERE arrived_at < ? UNION ALL SELECT 1 FROM batch WHERE at BETWEEN 1 AND ? - 1 LIMIT 1"
    return held(connection) > most or connection.execute(old, (before, before)).fetchone() is not None


def prune(connection: sqlite3.Connection, before: int, most: int) -> Pruned:
    """Remove whole traces that arrived before then, or as many as are too much, the oldest first: a portion of them."""
    excess = held(connection) - most
    spans: list[str] = []
    oldest = (
        "SELECT id, coalesce(length(body.data), 0) + (SELECT coalesce(sum(length(medium.data)), 0) FROM shows"
        " JOIN medium USING (hash) WHERE bearer = span.id), arrived_at"
        " FROM span LEFT JOIN body ON body.span_id = span.id WHERE arrived_at < ? ORDER BY arrived_at, id LIMIT ?"
    )
    until = _FOR_EVER if excess > 0 else before
    for id, size, arrived_at in connection.execute(oldest, (until, _SPANS)):
        if excess <= 0 and arrived_at >= before:
            break
        spans.append(id)
        excess -= size + ROW
    traces = canonical(sorted({id.partition("-")[0] for id in spans}))
    whole = [id for (id,) in connection.execute(f"SELECT id FROM span WHERE trace_id IN ({_GIVEN})", (traces,))]
    _remember(connection, traces)
    remove_spans(connection, whole)
    return Pruned(spans=len(whole))


def remove_spans(connection: sqlite3.Connection, ids: Iterable[str]) -> None:
    """Spans, all that lies in other tables of them, and their media where nobody else shows them."""
    spans = list(ids)
    listed = (canonical(spans),)
    for table, column in (("tag", "span_id"), ("body", "span_id"), ("span", "id")):
        connection.execute(f"DELETE FROM {table} WHERE {column} IN ({_GIVEN})", listed)
    connection.execute(f"DELETE FROM document WHERE kind = ? AND id IN ({_GIVEN})", (ANNOTATION, listed[0]))
    hide(connection, [*spans, *(f"{ANNOTATION}:{id}" for id in spans)])


def owner(user: str) -> str:
    """Whose a removed span was, without saying who."""
    return hashlib.blake2b(user.encode("utf-8", "replace"), digest_size=16).hexdigest()


def past_of(connection: sqlite3.Connection, user: str) -> set[str]:
    """Of removed spans of this user: those that documents mention, and the feedback on them (`event:…`)."""
    rows = connection.execute("SELECT what FROM past WHERE owner = ?", (owner(user),))
    return {what for (what,) in rows}


def forget_past(connection: sqlite3.Connection, user: str) -> None:
    """That too."""
    connection.execute("DELETE FROM past WHERE owner = ?", (owner(user),))


def show(connection: sqlite3.Connection, bearer: str, hashes: Iterable[str]) -> None:
    """Write down who refers to media, so that they stay."""
    connection.executemany("INSERT OR IGNORE INTO shows (hash, bearer) VALUES (?, ?)", [(h, bearer) for h in hashes])


def hide(connection: sqlite3.Connection, bearers: Iterable[str], *, but: Collection[str] = ()) -> None:
    """These refer to nothing any more, or to nothing but some: media that nobody else shows go."""
    listed, kept = canonical(list(bearers)), canonical(sorted(but))
    which = f"bearer IN ({_GIVEN}) AND hash NOT IN ({_GIVEN})"
    shown = connection.execute(f"SELECT DISTINCT hash FROM shows WHERE {which}", (listed, kept)).fetchall()
    connection.execute(f"DELETE FROM shows WHERE {which}", (listed, kept))
    connection.execute(
        f"DELETE FROM medium WHERE hash IN ({_GIVEN})"
        " AND NOT EXISTS (SELECT 1 FROM shows WHERE shows.hash = medium.hash)",
        (canonical([hash for (hash,) in shown]),),
    )


def batch_bearer(seq: int) -> str:
    """How a batch that is no rows yet is called where it shows media."""
    return f"batch:{seq}"


def mention(connection: sqlite3.Connection, text: str) -> None:
    """Write down which spans a document names: they are remembered when they go."""
    found = {(match,) for match in _SPAN.findall(text)}
    connection.executemany("INSERT OR IGNORE INTO mention (span_id) VALUES (?)", found)


def _remember(connection: sqlite3.Connection, traces: str) -> None:
    """What outlives the spans of a user, feedback and examples, must be found when the user is to be forgotten."""
    if connection.execute("SELECT 1 FROM mention LIMIT 1").fetchone() is None:  # documents of an older version
        for (body,) in connection.execute("SELECT body FROM document WHERE kind != ?", (ANNOTATION,)).fetchall():
            mention(connection, body)
    below = f"trace_id IN ({_GIVEN})"
    of_users = f"SELECT trace_id, user_id FROM span WHERE {below} AND user_id IS NOT NULL"
    users = dict(connection.execute(of_users, (traces,)))
    known: set[tuple[str, str]] = set()

    def remember(query: str) -> None:
        for trace, what in connection.execute(query, (traces,)):
            if trace in users:
                known.add((owner(users[trace]), what))

    remember(f"SELECT trace_id, id FROM span JOIN mention ON span_id = span.id WHERE {below}")
    event = "SELECT trace_id, 'event:' || feedback.id FROM span JOIN feedback ON target"
    remember(f"{event} = span.id WHERE {below}")
    remember(f"{event} = 'trace:' || trace_id WHERE {below}")
    remember(f"{event} = 'session:' || session_id WHERE {below}")
    others = f"SELECT 1 FROM span AS other WHERE other.trace_id NOT IN ({_GIVEN}) AND other"
    for query in (
        f"{event} = response_id WHERE {below} AND NOT EXISTS ({others}.response_id = span.response_id)",
        f"SELECT trace_id, 'event:' || feedback.id FROM span JOIN tag ON tag.span_id = span.id JOIN feedback"
        f" ON target = tag.tag WHERE {below} AND NOT EXISTS (SELECT 1 FROM tag AS twin JOIN span AS other"
        f" ON other.id = twin.span_id WHERE twin.tag = tag.tag AND other.trace_id NOT IN ({_GIVEN}))",
    ):
        for trace, what in connection.execute(query, (traces, traces)):
            if trace in users:
                known.add((owner(users[trace]), what))
    connection.executemany("INSERT OR IGNORE INTO past (owner, what) VALUES (?, ?)", sorted(known))
