"""Templates and the nearest texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopkit.errors import InvalidInput
from loopkit.prompts.nearest import NearestIndex
from loopkit.prompts.template import fields, render, version


def test_inputs_go_in_and_doubled_braces_stay() -> None:
    assert render('{{"queue": "{name}"}} for {data}', {"name": "ü", "data": [1]}) == '{"queue": "ü"} for [1]'
    assert fields("{a} {b} {a}") == ("a", "b")


def test_inputs_reach_no_attributes() -> None:
    with pytest.raises(InvalidInput, match="lone brace"):
        fields("{a.__class__}")
    with pytest.raises(InvalidInput, match="lone brace near"):
        render("{", {})


@given(st.text())
def test_an_inputs_braces_are_not_evaluated(value: str) -> None:
    assert render("{a}{b}", {"a": value, "b": "{a}"}) == value + "{a}"


def test_a_version_changes_with_the_text() -> None:
    assert version("a") != version("b")
    assert version("a") == version("a") != version("a", "be brief")


@given(st.lists(st.text("abc ", min_size=1, max_size=12), min_size=1, max_size=12), st.data())
def test_a_text_is_nearest_to_itself(texts: list[str], data: st.DataObject) -> None:
    wanted = data.draw(st.integers(0, len(texts) - 1))
    found = NearestIndex(texts).nearest(texts[wanted], len(texts))
    if found:
        assert found[0][1] == pytest.approx(1.0)
        assert dict(found)[wanted] == pytest.approx(1.0)


def test_nothing_in_common_is_nothing_near() -> None:
    assert NearestIndex(["alpha beta"]).nearest("gamma", 3) == []
    assert NearestIndex([]).nearest("gamma", 3) == []
