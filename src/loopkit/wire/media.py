"""Pictures, sounds and files in JSON texts: kept once, by what they hold, outside the rows that speak of them.

In their place stands a named information URI (RFC 6920): `ni:///sha-256;…`, with `?ct=image/png` where it was a data
URL, which says what it is.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import replace

from loopkit.types import Message, Part

_PREFIX = "ni:///sha-256;"
_REFERENCE = re.compile(r"ni:///sha-256;([\w-]{43})(?:\?ct=([\w.+/-]+))?")
_ENCODED = re.compile(
    r'"(?:data:([\w.+-]+/[\w.+-]+)(?:;[\w.=+-]+)*?;base64,)?([A-Za-z0-9+/_-]{1024,}={0,2})"(?!\s*:)'  # no key
)
"""A JSON string that is nothing but base64, or a data URL."""
_BEARER = re.compile(r'"(?:data|bytes|b64_json|file_data|image|images|mask)"\s*:\s*\[?\s*$')
_BLOB = re.compile(r'"type"\s*:\s*"blob"')
_VARIED = 40
"""Different characters that base64 of sound without a head has at least, and words don't."""
_HEADS = (
    b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"II*\0", b"MM\0*", b"%PDF", b"PK\x03\x04", b"OggS", b"fLaC",
    b"ID3", b"\x1a\x45\xdf\xa3",
)  # fmt: skip
"""How files of pictures, sound, film and documents begin."""
_TEXTUAL = re.compile(r"text/|(?!image/).*[/+](?:json|xml|x-ndjson|jsonl)\b", re.IGNORECASE)
_NEAR = 300
"""Characters before and behind it in which the rest of its object is looked for."""


def may_hold_media(text: str) -> bool:
    """Whether there is something in it that looks like it."""
    return _ENCODED.search(text) is not None


def lifted(text: str, most: int) -> tuple[str, dict[str, bytes | None]]:
    """A JSON text with references in the place of its media, and those by the hash that the references bear.

    None stands for what is larger than `most` bytes.
    """
    found: dict[str, bytes | None] = {}
    last = -1  # where the medium before ended: in a list the next one stands right behind it

    def name(match: re.Match[str]) -> str:
        nonlocal last
        mime_type, encoded = match.groups()
        if mime_type is not None and _TEXTUAL.match(mime_type):
            return match.group()  # words, which are redacted where they stand
        data = _decoded(encoded)
        follows = last >= 0 and text[last : match.start()].strip() == ","
        if data is None or (mime_type is None and not follows and not _is_medium(text, match, encoded, data)):
            return match.group()
        last = match.end()
        known = name_of(data)
        found[known] = data if len(data) <= most else None
        return f'"{_PREFIX}{known}"' if mime_type is None else f'"{_PREFIX}{known}?ct={mime_type}"'

    return _ENCODED.sub(name, text), found


def name_of(data: bytes) -> str:
    """The hash by which it is kept."""
    from hashlib import sha256  # importing it takes milliseconds

    return base64.urlsafe_b64encode(sha256(data).digest()).rstrip(b"=").decode()


def named_in(text: str | bytes) -> set[str]:
    """The hashes of all media that are referred to."""
    said = text if isinstance(text, str) else text.decode("ascii", "replace")
    return {match[1] for match in _REFERENCE.finditer(said)} if _PREFIX in said else set()


def with_references(messages: Iterable[Message]) -> tuple[Message, ...]:
    """The messages, in which a part whose content is a reference is one of type uri."""
    return tuple(
        replace(message, parts=tuple(map(_referring, message.parts)))
        if any(part.type in ("blob", "uri") for part in message.parts)
        else message
        for message in messages
    )


def _referring(part: Part) -> Part:
    place = part.uri if part.type == "uri" else part.content if part.type == "blob" else None
    match = _REFERENCE.fullmatch(place) if isinstance(place, str) else None
    if match is None:
        return part
    return replace(part, type="uri", content=None, uri=place, mime_type=match[2] or part.mime_type)


def _is_medium(text: str, match: re.Match[str], encoded: str, data: bytes) -> bool:
    """Whether it begins as files do, or stands where providers have media and can't be words."""
    if data.startswith(_HEADS) or data[4:8] == b"ftyp":
        return True
    before = text[max(0, match.start() - _NEAR) : match.start()].rpartition("{")[2]
    after = text[match.end() : match.end() + _NEAR].partition("}")[0]
    is_borne = _BEARER.search(before) or (before.rstrip().endswith('"content":') and _BLOB.search(before + after))
    return bool(is_borne) and len(set(encoded[:4096])) >= _VARIED


def _decoded(encoded: str) -> bytes | None:
    """The bytes, where they are what base64 makes of exactly this text, padded or not, in either alphabet."""
    is_urlsafe = "-" in encoded or "_" in encoded
    bare = encoded.rstrip("=")
    try:
        padded = bare + "=" * (-len(bare) % 4)
        data = base64.b64decode(padded, altchars=b"-_" if is_urlsafe else None, validate=True)
    except (binascii.Error, ValueError):
        return None
    again = base64.b64encode(data, altchars=b"-_" if is_urlsafe else None)
    return data if again.rstrip(b"=") == bare.encode() else None
