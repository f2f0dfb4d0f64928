"""The embedded store: one SQLite file in WAL mode that many processes write, and nothing to install.

A writer appends an encoded batch as it is. Rows are made from batches by whoever reads first, under SQLite's
write lock, so that the process that serves users never pays for it.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from loopkit import _host
from loopkit._ids import Clock, is_span_id
from loopkit._json import canonical, from_json, to_json, utf8
from loopkit.capture.dialects.known import with_facts, with_messages
from loopkit.capture.sampling import keys_of
from loopkit.config import STORE_BYTES, STORE_DAYS
from loopkit.errors import InvalidInput, NotFound
from loopkit.store import room
from loopkit.store.beside import Beside
from loopkit.store.database import BUSY_SECONDS, Database, begun
from loopkit.store.schema import MIGRATIONS, SPAN_ID
from loopkit.types import Feedback, Span, split_target
from loopkit.wire.decode import decode_request, decode_span
from loopkit.wire.media import named_in

FILE = "loopkit.db"
_KEPT = "kept:"
_DAY = 86_400 * 10**9
_PORTION = 64
"""Batches turned into rows in one transaction."""
_PAUSE = 0.01
"""Seconds between two such, for who isn't in a hurry."""


class Store(Database):
    """A directory with the store in it. Safe to use from several threads and processes."""

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        before_read: Callable[[], object] | None = None,
        clock: Clock | None = None,
        busy_seconds: float = BUSY_SECONDS,
    ) -> None:
        self.directory = Path(directory).absolute()
        self._before_read = before_read
        self._clock = clock or Clock()
        super().__init__(self.directory / FILE, MIGRATIONS, busy_seconds)

    # Writing

    def append(
        self, data: bytes | None, feedback: Iterable[Feedback], media: Mapping[str, bytes] | None = None
    ) -> None:
        """Keep an encoded batch of spans, its media by their hashes, and some feedback, in one transaction."""
        with self.transaction() as connection:
            if data is not None:
                values = (data, self._clock.now())
                seq = connection.execute("INSERT INTO batch (data, at) VALUES (?, ?)", values).lastrowid or 0
                connection.executemany("INSERT OR IGNORE INTO medium VALUES (?, ?)", (media or {}).items())
                room.show(connection, room.batch_bearer(seq), media or ())
            connection.executemany(
                "INSERT OR IGNORE INTO feedback (id, target, name, at, arrived_at, body) VALUES (?, ?, ?, ?, ?, ?)",
                [(utf8(e.id), utf8(e.whole), utf8(e.name), e.at, e.arrived_at, to_json(e)) for e in feedback],
            )

    def sync(self) -> None:
        """Have what was written survive a power failure too, as far as the disk's own cache.

        Commits write the log without waiting for the disk; this waits for the log. SQLite keeps no locks on that file.
        """
        try:
            log = os.open(f"{self.path}-wal", os.O_RDWR)
        except FileNotFoundError:
            return
        try:
            getattr(os, "fdatasync", os.fsync)(log)
        finally:
            os.close(log)

    def put(self, kind: str, id: str, body: Any, *, task: str | None = None) -> None:
        """Append a document: a dataset, a variant, an experiment, a step of a rollout. Nothing is overwritten."""
        with self.transaction() as connection:
            self._put(connection, kind, id, task, body)

    def put_numbered(self, kind: str, task: str, make: Callable[[list[Any]], tuple[str, Any] | None]) -> None:
        """Append a document that depends on those of its kind and task, with no other writer in between.

        `make` is given their bodies and returns the new one's id and body, or None for nothing.
        """
        query = "SELECT body FROM document WHERE kind = ? AND task = ? ORDER BY seq"
        with self.transaction() as connection:
            made = make([json.loads(body) for (body,) in connection.execute(query, (kind, task))])
            if made is not None:
                self._put(connection, kind, made[0], task, made[1])

    def make_room(self, *, days: float, bytes: int) -> room.Pruned:
        """Remove a portion of what is older than so many days or more than so many bytes; nothing where nothing is.

        What nobody has read yet is read first, a portion at a time too: a trace goes as a whole.
        """
        before = self._clock.now() - int(days * _DAY)
        with self.reading() as connection:
            if not room.is_due(connection, before, bytes):
                return room.Pruned()
            if not self._make_rows(connection, portions=1):
                return room.Pruned(goes_on=True)
            with begun(connection):
                return room.prune(connection, before, bytes)

    def prune(self, *, days: float = STORE_DAYS, bytes: int = STORE_BYTES) -> room.Pruned:
        """Remove the traces of which nothing arrived for `days`, and the oldest of those that are more than `bytes`.

        Media go with the last span that shows them; feedback, datasets and variants stay. The file gets smaller too.
        """
        for name, value, most in (("days", days, 36_500), ("bytes", bytes, 2**62)):
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= most:
                raise InvalidInput(f"prune's {name} is {value!r}: give a number from 0 to {most}")
        portion = self.make_room(days=days, bytes=int(bytes))
        spans = portion.spans
        while portion.goes_on:
            portion = self.make_room(days=days, bytes=int(bytes))
            spans += portion.spans
        with self.reading() as connection:
            connection.execute("VACUUM")
        self.scrub()
        return room.Pruned(spans=spans)

    # Reading

    def spans(
        self,
        *,
        task: str | None = None,
        kind: str | None = None,
        trace_id: str | None = None,
        trace_ids: Collection[str] | None = None,
        session_id: str | None = None,
        variant: str | None = None,
        tag: str | None = None,
        since: int | None = None,
        local_roots: bool = False,
        newest: int | None = None,
    ) -> list[Span]:
        """The spans that fit, oldest first; with `newest` only the last so many.

        `since` is in nanoseconds since the epoch. `local_roots` leaves out spans whose parent has the same task.
        """
        wanted = {
            "task": task,
            "kind": kind,
            "trace_id": trace_id,
            "session_id": session_id,
            "variant": variant,
        }
        conditions: list[tuple[str, Any]] = [
            (f"span.{name} = ?", value) for name, value in wanted.items() if value is not None
        ]
        if since is not None:
            conditions.append(("span.started_at >= ?", since))
        if tag is not None:
            conditions.append(("span.id IN (SELECT span_id FROM tag WHERE tag = ?)", tag))
        if trace_ids is not None:
            conditions.append(("span.trace_id IN (SELECT value FROM json_each(?))", canonical(sorted(trace_ids))))
        where = " AND ".join(text for text, _ in conditions) or "1"
        if local_roots:
            where += (
                " AND NOT EXISTS (SELECT 1 FROM span AS up WHERE up.id = span.trace_id || '-' || span.parent_id"
                " AND up.task IS span.task)"
            )
        limit = "" if newest is None else f" LIMIT {int(newest)}"
        rows = self._read(
            "SELECT data, service FROM body JOIN span ON span.id = body.span_id"
            f" WHERE {where} ORDER BY started_at DESC, id DESC{limit}",
            [value for _, value in conditions],
        )
        spans = [with_messages(decode_span(data, service)) for data, service in reversed(rows)]
        return self._included(self._annotated(spans))

    def _included(self, spans: list[Span]) -> list[Span]:
        """With their inclusion probabilities: the head's, where the tail would have kept the trace anyway.

        That is so for a trace with a span that had a reason of its own, and for one that an event asks for in time, by
        whatever key of it, whether the draw was for it or against it. The ring goes by the same keys.
        """
        drawn = [span for span in spans if span.tail_probability < 1.0]
        if not drawn:
            return spans
        keys = self._keys_of_traces({span.trace_id for span in drawn})
        asked = self._asked_for({key for own in keys.values() for key in own})

        def is_certain(span: Span) -> bool:
            own, within = keys[span.trace_id], int(span.rescue_seconds * 1e9)
            return _KEPT in own or any(abs(at - span.ended_at) <= within for key in own for at in asked.get(key, ()))

        certain = {span.trace_id for span in drawn if is_certain(span)}
        return [
            replace(span, inclusion_probability=span.head_probability) if span.trace_id in certain else span
            for span in spans
        ]

    def _keys_of_traces(self, traces: set[str]) -> dict[str, set[str]]:
        """What feedback on each trace may name; `_KEPT` besides where a span of it had a reason of its own."""
        keys = {trace: {f"trace:{trace}"} for trace in traces}
        ids = (canonical(sorted(traces)),)
        below = "trace_id IN (SELECT value FROM json_each(?))"
        rows = self._read(f"SELECT trace_id, session_id, response_id, kept_for FROM span WHERE {below}", ids)
        for trace, session, response, kept_for in rows:
            keys[trace].update(filter(None, (session and f"session:{session}", response, kept_for and _KEPT)))
        tagged = f"SELECT trace_id, tag FROM tag JOIN span ON span.id = tag.span_id WHERE {below}"
        for trace, tag in self._read(tagged, ids):
            keys[trace].add(tag)
        return keys

    def _asked_for(self, keys: set[str]) -> dict[str, list[int]]:
        """When events that ask for any of these arrived."""
        asked: dict[str, list[int]] = {}
        for event in self.feedback():
            for key in keys_of(event) & keys:
                asked.setdefault(key, []).append(event.arrived_at)
        return asked

    def span(self, id: str) -> Span:
        """One span by its id, or by a unique beginning of it. Raises `NotFound`."""
        rows = self._read(
            "SELECT data, service FROM body JOIN span ON span.id = body.span_id WHERE id >= ? AND id < ? LIMIT 2",
            (
                id,
                id + "g",
            ),  # ids are hex digits and a dash: everything that begins with `id` sorts before `id` + "g"
        )
        if len(rows) != 1:
            raise NotFound(f"{'no span' if not rows else 'more than one span'} begins with {id!r} in {self.path}")
        return self._included(self._annotated([with_messages(decode_span(*rows[0]))]))[0]

    def feedback(self, target: str | None = None) -> list[Feedback]:
        """The events in order of their append, all or those given on this target and on parts of it."""
        whole, part = (None, None) if target is None else split_target(target)
        where, values = ("", ()) if whole is None else (" WHERE target = ?", (whole,))
        rows = self._read(f"SELECT body FROM feedback{where} ORDER BY seq", values)
        events = events_in(rows)
        return events if part is None else [event for event in events if event.target == target]

    def resolve(self, event: Feedback) -> str:
        """The span that an event is about, as far as it is known today; else the target as it was given.

        A provider's response id is the span that carries it, a join key the outermost span that bears the tag; where
        there are several, the latest started before the event, else the first one after it (feedback may be early).
        What is said of a part of a span is about that part of it.
        """
        return self.resolve_all([event])[0]

    def resolve_all(self, events: Iterable[Feedback]) -> list[str]:
        """`resolve` of many, in one reading."""
        with self._rows() as connection:
            found = [(room.resolved(connection, event), event.part) for event in events]
        return [whole if part is None else f"{whole}#{part}" for whole, part in found]

    def known(self, targets: Collection[str]) -> set[str]:
        """Those of these spans, traces (`trace:…`) and sessions (`session:…`) of which there is or was anything."""
        given = (canonical(sorted(targets)),)
        found: set[str] = set()
        for kind, column in (("", "id"), ("trace:", "trace_id"), ("session:", "session_id")):
            query = (
                f"SELECT value FROM json_each(?) WHERE value GLOB '{kind}*' AND EXISTS"
                f" (SELECT 1 FROM span WHERE {column} = substr(value, {len(kind) + 1}))"
            )
            found |= {value for (value,) in self._read(query, given)}
        with self._rows() as connection:
            return found | room.removed(connection, given[0])

    def media(self, reference: str) -> bytes:
        """The picture, sound or file that a part of a message refers to (`part.uri`, such as `ni:///sha-256;…`).

        Raises `NotFound` where it isn't kept.
        """
        named = next(iter(named_in(reference)), "") if isinstance(reference, str) else ""
        rows = self._read("SELECT data FROM medium WHERE hash = ?", (named,))
        if not rows:
            raise NotFound(f"{reference!r} is not in {self.path}: it was too large to be kept, or has been removed")
        data: bytes = rows[0][0]
        return data

    def documents(self, kind: str, *, task: str | None = None, id: str | None = None) -> list[Any]:
        """The bodies of such documents, oldest first."""
        rows = self._read(
            "SELECT body FROM document"
            " WHERE kind = ? AND (? IS NULL OR task = ?) AND (? IS NULL OR id = ?) ORDER BY seq",
            (kind, task, task, id, id),
        )
        return [json.loads(body) for (body,) in rows]

    def tasks(self) -> list[str]:
        """The names of the tasks that spans or variants were recorded for."""
        rows = self._read(
            "SELECT task FROM span WHERE task IS NOT NULL UNION SELECT task FROM document WHERE task IS NOT NULL",
            (),
        )
        return sorted(task for (task,) in rows)

    def check_task(self, task: str) -> None:
        """Raises `NotFound` with the known names where the task is unknown."""
        known = self.tasks()
        if task not in known:
            names = ", ".join(map(repr, known)) or "none yet"
            raise NotFound(f"the task {task!r} is unknown in {self.path}; known: {names}")

    def stats(self) -> dict[str, int]:
        """How much there is of what, and the file's size in bytes."""
        tables = {"spans": "span", "feedback": "feedback", "documents": "document", "media": "medium"}
        counts = {name: self._read(f"SELECT count(*) FROM {table}", ())[0][0] for name, table in tables.items()}
        return {**counts, "bytes": self.path.stat().st_size}

    def annotate(
        self, id: str, *, tags: Sequence[str] = (), metadata: Mapping[str, Any] | None = None, anew: bool = False
    ) -> None:
        """Add tags and metadata to a stored span, or put them in the place of its own (`anew`). Raises `NotFound`."""
        span = self.span(id)
        said = {"tags": list(tags), "metadata": dict(metadata or {}), "replace": anew}
        with self.transaction() as connection:
            self._put(connection, room.ANNOTATION, span.id, span.task, said)
            if anew:
                connection.execute("DELETE FROM tag WHERE span_id = ?", (span.id,))
            connection.executemany("INSERT OR IGNORE INTO tag VALUES (?, ?)", [(utf8(tag), span.id) for tag in tags])

    def forget(
        self, user: str, author: str, traces: Collection[str], without: Callable[[Any, set[str]], tuple[Any, int]]
    ) -> tuple[set[str], int, set[str], int]:
        """Remove traces, and those of this user; what was said of them or by this author; examples made of them.

        `without` makes of a document's body one without what came of these spans, and says how many examples went.
        Gives the traces, how many spans went, the ids of the events, and how many examples.
        """
        rows = self._read("SELECT DISTINCT trace_id FROM span WHERE user_id = ?", (user,))
        with self.reading() as connection:
            past = room.past_of(connection, user)
        theirs = {trace for (trace,) in rows} | set(traces)
        theirs |= {what.removeprefix("trace:") for what in past if what.startswith("trace:")}
        below = "trace_id IN (SELECT value FROM json_each(?))"
        ids = (canonical(sorted(theirs)),)
        known = self._read(f"SELECT id, session_id FROM span WHERE {below}", ids)
        here = {id for id, _ in known}
        spans = here | {what for what in past if is_span_id(what)}
        about = (
            {f"session:{session}" for _, session in known if session} | {f"trace:{trace}" for trace in theirs} | past
        )

        def is_theirs(target: str) -> bool:
            return target in about or target in spans or (is_span_id(target) and target[:32] in theirs)

        Beside(self.directory).bring_over(lambda events: self.append(None, events))
        said = self.feedback()
        meant = dict(zip((event.id for event in said), self.resolve_all(said), strict=True))
        events = {event.id for event in said if f"event:{event.id}" in past}
        while more := {
            event.id
            for event in said
            if event.id not in events
            and (
                event.by == author
                or event.whole.removeprefix("event:") in events
                or is_theirs(split_target(meant[event.id])[0])
            )
        }:
            events |= more
        gone = 0
        with self.transaction() as connection:
            connection.execute("PRAGMA secure_delete = ON")
            room.remove_spans(connection, spans)
            room.forget_past(connection, user)
            listed = (canonical(sorted(events)),)
            # who was told of them is told that they hold no longer
            connection.execute(
                "INSERT INTO untold (destination, target, seq, since, due) SELECT destination, target, 0, ?2, ?2"
                " FROM told, (SELECT DISTINCT target FROM feedback WHERE id IN (SELECT value FROM json_each(?1)))"
                " WHERE true"
                " ON CONFLICT DO UPDATE SET due = excluded.due, tries = 0, state = 'due', reason = NULL",
                (*listed, self._clock.now()),
            )
            told = canonical(sorted({split_target(meant[id])[0] for id in events if id in meant}))
            connection.execute(  # whatever name of it they were told under
                "INSERT INTO untold (destination, target, seq, since, due) SELECT DISTINCT destination, target, 0, ?2,"
                " ?2 FROM statement JOIN json_each(?1) ON about = value OR about LIKE value || '#%' WHERE true"
                " ON CONFLICT DO UPDATE SET due = excluded.due, tries = 0, state = 'due', reason = NULL",
                (told, self._clock.now()),
            )
            connection.execute("DELETE FROM feedback WHERE id IN (SELECT value FROM json_each(?))", listed)
            for seq, kind, id, body in connection.execute("SELECT seq, kind, id, body FROM document").fetchall():
                mentioned = {span for span in SPAN_ID.findall(body) if is_theirs(span)}
                kept, examples = without(json.loads(body), mentioned)
                text = canonical(kept)
                gone += examples
                if text != body:
                    connection.execute("UPDATE document SET body = ? WHERE seq = ?", (text, seq))
                    bearer = _document_bearer(kind, id)
                    room.hide(connection, [bearer], but=named_in(text))
            connection.execute("DELETE FROM aside WHERE instr(data, ?)", (user.encode("utf-8", "replace"),))
        self.scrub()
        return theirs, len(here), events, gone

    # Inside

    def _put(self, connection: sqlite3.Connection, kind: str, id: str, task: str | None, body: Any) -> None:
        text = canonical(body)
        connection.execute(
            "INSERT INTO document (kind, id, task, at, body) VALUES (?, ?, ?, ?, ?)",
            (kind, id, task, self._clock.now(), text),
        )
        room.show(connection, _document_bearer(kind, id), named_in(text))
        if kind != room.ANNOTATION:
            room.mention(connection, text)

    def _annotated(self, spans: list[Span]) -> list[Span]:
        """With the tags and metadata that they were given afterwards."""
        rows = self._read("SELECT id, body FROM document WHERE kind = ? ORDER BY seq", (room.ANNOTATION,))
        if not rows:
            return spans
        found = {span.id: span for span in spans}
        for id, body in rows:
            if id in found:
                said = json.loads(body)
                span, anew = found[id], said["replace"]
                tags = dict.fromkeys((*(() if anew else span.tags), *said["tags"]))
                metadata = {**({} if anew else span.metadata), **said["metadata"]}
                found[id] = replace(span, tags=tuple(tags), metadata=metadata)
        return [found[span.id] for span in spans]

    def _read(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        with self._rows() as connection:
            return connection.execute(query, values).fetchall()

    @contextmanager
    def _rows(self) -> Generator[sqlite3.Connection]:
        """What has been recorded so far, as rows."""
        if self._before_read is not None:
            self._before_read()
        with self.reading() as connection:
            self._make_rows(connection)
            yield connection

    def make_rows(self, stop: Callable[[], bool]) -> None:
        """Turn waiting batches into rows, for somebody who isn't in a hurry: a portion at a time, with pauses."""
        while not stop():
            with self.reading() as connection:
                if self._make_rows(connection, portions=1):
                    return
            time.sleep(_PAUSE)

    def _make_rows(self, connection: sqlite3.Connection, portions: int | None = None) -> bool:
        """Turn waiting batches into rows, a portion a transaction; all, or so many portions. Whether that was all."""
        while connection.execute("SELECT 1 FROM batch LIMIT 1").fetchone():
            if portions == 0:
                return False
            portions = None if portions is None else portions - 1
            with begun(connection):
                oldest = "SELECT seq, data, at FROM batch ORDER BY seq LIMIT ?"
                for seq, data, at in connection.execute(oldest, (_PORTION,)).fetchall():
                    connection.execute("SAVEPOINT one")
                    try:
                        for span, body in decode_request(data):
                            _insert(connection, with_facts(span), body, at or self._clock.now())
                    except (sqlite3.OperationalError, MemoryError):  # not of these bytes' making: it may pass
                        raise
                    except Exception as error:  # noqa: BLE001  # whatever is in these bytes, the others can be read
                        connection.execute("ROLLBACK TO one")
                        _host.report("reading a batch of spans", error)
                        connection.execute("INSERT INTO aside (data, reason) VALUES (?, ?)", (data, repr(error)))
                    connection.execute("RELEASE one")
                    connection.execute("DELETE FROM batch WHERE seq = ?", (seq,))
                    room.hide(connection, [room.batch_bearer(seq)])
        return True


def _document_bearer(kind: str, id: str) -> str:
    return f"{kind}:{id}"


def _insert(connection: sqlite3.Connection, span: Span, body: bytes, at: int) -> None:
    """One span's rows. A span that is there already came twice, and the first one stays."""
    call = span.model_call
    done = connection.execute(
        "INSERT OR IGNORE INTO span VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            span.id, span.trace_id, span.parent_id, span.name, span.kind, span.task, span.variant, span.status,
            span.started_at, span.ended_at, span.user_id, span.session_id,
            call and call.response_id, call and (call.response_model or call.model), span.service,
            span.kept_for, at,
        ),
    )  # fmt: skip
    if done.rowcount == 0:
        return
    connection.execute("INSERT OR IGNORE INTO body VALUES (?, ?)", (span.id, body))
    connection.executemany("INSERT OR IGNORE INTO tag VALUES (?, ?)", [(tag, span.id) for tag in span.tags])
    if shown := named_in(body):
        room.show(connection, span.id, shown)


def events_in(rows: Iterable[tuple[str]]) -> list[Feedback]:
    """The events that these bodies are. One that can't be read stands in no other's way."""
    found: list[Feedback] = []
    for (body,) in rows:
        try:
            found.append(from_json(Feedback, body))
        except ValueError as error:
            _host.warn_once("event", f"a feedback event in the store can't be read, and is left out: {error}")
    return found
