"""How much may lie in the store, and how long: the oldest spans go, and media that nobody shows any more."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from loopkit._ids import is_span_id
from loopkit._json import canonical, from_json
from loopkit.store.schema import ROW, SPAN_ID
from loopkit.types import Feedback

ANNOTATION = "annotation"
"""The kind of documents that say more of a span, and go with it."""
_SPANS = 500
"""As many go in one transaction, or the rest of a trace besides, so that no writer waits long."""
_REMEMBERED = 500_000
"""Of removed traces, sessions and responses, the latest: some 40 MB."""
_GIVEN = "SELECT value FROM json_each(?)"
_STAYING = (
    "SELECT coalesce(sum(length(data)), 0) FROM medium WHERE hash IN (SELECT hash FROM shows WHERE bearer GLOB '*:*'"
    f" AND bearer NOT GLOB 'batch:*' AND bearer NOT GLOB '{ANNOTATION}:*')"
)
"""Bytes of media that documents show."""
_SIZE = (
    "SELECT count(*), coalesce(sum(coalesce(length(body.data), 0) + (SELECT coalesce(sum(length(medium.data)), 0)"
    " FROM shows JOIN medium USING (hash) WHERE bearer = span.id)), 0)"
    " FROM span LEFT JOIN body ON body.span_id = span.id WHERE trace_id = ?"
)
"""Of a trace, the spans and the bytes of their bodies and media."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What went."""

    spans: int = 0
    goes_on: bool = False
    """Whether there is more to be done."""


def held(connection: sqlite3.Connection) -> int:
    """Bytes of batches, spans and media: triggers keep count."""
    size: int = connection.execute("SELECT bytes FROM held").fetchone()[0]
    return size


def excess(connection: sqlite3.Connection, most: int) -> int:
    """How much too much there is, without what documents show: that stays for good."""
    over = held(connection) - most
    return over if over <= 0 else over - int(connection.execute(_STAYING).fetchone()[0])


def is_due(connection: sqlite3.Connection, before: int, most: int) -> bool:
    """Whether something is older, or there is too much."""
    if excess(connection, most) > 0:
        return True
    old_batch = connection.execute("SELECT 1 FROM batch WHERE at BETWEEN 1 AND ? - 1 LIMIT 1", (before,))
    return old_batch.fetchone() is not None or bool(_old_traces(connection, before, 1))


def prune(connection: sqlite3.Connection, before: int, most: int) -> Pruned:
    """Remove whole traces that arrived before then, else the oldest of those that are too much: a portion of them."""
    traces = _old_traces(connection, before, _SPANS) or _oldest_traces(connection, excess(connection, most))
    listed = canonical(traces)
    ids = [id for (id,) in connection.execute(f"SELECT id FROM span WHERE trace_id IN ({_GIVEN})", (listed,))]
    _remember(connection, listed)
    remove_spans(connection, ids)
    return Pruned(spans=len(ids), goes_on=bool(ids))


def _old_traces(connection: sqlite3.Connection, before: int, spans: int) -> list[str]:
    """Traces of which nothing came since."""
    query = (
        "SELECT trace_id FROM span AS old WHERE arrived_at < :before AND NOT EXISTS (SELECT 1 FROM span AS newer"
        " WHERE newer.trace_id = old.trace_id AND newer.arrived_at >= :before) ORDER BY arrived_at, id LIMIT :spans"
    )
    rows = connection.execute(query, {"before": before, "spans": spans})
    return list(dict.fromkeys(trace for (trace,) in rows))


def _oldest_traces(connection: sqlite3.Connection, bytes: int) -> list[str]:
    """As many, by their first spans, as make so much room; at least one where any is wanted."""
    found: list[str] = []
    spans = 0
    oldest = connection.execute("SELECT trace_id FROM span ORDER BY arrived_at, id LIMIT ?", (_SPANS,))
    for trace in dict.fromkeys(trace for (trace,) in oldest):
        if bytes <= 0 or spans >= _SPANS:
            break
        count, size = connection.execute(_SIZE, (trace,)).fetchone()
        found.append(trace)
        spans += count
        bytes -= size + count * ROW
    return found


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
    """Of removed spans of this user: traces and sessions (`trace:…`, `session:…`), the ids of responses, the spans that
    documents mention, and the feedback on them (`event:…`)."""
    query = "SELECT what FROM past WHERE owner = ?1 UNION SELECT what FROM gone WHERE owner = ?1"
    return {what for (what,) in connection.execute(query, (owner(user),))}


def removed(connection: sqlite3.Connection, targets: str) -> set[str]:
    """Those of these targets (a JSON list) that were there once: a removed span by its trace."""
    query = (
        "SELECT value FROM json_each(?) WHERE value IN (SELECT what FROM gone)"
        " OR 'trace:' || substr(value, 1, 32) IN (SELECT what FROM gone)"
    )
    return {value for (value,) in connection.execute(query, (targets,))}


def forget_past(connection: sqlite3.Connection, user: str) -> None:
    """That too."""
    for table in ("past", "gone"):
        connection.execute(f"DELETE FROM {table} WHERE owner = ?", (owner(user),))


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
    found = {(match,) for match in SPAN_ID.findall(text)}
    connection.executemany("INSERT OR IGNORE INTO mention (span_id) VALUES (?)", found)


def _remember(connection: sqlite3.Connection, traces: str) -> None:
    """What outlives the spans of a user, feedback and examples, must be found when the user is to be forgotten."""
    below = f"WHERE trace_id IN ({_GIVEN})"
    owners: dict[str, set[str]] = {}
    """Of a name by which feedback may know them: a trace, a session, a span, a response, a tag."""
    of_trace: dict[str, set[str]] = {}
    spans = connection.execute(f"SELECT trace_id, id, user_id, session_id, response_id FROM span {below}", (traces,))
    found = spans.fetchall()
    for trace, _, user, *_ in found:
        if user is not None:
            of_trace.setdefault(trace, set()).add(owner(user))
    for trace, id, _, session, response in found:
        named = (f"trace:{trace}", id, session and f"session:{session}", response)
        for name in filter(None, named):
            owners.setdefault(name, set()).update(of_trace.get(trace, ()))
    tags = f"SELECT trace_id, tag FROM tag JOIN span ON span.id = tag.span_id {below}"
    for trace, tag in connection.execute(tags, (traces,)):
        owners.setdefault(tag, set()).update(of_trace.get(trace, ()))
    responses = {response for *_, response in found if response}
    lasting = [name for name in owners if name.startswith(("trace:", "session:")) or name in responses]
    gone = [(one, name) for name in lasting for one in sorted(owners[name]) or (None,)]
    connection.executemany("INSERT INTO gone (owner, what) VALUES (?, ?)", gone)
    connection.execute("DELETE FROM gone WHERE seq <= (SELECT max(seq) FROM gone) - ?", (_REMEMBERED,))
    mentioned = connection.execute(f"SELECT id FROM span JOIN mention ON span_id = span.id {below}", (traces,))
    past = {(one, id) for (id,) in mentioned for one in owners[id]}
    listed = canonical(sorted(owners))
    events = connection.execute(f"SELECT body FROM feedback WHERE target IN ({_GIVEN})", (listed,)).fetchall()
    for event in (from_json(Feedback, body) for (body,) in events):
        about = resolved(connection, event)  # a key or a response's id may be others' too
        past |= {(one, f"event:{event.id}") for one in owners.get(about, ())}
    connection.executemany("INSERT OR IGNORE INTO past (owner, what) VALUES (?, ?)", sorted(past))


def resolved(connection: sqlite3.Connection, event: Feedback) -> str:
    """See `Store.resolve`; of a part of something the whole."""
    target = event.whole
    if target.startswith(("trace:", "session:", "event:")) or is_span_id(target):
        return target
    if ":" in target:
        carries = "JOIN tag ON tag.span_id = span.id WHERE tag.tag = :target ORDER BY parent_id IS NOT NULL,"
    else:
        carries = "WHERE response_id = :target ORDER BY"
    query = (
        f"SELECT id FROM span {carries} started_at > :at,"
        " CASE WHEN started_at > :at THEN started_at ELSE -started_at END LIMIT 1"
    )
    at = min(event.at, event.arrived_at)
    found = connection.execute(query, {"target": target, "at": at}).fetchone()
    return target if found is None else str(found[0])
