"""A SQLite file that many threads, processes and forked children use: connections, locks, and errors in words."""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from loopkit.errors import StoreUnusable
from loopkit.store.schema import migrate

BUSY_SECONDS = 10.0
_FORK_SECONDS = 1.0


class Database:
    """One file in WAL mode. Safe to use from several threads and processes."""

    rank = 0
    """Where one is used within another's transaction, the outer one's is lower: a fork stops them in this order."""

    def __init__(self, path: Path, migrations: tuple[str, ...], busy_seconds: float = BUSY_SECONDS) -> None:
        """`busy_seconds` is how long one waits for others who write. Raises `StoreUnusable`, with what to do."""
        self.path = path
        self._busy_seconds = busy_seconds
        self._migrations = migrations
        self._connections: dict[int, sqlite3.Connection] = {}
        self._lock = threading.Lock()
        self._turnstile, self._using = threading.Lock(), threading.Lock()
        self._prepare()
        with self.reading():
            pass
        _databases.add(self)

    @contextmanager
    def reading(self) -> Generator[sqlite3.Connection]:
        """This thread's connection, while no fork can come between."""
        with self._refusals(), self._alone():
            yield self._connection()

    @contextmanager
    def transaction(self) -> Generator[sqlite3.Connection]:
        """The same, writing: all of it or nothing, and no other writer in between."""
        with self.reading() as connection, begun(connection):
            yield connection

    def scrub(self) -> None:
        """Have what was removed be gone from the files too, as far as nobody is reading."""
        with self.reading() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Give back every connection."""
        with self._alone():
            connections, self._connections = list(self._connections.values()), {}
            for connection in connections:
                connection.close()

    def before_fork(self) -> bool:
        """Wait for what another thread does in SQLite: a child would inherit its locks and never get them off.

        False where that takes too long: a fork is the application's, and a child that can't write says so.
        """
        self._turnstile.acquire()
        if self._using.acquire(timeout=_FORK_SECONDS):
            return True
        self._turnstile.release()
        return False

    def after_fork_in_parent(self) -> None:
        """Let writers go on."""
        self._using.release()
        self._turnstile.release()

    def after_fork(self) -> None:
        """In a child: forget the parent's connections without closing them, as SQLite demands."""
        self._lock = threading.Lock()
        self._turnstile, self._using = threading.Lock(), threading.Lock()
        _kept_from_parent.extend(self._connections.values())
        self._connections = {}

    # Inside

    @contextmanager
    def _alone(self) -> Generator[None]:
        """Around everything that goes into SQLite: a fork meanwhile would leave its locks held in the child."""
        with self._turnstile:  # a fork that waits goes first
            pass
        with self._using:
            yield

    def _connection(self) -> sqlite3.Connection:
        """This thread's own connection."""
        thread = threading.get_ident()
        connection = self._connections.get(thread)
        if connection is None:
            connection = sqlite3.connect(
                self.path, timeout=self._busy_seconds, isolation_level=None, check_same_thread=False
            )
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
                migrate(connection, str(self.path), self._migrations)
            except BaseException:
                connection.close()
                raise
            with self._lock:
                self._connections[thread] = connection
        return connection

    def _prepare(self) -> None:
        """The directory for its owner alone, kept out of version control."""
        directory = self.path.parent
        try:
            if not directory.exists():  # never into a directory that is somebody's own
                directory.mkdir(mode=0o700, parents=True)
                (directory / ".gitignore").write_text("*\n")
            if not self.path.exists():
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:
            raise StoreUnusable(
                f"the store's directory {directory} can't be written ({error.strerror}): make it writable, "
                "or point LOOPKIT_HOME elsewhere"
            ) from error

    @contextmanager
    def _refusals(self) -> Generator[None]:
        """SQLite's errors as one sentence with what to do."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StoreUnusable(
                f"the store {self.path} can't be used now ({error}): check that its disk has room, that it is "
                "writable, and that no other program holds it"
            ) from error
        except sqlite3.DatabaseError as error:
            raise StoreUnusable(
                f"{self.path} is no loopkit store, or is damaged ({error}): move the file away and start again, "
                "or point LOOPKIT_HOME at another directory"
            ) from error


@contextmanager
def begun(connection: sqlite3.Connection) -> Generator[sqlite3.Connection]:
    """A transaction for writing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk has rolled back by itself
            connection.execute("ROLLBACK")
        raise


def bytes_in_use(connection: sqlite3.Connection) -> int:
    """Of the pages that hold something: known without looking at the rows."""
    (pages,), (free,), (page,) = (
        connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * page)


_databases: weakref.WeakSet[Database] = weakref.WeakSet()
_forking: list[Database] = []
"""Databases whose writers wait while a fork is under way."""
_kept_from_parent: list[sqlite3.Connection] = []
"""Connections that a forked child must neither use nor close."""


def _after_fork_in_child() -> None:
    _forking.clear()
    for database in list(_databases):
        database.after_fork()


def _rank(database: Database) -> int:
    return database.rank


def _before_fork() -> None:
    _forking.extend(each for each in sorted(_databases, key=_rank) if each.before_fork())


def _after_fork_in_parent() -> None:
    while _forking:
        _forking.pop().after_fork_in_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
