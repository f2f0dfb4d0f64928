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

from loopkit._json import from_json, to_json
from loopkit.types import Feedback

try:
    import fcntl
except ImportError:  # pragma: no cover  # Windows: what lies there is brought over when nobody has it open
    fcntl = None  # type: ignore[assignment]

_SUFFIX = ".waiting"


class Beside:
    """One process's file, and everybody else's to be brought over."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / f"feedback-{os.getpid()}{_SUFFIX}"
        self._file: Any = None
        self._is_synced = True

    def append(self, events: Iterable[Feedback]) -> None:
        """Keep them. Raises `OSError`, and then none of them is kept."""
        lines = b"".join(to_json(event).encode() + b"\n" for event in events)
        if self._file is None:
            self._file = _opened(self._path)
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
        for path in sorted(self._directory.glob(f"feedback-*{_SUFFIX}")):
            own = self._file is not None and path == self._path
            file = self._file if own else _locked(path)
            if file is None:  # a living process's
                continue
            try:
                if found := waiting_in(path):
                    keep(found)
                path.unlink()
            finally:
                file.close()
                if own:
                    self._file = None

    def close(self) -> None:
        """Give it back; what lies there, lies there for the next process."""
        if self._file is not None:
            self._file.close()
            self._file = None


def waiting_beside(directory: Path) -> int:
    """How many events lie there, of all processes."""
    return sum(len(waiting_in(path)) for path in directory.glob(f"feedback-*{_SUFFIX}"))


def waiting_in(path: Path) -> list[Feedback]:
    """The events of a file; what a killed process left half written is not one."""
    found: list[Feedback] = []
    for line in path.read_bytes().split(b"\n"):
        with suppress(ValueError):
            found += [from_json(Feedback, line)] if line else []
    return found


def _opened(path: Path) -> Any:
    file = open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab", buffering=0)  # noqa: SIM115
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return file


def _locked(path: Path) -> Any:
    """The file, where nobody else has it; None where somebody has, or it is gone."""
    try:
        file = path.open("rb")
    except OSError:
        return None
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file
