"""Texts that are still coming: what is found, and what goes on, is the same however they are cut into pieces."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import loopkit
from loopkit import checks
from loopkit.guard.stream import CONTEXT, LONGEST, Edits, SpanWatch, Windows

CHECKS: list[Any] = [
    checks.pii(kinds=[*checks.pii().kinds, "domain"]), checks.secrets(),
    checks.banned(["the card number", "office", "C++", "call me", "call me now", "Ünit über"]),
    checks.banned(["office", "card", "call"], allowed=["call me on", "the card number", "office call"]),
    checks.banned(["the card", "b c"], allowed=["in the", "the card number", "card number is", "x a", "a b", "c x"]),
    checks.matches(r"[À-ſ]{2,3}\w", action="redact"),
    checks.matches(r"\b\d{3}[ -]\d{2,4}\b(?! x)", action="redact"), checks.matches(r"(?:\w{2,9} ){2}(?=\d)|\W{3}"),
    checks.urls(allow=["example.org", "*.example.com"]), checks.exfiltration(), checks.invisible(),
]  # fmt: skip
WORDS = st.sampled_from(
    """
    the a card number is call me on my phone tel: office ext. ext 12 x99 in 2024, 3.5 1234 5678 4111 1111
    4111-1111 +49 30 1234567 (555) 234-5678 555-234-5678 555 234 5678 078-05-1120 219 09 9999 ana@example.org
    bob.b@mail.example.co DE89 3704 0044 0532 0130 00 de89370400440532013000 GB82WEST12345698765432 10.0.0.1
    192.168.1.1. version 1.2.3.4 2001:db8::1 https://example.org/path?q=1
    http://user:hunter2secret@db.example.org/x www.example.com sk-proj-q8Zr7LmK2vXw9TbN4cYd6HsJ3gFp5QaE1uRi
    ghp_q8Zr7LmK2vXw9TbN4cYd6HsJ3gFp5QaE1uRi AKIAQ8ZR7LMK2VXW9TBN password = "tR4x!qLm92zZ" api_key:
    9fK2mQx7Lp0sVb3T Authorization: Bearer q8Zr7LmK2vXw9TbN4cYd Basic cXdlcnR5dWlvcA== curl -u "me:pass phrase
    here" -u bob:'qx 7 zz p' -----BEGIN RSA PRIVATE KEY----- MIIEpAIBAAKCAQEAq8Zr7LmK2vXw9TbN4cYd6HsJ3gFp5Q
    -----END RSA PRIVATE KEY----- -----BEGIN CERTIFICATE----- "type": "service_account" twilio
    SK0123456789abcdef0123456789abcdef Twilio AC9f86d081884c7d659a2feaa0c55ad015 discord token = mailchimp key
    9f86d081884c7d659a2feaa0c55ad015-us12 ' " ( ) , . - / : =
    eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV ü 日本 \u200b \ud800
    ![a picture of](https://evil.example/x?d=1) ![x] (y) ![alt <img src="https://evil.example/p.png" alt="x"> <IMG SRC=
    [ref]: //evil.example/r https:\\\\evil.example\\x https://example.org@evil.example/ data:text/html;base64,PGI+ url(
    url('https://evil.example') Office C++ C office. me now ünit ÜBER u\u0308ber o\u200bffice x\u202ey x\u200dy
    \U000e0041\U000e0042
    a b c x ss ſs ÀÀx
    \u2764\ufe0f a\ufe0f\ufe0f \U0001f3f4\U000e0067\U000e007f http:// // www. ) ]( ![ < >
    """.split()  # noqa: SIM905  # as a list it would be a page
)
TEXTS = st.lists(st.tuples(WORDS, st.sampled_from([" ", " ", " ", "", "\n", ", ", "-", "  "])), max_size=25).map(
    lambda pairs: "".join(word + between for word, between in pairs)
)
CUTS = st.lists(st.integers(0, 400), max_size=30)


def pieces(text: str, cuts: list[int]) -> list[str]:
    """The text, cut in these places."""
    places = [0, *sorted({min(cut, len(text)) for cut in cuts}), len(text)]
    return [text[a:b] for a, b in pairwise(places)]


def watched(check: Any, parts: list[str]) -> list[Any]:
    """What is found as it comes."""
    watch = SpanWatch(check)
    found = [each for part in parts for each in watch.feed(part, final=False)]
    return found + watch.feed("", final=True)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
@given(TEXTS, CUTS)
@example("call 555 234 5678 office now", [12, 13, 17, 18, 20])
@example('curl -u "me:pass phrase here" x', [10, 15, 20])
@example("-----BEGIN RSA PRIVATE KEY----- abc -----END RSA PRIVATE KEY----- x", [3, 12, 18, 33, 60])
def test_what_is_found_does_not_hang_on_the_cuts(check: Any, text: str, cuts: list[int]) -> None:
    assert watched(check, pieces(text, cuts)) == check.find(text)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
@given(TEXTS)
def test_nor_when_every_character_comes_alone(check: Any, text: str) -> None:
    assert watched(check, list(text)) == check.find(text)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
@given(TEXTS, st.integers(1, 50), CUTS)
def test_nor_in_a_long_text(check: Any, text: str, times: int, cuts: list[int]) -> None:
    """Longer than what is kept of it."""
    filler = "the quick brown fox jumps over the lazy dog and then it rests. "
    whole = filler * times + text + filler * (CONTEXT // 60) + text
    assert watched(check, pieces(whole, [cut * times for cut in cuts])) == check.find(whole)


@given(st.text(alphabet="abc 1-", max_size=40), st.lists(st.integers(0, 3 * LONGEST), max_size=6))
def test_what_never_settles_is_decided_all_the_same(end: str, cuts: list[int]) -> None:
    """A word without an end is held back so far and no further, wherever it is cut."""
    text = "x" * (2 * LONGEST) + "ana@example.org" + end
    assert watched(CHECKS[0], pieces(text, cuts)) == watched(CHECKS[0], [text])


@given(TEXTS, CUTS)
def test_a_text_is_never_held_longer_than_it_may_be(text: str, cuts: list[int]) -> None:
    """Of words that can't be anything no more than the last one waits."""
    watch = SpanWatch(CHECKS[0])
    watch.feed("and then they went home again, as ever, and slep", final=False)
    assert watch.settled == len("and then they went home again, as ever, and ")


@given(st.text(max_size=60), st.lists(st.integers(0, 60), max_size=8), st.integers(2, 12))
def test_windows_begin_where_the_length_says(text: str, cuts: list[int], size: int) -> None:
    def windows(parts: list[str]) -> list[str]:
        made = Windows(size)
        found = [window for part in parts for window in made.feed(part, final=False)]
        found += made.feed("", final=True)
        assert made.settled == len(text)
        return found

    whole = windows([text])
    assert windows(pieces(text, cuts)) == whole
    step = max(size // 2, 1)
    assert all(any(text[at : at + size - step] in window for window in whole) for at in range(len(text)))


@given(TEXTS, CUTS)
def test_edits_are_the_same_in_parts(text: str, cuts: list[int]) -> None:
    edits = Edits()
    for check in CHECKS[:2]:
        edits.add(check.find(text))
    whole, at = edits.applied(text, 0), 0
    said = ""
    for part in pieces(text, cuts):
        said += edits.applied(part, at)
        at += len(part)
    assert said == whole
    alone = Edits()
    alone.add(CHECKS[0].find(text))
    trip = CHECKS[0].check(text, checks.Seen())
    assert alone.applied(text, 0) == (text if trip is None else trip.text)


DATA = os.environ.get("LOOPKIT_DATA")


@pytest.mark.skipif(DATA is None, reason="LOOPKIT_DATA names no folder with the public sets")
def test_on_real_texts() -> None:
    import base64
    import json

    folder = Path(str(DATA)) / "guard"
    rows = [json.loads(line) for line in (folder / "presidio_synth_v2.jsonl").read_text().splitlines()]
    texts = [row["text"] for row in rows]
    rows = [json.loads(line) for line in (folder / "gitleaks_literals.jsonl").read_text().splitlines()]
    texts += [base64.b64decode(row["text_base64"]).decode(errors="replace") for row in rows]
    for number, text in enumerate(texts):
        for check in CHECKS:
            for step in (1, 4, 7 + number % 50):
                assert watched(check, [text[at : at + step] for at in range(0, len(text), step)]) == check.find(text)


TYPESET = [
    "Call me at (415) 555\u20112671 ext. 12 now", "card 4111\u20111111\u00a01111\u20111111 ok",
    "tel +49 30\u201112 34\u201167 x", "call +44\u00a020\u00a07946\u00a00958 now",
    "DE89\u202f3704\u202f0044\u202f0532\u202f0130\u202f00 x", "078\u201305\u20131120.",
    "1990\u20132000 \u2013 a time \u2013 212\u2013555\u20130123, office",
]  # fmt: skip


@pytest.mark.parametrize("text", TYPESET)
@given(cuts=st.lists(st.integers(1, 40), max_size=14))
def test_numbers_are_found_in_streams_as_they_are_typeset(text: str, cuts: list[int]) -> None:
    places = [0, *sorted({min(each, len(text)) for each in cuts}), len(text)]

    @loopkit.trace(guard=loopkit.Guard(output=[checks.pii()]))
    def gives() -> Any:
        yield from (text[a:b] for a, b in pairwise(places))

    assert "".join(gives()) == checks.pii().check(text).text  # type: ignore[union-attr]
