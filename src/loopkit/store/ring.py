"""Where ordinary traces wait that the tail did not keep: bounded, on disk, shared by all processes of a home directory.

A trace that is asked for, by feedback or by a span of it that failed, is handed on as a whole; what comes of it later
is not held any more. What nobody asks for goes when its time is over, or when the ring is full.
"""

from __future__ import annotations

import json
import math
import sqlite3
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

from loopkit import _host
from loopkit._ids import Clock
from loopkit.capture.finish import revived
from loopkit.capture.sampling import Held
from loopkit.config import Sampling
from loopkit.store.database import Database
from loopkit.wire.encode import EncodedSpan

FILE = "ring.db"
_MIGRATIONS = (
    """
    CREATE TABLE held (
        seq INTEGER PRIMARY KEY, trace_id TEXT NOT NULL, at INTEGER NOT NULL, keys TEXT NOT NULL,
        resource BLOB NOT NULL, spans BLOB NOT NULL
    );
    CREATE INDEX held_by_trace ON held (trace_id);
    CREATE TABLE asked (key TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
    """,
)
_LENGTHS = struct.Struct("<?II")


class Ring(Database):
    """See `loopkit.capture.sampling.Ring`."""

    rank = -1  # traces are handed on, to the store too, within its transaction

    def __init__(self, home: Path, sampling: Sampling, clock: Clock) -> None:
        self._clock = clock
        self._nanoseconds = int(sampling.ring_seconds * 1e9)
        self._bytes = sampling.ring_bytes
        self.dropped = 0
        """Traces (or parts of them) that went before their time was over, since this process started."""
        super().__init__(home / FILE, _MIGRATIONS)

    def hold(self, traces: Iterable[Held]) -> list[Held]:
        """See `capture.sampling.Ring.hold`."""
        given = list(traces)
        if not given:
            return []
        now = self._clock.now()
        with self.transaction() as connection:
            known = _asked(connection, {key for trace in given for key in trace.keys})
            wanted = [trace for trace in given if not known.isdisjoint(trace.keys)]
            # Feedback on one span of a trace asks for all of it, whatever key the rest bears.
            _ask(connection, {f"trace:{trace.trace_id}" for trace in wanted} - known, now)
            connection.executemany(
                "INSERT INTO held (trace_id, at, keys, resource, spans) VALUES (?, ?, ?, ?, ?)",
                [
                    (trace.trace_id, now, json.dumps(sorted(trace.keys)), trace.resource, _packed(trace.spans))
                    for trace in given
                    if trace not in wanted
                ],
            )
            self._make_room(connection, now)
        return wanted

    def release(self, keys: Iterable[str], hand_on: Callable[[Iterable[Held]], object]) -> None:
        """See `capture.sampling.Ring.release`. What is held goes when `hand_on` has returned: a crash in between hands
        it on again."""
        asked = set(keys)
        with self.transaction() as connection:
            _ask(connection, asked, self._clock.now())
            found = connection.execute(
                "SELECT DISTINCT trace_id FROM held WHERE trace_id IN"
                " (SELECT substr(value, 7) FROM json_each(:keys) WHERE value LIKE 'trace:%')"
                " UNION SELECT trace_id FROM held, json_each(held.keys) AS own WHERE own.value IN"
                " (SELECT value FROM json_each(:others))",
                {
                    "keys": json.dumps(sorted(asked)),
                    "others": json.dumps(sorted(key for key in asked if not key.startswith("trace:"))),
                },
            ).fetchall()
            traces = [trace_id for (trace_id,) in found]
            if not traces:
                return
            _ask(connection, {f"trace:{trace_id}" for trace_id in traces}, self._clock.now())
            ids = json.dumps(traces)
            rows = connection.execute(
                "SELECT trace_id, keys, resource, spans FROM held"
                " WHERE trace_id IN (SELECT value FROM json_each(?)) ORDER BY seq",
                (ids,),
            )
            hand_on([Held(row[0], frozenset(json.loads(row[1])), row[2], _unpacked(row[3])) for row in rows])
            connection.execute("DELETE FROM held WHERE trace_id IN (SELECT value FROM json_each(?))", (ids,))

    def waiting(self) -> tuple[int, int]:
        """How many traces wait, and how many bytes they take."""
        with self.reading() as connection:
            (count,) = connection.execute("SELECT count(DISTINCT trace_id) FROM held").fetchone()
            return int(count), _size(connection)

    def _make_room(self, connection: sqlite3.Connection, now: int) -> None:
        oldest = now - self._nanoseconds
        connection.execute("DELETE FROM held WHERE at < ?", (oldest,))
        connection.execute("DELETE FROM asked WHERE at < ?", (oldest,))
        dropped = 0
        while (size := _size(connection)) > self._bytes:
            (rows,) = connection.execute("SELECT count(*) FROM held").fetchone()
            if not rows:
                break
            share = math.ceil(rows * (size - self._bytes) / size)  # of the rows, as of the room
            connection.execute("DELETE FROM held WHERE seq IN (SELECT seq FROM held ORDER BY seq LIMIT ?)", (share,))
            dropped += share
        if not dropped:
            return
        self.dropped += dropped
        _host.warn_now_and_then(
            "ring",
            f"the ring of sampled-out traces is full: {self.dropped} went before their time was over, so feedback "
            "can't bring them back; give it more ring_bytes, or less ring_seconds",
        )


def _size(connection: sqlite3.Connection) -> int:
    """Bytes of the pages in use: known without looking at the rows."""
    (pages,), (free,), (page,) = (
        connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * page)


def _asked(connection: sqlite3.Connection, keys: set[str]) -> set[str]:
    rows = connection.execute(
        "SELECT key FROM asked WHERE key IN (SELECT value FROM json_each(?))", (json.dumps(sorted(keys)),)
    )
    return {key for (key,) in rows}


def _ask(connection: sqlite3.Connection, keys: set[str], now: int) -> None:
    connection.executemany("INSERT OR REPLACE INTO asked VALUES (?, ?)", [(key, now) for key in sorted(keys)])


def _packed(spans: Iterable[EncodedSpan]) -> bytes:
    """As the local store keeps them: what others would read besides can be made of that."""
    parts: list[bytes] = []
    for span in spans:
        parts += (_LENGTHS.pack(span.sampled, len(span.core), len(span.local)), span.core, span.local)
    return b"".join(parts)


def _unpacked(data: bytes) -> tuple[EncodedSpan, ...]:
    spans: list[EncodedSpan] = []
    at = 0
    while at < len(data):
        sampled, core, local = _LENGTHS.unpack_from(data, at)
        middle = at + _LENGTHS.size + core
        spans.append(revived(data[at + _LENGTHS.size : middle], data[middle : middle + local], sampled=sampled))
        at = middle + local
    return tuple(spans)
