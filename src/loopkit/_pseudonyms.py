"""Who it was, without saying who: authors of feedback, and users where a destination asks for it, by a keyed hash.

The key lies in the store's directory (in memory, for a service without a store) and is made on first use. With it the
same person is the same pseudonym; without it the pseudonym can't be turned back by trying names.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
from functools import lru_cache
from pathlib import Path

_PSEUDONYM = re.compile(r"anon-[0-9a-f]{16}")


def pseudonym(author: str, directory: Path | None) -> str:
    """The author's pseudonym; a pseudonym stays as it is."""
    if _PSEUDONYM.fullmatch(author):
        return author
    digest = hmac.new(_key(directory), author.encode("utf-8", "replace"), hashlib.sha256)
    return f"anon-{digest.hexdigest()[:16]}"


@lru_cache(maxsize=8)
def _key(directory: Path | None) -> bytes:
    if directory is None:
        return os.urandom(32)
    path = str(directory / "pseudonym.key")
    if known := _read(path):
        return known
    key = os.urandom(32)
    # Written whole and then linked, so that nobody ever reads half a key, and of two processes one is first.
    own = f"{path}.{os.getpid()}"
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        with open(os.open(own, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(key)
        try:
            if os.path.exists(path):  # empty: a crash of old
                os.replace(own, path)
            else:
                os.link(own, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(own)
    except OSError:
        # Another process was first, or the disk is read-only: then pseudonyms last as long as this process.
        return _read(path) or key
    return key


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read() or None
    except OSError:
        return None
