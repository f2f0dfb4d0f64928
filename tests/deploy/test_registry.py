"""The registry: variants by name, and what is said when a name can't be had."""

from __future__ import annotations

import pytest

import loopkit
from loopkit import Variant
from loopkit.errors import InvalidInput
from loopkit.testing import MemorySink

A, B, C = (Variant(model="m", prompt=prompt) for prompt in ("a {x}", "b {x}", "c {x}"))


@pytest.fixture
def registry(stored: MemorySink) -> loopkit.Registry:
    return loopkit.Registry(loopkit.open_store())


def test_a_variant_is_named_by_number_or_as_one_likes(registry: loopkit.Registry) -> None:
    assert [registry.add("t", A), registry.add("t", B, name="brief"), registry.add("t", C)] == ["v1", "brief", "v3"]
    assert registry.add("t", B) == "brief"
    assert list(registry.variants("t").values()) == [A, B, C]


def test_a_number_that_somebody_took_as_a_name_is_passed_over(registry: loopkit.Registry) -> None:
    assert [registry.add("t", A, name="v2"), registry.add("t", B)] == ["v2", "v3"]


@pytest.mark.parametrize("name", ["current", "candidate", "", "a/b", "two words", "x" * 61])
def test_a_name_that_cant_be_used_is_refused(registry: loopkit.Registry, name: str) -> None:
    with pytest.raises(InvalidInput, match=f"name is {name!r}"):
        registry.add("t", A, name=name)


def test_a_name_stands_for_one_variant_and_a_variant_has_one_name(registry: loopkit.Registry) -> None:
    registry.add("t", A, name="brief")
    with pytest.raises(InvalidInput, match="has another variant 'brief'"):
        registry.add("t", B, name="brief")
    with pytest.raises(InvalidInput, match="is t/brief already"):
        registry.add("t", A, name="short")
