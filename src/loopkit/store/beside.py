"""Feedback that the store can't take now, since somebody holds it: beside it on disk, until it can.

Each process appends to a file of its own, a line an event, and holds a lock on it while it lives. Whoever gets at the
store next brings over what lies there; an event that is there already stays as it is, so nothing comes twice.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from loopkit import _host
from loopkit._json import from_json, to_json
from loopkit.types import Feedback

try:
    import fcntl
except ImportError:  # pragma: no cover  # Windows: what lies there is brought over when nobody has it open
    fcntl = None  # type: ignore[assignment]

_SUFFIX = ".waiting"
_DAMAGED = ".damaged"


class Beside:
    """One process's file, and everybody else's to be brought over."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path: Path | None = None
        self._file: Any = None
        self._is_synced = True

    def append(self, events: Iterable[Feedback]) -> None:
        """Keep them. Raises `OSError`, and then none of them is kept."""
        lines = b"".join(to_json(event).encode("utf-8", "replace") + b"\n" for event in events)
        if self._file is None:
            self._path, self._file = _opened(self._directory)
        end = os.fstat(self._file.fileno()).st_size
        try:
            if os.write(self._file.fileno(), lines) != len(lines):
                raise OSError(28, "not all of it could be written")
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file.fileno(), end)
            raise
        self._is_synced = False

    def sync(self) -> None:
        """Have it survive a power failure too."""
        if self._file is not None and not self._is_synced:
            os.fsync(self._file.fileno())
            self._is_synced = True

    def bring_over(self, keep: Callable[[list[Feedback]], object]) -> None:
        """Give what lies there to the store, this process's and that of processes that are gone."""
        for path in _files(self._directory):
            own = self._file is not None and path == self._path
            file = path.open("rb") if own else _locked(path)
            if file is None:  # a living process's, or gone
                continue
            with file:
                found, damaged = _read(file.read())
                if found:
                    keep(found)
                if damaged:
                    aside = path.with_suffix(_DAMAGED)
                    _host.warn_once("beside", f"feedback in {aside} can't be read, and was put aside there")
                    os.replace(path, aside)
                else:
                    path.unlink(missing_ok=True)
            if own:
                self.close()

    def close(self) -> None:
        """Give it back; what lies there, lies there for the next process."""
        if self._file is not None:
            self._file.close()
            self._file = None


def waiting_beside(directory: Path) -> int:
    """How many events lie there, of all processes."""
    return sum(len(waiting_in(path)) for path in _files(directory))


def waiting_in(path: Path) -> list[Feedback]:
    """The events of a file; none of one that is gone."""
    try:
        return _read(path.read_bytes())[0]
    except FileNotFoundError:
        return []


def lies_beside(directory: Path) -> bool:
    """Whether anything does, of any process."""
    return any(path.stat().st_size for path in _files(directory) if path.exists())


def _files(directory: Path) -> list[Path]:
    return sorted(directory.glob(f"feedback-*{_SUFFIX}"))


def _read(data: bytes) -> tuple[list[Feedback], bool]:
    """The events, and whether there is anything besides; what a killed process left half written is not one."""
    *lines, torn = data.split(b"\n")
    found: list[Feedback] = []
    damaged = False
    for line in filter(None, lines):
        try:
            found.append(from_json(Feedback, line))
        except ValueError:
            damaged = True
    with suppress(ValueError):
        found += [from_json(Feedback, torn)] if torn else []
    return found, damaged


def _opened(directory: Path) -> tuple[Path, Any]:
    """A file of this process's alone: two containers on one volume may have one process id."""
    while True:
        path = directory / f"feedback-{os.getpid()}-{os.urandom(4).hex()}{_SUFFIX}"
        file = open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600), "ab", buffering=0)  # noqa: SIM115
        if fcntl is not None:
            with suppress(OSError):  # a disk without locks
                fcntl.flock(file, fcntl.LOCK_EX)
        if _is_at(file, path):
            return path, file
        file.close()  # somebody took it for a dead process's before it was locked


def _is_at(file: Any, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _locked(path: Path) -> Any:
    """The file, where nobody else has it; None where somebody has, or it is gone."""
    try:
        file = path.open("rb")
    except OSError:
        return None
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(file, path):
            return file
    except OSError:
        pass
    file.close()
    return None
