"""JSON that is looked at as it comes: what has left is the beginning of JSON, and never all of it where the shape is
wrong."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pydantic
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import loopkit
from loopkit import checks
from loopkit.errors import InvalidInput
from loopkit.guard.scanning import JsonScanner
from loopkit.testing import MemorySink
from tests.guard.test_plain_streams import OTHERS, run, saying, text_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
LIKE = st.text(alphabet='{}[]":, \n\\u0aeftrls1.-+Ee', max_size=14)


class Refund(pydantic.BaseModel):
    order: str
    amount: int


def is_json(text: str) -> bool:
    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        json.loads(text, parse_constant=refuse)
    except ValueError:
        return False
    return True


def taken(text: str) -> JsonScanner:
    scanner = JsonScanner()
    for char in text:
        if not scanner.takes(char):
            break
    return scanner


@given(LIKE)
@example("-0.5e+10")
@example("01")
@example('"\\u12"')
@example('{"a":1,}')
@example("[1,]")
@example("nul")
@example("[}")
@example("")
@example("\ufeff1")
def test_it_is_json_where_pythons_reader_says_so(text: str) -> None:
    scanner = taken(text)
    assert (scanner.length == len(text) and scanner.ends()) == is_json(text)


@given(JSON, st.booleans(), st.integers(0, 3))
def test_all_json_is_taken_and_its_end_is_known(value: Any, ascii_only: bool, spaces: int) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=spaces or None)
    scanner = taken(text + " ")
    assert scanner.length == len(text) + 1
    assert scanner.ends()
    assert scanner.end == len(text)


def stream_of(pieces: list[str], *checked: Any) -> tuple[str, Any]:
    @loopkit.trace(guard=loopkit.Guard(output=checked))
    def gives() -> Any:
        yield from pieces

    came: list[str] = []
    try:
        came.extend(gives())
    except loopkit.Blocked as blocked:
        return "".join(came), blocked.verdict
    return "".join(came), None


def cut(text: str, cuts: list[int]) -> list[str]:
    places = [0, *sorted({min(each, len(text)) for each in cuts}), len(text)]
    return [text[a:b] for a, b in pairwise(places)]


GOOD = '{"order": "7 \\u00e9", "amount": -3, "more": [1.5e3, true, null, {}]} '
TEXTS = [
    GOOD,
    GOOD.replace('"amount"', '"amounts"'),
    GOOD.replace("-3", "-"),
    GOOD + "x",
    GOOD[:20],
    "12 ",
    "12x",
    "[1] 2",
]


@pytest.mark.parametrize("text", TEXTS)
@given(cuts=st.lists(st.integers(1, 60), max_size=10))
def test_what_leaves_and_what_is_said_hang_on_no_cuts(text: str, cuts: list[int]) -> None:
    check = checks.valid_json(Refund if "order" in text else None, incremental=True)
    whole, verdict = stream_of([text], check)
    came, same = stream_of(cut(text, cuts), check)
    assert (came, same and (same.action, same.reason)) == (whole, verdict and (verdict.action, verdict.reason))
    assert text.startswith(came)
    assert (verdict is None) == (check.check(text) is None)
    assert verdict is not None or came == text
    if verdict is not None:
        assert not is_json(came)


def test_it_leaves_as_it_comes_and_stops_where_it_is_wrong() -> None:
    left: list[str] = []

    @loopkit.trace(guard=loopkit.Guard(output=[checks.valid_json(incremental=True)]))
    def gives() -> Any:
        for piece in ('{"a": ', "1, ", '"b" ', "oops", "never"):
            yield piece
            assert piece != "never"

    with pytest.raises(loopkit.Blocked, match=r"it is no JSON \(at character 13\)"):
        left.extend(gives())
    assert "".join(left) == '{"a": 1, "b" '


@pytest.mark.parametrize(("how", "came"), [({"action": "flag"}, "{oops}"), ({"shadow": True}, "{oops}")])
def test_on_trial_it_says_so_once(how: Any, came: str, recorded: MemorySink) -> None:
    assert stream_of(list("{oops}"), checks.valid_json(incremental=True, **how)) == (came, None)
    assert sum(span.kind == "guardrail" for span in recorded.spans()) == 1


@pytest.mark.parametrize("row", OTHERS[:1] + OTHERS[2:], ids=lambda row: row.name)
def test_in_a_providers_stream(row: Any) -> None:
    guard = loopkit.Guard(output=[checks.valid_json(Refund, incremental=True)])
    good = '{"order": "7", "amount": 3}'
    came, error = run(row, "sync", saying(row, [good[:9], good[9:]]), guard)
    assert (error, "".join(text_of(row, chunk) for chunk in came)) == (None, good)
    came, error = run(row, "sync", saying(row, ['{"order": ', '"7", "amount": "much"', "}"]), guard)
    assert error is not None
    assert "".join(text_of(row, chunk) for chunk in came) == '{"order": "7", "amount": "much"'


def test_much_of_it_takes_time_by_its_length() -> None:
    text = json.dumps([{"order": "x" * 1000, "amount": 3}] * 2000)
    assert stream_of(cut(text, list(range(0, len(text), 1000))), checks.valid_json(incremental=True)) == (text, None)
    deep, verdict = stream_of(["["] * 2000, checks.valid_json(incremental=True))
    assert (deep, verdict.action) == ("[" * 900, "block")


def test_it_reads_what_others_have_left() -> None:
    text = '{"card": 4111111111111111, "n": 1}'
    guard = [checks.pii(), checks.valid_json(incremental=True)]
    assert stream_of([text[:9], text[9:]], *guard) == ("", loopkit.Guard(output=guard).check(text, stage="output"))


@pytest.mark.parametrize("given", [{"repair": True}, {"action": "retry"}, {"action": "redact"}])
def test_what_has_left_cant_be_taken_back(given: Any) -> None:
    with pytest.raises(InvalidInput, match="what has left can't be taken back"):
        checks.valid_json(incremental=True, **given)
