"""Regular expressions of users' own that can't run wild: those whose matches and whose work have a bound.

Python's matcher goes back and tries again, and while it does no other thread runs and no timeout helps: so an
expression is judged before it is used, by its parse tree. A repetition that can't be mistaken for what follows it adds
to the work; one that can be multiplies it, and so does one around another.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, takewhile
from typing import Any, Final

from loopkit.errors import InvalidInput

if sys.version_info >= (3, 11):
    # the standard library's own parser and compiler, which have no public names any more
    from re import _compiler as compiler  # type: ignore[attr-defined]
    from re import _parser as sre  # type: ignore[attr-defined]
else:
    import sre_compile as compiler
    import sre_parse as sre

WIDEST: Final = 400
"""Characters of one match, with what it looks ahead for."""
MOST_WORK: Final = 4_000
"""Ways that may be tried from one place of a text."""
_BACK: Final = 50
"""Characters that it may look back."""
_ASCII: Final = 128
_BEYOND: Final = ("é日٣ßKſıİ", "\u00a0\u2003\x85", "€\u200b—\ud800")
"""Beyond ASCII: what belongs to words, with digits and with what folds to ASCII; spaces; and others. Each stands for
all of its kind."""
_OTHER: Final = ((1 << len(_BEYOND)) - 1) << _ASCII
_ALL: Final = (1 << _ASCII) - 1 | _OTHER
_TYPES: Final = re.ASCII | re.UNICODE | re.LOCALE
_SINGLE: Final = frozenset({"LITERAL", "NOT_LITERAL", "ANY", "IN"})
"""What matches one character."""
_TEXT_WIDE: Final = frozenset({"AT_BEGINNING", "AT_BEGINNING_STRING", "AT_BEGINNING_LINE"})


@dataclass(frozen=True, slots=True)
class Bounded:
    """An expression, and what it can't exceed."""

    pattern: re.Pattern[str]
    width: int
    """Characters of a match, with what it looks ahead for."""
    work: int
    """Single characters that are compared from one place on, at most."""
    begins: re.Pattern[str]
    """What a match's first character matches."""


@dataclass(frozen=True, slots=True)
class _Cost:
    """Of a part: in how many ways it can match at one place and be followed, what it takes to try them all, and what to
    see that it doesn't begin there; with which characters it may begin, and whether it may be empty."""

    ways: int
    work: int
    refusal: int
    first: int
    is_empty: bool


class _Refused(Exception):
    """What is wrong with an expression."""


def bounded(expression: str, *, ignore_case: bool = True) -> Bounded:
    """The expression, compiled. Raises `InvalidInput` for one that is none, that may run wild, or match nothing at
    all."""
    flags = re.IGNORECASE if ignore_case else 0
    try:
        pattern = re.compile(expression, flags)
        tree: Any = sre.parse(expression, flags)
    except (re.error, RecursionError, OverflowError, TypeError) as error:
        raise InvalidInput(f"{expression!r} is no regular expression: {error}") from None
    try:
        least, most = tree.getwidth()
        if not least:
            raise _Refused("it matches the empty text: have it match a character at least")
        cost = _of_all(list(tree), 0, 1, pattern.flags)
        ahead = _ahead(tree)
        if most + ahead > WIDEST:
            raise _Refused(f"it may match {most + ahead} characters: say how many at most, in all {WIDEST}")
        if cost.work > MOST_WORK:
            raise _Refused(
                f"it may try {cost.work} ways at one place, where {MOST_WORK} may be: repeat less, or what can't be"
                " mistaken for what follows it"
            )
    except _Refused as refused:
        raise InvalidInput(f"the expression {expression[:200]!r} is refused: {refused}") from None
    return Bounded(pattern, most + ahead, cost.work, re.compile(_as_class(cost.first)))


def _of_all(items: Sequence[tuple[Any, Any]], then: int, refusal: int, flags: int) -> _Cost:
    """Of parts one after the other. What follows them may begin with `then`, 0 where nothing does; and it takes
    `refusal` to see that it doesn't."""
    cost = _Cost(1, refusal, refusal, then, True)
    for op, given in reversed(items):
        own = _of(str(op), (op, given), cost.first, cost.refusal, flags)
        cost = _Cost(
            _capped(own.ways * cost.ways),
            _capped(own.work + own.ways * cost.work),
            _capped(own.refusal + (cost.refusal if own.is_empty else 0)),
            own.first | (cost.first if own.is_empty else 0),
            own.is_empty and cost.is_empty,
        )
    return cost


def _of(name: str, node: tuple[Any, Any], then: int, refusal: int, flags: int) -> _Cost:
    given = node[1]
    if name in _SINGLE:
        return _Cost(1, 1, 1, _characters(node, flags), False)
    if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        cost = _of_repeat(given, then, refusal, flags)
        return replace(cost, ways=1) if name == "POSSESSIVE_REPEAT" else cost
    if name == "SUBPATTERN":
        _, added, taken, inner = given
        kept = flags & ~_TYPES if added & _TYPES else flags
        return _of_all(list(inner), then, refusal, (kept | added) & ~taken)
    if name == "ATOMIC_GROUP":
        return replace(_of_all(list(given), then, refusal, flags), ways=1)
    if name == "BRANCH":
        return _of_branches([list(each) for each in given[1]], then, refusal, flags)
    if name in ("ASSERT", "ASSERT_NOT"):
        work = _of_all(list(given[1]), 0, 1, flags).work
        return _Cost(1, work, work, 0, True)
    if name == "AT":
        return _Cost(1, 1, 1, 0, True)
    raise _Refused(f"it has a {name.lower().replace('_', ' ')}, which isn't judged here: leave it out")


def _of_branches(branches: list[list[tuple[Any, Any]]], then: int, refusal: int, flags: int) -> _Cost:
    parts = [_of_all(each, then, refusal, flags) for each in branches]
    heads = [_head(each, flags) for each in branches]
    ways = max(each.ways for each in parts)
    if any(_may_be_both(one, other) for one, other in combinations(heads, 2)):
        ways = sum(each.ways for each in parts)
    first = 0
    for each in parts:
        first |= each.first
    return _Cost(
        ways, sum(each.work for each in parts), sum(each.refusal for each in parts), first,
        any(each.is_empty for each in parts),
    )  # fmt: skip


def _of_repeat(given: Any, then: int, refusal: int, flags: int) -> _Cost:
    least, most, item = given
    if most is sre.MAXREPEAT or int(most) > WIDEST:
        raise _Refused(f"it repeats without a bound: instead of * or + say how often at most, such as {{{least},100}}")
    most = int(most)
    once = _of_all(list(item), _ALL, 1, flags)
    again = once.first if most > 1 else 0
    inner = _of_all(list(item), again | then, _capped(once.refusal + refusal), flags)
    varies = most - least
    if inner.ways == 1 and not inner.is_empty:
        # after each number of repetitions what follows is tried, and gets nowhere where it can't begin so
        ways = varies + 1 if varies and inner.first & then else 1
        work = _capped(inner.work * max(most, 1) + varies * refusal + 1)
    else:
        ways = _capped(max(inner.ways, 2) ** min(most, 40) * (varies + 1))
        work = _capped(inner.work * ways * max(most, 1))
    return _Cost(ways, work, inner.refusal + 1, inner.first, least == 0 or inner.is_empty)


def _capped(number: int) -> int:
    return min(number, 10**9)


def _head(items: Sequence[tuple[Any, Any]], flags: int) -> list[int]:
    """What the first characters may be, as far as each is a part of its own."""
    return [_characters(node, flags) for node in takewhile(lambda node: str(node[0]) in _SINGLE, items)]


def _may_be_both(one: list[int], other: list[int]) -> bool:
    return all(mine & theirs for mine, theirs in zip(one, other, strict=False))


def _characters(node: tuple[Any, Any], flags: int) -> int:
    """Which characters it matches, as Python's own matcher says; all beyond ASCII where it names some of them."""
    state: Any = sre.State()
    state.flags = flags
    state.str = ""
    matches = compiler.compile(sre.SubPattern(state, [node]), flags).match
    found = 0
    for code in range(_ASCII):
        found |= (matches(chr(code)) is not None) << code
    for number, kind in enumerate(_BEYOND):
        found |= any(map(matches, kind)) << (_ASCII + number)
    return found | (_OTHER if _names_beyond(node) else 0)


def _names_beyond(node: tuple[Any, Any]) -> bool:
    op, given = node
    if str(op) in ("LITERAL", "NOT_LITERAL"):
        return bool(given >= _ASCII)
    if str(op) == "RANGE":
        return bool(given[1] >= _ASCII)
    return str(op) == "IN" and any(map(_names_beyond, given))


def _as_class(mask: int) -> str:
    codes = "".join(f"\\x{code:02x}" for code in range(_ASCII) if mask >> code & 1)
    return f"[{codes}{_AND_BEYOND if mask & _OTHER else ''}]"


_AND_BEYOND: Final = "\\x80-\\U0010ffff"


def _ahead(items: Any, back: int = 0) -> int:
    """How far beyond a match it may look. Refuses what looks at the whole text before it, or far back."""
    found = 0
    for op, given in items:
        name = str(op)
        if name == "AT":
            if str(given) in _TEXT_WIDE:
                raise _Refused("it says where a text begins, which a stream's part can't tell: leave ^ and \\A out")
            found = max(found, 2)  # a line's end may be the last but one character of a text
        elif name in ("ASSERT", "ASSERT_NOT"):
            direction, inner = given
            _, width = inner.getwidth()
            behind = back + width if direction < 0 else back
            if behind > _BACK:
                raise _Refused(f"it looks back {behind} characters, where {_BACK} may be")
            found = max(found, (width if direction > 0 else 0) + _ahead(inner, behind))
        else:
            found = max([found, *(_ahead(each, back) for each in _inside(name, given))])
    return found


def _inside(name: str, given: Any) -> list[Any]:
    if name.endswith("REPEAT"):
        return [given[2]]
    if name == "SUBPATTERN":
        return [given[3]]
    if name == "ATOMIC_GROUP":
        return [given]
    return list(given[1]) if name == "BRANCH" else []
