"""Patterns: what is found, what looks like it and isn't, and that redaction leaves nothing behind."""

from __future__ import annotations

import json
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopkit.detect.patterns import find, is_iban, is_luhn, may_hold, redact

KEY = "sk-proj-" + "aB3" * 12


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("write to joe.smith+news@mail.example.co.uk, please", "write to [EMAIL], please"),
        ("card 4111 1111 1111 1111 expires", "card [CARD] expires"),
        ("card 4111-1111-1111-1111", "card [CARD]"),
        ("IBAN GB82 WEST 1234 5698 7654 32 now", "IBAN [IBAN] now"),
        ("DE89370400440532013000", "[IBAN]"),
        ("call +44 20 7946 0958 today", "call [PHONE] today"),
        (f"key={KEY}", "key=[KEY]"),
        ("AKIAIOSFODNN7EXAMPLE", "[KEY]"),
        ("ghp_" + "a1" * 18, "[KEY]"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----", "[PRIVATE_KEY]"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVPmB92K27uhbUJU1p1r_wW1g", "[JWT]"),
    ],
)
def test_found_and_replaced(text: str, clean: str) -> None:
    assert redact(text) == clean


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112 fails the check digit",
        "at 1732311600002 ms",
        "order 1000000000000008 has a card's check digit and no issuer",
        "0000 0000 0000 0000",
        "version 1.2.3.4, 2026-11-22 10:11:12, 3.14159265358979",
        "GB82 WEST 1234 5698 7654 33 fails mod 97",
        "user@localhost and @handle",
        "task-oriented sk-ills",
        "1 + 1 = 2",
        "interval -15.7 to +15.7, 113 examples, +3 points",
        "",
    ],
)
def test_look_alikes_stay(text: str) -> None:
    assert redact(text) == text


@given(st.text(), st.text(), st.sampled_from(["joe@example.com", "4111111111111111", KEY, "BE68 5390 0754 7034"]))
def test_nothing_of_a_finding_is_left_whatever_stands_around_it(before: str, after: str, secret: str) -> None:
    assert secret not in redact(f"{before} {secret} {after}")


@given(st.text())
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@given(
    st.lists(st.sampled_from(["joe@example.com", "+44 20 7946 0958", KEY, " ", "x", "4111111111111111"]), max_size=8)
)
def test_findings_dont_overlap_and_are_in_order(pieces: list[str]) -> None:
    text = " ".join(pieces)
    found = find(text)
    assert all(a.end <= b.start for a, b in pairwise(found))


def test_luhn_catches_every_wrong_digit() -> None:
    for index in range(16):
        wrong = list("4111111111111111")
        wrong[index] = str((int(wrong[index]) + 1) % 10)
        assert not is_luhn("".join(wrong))


def test_iban_catches_swapped_neighbours() -> None:
    good = "GB82WEST12345698765432"
    swapped = [good[:i] + good[i + 1] + good[i] + good[i + 2 :] for i in range(8, 20) if good[i] != good[i + 1]]
    assert is_iban(good)
    assert not any(is_iban(text) for text in swapped)


def test_a_long_text_of_digits_is_searched_in_linear_time() -> None:
    generator = random.Random(0)
    for text in (
        "1 " * 50_000,
        "@" * 100_000,
        "a." * 50_000 + "@",
        "".join(generator.choices("0123456789 -", k=100_000)),
    ):
        find(text)


SECRETS = [
    "joe@example.com", "4111 1111 1111 1111", "4111-1111-1111-1111", "GB82 WEST 1234 5698 7654 32", KEY,
    "DE89370400440532013000", "+44 20 7946 0958", "AKIAIOSFODNN7EXAMPLE", "ghp_" + "a1" * 18, "xoxb-0123456789",
    "glpat-" + "a" * 20, "hf_" + "a" * 30, "sk_live_" + "a" * 16, "-----BEGIN PRIVATE KEY-----",
    "github_pat_" + "a" * 22,
    "AIza" + "b" * 35, "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVPmB92K27uhbUJU1p1r_wW1g",
    "４１１１ １１１１ １１１１ １１１１",
]  # fmt: skip


@given(st.text(max_size=40), st.sampled_from(SECRETS), st.text(max_size=40), st.booleans())
def test_the_prefilter_never_says_no_where_something_is_found(
    before: str, secret: str, after: str, ascii: bool
) -> None:
    text = before + secret + after
    if find(text):
        assert may_hold(text.encode("utf-8", "replace").decode())
        assert may_hold(json.dumps({"key": [text]}, ensure_ascii=ascii))


@pytest.mark.parametrize("secret", SECRETS)
def test_every_planted_secret_is_one(secret: str) -> None:
    assert find(secret)


@pytest.mark.parametrize(
    "text",
    [
        '{"model":"m","messages":[{"role":"user","content":"My card was declined, why? It is 12.50 euros."}]}',
        '{"id":"chatcmpl-AbCdEfGhIjKlMnOp","created":1767225600,"usage":{"prompt_tokens_details":{"audio_tokens":0}}}',
        "a + b, 3 - 4, 2026-11-22 10:00, Straße, 北京",
    ],
)
def test_ordinary_texts_need_no_walk(text: str) -> None:
    assert not may_hold(text)
