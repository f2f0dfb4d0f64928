"""Expressions of users' own: those that could run wild are refused, and the bound of the others holds."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from loopkit.detect.bounded import WIDEST, bounded
from loopkit.errors import InvalidInput

if sys.version_info >= (3, 11):
    from re import _parser as sre
else:
    import sre_parse as sre


@pytest.mark.parametrize(
    "expression",
    [
        r"\b[A-Z]{2}\d{6}\b",
        r"\w{1,64}@\w{1,64}\.\w{2,10}",
        r"(?:\d[ -]?){13,16}",
        r"(?:foo|bar|baz){1,5}",
        r"project\s{1,3}night\w{0,8}",
        r"(?<!x)foo(?=bar)",
        r"(?i:emp)-\d{1,6}(?:-\w{1,4})?",
        r"straße|ſtop",
        r"\w{1,40}\s{1,3}\w{1,40}\s{1,3}\w{1,40}",
        r"(?:\w{1,20}\W{1,5}){0,5}password",
    ],
)
def test_ordinary_expressions_pass(expression: str) -> None:
    assert bounded(expression).width <= WIDEST


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        (r"(a{1,10}){1,10}b", "ways at one place"),
        (r"(a|a){1,30}b", "ways at one place"),
        (r"(a|ab){1,20}c", "ways at one place"),
        ("a?" * 20 + "a" * 20, "ways at one place"),
        (r"\w{1,100}\w{1,100}z", "ways at one place"),
        (r"(x+x+)+y", "without a bound"),
        (r"a+", "without a bound"),
        (r"(a)\1", "groupref"),
        (r"^a", "where a text begins"),
        (r".{0,500}a", "without a bound"),
        (r"(?:a{300}){2}", "600 characters"),
        (r"a?", "empty"),
        (r"(?:k{1,9}(?i:[^éè]){1,9}){1,4}s", "ways at one place"),
        (r"(x{1,100})(?=[^y]{1,250}y)z", "ways at one place"),
        (r"(x{1,100})(?!x{0,280}y)z", "ways at one place"),
        (r"(a)?(?(1)b|c)x", "groupref exists"),
        (r"(?:)", "empty"),
        (r"[", "no regular expression"),
        (r"(?<=a{60})b", "looks back"),
    ],
)
def test_those_that_could_run_wild_are_refused_and_told_why(expression: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        bounded(expression)


class Spent(Exception):
    pass


class Matcher:
    """A matcher that goes back as Python's does, and counts what it tries."""

    def __init__(self, text: str, most: int) -> None:
        self.text, self.left = text, most

    def tried(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Spent

    def matches(self, items: list[Any], at: int, flags: int) -> Iterator[int]:
        if not items:
            yield at
            return
        (op, given_), *rest = items
        for end in self.one(str(op), given_, at, flags):
            yield from self.matches(rest, end, flags)

    def one(self, op: str, given_: Any, at: int, flags: int) -> Iterator[int]:
        if op in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            self.tried()
            if at < len(self.text) and re.compile(written(op, given_), flags).match(self.text[at]):
                yield at + 1
        elif op in ("MAX_REPEAT", "MIN_REPEAT"):
            yield from self.repeated(op, *given_, at, flags, 0)
        elif op == "SUBPATTERN":
            _, added, taken, inner = given_
            kept = flags & ~(re.ASCII | re.UNICODE) if added & re.ASCII else flags
            yield from self.matches(list(inner), at, (kept | added) & ~taken)
        elif op == "BRANCH":
            for each in given_[1]:
                yield from self.matches(list(each), at, flags)
        elif op in ("ASSERT", "ASSERT_NOT"):
            found = next(self.matches(list(given_[1]), at, flags), None) is not None
            if found == (op == "ASSERT"):
                yield at
        elif op == "AT":
            self.tried()
            if re.compile(r"\b" if "BOUNDARY" in str(given_) else "$", flags).match(self.text, at):
                yield at
        else:
            raise AssertionError(op)

    def repeated(self, op: str, least: int, most: int, item: Any, at: int, flags: int, count: int) -> Iterator[int]:
        def again() -> Iterator[int]:
            if count < most:
                for end in self.matches(list(item), at, flags):
                    yield from self.repeated(op, least, most, item, end, flags, count + 1)

        if op == "MAX_REPEAT":
            yield from again()
        if count >= least:
            yield at
        if op == "MIN_REPEAT":
            yield from again()


def written(op: str, given_: Any) -> str:
    if op == "LITERAL":
        return re.escape(chr(given_))
    if op == "NOT_LITERAL":
        return f"[^{re.escape(chr(given_))}]"
    if op == "ANY":
        return "."
    inside = ""
    for each, value in given_:
        name = str(each)
        if name == "NEGATE":
            inside = "^" + inside
        elif name == "LITERAL":
            inside += re.escape(chr(value))
        elif name == "RANGE":
            inside += f"{re.escape(chr(value[0]))}-{re.escape(chr(value[1]))}"
        else:
            inside += {"DIGIT": r"\d", "WORD": r"\w", "SPACE": r"\s"}[str(value).removeprefix("CATEGORY_")]
    return f"[{inside}]"


def expressions() -> st.SearchStrategy[str]:
    single = st.sampled_from(
        [
            "a",
            "b",
            "c",
            "[ab]",
            "[^a]",
            ".",
            r"\w",
            "k",
            r"\d",
            "[À-ſ]",
            "[^é]",
            "[^t-é]",
            r"\s",
            "(?i:[^éb])",
            "(?i:k)",
        ]
    )
    bounds = st.tuples(st.integers(0, 2), st.integers(0, 3)).map(lambda b: f"{{{b[0]},{b[0] + b[1]}}}")

    def deeper(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.one_of(
            st.tuples(inner, bounds, st.sampled_from(["", "?"])).map(lambda p: f"(?:{p[0]}){p[1]}{p[2]}"),
            st.lists(inner, min_size=2, max_size=4).map("".join),
            st.lists(inner, min_size=2, max_size=3).map(lambda each: f"(?:{'|'.join(each)})"),
            inner.map(lambda each: f"(?={each})"),
            inner.map(lambda each: f"(?!{each})"),
            inner.map(lambda each: rf"{each}\b"),
            inner.map(lambda each: f"({each})$"),
            inner.map(lambda each: f"({each})"),
            inner.map(lambda each: f"(?i:{each})"),
            inner.map(lambda each: f"(?a:{each})"),
        )

    return st.tuples(single, st.recursive(single, deeper, max_leaves=6)).map("".join)


@given(expressions(), st.text("abck1 és\u212a\xa0", max_size=24), st.booleans())
def test_no_more_is_tried_at_a_place_than_was_promised(expression: str, text: str, folds: bool) -> None:
    try:
        found = bounded(expression, ignore_case=folds)
    except InvalidInput:
        assume(False)
    tree: Any = sre.parse(expression, re.IGNORECASE if folds else 0)
    for at in range(len(text) + 1):
        end = next(Matcher(text, found.work).matches(list(tree), at, found.pattern.flags), None)
        assert (end is not None) == (found.pattern.match(text, at) is not None)  # it is a matcher of that kind
        if end is not None:
            assert end - at <= found.width
            assert found.begins.match(text[at])


def test_python_itself_keeps_within_what_was_promised() -> None:
    expression = r"(?:\w{1,40}[ -]){1,8}\w{1,40}!"
    texts: list[Callable[[int], str]] = [lambda n: "a" * n, lambda n: "a " * (n // 2), lambda n: "a-" * n]
    try:
        found = bounded(expression)
    except InvalidInput:
        pytest.fail("it is an ordinary one")
    for text in texts:
        assert found.pattern.search(text(20_000)) is None
