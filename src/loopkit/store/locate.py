"""The store that people mean when they name none."""

from __future__ import annotations

import os

from loopkit.capture import slot
from loopkit.config import home_directory
from loopkit.store.sqlite import Store


def open_store(directory: str | os.PathLike[str] | None = None) -> Store:
    """The store in `directory`, else the recording process's own, else the one in `LOOPKIT_HOME`.

    In a recording process, reading it flushes first.
    """
    recorder = slot.recorder
    if directory is None and recorder is not None:
        directory = recorder.settings.store
    return Store(directory or home_directory(), before_read=_flush)


def _flush() -> None:
    recorder = slot.recorder
    if recorder is not None:
        recorder.worker.flush(5.0)
