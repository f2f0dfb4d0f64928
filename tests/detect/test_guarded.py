"""What guards find besides what recording redacts: personal data by form and surroundings, credentials by rule."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopkit import checks
from loopkit.detect import personal
from loopkit.detect.personal import DEFAULT, KINDS, personal_in
from loopkit.detect.rules import credentials_in, entropy
from loopkit.errors import InvalidInput

KEY = "q8Zr7LmK2vXw9TbN4cYd6HsJ3gFp5QaE"
"""Drawn by chance, for no service."""


def kinds_in(text: str) -> dict[str, str]:
    return {found.kind: text[found.start : found.end] for found in personal_in(text, KINDS)}


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("my SSN is 536-90-4399.", "ssn", "536-90-4399"),
        ("from 203.0.113.77, port 80", "ip", "203.0.113.77"),
        ("reach it at 2001:db8:85a3::8a2e:370:7334 please", "ip", "2001:db8:85a3::8a2e:370:7334"),
        ("see https://www.example.org/a?b=1 for more", "domain", "https://www.example.org/a?b=1"),
        ("my card number is 501800000009.", "card", "501800000009"),
        ("pay to gb33bukb20201555555555 today", "iban", "gb33bukb20201555555555"),
        ("call me at 0494 92 82 32", "phone", "0494 92 82 32"),
        ("Phone:\n60-56-85-91\nE-mail", "phone", "60-56-85-91"),
        ("it is (602)272-9781", "phone", "(602)272-9781"),
        ("930.167.3943 fax", "phone", "930.167.3943"),
        ("Fax: 345-899-3560x4587", "phone", "345-899-3560x4587"),
    ],
)
def test_what_is_found(text: str, kind: str, value: str) -> None:
    assert kinds_in(text) == {kind: value}


@pytest.mark.parametrize(
    "text",
    [
        "SSN 000-12-3456, 666-12-3456, 912-12-3456, 123-00-4567, 123-45-0000",
        "order 12-536-90-4399-1",
        "version 1.2.3.4 and v10.0.0.1 and 1.2.3.400 and 300.1.1.1",
        "at 12:30:45, ratio 3:4:5, std::vector",
        "from 2020-01-15 to 2021-03-17 it was 1 234 567",
        "revenue of $1,234,567.89 and 12.5% of 9,876,543",
        "ISBN 978 3 16 148410 0",
        "the years 1999 2000 2001 2002",
        "add 1234567 to 7654321",
        "license number U62928788557186",
        "card 4111 1111 1111 1112",
    ],
)
def test_what_is_nobodys(text: str) -> None:
    assert kinds_in(text) == {}


@pytest.mark.parametrize(
    "text",
    [
        f"sk-proj-{KEY}{KEY}",
        f"token = '{KEY}'",
        f"DB_PASSWORD={KEY[:14]}",
        f'{{"apiKey": "{KEY}"}}',
        f"Authorization: Bearer {KEY}",
        f"X-Api-Key: {KEY}",
        f"curl -u admin:{KEY[:9]} https://h.example.org/x",
        "postgres://app:correct-horse@db.example.org/main",
        f"glpat-{KEY[:20]}",
        f"AccountKey={KEY}{KEY}{KEY[:22]}==",
        f"xoxb-904257183622-{KEY[:24]}",
        f"aws_secret_access_key = {KEY}{KEY[:8]}",
        "hvs." + KEY * 2,
        f"dapi{'0a1b2c3d4e5f6789' * 2}",
    ],
)
def test_credentials(text: str) -> None:
    assert credentials_in(text), text
    assert credentials_in(f"before it, {text} and after it")


@pytest.mark.parametrize(
    "text",
    [
        "token = 'YOUR_TOKEN_GOES_HERE_1234'",
        "api_key=${API_KEY_OF_SOMETHING}",
        "password: xxxxxxxxxxxxxxxx1",
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "publicKey = 'q8Zr7LmK2vXw9TbN4cYd6HsJ3gFp5QaE'",
        "the key = application.settings.name_2",
        "key_length = XSalsa20.key_length",
        "The secret: be kind, and the password to happiness: patience",
        "https://example.org:8080/path@here",
        "keySelector=n,haKey=!1",
    ],
)
def test_what_only_looks_so(text: str) -> None:
    assert credentials_in(text) == []


@given(st.text(max_size=200))
def test_any_text_is_read(text: str) -> None:
    for finding in (*personal_in(text, KINDS), *credentials_in(text)):
        assert 0 <= finding.start < finding.end <= len(text)


@given(st.text(alphabet="0123456789 ()-.+/\nab", max_size=60))
def test_the_prefilter_misses_nothing(text: str) -> None:
    """Whatever the whole search finds in digits, the prefilter lets through."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(personal, "has_number", lambda _: True)
        everything = personal_in(text, DEFAULT)
    assert personal_in(text, DEFAULT) == everything


@pytest.mark.parametrize(
    "text",
    [
        "1 " * 50_000, "1-" * 50_000, "(" * 100_000, "+1" * 50_000, "a:" * 50_000, "1." * 50_000, "key=" * 25_000,
        "a" * 100_000, "://a:" * 20_000, "curl " * 20_000, "-----BEGIN " * 9_000, "eyJ" * 33_000, "GB12 " * 20_000,
        "token: " * 14_000, "authorization: " * 7_000, "0123456789abcdef" * 6_000, "www." * 25_000, "AIza-" * 20_000,
        "aws key = " * 10_000, "discord=" * 12_000, "xox" * 33_000, "@" * 100_000,
        "1795474854200998291: ok\n" * 4_200, "20241123225827439074Z " * 4_800, "+17954748542009982911x " * 4_300,
        "(1)(2)(3)(4)(5)(6)(7)(8)(9)x " * 3_400, "4111111111111111: " * 5_500, "é@" * 50_000,
        "ana1@example.com; 212-555-0001;\n" * 3_000, "212\u2011" * 25_000,
    ],
)  # fmt: skip
def test_no_text_takes_long(text: str) -> None:
    """100,000 characters of what patterns begin with: linear, or nearly."""
    began = time.process_time()
    personal_in(text, KINDS)
    credentials_in(text)
    assert time.process_time() - began < 2  # some 100 ms each


@pytest.mark.parametrize("dash", ["\u2010", "\u2011", "\u2013", "\u2212"])
@pytest.mark.parametrize("space", ["\u00a0", "\u202f", "\u2009"])
def test_numbers_are_found_as_they_are_typeset(dash: str, space: str) -> None:
    text = f"Call 212{dash}555{dash}0123, +44{space}20{space}7946{space}0958; 4111{space}1111{space}1111{space}1111"
    assert [(text[each.start : each.end][:3], each.kind) for each in personal_in(text)] == [
        ("212", "phone"), ("+44", "phone"), ("411", "card"),
    ]  # fmt: skip
    assert [each.kind for each in personal_in(f"078{dash}05{dash}1120")] == ["ssn"]


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("tel:212-555-0123", ["phone"]), ("ana,212-555-0123,NY", ["phone"]), ("12:30:45.123 1,234,567", []),
        ("josé.garcía@example.com", ["email"]), ("ana@bücher.de", ["email"]), ("1795474854200998291: ok", []),
    ],
)  # fmt: skip
def test_what_stands_before_a_number(text: str, kinds: list[str]) -> None:
    assert [each.kind for each in personal_in(text)] == kinds


def test_entropy_is_shannons() -> None:
    assert entropy("") == entropy("aaaa") == 0
    assert entropy("ab" * 8) == 1
    assert entropy("abcd") == 2


def test_checks_take_them() -> None:
    pii, secrets = checks.pii(), checks.secrets()
    trip = pii.check("call me at 0494 92 82 32 from 203.0.113.77")
    assert trip is not None
    assert trip.text == "call me at [PHONE] from [IP]"
    assert pii.check("see https://example.org") is None
    assert checks.pii(kinds=["domain"]).check("see https://example.org") is not None
    assert secrets.check(f"X-Api-Key: {KEY}") is not None
    redacted = checks.secrets(action="redact").check(f"token = {KEY} and sk-proj-{KEY}")
    assert redacted is not None
    assert KEY not in str(redacted.text)
    with pytest.raises(InvalidInput, match="kinds has"):
        checks.pii(kinds=["credential"])
