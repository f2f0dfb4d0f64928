"""Who said it, without saying who: authors are pseudonymised by a keyed hash.

The key is per home directory, made on first use; with it the same person is the same pseudonym, and without it
the pseudonym can't be turned back by trying names.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from functools import lru_cache

from loopkit.config import home_directory

_PREFIX = "anon-"


def pseudonym(author: str) -> str:
    """The author's pseudonym; a pseudonym stays as it is."""
    if author.startswith(_PREFIX):
        return author
    digest = hmac.new(_key(str(home_directory())), author.encode("utf-8", "replace"), hashlib.sha256)
    return _PREFIX + digest.hexdigest()[:16]


@lru_cache(maxsize=8)
def _key(home: str) -> bytes:
    path = os.path.join(home, "pseudonym.key")
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        pass
    key = os.urandom(32)
    try:
        os.makedirs(home, mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError:
        # Another process was first, or the disk is read-only: then pseudonyms last as long as this process.
        return _read(path) or key
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
    return key


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read() or None
    except OSError:
        return None
