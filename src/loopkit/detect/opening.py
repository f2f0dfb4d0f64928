"""Where in a text that still grows something may begin that isn't complete yet.

What stands before is settled: whatever comes, nothing else will be found there, and nothing that was found goes away.
Each function is given a text and a settled place in it, and gives the next one. Streams hold back what comes after it.
They may hold back too much, never too little: `tests/detect` has the law.
"""

from __future__ import annotations

import re
from typing import Final

from loopkit.detect.patterns import plain

_NUMBER: Final = re.compile(r"\d{0,6}\s?\.?[A-Za-z]{0,9}[\s()+.-]{0,5}\d(?:[\d ().+/-]*\d)?[+(]{0,2}")
"""Backwards, from the end, or it would be tried from every digit: groups of digits, and the word after them, which may
say what they are or belong to them (ext. 12)."""
_IBAN: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:[A-Z]{2}\d{2}(?: ?[A-Z0-9]){0,30}|[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]{4}){0,7} ?[A-Za-z0-9]{0,4})"
    r" ?\Z"
)
_IBAN_LONGEST: Final = 120
_KEY: Final = "-----BEGIN"
_KEY_NAME: Final = re.compile(r"[ A-Z0-9_-]{0,120}")
_KEY_END: Final = re.compile(r"-----END [A-Z ]*PRIVATE KEY-----")
_QUOTED: Final = re.compile(
    r"\s(?:-u|--user)[\s=]{0,3}(?P<at>(?:[^\"'\s:$<{]{0,80}:)?[\"'][^\n]{0,170})\Z|(?P<type>\"type\":\s{0,9}\S*)\Z"
)


_PERSONAL: Final = re.compile(r"[\d@]|::|//|www\.|WWW\.")
_CREDENTIAL: Final = re.compile(r"[\d:+/=~@#%^&*$|\\]|-----|_account|[!?]\S|\S{21}")


def may_be_personal(text: str) -> bool:
    """Whether anything in this part of a text may belong to what `loopkit.detect.personal` finds."""
    return _PERSONAL.search(text) is not None


def may_be_credential(text: str) -> bool:
    """The same of `loopkit.detect.rules`: letters alone, in words, are names to it."""
    return _CREDENTIAL.search(text) is not None


def personal_open(text: str, start: int) -> int:
    """Of what `loopkit.detect.personal` finds."""
    text = plain(text)
    last = _last_word(text, start)
    number = _NUMBER.match(text[: start - 1 if start else None : -1])
    if number is not None:
        last = min(last, len(text) - number.end())
    account = _IBAN.search(text, max(start, len(text) - _IBAN_LONGEST))
    return last if account is None else min(last, account.start())


def credentials_open(text: str, start: int) -> int:
    """Of what `loopkit.detect.rules` finds, and the kinds of secrets that recording looks for."""
    last = _last_word(text, start)
    at = text.find(_KEY, start)
    while 0 <= at < last:
        if _is_open_key(text, at + len(_KEY)):
            return at
        at = text.find(_KEY, at + 1)
    if '"' in text[start:] or "'" in text[start:]:
        found = _QUOTED.search(text, max(start - 12, 0))
        if found is not None:
            last = min(last, found.start(str(found.lastgroup)))
    return max(last, start)


def _is_open_key(text: str, at: int) -> bool:
    """Whether a block that begins before `at` may be a private key without an end."""
    name = _KEY_NAME.match(text, at)
    assert name is not None
    if name.end() == len(text):
        return True
    return "PRIVATE KEY" in name[0] and _KEY_END.search(text, name.end()) is None


def _last_word(text: str, start: int) -> int:
    """Where the last word begins; the end where it is over."""
    tail = text[start:]
    if not tail or tail[-1].isspace():
        return len(text)
    return len(text) - len(tail.rsplit(None, 1)[-1])
