"""Store and forward: one destination's waiting batches on disk, in checksummed segments.

A segment is a file that one process appends to: a header, then for every batch its length, its CRC-32 and its bytes.
Beside it lies a file of eight bytes: how far the segment has been struck off. Appending is one write, so a process
that is killed leaves at most one torn batch, at the very end, which nobody was told is kept. A writer holds a lock on
its segment while it lives, and whoever delivers holds the spool's; both go with their process, however it dies, and
the next one goes on where it was.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from loopkit import _host
from loopkit.config import Drop

try:
    import fcntl
except ImportError:  # pragma: no cover  # Windows: one process a spool
    fcntl = None  # type: ignore[assignment]

_MAGIC: Final = b"LKSPOOL"
_VERSION: Final = 1
_HEADER: Final = _MAGIC + bytes((_VERSION,))
_RECORD: Final = struct.Struct("<II")
_OFFSET: Final = struct.Struct("<Q")
_SEGMENT: Final = ".seg"
_DONE: Final = ".done"
_BATCH: Final = ".otlp"
_REASON: Final = ".reason"
_DAMAGED: Final = ".damaged"
_LARGEST_SEGMENT: Final = 4 << 20
_SEGMENTS: Final = 8
"""A spool has room for at least so many segments, so that dropping the oldest costs no more than this part of it."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A batch that waits, and where it ends in its segment."""

    data: bytes
    segment: Path
    end: int


class Spool(Protocol):
    """Where batches wait until they are acknowledged: on disk, or in memory where there is no disk to write."""

    durable: bool
    """Whether what it holds outlives the process."""
    dropped: int
    """Batches that went for the bound, or were damaged."""

    def append(self, data: bytes) -> bool:
        """Keep a batch; False where it went for the bound. Raises `OSError`, and then nothing of it is kept."""
        ...

    def sync(self) -> None:
        """Have it survive a power failure too, as far as the disk's own cache."""
        ...

    def held(self) -> AbstractContextManager[bool]:
        """True for the one who may deliver now."""
        ...

    def waiting(self) -> Iterator[Waiting]:
        """The batches, oldest first; those of one segment in order."""
        ...

    def strike_off(self, batch: Waiting) -> None:
        """The batch was acknowledged, and so were those before it in its segment."""
        ...

    def bury(self, batch: Waiting, reason: str) -> None:
        """The receiver will never take this batch: put it aside with the reason."""
        ...

    def sweep(self) -> None:
        """Clear away what has been delivered whole and nobody writes any more. For who holds the spool."""
        ...

    def letters(self) -> list[tuple[Path, str]]:
        """The dead letters, oldest first, with the reason of each."""
        ...

    def rewrite(self, change: Callable[[bytes], bytes]) -> tuple[int, int]:
        """Put changed batches in the place of what waits, and of dead letters; an empty one is taken out.

        Gives how many were changed, and how many segments could not be: those that other living processes write. For
        who appends, while nobody delivers. A crash meanwhile may have batches delivered twice, and loses none.
        """
        ...

    def close(self) -> None:
        """Give back files and locks; what waits, waits for the next process."""
        ...

    def after_fork(self) -> None:
        """In a child: what is open belongs to the parent."""
        ...


class DiskSpool:
    """A directory of segments, and of dead letters. One thread appends, one delivers."""

    durable = True

    def __init__(
        self,
        directory: Path,
        limit: int,
        clock: Callable[[], int],
        *,
        batches: int = 500_000,
        drop: Drop = "oldest",
        chance: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """`limit` is in bytes; `drop` says what goes where it, or the number `batches`, would be passed; `chance`
        draws for "sampled".

        Raises `OSError` where the directory can't be made or written.
        """
        self.directory = directory
        self.dead = directory / "dead"
        self.dropped = 0
        self._limit = limit
        self._segment_size = max(min(_LARGEST_SEGMENT, limit // _SEGMENTS), 1)
        self._batches = batches
        self._segment_batches = max(batches // _SEGMENTS, 1)
        self._clock = clock
        self._drop = drop
        self._chance = chance
        self._writer: _Writer | None = None
        self._locks: set[int] = set()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(13, os.strerror(13), str(directory))

    def append(self, data: bytes) -> bool:
        """See `Spool.append`. Where the bound would be passed, batches go by the policy, and are counted."""
        while True:
            writer = self._writer
            if writer is None or self._is_full(writer, len(data)):
                self._close_writer()
                if not self._make_room(max(self._segment_size, len(data) + len(_HEADER) + _RECORD.size)):
                    self.dropped += 1
                    return False
                name = f"{self._clock():020d}-{os.getpid()}-{os.urandom(3).hex()}"
                writer = self._writer = _Writer(self.directory, name)
            writer.append(data)
            if not writer.is_gone():
                return True
            self._close_writer()  # another process needed the room: it counted what was there, but not this batch

    def _is_full(self, writer: _Writer, more: int) -> bool:
        return writer.size + more > self._segment_size or writer.batches >= self._segment_batches

    def sync(self) -> None:
        """See `Spool.sync`."""
        if self._writer is not None:
            self._writer.sync()

    @contextmanager
    def held(self) -> Generator[bool]:
        """See `Spool.held`. The lock goes with the process."""
        if fcntl is None:
            yield True
            return
        with _no_fork:  # a child must know of every descriptor that it has to close
            descriptor = os.open(self.directory / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
            self._locks.add(descriptor)
        try:
            yield _try_lock(descriptor, fcntl.LOCK_EX)
        finally:
            with _no_fork:
                self._locks.discard(descriptor)
                os.close(descriptor)

    def waiting(self) -> Iterator[Waiting]:
        """See `Spool.waiting`."""
        for segment in self.segments():
            yield from _read(segment)[0]

    def segments(self) -> list[Path]:
        """The segments, oldest first."""
        return sorted(self.directory.glob(f"*{_SEGMENT}"))

    def letters(self) -> list[tuple[Path, str]]:
        """See `Spool.letters`."""
        return [(letter, _text(letter.with_suffix(_REASON))) for letter in sorted(self.dead.glob(f"*{_BATCH}"))]

    def strike_off(self, batch: Waiting) -> None:
        """See `Spool.strike_off`."""
        if not batch.segment.exists():  # it went for the bound meanwhile
            return
        descriptor = os.open(batch.segment.with_suffix(_DONE), os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, _OFFSET.pack(batch.end))
        finally:
            os.close(descriptor)

    def bury(self, batch: Waiting, reason: str) -> None:
        """See `Spool.bury`. The oldest letters go where they pass the bound."""
        self._put_aside(f"{batch.segment.stem}-{batch.end:012d}", batch.data, reason)
        self.strike_off(batch)

    def replay(self) -> int:
        """Let the dead letters wait again, as many as there is room for; how many."""
        drop, self._drop = self._drop, "newest"  # what was never tried doesn't go for them
        try:
            kept = [letter for letter, _ in self.letters() if self.append(letter.read_bytes())]
        finally:
            self._drop = drop
        self.sync()
        for letter in kept:
            _unlink(letter, letter.with_suffix(_REASON))
        return len(kept)

    def rewrite(self, change: Callable[[bytes], bytes]) -> tuple[int, int]:
        """See `Spool.rewrite`. What this object writes is closed first."""
        changed = left = 0
        self._close_writer()
        with self.held() as ours:
            for segment in self.segments():
                if not ours or not _is_abandoned(segment):
                    left += 1
                elif _is_ours(segment):
                    changed += _rewrite_segment(segment, change)
        for letter, _ in self.letters():
            before = letter.read_bytes()
            after = change(before)
            changed += after != before
            if not after:
                _unlink(letter, letter.with_suffix(_REASON))
            elif after != before:
                _replace(letter, after)
        for damaged in self.dead.glob(f"*{_DAMAGED}"):
            before = damaged.read_bytes()
            if change(before) != before:
                changed += 1
                _unlink(damaged, damaged.with_suffix(_REASON))
        return changed, left

    def clear(self) -> int:
        """Remove everything that no living process is writing; how many batches went."""
        gone = 0
        for segment in filter(_is_abandoned, self.segments()):
            gone += len(_read(segment)[0])
            _unlink(segment, segment.with_suffix(_DONE))
        for letter in (*self.dead.glob(f"*{_BATCH}"), *self.dead.glob(f"*{_DAMAGED}")):
            gone += 1
            _unlink(letter, letter.with_suffix(_REASON))
        return gone

    def sweep(self) -> None:
        """See `Spool.sweep`."""
        for segment in self.segments():
            if not _is_abandoned(segment):
                continue
            batches, damaged = _read(segment)
            if damaged and not batches:
                self.dropped += 1
                reason = "the segment is torn or damaged here: length or checksum don't fit"
                _host.warn_once("damaged spool", f"a part of {segment} is damaged and was put aside in {self.dead}")
                self._put_aside(segment.stem, damaged, reason, suffix=_DAMAGED)
            if not batches and _is_ours(segment):
                _unlink(segment, segment.with_suffix(_DONE))

    def close(self) -> None:
        """See `Spool.close`."""
        self._close_writer()
        with self.held() as ours:
            if ours:
                self.sweep()

    def after_fork(self) -> None:
        """See `Spool.after_fork`. Locks are the open files': a child that kept them open would hold them for ever."""
        inherited, self._locks = self._locks, set()
        if self._writer is not None:
            inherited.add(self._writer.file)
            self._writer = None
        for descriptor in inherited:
            with suppress(OSError):
                os.close(descriptor)

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.sync()
            finally:
                writer.close()

    def _make_room(self, needed: int) -> bool:
        """Whether a new segment of this size may be made; the oldest go first, if the policy says so."""
        if needed > self._limit:
            return False
        # first those that nobody writes any more; a living process would have to begin anew
        segments = sorted(self.segments(), key=lambda segment: (not _is_abandoned(segment), segment))
        sizes = {segment: _size(segment) for segment in segments}
        counts = {segment: _count(segment) for segment in segments}
        room, most = self._limit - needed, self._batches - self._segment_batches
        while sum(sizes.values()) > room or sum(counts.values()) > max(most, 0):
            if self._drop == "newest" or (self._drop == "sampled" and self._chance() < 0.5):
                return False
            oldest = segments.pop(0)
            self.dropped += len(_read(oldest)[0])
            _unlink(oldest, oldest.with_suffix(_DONE))
            del sizes[oldest], counts[oldest]
        return True

    def _put_aside(self, name: str, data: bytes, reason: str, *, suffix: str = _BATCH) -> None:
        self.dead.mkdir(mode=0o700, exist_ok=True)
        (self.dead / f"{name}{_REASON}").write_text(reason + "\n")
        temporary = self.dead / f".{name}"
        temporary.write_bytes(data)
        os.replace(temporary, self.dead / f"{name}{suffix}")
        letters = self.letters()
        total = sum(_size(letter) for letter, _ in letters)
        for letter, _ in letters[:-1]:
            if total <= self._limit:
                break
            total -= _size(letter)
            _unlink(letter, letter.with_suffix(_REASON))
            self.dropped += 1


class MemorySpool:
    """The same in memory, for a place without a disk that can be written: bounded, and gone with the process."""

    durable = False

    def __init__(self, limit: int, batches: int = 500_000) -> None:
        self.dropped = 0
        self._limit = limit
        self._most = batches
        self._batches: deque[Waiting] = deque()
        self._bytes = 0
        self._count = 0

    def append(self, data: bytes) -> bool:
        """See `Spool.append`."""
        self._count += 1
        self._batches.append(Waiting(data, Path(), self._count))
        self._bytes += len(data)
        while self._bytes > self._limit or len(self._batches) > self._most:
            self._bytes -= len(self._batches.popleft().data)
            self.dropped += 1
        return bool(self._batches)

    def sync(self) -> None:
        """See `Spool.sync`: nothing would help."""

    @contextmanager
    def held(self) -> Generator[bool]:
        """See `Spool.held`."""
        yield True

    def waiting(self) -> Iterator[Waiting]:
        """See `Spool.waiting`."""
        yield from list(self._batches)

    def strike_off(self, batch: Waiting) -> None:
        """See `Spool.strike_off`."""
        while self._batches and self._batches[0].end <= batch.end:
            self._bytes -= len(self._batches.popleft().data)

    def bury(self, batch: Waiting, reason: str) -> None:
        """See `Spool.bury`: there is no place for dead letters."""
        self.dropped += 1
        self.strike_off(batch)

    def sweep(self) -> None:
        """See `Spool.sweep`: nothing is left behind."""

    def letters(self) -> list[tuple[Path, str]]:
        """See `Spool.letters`: there is no place for them."""
        return []

    def rewrite(self, change: Callable[[bytes], bytes]) -> tuple[int, int]:
        """See `Spool.rewrite`."""
        before = list(self._batches)
        after = [replace(batch, data=change(batch.data)) for batch in before]
        self._batches = deque(batch for batch in after if batch.data)
        self._bytes = sum(len(batch.data) for batch in self._batches)
        return sum(new.data != old.data for new, old in zip(after, before, strict=True)), 0

    def close(self) -> None:
        """See `Spool.close`."""

    def after_fork(self) -> None:
        """See `Spool.after_fork`: the parent delivers its own."""
        self._batches.clear()
        self._bytes = 0


_no_fork = threading.Lock()
"""Held while descriptors are opened or closed that a child has to close, and while somebody forks."""


def _allow_forks_again() -> None:
    global _no_fork
    _no_fork = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _no_fork.acquire(),
        after_in_parent=lambda: _no_fork.release(),
        after_in_child=_allow_forks_again,
    )


class _Writer:
    """The segment that this process appends to, locked while it lives."""

    def __init__(self, directory: Path, name: str) -> None:
        # Locked before it has its name: a segment that isn't locked is a dead process's.
        temporary = directory / f".{name}"
        done = directory / f"{name}{_DONE}"
        self.file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            if fcntl is not None:
                fcntl.flock(self.file, fcntl.LOCK_EX)
            os.write(self.file, _HEADER)
            done.write_bytes(_OFFSET.pack(0))  # now: a full disk must not keep what was delivered from being struck off
            os.replace(temporary, directory / f"{name}{_SEGMENT}")
        except BaseException:
            os.close(self.file)
            _unlink(temporary, done)
            raise
        self.size = len(_HEADER)
        self.batches = 0

    def append(self, data: bytes) -> None:
        record = _RECORD.pack(len(data), zlib.crc32(data)) + data
        try:
            written = os.write(self.file, record)
            if written < len(record):
                raise OSError(28, os.strerror(28))
        except OSError:
            os.ftruncate(self.file, self.size)
            raise
        self.size += len(record)
        self.batches += 1

    def sync(self) -> None:
        getattr(os, "fdatasync", os.fsync)(self.file)

    def is_gone(self) -> bool:
        """Whether somebody has removed the segment meanwhile."""
        return os.fstat(self.file).st_nlink == 0

    def close(self) -> None:
        os.close(self.file)


def _rewrite_segment(segment: Path, change: Callable[[bytes], bytes]) -> int:
    batches, damaged = _read(segment)
    after = [change(batch.data) for batch in batches]
    different = sum(new != old.data for new, old in zip(after, batches, strict=True))
    rest = change(damaged) if damaged else b""
    if different or rest != damaged or _done(segment) > len(_HEADER):  # what was delivered still lies in it
        records = (_RECORD.pack(len(data), zlib.crc32(data)) + data for data in after if data)
        segment.with_suffix(_DONE).write_bytes(_OFFSET.pack(0))
        _replace(segment, _HEADER + b"".join(records) + rest)
    return different


def _replace(file: Path, data: bytes) -> None:
    temporary = file.parent / f".{file.name}"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as made:
        made.write(data)
    os.replace(temporary, file)


def _read(segment: Path) -> tuple[list[Waiting], bytes]:
    """The whole batches that wait in a segment; and what follows them, torn or damaged."""
    found: list[Waiting] = []
    try:
        with segment.open("rb") as file:
            if not _is_ours(segment, file.read(len(_HEADER))):
                return [], b""
            end = max(_done(segment), len(_HEADER))
            file.seek(end)
            rest = memoryview(file.read())
    except FileNotFoundError:  # delivered, or dropped for the bound, meanwhile
        return [], b""
    position = 0
    while len(rest) - position >= _RECORD.size:
        length, checksum = _RECORD.unpack_from(rest, position)
        data = bytes(rest[position + _RECORD.size : position + _RECORD.size + length])
        if not length or len(data) < length or zlib.crc32(data) != checksum:
            break
        position += _RECORD.size + length
        found.append(Waiting(data, segment, end + position))
    return found, bytes(rest[position:])


def _count(segment: Path) -> int:
    """How many batches wait in a segment, by their lengths alone."""
    count = 0
    try:
        with segment.open("rb") as file:
            file.seek(max(_done(segment), len(_HEADER)))
            while len(head := file.read(_RECORD.size)) == _RECORD.size:
                file.seek(_RECORD.unpack(head)[0], os.SEEK_CUR)
                count += 1
    except FileNotFoundError:  # delivered meanwhile
        return 0
    return count


def _is_ours(segment: Path, header: bytes | None = None) -> bool:
    """Whether this version can read the segment; one of a newer version is left alone."""
    if header is None:
        with segment.open("rb") as file:
            header = file.read(len(_HEADER))
    if header.startswith(_MAGIC) and header[len(_MAGIC) :] > _HEADER[len(_MAGIC) :]:
        _host.warn_once(
            "newer spool", f"{segment} was written by a newer loopkit and is left alone: upgrade loopkit to deliver it"
        )
        return False
    return True


def _done(segment: Path) -> int:
    """How far a segment has been struck off, in bytes."""
    try:
        (offset,) = _OFFSET.unpack(segment.with_suffix(_DONE).read_bytes())
    except (FileNotFoundError, struct.error):
        return 0
    return int(offset)


def _is_abandoned(segment: Path) -> bool:
    """Whether no living process writes it."""
    if fcntl is None:
        return True
    try:
        descriptor = os.open(segment, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return _try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, kind: int) -> bool:
    assert fcntl is not None
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _unlink(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""
