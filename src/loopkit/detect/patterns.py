"""Personal data and secrets in text: found, validated, and replaced by their kind in brackets.

Each pattern has a cheap prefilter, a substring or a character class that must occur first: most texts hold
none of them, and then the whole search costs a few microseconds for 1,000 characters.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

SECRETS = ("key", "private_key", "jwt")
PERSONAL = ("email", "card", "iban", "phone")
ALL = SECRETS + PERSONAL
UNSEEN = "unseen"
"""Of which nothing is left."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One match: its kind and where it stands in the text."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Pattern:
    kind: str
    pattern: re.Pattern[str]
    hints: tuple[str, ...]
    """One of these must be in the text, or the pattern is not tried; where there are none, two digits in a row."""
    spans: Callable[[re.Match[str]], Iterable[tuple[int, int]]] = lambda match: (match.span(),)
    """The findings in a match: all of it, some of it, or nothing where a check digit is wrong."""


def find(text: str, kinds: Iterable[str] = ALL) -> list[Finding]:
    """All findings of these kinds, in order; where two overlap the earlier, then the longer one stays."""
    wanted = set(kinds)
    text = plain(text)
    return merged([found for pattern in _patterns() if pattern.kind in wanted for found in _matches(pattern, text)])


def plain(text: str) -> str:
    """The text, as long as before, with plain spaces and dashes for those that are typeset."""
    if text.isascii() or _TYPESET.search(text) is None:
        return text
    return _SPACES.sub(" ", _DASHES.sub("-", text))


_DASHES = re.compile("[\u2010-\u2015\u2212\ufe58\ufe63\uff0d]")
_SPACES = re.compile("[\u00a0\u2000-\u200a\u202f\u205f\u3000]")
_TYPESET = re.compile("[\u00a0\u2000-\u200a\u2010-\u2015\u202f\u205f\u2212\u3000\ufe58\ufe63\uff0d]")


def merged(found: list[Finding]) -> list[Finding]:
    """In order; where two overlap the earlier, then the longer one stays."""
    if len(found) < 2:
        return found
    found.sort(key=lambda f: (f.start, -f.end))
    kept = found[:1]
    for finding in found[1:]:
        if finding.start >= kept[-1].end:
            kept.append(finding)
    return kept


def redact(text: str, kinds: Iterable[str] = ALL) -> str:
    """The text with each finding replaced by its kind, such as `[EMAIL]`; the same text when there is none."""
    return without(text, find(text, kinds))


def without(text: str, found: list[Finding]) -> str:
    """The text with these findings, in order, replaced by their kinds."""
    if not found:
        return text
    pieces: list[str] = []
    position = 0
    for finding in found:
        pieces += [text[position : finding.start], label(finding.kind)]
        position = finding.end
    return "".join(pieces) + text[position:]


def label(kind: str) -> str:
    """What stands in the place of something that was found."""
    return "" if kind == UNSEEN else f"[{kind.upper()}]"


def may_hold(text: str) -> bool:
    """Whether any pattern could match in this JSON text or in a value inside it; only "no" is an answer.

    Written for speed: it sees every text that is recorded, and most hold nothing. Two translations in C map characters
    to classes, in which one substring search tells whether anything is long enough; a regular expression costs several
    times more. It knows nothing of boundaries, since an escape in the JSON may stand where a pattern looks for one.
    """
    data = text.encode("utf-8", "surrogatepass")
    if b"@" in data or b"PRIVATE KEY-----" in data or b".eyJ" in data or b"\\u" in data:
        return True
    if _LONG_TOKEN in data.translate(TOKENS):
        for piece, signs in _RARE_SIGNS:
            if piece in data:
                for sign in signs:  # no any(): a generator costs more than the searches
                    if sign in data:
                        return True
    if _LONG_NUMBER in data.translate(_NUMBERS, b" -"):
        return True
    if b"+" in data and _PLUS.search(text) is not None:
        return True
    return not text.isascii() and OTHER_DIGIT.search(text) is not None


def is_luhn(digits: str) -> bool:
    """The check digit of card numbers (ISO/IEC 7812-1)."""
    total = 0
    for index, char in enumerate(reversed(digits)):
        number = int(char) * (1 + index % 2)
        total += number - 9 if number > 9 else number
    return total % 10 == 0


def is_iban(text: str) -> bool:
    """The mod-97 check of account numbers (ISO 13616)."""
    compact = re.sub(r"\s", "", text).upper()
    if not 15 <= len(compact) <= 34:
        return False
    rearranged = compact[4:] + compact[:4]
    return int("".join(str(int(char, 36)) for char in rearranged)) % 97 == 1


def _matches(pattern: _Pattern, text: str) -> list[Finding]:
    if not any(hint in text for hint in pattern.hints) if pattern.hints else _DIGITS.search(text) is None:
        return []
    return [
        Finding(pattern.kind, start, end)
        for match in pattern.pattern.finditer(text)
        for start, end in pattern.spans(match)
    ]


def _ibans(match: re.Match[str]) -> Iterator[tuple[int, int]]:
    """The account number that begins here: its length is the country's, so what follows is left alone."""
    length = _IBAN_LENGTHS.get(match.group()[:2])
    end, seen = match.start(), 0
    for char in match.group():
        if seen == length:
            break
        end += 1
        seen += char != " "
    if seen == length and is_iban(match.string[match.start() : end]):
        yield match.start(), end


def _cards(match: re.Match[str]) -> Iterator[tuple[int, int]]:
    """Card numbers in a run of digit groups: up to five groups side by side, which other numbers may stand beside."""
    groups = [(m.group(), m.start() + match.start(), m.end() + match.start()) for m in _GROUP.finditer(match.group())]
    first = 0
    while first < len(groups):
        digits, step = "", 1
        for last in range(first, min(first + _CARD_GROUPS, len(groups))):
            digits += groups[last][0]
            if _is_card(digits):
                yield groups[first][1], groups[last][2]
                step = last - first + 1
                break
        first += step


def _phones(match: re.Match[str]) -> Iterator[tuple[int, int]]:
    if 8 <= sum(char.isdigit() for char in match.group()) <= 15:  # E.164; less is a figure such as +15.7
        yield match.span()


def _is_card(digits: str) -> bool:
    """By issuer, length and check digit: one in ten of all long numbers, times in milliseconds too, has the last."""
    if len(digits) > _LONGEST_CARD:
        return False
    digits = str(int(digits))  # in any script
    return _ISSUERS.match(digits) is not None and len(set(digits)) > 1 and is_luhn(digits)


_CARD_GROUPS = 5
_LONGEST_CARD = 40  # with zeros before it
_ISSUERS = re.compile(
    r"(?:4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|3(?:0[0-5]|[68]\d)\d{11}|35(?:2[89]|[3-8]\d)\d{12,15}|6(?:011|5\d\d|4[4-9]\d)\d{12,15}|62\d{14,17}"
    r"|(?:50|5[6-9]|6[0-9])\d{11,17})\Z"
)
"""Visa, Mastercard, American Express, Diners, JCB, Discover, UnionPay, Maestro (ISO/IEC 7812 ranges)."""
_IBAN_LENGTHS = {
    country: int(length)
    for length, countries in (
        ("15", "NO"), ("16", "BE"), ("18", "DK FO FI GL NL"), ("19", "MK SI"), ("20", "AT BA EE KZ LT LU XK"),
        ("21", "CH HR LI LV"), ("22", "BG BH CR DE GB GE IE ME RS VA"), ("23", "AE GI IL IQ TL"),
        ("24", "AD CZ ES MD PK RO SA SE SK TN VG"), ("25", "PT ST LY"), ("26", "IS TR"), ("27", "FR GR IT MC MR SM"),
        ("28", "AL AZ CY DO GT HU LB PL SV BY"), ("29", "BR EG PS QA UA"), ("30", "JO KW MU"), ("31", "MT SC"),
    )
    for country in countries.split()
}  # fmt: skip
"""By country, from the registry of ISO 13616."""
_GROUP = re.compile(r"\d+")
_DIGITS = re.compile(r"\d\d")
_KEY_SIGNS = (
    "sk-", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "AKIA", "ASIA", "AIza", "glpat-", "hf_",
    "xoxa-", "xoxb-", "xoxp-", "xoxo-", "xoxs-", "xoxr-", "k_live_", "k_test_",
)  # fmt: skip
_RARE_SIGNS = (
    (b"-", (b"sk-", b"xox", b"glpat-")),
    (b"_", (b"hf_", b"_pat_", b"k_live_", b"k_test_")),
    (b"gh", (b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_")),
    (b"A", (b"AKIA", b"ASIA", b"AIza")),
)
"""What a key must hold, by a shorter piece of it that is looked for first: together they cover `_KEY_SIGNS`."""


def classes(members: bytes) -> bytes:
    """A translation table: members to 1, all else to 0."""
    return bytes(byte in members for byte in range(256))


_UPPER_AND_DIGITS = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
TOKENS = classes(_UPPER_AND_DIGITS + b"abcdefghijklmnopqrstuvwxyz_-")
_LONG_TOKEN = b"\1" * 15  # the shortest key has so many characters of these
_NUMBERS = classes(_UPPER_AND_DIGITS)
_LONG_NUMBER = b"\1" * 13  # the shortest card and account numbers, spaces and dashes aside
_PLUS = re.compile(r"\+\d")
OTHER_DIGIT = re.compile(r"(?![0-9])\d")  # \d is every script's digits


@functools.cache
def _patterns() -> tuple[_Pattern, ...]:
    """Compiled when first needed: most texts hold nothing that needs them."""
    return (
        _Pattern(
            "private_key",
            re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S),
            ("PRIVATE KEY-----",),
        ),
        _Pattern(
            "key",
            re.compile(
                r"(?<![A-Za-z0-9])(?:sk-(?:proj-|ant-|or-)?[A-Za-z0-9_-]{20,200}|gh[pousr]_[A-Za-z0-9]{36,251}"
                r"|github_pat_[A-Za-z0-9_]{22,255}|A(?:KIA|SIA)[0-9A-Z]{16}|AIza[0-9A-Za-z_-]{35}"
                r"|xox[abposr]-[0-9A-Za-z-]{10,200}|glpat-[0-9A-Za-z_-]{20}|hf_[A-Za-z0-9]{30,60}"
                r"|[sr]k_(?:live|test)_[0-9A-Za-z]{16,200})(?![A-Za-z0-9])"
            ),
            _KEY_SIGNS,
        ),
        _Pattern(
            "jwt",
            re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,4096}\.eyJ[A-Za-z0-9_-]{8,8192}\.[A-Za-z0-9_-]{8,1024}"),
            ("eyJ",),
        ),
        _Pattern(
            "email",
            re.compile(r"(?<![\w.+-])[\w.+%-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}"),
            ("@",),
        ),
        _Pattern(
            "iban",
            re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}"),
            (),
            _ibans,
        ),
        _Pattern("card", re.compile(r"(?<!\d)(?<!\d\.)\d(?:[ -]?\d){12,}(?!\.\d)"), (), _cards),
        _Pattern(
            "phone",
            re.compile(r"(?<![\w+])\+\d{1,15}(?:(?:[ .-]|(?<=\))|(?=\())\(?\d{1,12}\)?){0,6}(?!\w)"),
            ("+",),
            _phones,
        ),
    )
