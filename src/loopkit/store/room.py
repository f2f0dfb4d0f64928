"""How much may lie in the store, and how long: the oldest spans go, and media that nobody shows any more."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from loopkit._json import canonical
from loopkit.store.database import bytes_in_use

_SPANS = 500
_BATCHES = 4
"""What goes in one transaction, so that no writer waits long."""


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
    """Whether something is older, or there is too much."""
    old = "SELECT 1 FROM span WHERE arrived_at < ? UNION ALL SELECT 1 FROM batch WHERE at < ? LIMIT 1"
    return bytes_in_use(connection) > most or connection.execute(old, (before, before)).fetchone() is not None


def prune(connection: sqlite3.Connection, before: int, most: int) -> Pruned:
    """Remove a portion of what arrived before then or is too much, the oldest first."""
    until = 2**63 - 1 if bytes_in_use(connection) > most else before
    oldest = "SELECT id FROM span WHERE arrived_at < ? ORDER BY arrived_at, id LIMIT ?"
    spans = [id for (id,) in connection.execute(oldest, (until, _SPANS))]
    if spans:
        remove_spans(connection, spans)
        return Pruned(spans=len(spans))
    unread = "SELECT seq FROM batch WHERE at < ? ORDER BY seq LIMIT ?"
    batches = [seq for (seq,) in connection.execute(unread, (until, _BATCHES))]
    connection.execute(f"DELETE FROM batch WHERE seq IN ({_GIVEN})", (canonical(batches),))
    hide(connection, map(batch_bearer, batches))
    return Pruned(batches=len(batches))


def remove_spans(connection: sqlite3.Connection, ids: Iterable[str]) -> None:
    """Spans, all that lies in other tables of them, and their media where nobody else shows them."""
    spans = list(ids)
    listed = (canonical(spans),)
    for table, column in (("tag", "span_id"), ("body", "span_id"), ("span", "id")):
        connection.execute(f"DELETE FROM {table} WHERE {column} IN ({_GIVEN})", listed)
    hide(connection, spans)


def show(connection: sqlite3.Connection, bearer: str, hashes: Iterable[str]) -> None:
    """Write down who refers to media, so that they stay."""
    connection.executemany("INSERT OR IGNORE INTO shows (hash, bearer) VALUES (?, ?)", [(h, bearer) for h in hashes])


def hide(connection: sqlite3.Connection, bearers: Iterable[str]) -> None:
    """These refer to nothing any more: media that nobody else shows go."""
    listed = (canonical(list(bearers)),)
    shown = connection.execute(f"SELECT DISTINCT hash FROM shows WHERE bearer IN ({_GIVEN})", listed).fetchall()
    connection.execute(f"DELETE FROM shows WHERE bearer IN ({_GIVEN})", listed)
    connection.execute(
        f"DELETE FROM medium WHERE hash IN ({_GIVEN})"
        " AND NOT EXISTS (SELECT 1 FROM shows WHERE shows.hash = medium.hash)",
        (canonical([hash for (hash,) in shown]),),
    )


def batch_bearer(seq: int) -> str:
    """How a batch that is no rows yet is called where it shows media."""
    return f"batch:{seq}"


_GIVEN = "SELECT value FROM json_each(?)"
