"""A text as its reader understands it: without what can't be seen, lookalikes as what they look like, codes decoded.

For looking only: what is found is found in a view of the text, and the text itself goes on as it is.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
import unicodedata
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote

from loopkit.detect.patterns import classes

_UNSEEN: Final = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0001\U000e007f\U000e0100-\U000e01ef]"
)
"""Joiners, marks of direction, fillers, selectors: nothing of them is seen."""
_TAGS: Final = {0xE0000 + code: chr(code) for code in range(0x20, 0x7F)}
"""Letters that no font shows, and models read."""
_ALIKE: Final = str.maketrans(
    "аеорсухіјѕԁһԛԝѵӏАВЕКМНОРСТХІЈЅԌԚԜ" "αονρτυχικωΑΒΕΖΗΙΚΜΝΟΡΤΥΧ" "ɑɡıɩʟɴʀʏᴀᴄᴅᴇᴋᴍᴏᴘᴛᴜᴠᴡᴢ" "٠۰०",
    "aeopcyxijsdhqwvlABEKMHOPCTXIJSGQW" "aovptuxikwABEZHIKMNOPTYX" "agiilnryacdekmoptuvwz" "ooo",
)  # fmt: skip
"""Cyrillic, Greek, phonetic and small capital letters that look like Latin ones (a part of Unicode's confusables)."""
_TAGGED: Final = re.compile("[\U000e0020-\U000e007e]")
_MAY_LOOK_ALIKE: Final = re.compile(f"[{re.escape(''.join(map(chr, _ALIKE)))}]")
"""Searches in C, where `translate` asks a dict about each character."""
_ACCENTS: Final = re.compile("[\u0300-\u034e\u0350-\u036f]")
_MAY_COMBINE: Final = re.compile("[\u0483-\u1fff\u20d0-\u20ff\u2c00-\U0010ffff]")
"""Where other marks are: not among Latin letters and the signs of typography."""
_SPELLED: Final = re.compile(r"(?<!\w)\w(?:[ .*_|-]\w){4,}(?!\w)")
"""Five letters with something between each two."""
_LETTERS: Final = re.compile(r"(?<!\w)\w(?:[ .*_|-]\w)+(?!\w)")
_BETWEEN: Final = re.compile(r"[ .*_|-]")
_BASE64: Final = re.compile(r"(?<![A-Za-z0-9+/=_-])[A-Za-z0-9+/_-]{16,}={0,2}(?![A-Za-z0-9+/=_-])")
_HEX: Final = re.compile(
    r"(?i)(?<![0-9a-z])(?:0x)?((?:[0-9a-f]{2}[ :]?){8,8192})(?![0-9a-z])|((?:\\x[0-9a-f]{2}){4,8192})"
)
_OF_BASE64: Final = classes(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_-")
_OF_HEX: Final = classes(b"0123456789abcdefABCDEF")
_SIXTEEN: Final = b"\1" * 16
"""The shortest piece of either; searched for in C, since most texts hold neither."""
_MOST: Final = 64_000
"""Characters that are decoded, at most, in any number of pieces."""
_DEPTH: Final = 2


def folded(text: str) -> str:
    """The text without unseen characters, in compatibility form, lookalikes as Latin letters, single-spaced, in small
    letters; letters spelled out put together."""
    if not text.isascii():
        text = _UNSEEN.sub("", text)
        if _TAGGED.search(text) is not None:
            text = text.translate(_TAGS)
        text = _ACCENTS.sub("", unicodedata.normalize("NFKD", text))
        for _ in range(2):  # capitals, then what is left of them in small letters
            if _MAY_LOOK_ALIKE.search(text) is not None:
                text = text.translate(_ALIKE)
            text = text.casefold()
        if _MAY_COMBINE.search(text) is not None:
            text = "".join([char for char in text if not unicodedata.combining(char)])
    if _SPELLED.search(text):
        text = _LETTERS.sub(lambda found: _BETWEEN.sub("", found[0]), text)
    return " ".join(text.split()).casefold()


def views(text: str, depth: int = _DEPTH) -> Iterator[str]:
    """The folded text, then what is encoded in it (base64, hex, URL and HTML escapes), decoded and folded; bounded."""
    yield folded(text)
    if depth:
        for piece in _decoded(text):
            yield from views(piece, depth - 1)


def _decoded(text: str) -> Iterator[str]:
    if "%" in text and (said := unquote(text)) != text:
        yield said
    if "&" in text and (said := html.unescape(text)) != text:
        yield said
    left = _MOST
    encoded = text.encode("utf-8", "surrogatepass")
    for match in _BASE64.finditer(text) if _SIXTEEN in encoded.translate(_OF_BASE64) else ():
        data = _from_base64(match[0][:left])
        words = None if data is None else _readable(data)
        if words is not None:
            yield words
        left -= len(match[0])
        if left <= 0:
            return
    may_hold_hex = "\\x" in text or _SIXTEEN in encoded.translate(_OF_HEX, b" :")
    for match in _HEX.finditer(text) if may_hold_hex else ():
        digits = re.sub(r"[^0-9a-f]", "", (match[1] or match[2].replace("\\x", "")).lower())
        words = _readable(bytes.fromhex(digits)) if len(digits) % 2 == 0 else None
        if words is not None:
            yield words
        left -= len(match[0])
        if left <= 0:
            return


def _from_base64(text: str) -> bytes | None:
    bare = text.rstrip("=").replace("-", "+").replace("_", "/")
    bare = bare[: len(bare) - (len(bare) % 4 == 1)]  # where it was cut
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _readable(data: bytes) -> str | None:
    """As text, where it is one: words, not what bytes happen to be."""
    try:
        said = data.decode()
    except UnicodeDecodeError:
        return None
    letters = sum(char.isalpha() or char.isspace() for char in said)
    return said if len(said) >= 8 and letters >= 0.75 * len(said) else None
