"""Where spools lie: a directory for each destination, below the home directory."""

from __future__ import annotations

import hashlib
import os
import random
import time
from pathlib import Path
from typing import Final

from loopkit import _host
from loopkit.config import Destination, home_directory
from loopkit.errors import InvalidSetting
from loopkit.export.spool import DiskSpool, MemorySpool, Spool

_ENDPOINT: Final = "endpoint"
"""A file that says whose spool it is, and its bound in bytes."""
_MEMORY_LIMIT: Final = 32 << 20


def spools(home: str | os.PathLike[str] | None = None) -> dict[str, DiskSpool]:
    """What waits on disk, by endpoint, and name where it has one: of this home directory, whichever process left it.

    Look at `waiting()` and `letters()`, `replay()` the dead letters, or `clear()` everything.
    """
    root = (home_directory() if home is None else Path(home)) / "spool"
    found: dict[str, DiskSpool] = {}
    for file in sorted(root.glob(f"*/{_ENDPOINT}")):
        said = file.read_text().split(maxsplit=2)
        if len(said) < 2 or not said[1].isdigit():  # written while a disk was full
            continue
        endpoint, limit, *name = said
        found[" ".join((endpoint, *name)).strip()] = DiskSpool(file.parent, int(limit), time.time_ns)
    return found


def spool_of(home: Path, destination: Destination) -> Spool:
    """A destination's: on disk, or in memory where that can't be written.

    Raises `InvalidSetting` for a place that is a file.
    """
    directory = home / "spool" / hashlib.sha256(destination.place.encode()).hexdigest()[:16]
    draw = random.SystemRandom().random
    try:
        spool = DiskSpool(
            directory, destination.spool_bytes, time.time_ns,
            batches=destination.spool_batches, drop=destination.drop, chance=draw,
        )  # fmt: skip
        temporary = directory / f".{_ENDPOINT}-{os.getpid()}"
        temporary.write_text(f"{destination.endpoint} {destination.spool_bytes} {destination.name or ''}\n")
        os.replace(temporary, directory / _ENDPOINT)
    except (FileExistsError, NotADirectoryError) as error:
        raise InvalidSetting(
            f"the spool's directory {directory} can't be made, since {error.filename} is a file: move it away, or "
            "point LOOPKIT_HOME elsewhere"
        ) from error
    except OSError as error:
        _host.warn_once(
            f"spool {directory}",
            f"spans can't be spooled on disk ({error}): they wait in memory, and go with the process",
        )
        return MemorySpool(min(destination.spool_bytes, _MEMORY_LIMIT), destination.spool_batches)
    return spool
