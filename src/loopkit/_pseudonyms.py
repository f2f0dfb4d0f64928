"""Who it was, without saying who: authors of feedback, and users where a destination asks for it, by a keyed hash.

The key lies in the store's directory (in memory, for a service without a store) and is made on first use. With it the
same person is the same pseudonym; without it the pseudonym can't be turned back by trying names.
"""

from __future__ import annotations

import hmac
import re
from functools import lru_cache
from pathlib import Path

from loopkit._secrets import secret_in

_PSEUDONYM = re.compile(r"anon-[0-9a-f]{16}")


def pseudonym(author: str, directory: Path | None) -> str:
    """The author's pseudonym; a pseudonym stays as it is."""
    if _PSEUDONYM.fullmatch(author):
        return author
    return _named(_key(directory), author)


@lru_cache(maxsize=1024)
def _named(key: bytes, author: str) -> str:
    return f"anon-{hmac.digest(key, author.encode('utf-8', 'replace'), 'sha256').hex()[:16]}"


@lru_cache(maxsize=8)
def _key(directory: Path | None) -> bytes:
    return secret_in(None if directory is None else directory / "pseudonym.key")
