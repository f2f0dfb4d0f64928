"""Secrets of this service's own, in files that only its user can read, made when first needed."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def secret_in(path: Path | None) -> bytes:
    """The 32 bytes in this file; without a file, or where it can't be written, they last as long as the process."""
    if path is None:
        return os.urandom(32)
    if known := _read(path):
        return known
    made = os.urandom(32)
    # Written whole and then linked, so that nobody ever reads half a secret, and of two processes one is first.
    own = f"{path}.{os.getpid()}"
    try:
        os.makedirs(path.parent, mode=0o700, exist_ok=True)
        with open(os.open(own, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(made)
        try:
            if os.path.exists(path):  # empty: a crash of old
                os.replace(own, path)
            else:
                os.link(own, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(own)
    except OSError:
        # Another process was first, or the disk is read-only.
        return _read(path) or made
    return made


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes() or None
    except OSError:
        return None
