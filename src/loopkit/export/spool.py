"""Store and forward: a directory in which each file is one encoded batch that waits to be delivered.

A batch is written under a temporary name and renamed, so a file is whole or not there, at whichever byte the
process was killed. Names sort by time. What a dead process left is delivered by the next one.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # pragma: no cover  # Windows: one process a spool
    fcntl = None  # type: ignore[assignment]

_SUFFIX = ".otlp"
_counter = itertools.count()


class Spool:
    """One destination's waiting batches, oldest first, and its dead letters."""

    def __init__(self, directory: Path, limit: int, clock: Callable[[], int]) -> None:
        self.directory = directory
        self.dead = directory / "dead"
        self.dropped = 0
        self._limit = limit
        self._clock = clock
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def append(self, data: bytes) -> None:
        """Keep a batch. Where it would pass the bound, the oldest go and are counted."""
        name = f"{self._clock():020d}-{os.getpid()}-{next(_counter):08d}"
        temporary = self.directory / f".{name}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            os.replace(temporary, self.directory / f"{name}{_SUFFIX}")
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self._keep_to_limit()

    def waiting(self) -> list[Path]:
        """The batches, oldest first."""
        return sorted(self.directory.glob(f"*{_SUFFIX}"))

    def strike_off(self, batch: Path) -> None:
        """The batch was acknowledged."""
        batch.unlink(missing_ok=True)

    def bury(self, batch: Path, reason: str) -> None:
        """The receiver will never take this batch: put it aside with the reason."""
        self.dead.mkdir(mode=0o700, exist_ok=True)
        (self.dead / f"{batch.stem}.reason").write_text(reason + "\n")
        try:
            os.replace(batch, self.dead / batch.name)
        except FileNotFoundError:  # dropped for the bound meanwhile
            return
        _drop_oldest(sorted(self.dead.glob(f"*{_SUFFIX}")), self._limit)

    @contextmanager
    def held(self) -> Generator[bool]:
        """True for the one process that may deliver now. The lock goes with the process, however it dies."""
        if fcntl is None:
            yield True
            return
        descriptor = os.open(self.directory / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)

    def _keep_to_limit(self) -> None:
        self.dropped += _drop_oldest(self.waiting(), self._limit)


def _drop_oldest(batches: list[Path], limit: int) -> int:
    """Remove the oldest until the rest is within the limit; how many went."""
    sizes = [_size(batch) for batch in batches]
    total, dropped = sum(sizes), 0
    for batch, size in zip(batches, sizes, strict=True):
        if total <= limit:
            break
        batch.unlink(missing_ok=True)
        total -= size
        dropped += 1
    return dropped


def _size(batch: Path) -> int:
    try:
        return batch.stat().st_size
    except FileNotFoundError:  # delivered meanwhile
        return 0
