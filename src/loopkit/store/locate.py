"""The store that people mean when they name none."""

from __future__ import annotations

import os
from pathlib import Path

from loopkit.capture import slot
from loopkit.config import home_directory
from loopkit.errors import NotFound
from loopkit.store.sqlite import FILE, Store


def open_store(directory: str | os.PathLike[str] | None = None) -> Store:
    """The store in `directory`, else the recording process's own, else the one in `LOOPKIT_HOME`.

    In a recording process, reading it flushes first. Raises `NotFound` where there is none: recording makes it.
    """
    recorder = slot.recorder
    if directory is None and recorder is not None:
        directory = recorder.settings.store
    found = Path(directory or home_directory())
    if not (found / FILE).exists():
        raise NotFound(f"no store in {found}: run this where your service runs, or point LOOPKIT_HOME at its store")
    return Store(found, before_read=_flush)


def _flush() -> None:
    recorder = slot.recorder
    if recorder is not None:
        recorder.worker.flush(5.0)
