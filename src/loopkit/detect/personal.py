"""Personal data where a guard looks for it: besides what recording redacts, what its form or the words around it tell.

Recording sees every text, so it looks for what a few C operations can rule out (`loopkit.detect.patterns`). A guard has
some hundred microseconds: it finds numbers of social security and addresses of networks, cards of any issuer and phone
numbers of any country where the words around them say so.
"""

from __future__ import annotations

import ipaddress
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Final

from loopkit.detect.patterns import OTHER_DIGIT, PERSONAL, Finding, classes, find, is_iban, is_luhn, merged, plain

KINDS: Final = (*PERSONAL, "ssn", "ip", "domain")
DEFAULT: Final = (*PERSONAL, "ssn", "ip")
"""Addresses in the web are no personal data by themselves."""

_IBAN: Final = re.compile(
    r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]{4}){2,7}(?: ?[A-Za-z0-9]{1,3})?(?![A-Za-z0-9])"
)
_SSN: Final = re.compile(r"(?<![\w-])(?!000|666|9)\d{3}([- ])(?!00)\d{2}\1(?!0000)\d{4}(?![\w-])")
_IPV4: Final = re.compile(r"(?<![\w.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\w]|\.\d)")
_DOTTED: Final = re.compile(r"\d\.\d{1,3}\.\d")
_COLONS: Final = re.compile(r"::|[0-9A-Fa-f]:[0-9A-Fa-f]{1,4}:")
_VERSION: Final = re.compile(r"(?i)(?:\bv|version|release|build)[\s:=]*\Z")
_IPV6: Final = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")
_DOMAIN: Final = re.compile(
    r"(?i)(?<![\w@.-])(?:(?:https?|ftp)://|www\.)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.){1,8}[a-z]{2,24}(?::\d{1,5})?"
    r"(?:/[^\s<>\"')\]]{0,2000})?"
)
_LONG: Final = re.compile(r"(?<![\w.])\d(?:[ -]?\d){11,18}(?![\w]|\.\d)")
_CARD: Final = re.compile(r"(?i)\b(?:card|visa|master ?card|amex|maestro|credit|debit|cc|pan)\b[^\d\n]{0,40}\Z")
_NUMBER: Final = re.compile(
    r"(?<![\w./+$€£%-])(?<!\d[,:])\(?\+?\d{1,15}\)?(?:(?:[ .-]{1,2}|(?<=\))|(?=\())\(?\+?\d{1,15}\)?){0,6}"
    r"(?:\s?(?:x|ext\.?)\s?\d{1,6})?(?![\w%/:]|[.,-]\d)"
)
"""Something stands between two groups of digits: a run could be cut into groups in thousands of ways."""
_NANP: Final = re.compile(
    r"(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[ .-])[2-9]\d\d[.-]\d{4}(?:\s?(?:x|ext\.?)\s?\d{1,6})?\Z"
)
"""As North Americans write them: by that alone a phone number."""
_CALLED: Final = re.compile(
    r"""(?ix) \b (?: (?:tele)?(?:phone|fax) | tel | mobile | cell(?:ular)? | fax | desk | hotline | landline | whatsapp
    | sms | (?:phone|mobile|contact|fax|office)\s(?:number|no\.?) | call(?:\sme|\sus|ing)? | dial | ring | reach(?:ed)?
    | contact | text(?:\sme)? | messages? | answer(?:ing|s)? | registered | telefon | handy | tél | teléfono ) \b
    [^\d\n]{0,24} \n? [^\d\n]{0,4} \Z"""
)
_CALLED_AFTER: Final = re.compile(r"(?i)\A[\s-]{0,3}\(?(?:office|fax|mobile|cell|home|desk|work|phone|tel)\b")
_DATE: Final = re.compile(r"(?:19|20)\d\d[-. ]\d{1,2}[-. ]\d{1,2}|\d{1,2}[-. ]\d{1,2}[-. ](?:19|20)\d\d")
_NEAR: Final = 60


def personal_in(text: str, kinds: Iterable[str] = DEFAULT) -> list[Finding]:
    """All findings of these kinds, in order; where two overlap the earlier, then the longer one stays."""
    wanted = set(kinds)
    text = plain(text)
    found = find(text, wanted & {"email"}) if "@" in text else []
    if "domain" in wanted and ("://" in text or "www." in text or "WWW." in text):
        found += [Finding("domain", *match.span()) for match in _DOMAIN.finditer(text)]
    if "ip" in wanted:
        found += _addresses(text)
        found += _long_addresses(text)
    if not has_number(text):
        return merged(found)
    found += find(text, wanted & {"card", "iban", "phone"})
    if "iban" in wanted:
        found += _ibans(text)
    if "ssn" in wanted:
        found += [Finding("ssn", *match.span()) for match in _SSN.finditer(text)]
    if "card" in wanted:
        found = [each for each in found if each.kind != "card" or not text[each.start - 1 : each.start].isalpha()]
        found += _cards(text)
    if "phone" in wanted:
        found += _phones(text, found)
    return merged(found)


def has_number(text: str) -> bool:
    """Whether seven digits stand so close that they may be one number. Written for speed: most texts have none."""
    if _SEVEN in text.encode("utf-8", "surrogatepass").translate(_ARE_DIGITS, b" ()-.+/\n"):
        return True
    return not text.isascii() and OTHER_DIGIT.search(text) is not None


_ARE_DIGITS: Final = classes(b"0123456789")
_SEVEN: Final = b"\1" * 7


def _ibans(text: str) -> Iterator[Finding]:
    """Also as people write them: in small letters."""
    for match in _IBAN.finditer(text):
        if is_iban(match.group()):
            yield Finding("iban", *match.span())


def _addresses(text: str) -> Iterator[Finding]:
    for match in _IPV4.finditer(text) if _DOTTED.search(text) else ():
        if not _VERSION.search(text, max(match.start() - 12, 0), match.start()):
            yield Finding("ip", *match.span())


def _long_addresses(text: str) -> Iterator[Finding]:
    for match in _IPV6.finditer(text) if _COLONS.search(text) else ():
        try:
            address = ipaddress.IPv6Address(match.group())
        except ValueError:
            continue
        if len(match.group()) > 6 and not address.is_unspecified:
            yield Finding("ip", *match.span())


def _cards(text: str) -> Iterator[Finding]:
    """Numbers with a right check digit that are called a card, whoever issued them."""
    for match in _LONG.finditer(text):
        digits = re.sub(r"[ -]", "", match.group())
        if len(set(digits)) > 2 and is_luhn(digits) and _CARD.search(_before(text, match)):
            yield Finding("card", *match.span())


def _phones(text: str, others: list[Finding]) -> Iterator[Finding]:
    """Numbers that are written as phone numbers are, and those that are called so."""
    taken = merged(others)
    for match in _NUMBER.finditer(text):
        said = match.group().rstrip(" .-")
        end = match.start() + len(said)
        count = sum(char.isdigit() for char in re.split(r"x|ext", said)[0])
        before = bisect_left(taken, end, key=lambda each: each.start)
        if not 7 <= count <= 15 or (before and taken[before - 1].end > match.start()):
            continue
        if _NANP.match(said) or (
            not _DATE.fullmatch(said)
            and (_CALLED.search(_before(text, match)) or _CALLED_AFTER.match(text[end : end + 16]))
        ):
            yield Finding("phone", match.start(), end)


def _before(text: str, match: re.Match[str]) -> str:
    return text[max(match.start() - _NEAR, 0) : match.start()]
