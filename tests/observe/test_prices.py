"""What calls cost: as the provider says, by your own prices, by the kept ones; never made up."""

from __future__ import annotations

from typing import Any

import pytest
from genai_prices import Usage as KeptUsage
from genai_prices import calc_price
from hypothesis import given
from hypothesis import strategies as st

import loopkit
from loopkit._prices import Price
from loopkit.errors import InvalidInput
from loopkit.testing import MemorySink
from loopkit.types import ModelCall, Usage


def call(provider: str = "openai", model: str = "gpt-4.1", **usage: Any) -> ModelCall:
    counted = Usage(**{"input_tokens": 1000, "output_tokens": 100, **usage})
    return ModelCall(provider=provider, operation="chat", model=model, usage=counted)


@pytest.mark.parametrize(
    ("provider", "model", "theirs"),
    [
        ("openai", "gpt-4.1", "openai"),
        ("azure.ai.openai", "gpt-4.1", "azure"),
        ("anthropic", "claude-sonnet-4-5", "anthropic"),
        ("gcp.gemini", "gemini-2.5-flash", "google"),
        ("gcp.vertex_ai", "gemini-2.5-flash", "google"),
        ("mistral_ai", "mistral-large-latest", "mistral"),
        ("aws.bedrock", "amazon.nova-lite-v1:0", "aws"),
    ],
)
def test_the_kept_prices_are_looked_up_by_our_names(provider: str, model: str, theirs: str) -> None:
    usage = KeptUsage(input_tokens=1000, output_tokens=100, cache_read_tokens=400)
    expected = float(calc_price(usage, model, provider_id=theirs).total_price)
    assert expected > 0
    assert loopkit.cost(call(provider, model, cache_read_tokens=400)) == pytest.approx(expected)


@pytest.mark.parametrize(
    "unknown",
    [
        call(model="no-such-model"),
        call(provider="acme"),
        call(provider="ollama", model="gpt-4.1"),
        call(model="whisper-1"),
        ModelCall(provider="openai", operation="chat", model="gpt-4.1"),
    ],
)
def test_what_is_not_known_has_no_cost(unknown: ModelCall) -> None:
    assert loopkit.cost(unknown) is None


def test_your_own_prices_go_first_and_the_last_word_counts(stored: MemorySink) -> None:
    loopkit.set_price("acme", "acme-1", input=1, output=10)
    loopkit.set_price("acme", "acme-1", input=2, output=10, cache_read=0.5)
    assert loopkit.cost(call("acme", "acme-1")) == pytest.approx((1000 * 2 + 100 * 10) / 1e6)
    assert loopkit.cost(call("acme", "acme-1", cache_read_tokens=400)) == pytest.approx(
        (600 * 2 + 400 * 0.5 + 100 * 10) / 1e6
    )
    loopkit.set_price("openai", "gpt-4.1", input=0, output=0)
    assert loopkit.cost(call()) == 0


def test_what_the_provider_said_goes_before_all(stored: MemorySink) -> None:
    loopkit.record_model_call(provider="openai", model="gpt-4.1", usage={"input_tokens": 5}, cost=0.25)
    (span,) = stored.spans()
    assert loopkit.cost(span) == 0.25


def test_figures_have_the_cost_of_a_task(stored: MemorySink) -> None:
    loopkit.set_price("acme", "acme-1", input=2, output=10)
    for _ in range(3):
        with loopkit.span("triage", task="triage"):
            loopkit.record_model_call(provider="acme", model="acme-1", usage={"input_tokens": 500_000})
    (row,) = loopkit.figures("triage")
    assert row.cost == pytest.approx(3.0)
    with loopkit.span("triage", task="triage"):
        loopkit.record_model_call(provider="acme", model="unheard-of", usage={"input_tokens": 1})
    (row,) = loopkit.figures("triage")
    assert row.cost is None


@pytest.mark.parametrize(
    "wrong", [{"input": -1, "output": 1}, {"input": 1, "output": float("nan")}, {"input": "1", "output": 1}]
)
def test_what_is_no_price_is_refused(wrong: Any, stored: MemorySink) -> None:
    with pytest.raises(InvalidInput, match="US dollars a million"):
        loopkit.set_price("acme", "acme-1", **wrong)


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**7))
def test_tokens_are_paid_once(fresh: int, read: int, written: int, made: int) -> None:
    usage = Usage(
        input_tokens=fresh + read + written, output_tokens=made, cache_read_tokens=read, cache_write_tokens=written
    )
    assert Price(input=3, output=5).of(usage) == pytest.approx(((fresh + read + written) * 3 + made * 5) / 1e6)
    one_each = Price(input=1, output=1, cache_read=1, cache_write=1)
    assert one_each.of(usage) == pytest.approx((fresh + read + written + made) / 1e6)
