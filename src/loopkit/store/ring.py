"""Where ordinary traces wait that the tail did not keep: bounded, on disk, shared by all processes of a home directory.

A trace that is asked for, by feedback or by a span of it that failed, is handed on as a whole; what comes of it later
is not held any more. What nobody asks for goes when its time is over, or when the ring is full.
"""

from __future__ import annotations

import json
import math
import sqlite3
import struct
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopkit import _host
from loopkit._ids import Clock
from loopkit._json import utf8
from loopkit.capture.finish import revived
from loopkit.capture.sampling import Held
from loopkit.config import Sampling
from loopkit.store.database import Database, bytes_in_use
from loopkit.wire.decode import decode_span
from loopkit.wire.encode import EncodedSpan

FILE = "ring.db"
_MIGRATIONS = (
    """
    CREATE TABLE held (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, trace_id TEXT NOT NULL, at INTEGER NOT NULL, resource BLOB NOT NULL,
        spans BLOB NOT NULL
    );
    CREATE INDEX held_by_trace ON held (trace_id);
    CREATE INDEX held_by_time ON held (at);
    CREATE TABLE bears (key TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (key, seq)) WITHOUT ROWID;
    CREATE TABLE asked (key TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
    """,
    """
    DROP TABLE IF EXISTS held;
    DROP TABLE IF EXISTS bears;
    DROP TABLE IF EXISTS asked;
    CREATE TABLE held (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, trace_id TEXT NOT NULL, until INTEGER NOT NULL, resource BLOB NOT NULL,
        spans BLOB NOT NULL
    );
    CREATE INDEX held_by_trace ON held (trace_id);
    CREATE INDEX held_by_time ON held (until);
    CREATE TABLE bears (key TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (key, seq)) WITHOUT ROWID;
    CREATE INDEX bears_by_seq ON bears (seq);
    CREATE TABLE asked (key TEXT PRIMARY KEY, until INTEGER NOT NULL) WITHOUT ROWID;
    """,
    """
    DELETE FROM held;
    DELETE FROM bears;
    """,
)
"""How long a trace waits is said by the process that holds it: others have other settings. What waited when its form
changed is given up.
"""
_RECORD = struct.Struct("<??IIH")
_MEDIUM = struct.Struct("<43sI")


class Ring(Database):
    """See `loopkit.capture.sampling.Ring`."""

    rank = -1  # traces are handed on, to the store too, within its transaction

    def __init__(self, home: Path, sampling: Sampling, clock: Clock) -> None:
        self._clock = clock
        self._nanoseconds = int(sampling.ring_seconds * 1e9)
        self._bytes = sampling.ring_bytes
        self.dropped = 0
        """Parts of traces that went before their time was over, since this process started."""
        super().__init__(home / FILE, _MIGRATIONS)

    def hold(self, traces: Iterable[Held]) -> list[Held]:
        """See `capture.sampling.Ring.hold`."""
        given = list(traces)
        if not given:
            return []
        now = self._clock.now()
        with self.transaction() as connection:
            known = self._asked(connection, {key for trace in given for key in trace.keys}, now)
            wanted = [trace for trace in given if not known.isdisjoint(trace.keys)]
            # Feedback on one span of a trace asks for all of it, whatever keys the rest bears.
            self._ask(connection, {f"trace:{trace.trace_id}" for trace in wanted} - known, now)
            for trace in given:
                if known.isdisjoint(trace.keys):
                    row = (trace.trace_id, now + self._nanoseconds, trace.resource, _packed(trace.spans))
                    seq = connection.execute(
                        "INSERT INTO held (trace_id, until, resource, spans) VALUES (?, ?, ?, ?)", row
                    ).lastrowid
                    connection.executemany(
                        "INSERT OR IGNORE INTO bears VALUES (?, ?)", [(utf8(key), seq) for key in trace.keys]
                    )
            self._make_room(connection, now)
        return wanted

    def release(self, keys: Iterable[str], hand_on: Callable[[Iterable[Held]], object]) -> None:
        """See `capture.sampling.Ring.release`.

        What is held goes when `hand_on` has returned: a crash in between hands it on again.
        """
        asked = {utf8(key) for key in keys}
        now = self._clock.now()
        with self.transaction() as connection:
            self._ask(connection, asked, now)
            found = connection.execute(
                "SELECT DISTINCT trace_id FROM bears JOIN held USING (seq)"
                " WHERE key IN (SELECT value FROM json_each(?)) AND until >= ?",
                (json.dumps(sorted(asked)), now),
            ).fetchall()
            if not found:
                self._make_room(connection, now)
                return
            self._ask(connection, {f"trace:{trace_id}" for (trace_id,) in found}, now)
            ids = json.dumps([trace_id for (trace_id,) in found])
            rows = connection.execute(
                "SELECT trace_id, resource, spans FROM held"
                " WHERE trace_id IN (SELECT value FROM json_each(?)) ORDER BY seq",
                (ids,),
            )
            hand_on([Held(row[0], frozenset(), row[1], _unpacked(row[2])) for row in rows])
            _delete(connection, "trace_id IN (SELECT value FROM json_each(?))", (ids,))
            self._make_room(connection, now)

    def _ask(self, connection: sqlite3.Connection, keys: set[str], now: int) -> None:
        rows = [(utf8(key), now + self._nanoseconds) for key in sorted(keys)]
        connection.executemany("INSERT OR REPLACE INTO asked VALUES (?, ?)", rows)

    def _asked(self, connection: sqlite3.Connection, keys: set[str], now: int) -> set[str]:
        rows = connection.execute(
            "SELECT key FROM asked WHERE key IN (SELECT value FROM json_each(?)) AND until >= ?",
            (json.dumps(sorted(map(utf8, keys))), now),
        )
        return {key for (key,) in rows}

    def _make_room(self, connection: sqlite3.Connection, now: int) -> None:
        _delete(connection, "until < ?", (now,))
        connection.execute("DELETE FROM asked WHERE until < ?", (now,))
        dropped = 0
        while (size := bytes_in_use(connection)) > self._bytes:
            (rows,) = connection.execute("SELECT count(*) FROM held").fetchone()
            if not rows:
                break
            share = math.ceil(rows * (size - self._bytes) / size)  # of the rows, as of the room
            _delete(connection, "seq IN (SELECT seq FROM held ORDER BY seq LIMIT ?)", (share,))
            dropped += share
        if not dropped:
            return
        self.dropped += dropped
        _host.warn_now_and_then(
            "ring",
            f"the ring of sampled-out traces is full: {self.dropped} went before their time was over, so feedback "
            "can't bring them back, and figures miss them; give it more ring_bytes, or less ring_seconds",
        )


@dataclass(frozen=True, slots=True)
class Released:
    """What of a person was held."""

    traces: set[str]
    rows: int


def exists(home: Path) -> bool:
    """Whether anything was ever held there."""
    return (home / FILE).exists()


def forget(home: Path, user: str, traces: Collection[str] = ()) -> Released:
    """Remove what is held of these traces, and of those in which a span bears this user id."""
    if not exists(home):
        return Released(set(), 0)
    ring = Ring(home, Sampling(), Clock())
    try:
        with ring.transaction() as connection:
            connection.execute("PRAGMA secure_delete = ON")
            rows = connection.execute("SELECT trace_id, spans FROM held").fetchall()
            theirs = {
                trace for trace, data in rows if any(decode_span(s.core).user_id == user for s in _unpacked(data))
            } | set(traces)
            before = connection.execute("SELECT count(*) FROM held").fetchone()[0]
            _delete(connection, "trace_id IN (SELECT value FROM json_each(?))", (json.dumps(sorted(theirs)),))
            after = connection.execute("SELECT count(*) FROM held").fetchone()[0]
        ring.scrub()
    finally:
        ring.close()
    return Released(theirs, before - after)


def _delete(connection: sqlite3.Connection, where: str, values: tuple[Any, ...]) -> None:
    """What is held and fits, with what it bears."""
    connection.execute(f"DELETE FROM bears WHERE seq IN (SELECT seq FROM held WHERE {where})", values)
    connection.execute(f"DELETE FROM held WHERE {where}", values)


def _packed(spans: Iterable[EncodedSpan]) -> bytes:
    """As the local store keeps them: what others would read besides can be made of that."""
    parts: list[bytes] = []
    for span in spans:
        sizes = len(span.core), len(span.local), len(span.media)
        parts += (_RECORD.pack(span.sampled, span.whole, *sizes), span.core, span.local)
        for name, data in span.media.items():
            parts += (_MEDIUM.pack(name.encode(), len(data)), data)
    return b"".join(parts)


def _unpacked(data: bytes) -> tuple[EncodedSpan, ...]:
    spans: list[EncodedSpan] = []
    at = 0
    while at < len(data):
        sampled, whole, core, local, count = _RECORD.unpack_from(data, at)
        start = at + _RECORD.size
        at = start + core + local
        pieces = data[start : start + core], data[start + core : at]
        media: dict[str, bytes] = {}
        for _ in range(count):
            name, size = _MEDIUM.unpack_from(data, at)
            at += _MEDIUM.size + size
            media[name.decode()] = data[at - size : at]
        spans.append(revived(*pieces, sampled=sampled, whole=whole, media=media))
    return tuple(spans)
