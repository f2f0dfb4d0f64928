"""How much may lie in the store, and how long: the oldest spans go, and media that nobody shows any more."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from loopkit._json import canonical
from loopkit.store.database import bytes_in_use

ANNOTATION = "annotation"
"""The kind of documents that say more of a span, and go with it."""
_SPANS = 500
"""As many go in one transaction, at most, so that no writer waits long."""
_BATCHES = 4
_ROW = 1000
"""Bytes, roughly, of a span's row with its indexes."""
_GIVEN = "SELECT value FROM json_each(?)"
_FOR_EVER = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What went."""

    spans: int = 0
    batches: int = 0
    """Of spans that nobody had read yet."""

    def __bool__(self) -> bool:
        return bool(self.spans or self.batches)

    def __add__(self, other: Pruned) -> Pruned:
        return Pruned(spans=self.spans + other.spans, batches=self.batches + other.batches)


def is_due(connection: sqlite3.Connection, before: int, most: int) -> bool:
    """Whether something is older, or there may be too much."""
    old = "SELECT 1 FROM span WHERE arrived_at < ? UNION ALL SELECT 1 FROM batch WHERE at BETWEEN 1 AND ? - 1 LIMIT 1"
    return bytes_in_use(connection) > most or connection.execute(old, (before, before)).fetchone() is not None


def prune(connection: sqlite3.Connection, before: int, most: int) -> Pruned:
    """Remove what arrived before then, or as much as is too much, the oldest first: a portion of it.

    What stays for good, feedback and documents, doesn't count: or it would leave no room.
    """
    excess = bytes_in_use(connection) - most
    excess -= _staying(connection) if excess > 0 else 0
    until = _FOR_EVER if excess > 0 else before
    spans: list[str] = []
    oldest = (
        "SELECT id, coalesce(length(body.data), 0) + (SELECT coalesce(sum(length(medium.data)), 0) FROM shows"
        " JOIN medium USING (hash) WHERE bearer = span.id), arrived_at"
        " FROM span LEFT JOIN body ON body.span_id = span.id WHERE arrived_at < ? ORDER BY arrived_at, id LIMIT ?"
    )
    for id, size, arrived_at in connection.execute(oldest, (until, _SPANS)):
        if excess <= 0 and arrived_at >= before:
            break
        spans.append(id)
        excess -= size + _ROW
    if spans:
        _remember(connection, spans)
        remove_spans(connection, spans)
        return Pruned(spans=len(spans))
    unread = "SELECT seq, length(data) FROM batch WHERE at < ? AND (at > 0 OR ? > 0) ORDER BY seq LIMIT ?"
    batches: list[int] = []
    for seq, size in connection.execute(unread, (until, excess, _BATCHES)):
        if until == _FOR_EVER and excess <= 0:
            break
        batches.append(seq)
        excess -= size
    connection.execute(f"DELETE FROM batch WHERE seq IN ({_GIVEN})", (canonical(batches),))
    hide(connection, map(batch_bearer, batches))
    return Pruned(batches=len(batches))


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
    """What removed spans of this user were called, and the feedback on them (`event:…`): for who is to be forgotten."""
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


def _staying(connection: sqlite3.Connection) -> int:
    """Bytes of what is never pruned."""
    size = 0
    for table, column in (("document", "body"), ("feedback", "body"), ("aside", "data")):
        total = f"SELECT coalesce(sum(length(CAST({column} AS BLOB))), 0) FROM {table}"
        size += connection.execute(total).fetchone()[0]
    query = (
        "SELECT coalesce(sum(length(data)), 0) FROM medium WHERE hash IN (SELECT hash FROM shows JOIN document"
        " ON bearer = document.kind || ':' || document.id)"
    )
    return int(size + connection.execute(query).fetchone()[0])


def _remember(connection: sqlite3.Connection, spans: list[str]) -> None:
    """What outlives spans of a user, feedback and examples, must be found when the user is to be forgotten."""
    rows = connection.execute(
        "SELECT id, trace_id, user_id, session_id, response_id, (SELECT json_group_array(tag) FROM tag"
        f" WHERE tag.span_id = span.id) FROM span WHERE user_id IS NOT NULL AND id IN ({_GIVEN})",
        (canonical(spans),),
    ).fetchall()
    known: set[tuple[str, str]] = set()
    for id, trace, user, session, response, tags in rows:
        whose = owner(user)
        names = {id, f"trace:{trace}", *filter(None, (session and f"session:{session}", response))}
        known |= {(whose, name) for name in names}
        said = "SELECT feedback.id FROM feedback WHERE target IN (SELECT value FROM json_each(?))"
        by_key = connection.execute(said, (tags,)).fetchall()  # what a key means is known as long as its span is there
        known |= {(whose, f"event:{event}") for (event,) in by_key}
    connection.executemany("INSERT OR IGNORE INTO past (owner, what) VALUES (?, ?)", sorted(known))
