"""The tables, and how an older store becomes a newer one.

Writers append whole encoded batches; `span`, `tag` and `body` are made from them by whoever reads first. Bodies
lie apart from the rows, so that going over many rows doesn't read what was said in them, and a picture lies once for
all that show it: spans, datasets, batches before they are rows. A batch that can't be read is put `aside`, with the
reason, so that it stands in nobody's way. `held` counts what spans and media hold. Of a user's removed spans, `past`
keeps what outlives them, feedback and the spans that documents `mention`, and `gone` their traces, sessions and
responses, so that what is said of them later can be forgotten too. `told` is how far a destination has looked for
feedback to tell of, `untold` the targets it still has to be told of, and `statement` what it was told.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator

from loopkit.errors import StoreUnusable

ROW = 1000
"""Bytes, roughly, of a span's row with its indexes."""
SPAN_ID = re.compile(r"[0-9a-f]{32}-[0-9a-f]{16}")
AGAINST = "coalesce(json_extract(body, '$.retracts'), json_extract(body, '$.supersedes'))"
"""The event that an event speaks against; an index has it."""
MIGRATIONS = (
    """
    CREATE TABLE batch (seq INTEGER PRIMARY KEY AUTOINCREMENT, data BLOB NOT NULL);
    CREATE TABLE span (
        id TEXT PRIMARY KEY, trace_id TEXT NOT NULL, parent_id TEXT, name TEXT NOT NULL, kind TEXT NOT NULL,
        task TEXT, variant TEXT, status TEXT NOT NULL, started_at INTEGER NOT NULL, ended_at INTEGER NOT NULL,
        user_id TEXT, session_id TEXT, response_id TEXT, model TEXT, service TEXT
    ) WITHOUT ROWID;
    CREATE INDEX span_by_time ON span (started_at);
    CREATE INDEX span_by_task ON span (task, started_at);
    CREATE INDEX span_by_trace ON span (trace_id);
    CREATE INDEX span_by_session ON span (session_id, started_at) WHERE session_id IS NOT NULL;
    CREATE INDEX span_by_response ON span (response_id, started_at) WHERE response_id IS NOT NULL;
    CREATE TABLE tag (tag TEXT NOT NULL, span_id TEXT NOT NULL, PRIMARY KEY (tag, span_id)) WITHOUT ROWID;
    CREATE TABLE body (span_id TEXT PRIMARY KEY, data BLOB NOT NULL);
    CREATE TABLE feedback (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, target TEXT NOT NULL, name TEXT NOT NULL,
        at INTEGER NOT NULL, arrived_at INTEGER NOT NULL, body TEXT NOT NULL
    );
    CREATE INDEX feedback_by_target ON feedback (target);
    CREATE TABLE document (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, id TEXT NOT NULL, task TEXT, at INTEGER NOT NULL,
        body TEXT NOT NULL
    );
    CREATE INDEX document_by_id ON document (kind, id);
    CREATE INDEX document_by_task ON document (kind, task, seq);
    """,
    """
    CREATE TABLE aside (seq INTEGER PRIMARY KEY AUTOINCREMENT, data BLOB NOT NULL, reason TEXT NOT NULL);
    """,
    """
    ALTER TABLE span ADD COLUMN kept_for TEXT;
    """,
    """
    ALTER TABLE batch ADD COLUMN at INTEGER NOT NULL DEFAULT 0;
    UPDATE batch SET at = CAST(strftime('%s', 'now') AS INTEGER) * 1000000000;
    ALTER TABLE span ADD COLUMN arrived_at INTEGER NOT NULL DEFAULT 0;
    UPDATE span SET arrived_at = CAST(strftime('%s', 'now') AS INTEGER) * 1000000000;
    CREATE INDEX span_by_arrival ON span (arrived_at);
    CREATE TABLE medium (hash TEXT PRIMARY KEY, data BLOB NOT NULL);
    CREATE TABLE shows (hash TEXT NOT NULL, bearer TEXT NOT NULL, PRIMARY KEY (bearer, hash)) WITHOUT ROWID;
    CREATE INDEX shows_by_hash ON shows (hash);
    CREATE TABLE past (owner TEXT NOT NULL, what TEXT NOT NULL, PRIMARY KEY (owner, what)) WITHOUT ROWID;
    """,
    f"""
    DROP TABLE IF EXISTS mention;
    DROP TABLE IF EXISTS held;
    DROP TRIGGER IF EXISTS batch_came;
    DROP TRIGGER IF EXISTS batch_went;
    DROP TRIGGER IF EXISTS body_came;
    DROP TRIGGER IF EXISTS body_went;
    DROP TRIGGER IF EXISTS medium_came;
    DROP TRIGGER IF EXISTS medium_went;
    DROP INDEX span_by_trace;
    CREATE INDEX span_by_trace ON span (trace_id, arrived_at);
    CREATE TABLE gone (seq INTEGER PRIMARY KEY AUTOINCREMENT, owner TEXT, what TEXT NOT NULL);
    CREATE TABLE mention (span_id TEXT PRIMARY KEY) WITHOUT ROWID;
    INSERT OR IGNORE INTO mention SELECT value FROM document, json_each(mentioned(body)) WHERE kind != 'annotation';
    CREATE TABLE held (bytes INTEGER NOT NULL);
    INSERT INTO held SELECT (SELECT coalesce(sum(length(data)), 0) FROM batch)
        + (SELECT coalesce(sum(length(data) + {ROW}), 0) FROM body)
        + (SELECT coalesce(sum(length(data)), 0) FROM medium);
    CREATE TRIGGER batch_came AFTER INSERT ON batch BEGIN UPDATE held SET bytes = bytes + length(NEW.data); END;
    CREATE TRIGGER batch_went AFTER DELETE ON batch BEGIN UPDATE held SET bytes = bytes - length(OLD.data); END;
    CREATE TRIGGER body_came AFTER INSERT ON body BEGIN UPDATE held SET bytes = bytes + length(NEW.data) + {ROW}; END;
    CREATE TRIGGER body_went AFTER DELETE ON body BEGIN UPDATE held SET bytes = bytes - length(OLD.data) - {ROW}; END;
    CREATE TRIGGER medium_came AFTER INSERT ON medium BEGIN UPDATE held SET bytes = bytes + length(NEW.data); END;
    CREATE TRIGGER medium_went AFTER DELETE ON medium BEGIN UPDATE held SET bytes = bytes - length(OLD.data); END;
    """,
    f"""
    CREATE TABLE told (destination TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE untold (
        destination TEXT NOT NULL, target TEXT NOT NULL, seq INTEGER NOT NULL, since INTEGER NOT NULL,
        due INTEGER NOT NULL, state TEXT NOT NULL DEFAULT 'due', leased_until INTEGER NOT NULL DEFAULT 0,
        tries INTEGER NOT NULL DEFAULT 0, reason TEXT, PRIMARY KEY (destination, target)
    ) WITHOUT ROWID;
    CREATE TABLE statement (
        destination TEXT NOT NULL, id TEXT NOT NULL, target TEXT NOT NULL, about TEXT NOT NULL, facts TEXT NOT NULL,
        hash TEXT NOT NULL, PRIMARY KEY (destination, id)
    ) WITHOUT ROWID;
    CREATE INDEX statement_by_target ON statement (destination, target);
    CREATE INDEX feedback_against ON feedback ({AGAINST}) WHERE {AGAINST} IS NOT NULL;
    """,
)
"""One script a version; the store's version is how many of them it has seen."""


def migrate(connection: sqlite3.Connection, path: str, migrations: tuple[str, ...]) -> None:
    """Bring the file up to this version. Raises `StoreUnusable` where a newer loopkit wrote it."""
    version = _version(connection)
    if version > len(migrations):
        raise StoreUnusable(
            f"the store {path} was written by a newer loopkit (version {version} of its tables; this one knows "
            f"{len(migrations)}): upgrade loopkit, or point LOOPKIT_HOME at another directory"
        )
    if version == len(migrations):
        return
    connection.create_function("mentioned", 1, _mentioned, deterministic=True)
    connection.execute("BEGIN IMMEDIATE")
    try:
        for script in migrations[_version(connection) :]:  # another process may have been faster
            for statement in _statements(script):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _mentioned(body: str) -> str:
    """The spans that a document names, as JSON."""
    return json.dumps(SPAN_ID.findall(body))


def _statements(script: str) -> Iterator[str]:
    """One by one: a trigger has semicolons inside."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if statement.strip() and sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version
