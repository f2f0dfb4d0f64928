"""What a model call cost: as the provider said, else by your own prices, else by those of the package genai-prices.

A model that none of them knows has no cost. Costs are worked out when somebody asks, at the desk: prices cost a second
to load, and can be put right afterwards.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from loopkit.errors import InvalidInput, NotFound
from loopkit.store.locate import open_store
from loopkit.store.sqlite import Store
from loopkit.types import ModelCall, Span, Usage

_KIND = "price"
_MILLION = 1_000_000
_PROVIDERS = {
    "azure.ai.openai": "azure", "azure.ai.inference": "azure", "gcp.gemini": "google", "gcp.vertex_ai": "google",
    "gcp.gen_ai": "google", "aws.bedrock": "aws", "mistral_ai": "mistral", "x_ai": "x-ai", "moonshot_ai": "moonshotai",
}  # fmt: skip
"""genai-prices' names, where they are others than OpenTelemetry's."""
_FREE = frozenset(("ollama", "llama_cpp", "vllm"))
"""Nobody sends a bill for these, but somebody pays: no cost is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """US dollars a million tokens. What isn't given costs as much as other tokens of its side."""

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None

    def of(self, usage: Usage) -> float:
        """What so many tokens cost."""
        read, written = usage.cache_read_tokens or 0, usage.cache_write_tokens or 0
        fresh = max((usage.input_tokens or 0) - read - written, 0)
        dollars = (
            fresh * self.input
            + read * (self.input if self.cache_read is None else self.cache_read)
            + written * (self.input if self.cache_write is None else self.cache_write)
            + (usage.output_tokens or 0) * self.output
        )
        return dollars / _MILLION


def cost(span: Span | ModelCall, *, store: Store | None = None) -> float | None:
    """What a model call cost, in US dollars; None where it used nothing that we know of, or no price is known.

    Prices are the provider's own word, else yours (`set_price`), else those of genai-prices, where that is installed:
    pip install 'loopkit-sdk[prices]'.
    """
    call = span.model_call if isinstance(span, Span) else span
    return None if call is None else _cost(call, prices(store))


def set_price(
    provider: str,
    model: str,
    *,
    input: float,
    output: float,
    cache_read: float | None = None,
    cache_write: float | None = None,
    store: Store | None = None,
) -> None:
    """Say what a model's tokens cost, in US dollars a million: for models of your own, or where you pay less.

    It holds for all calls in the store, earlier ones too; the last word counts. Raises `InvalidInput` for what is no
    price.
    """
    for name, value in (("provider", provider), ("model", model)):
        if not isinstance(value, str) or not value:
            raise InvalidInput(f"the price's {name} is {value!r}: give a non-empty string")
    given = {"input": input, "output": output, "cache_read": cache_read, "cache_write": cache_write}
    for name, dollars in given.items():
        is_left_out = dollars is None and name.startswith("cache")
        is_number = isinstance(dollars, (int, float)) and not isinstance(dollars, bool)
        if not is_left_out and not (is_number and 0 <= float(dollars or 0) < math.inf):
            raise InvalidInput(f"the price's {name} is {dollars!r}: give US dollars a million tokens, 0 or more")
    (store or open_store()).put(_KIND, f"{provider}/{model}", {"provider": provider, "model": model, **given})


def prices(store: Store | None = None) -> dict[tuple[str, str], Price]:
    """Your own, by provider and model."""
    if store is None:
        try:
            store = open_store()
        except NotFound:
            return {}
    found: dict[tuple[str, str], Price] = {}
    for given in store.documents(_KIND):
        place = given.pop("provider"), given.pop("model")
        found[place] = Price(**given)
    return found


def total_cost(spans: list[tuple[ModelCall, float]], own: Mapping[tuple[str, str], Price]) -> float | None:
    """What these cost together, each as often as its weight says; None where the price of one isn't known."""
    total = 0.0
    known = False
    for call, weight in spans:
        if call.usage == Usage() and call.cost is None:
            continue
        one = _cost(call, own)
        if one is None:
            return None
        total += one * weight
        known = True
    return total if known else None


def _cost(call: ModelCall, own: Mapping[tuple[str, str], Price]) -> float | None:
    if call.cost is not None:
        return call.cost
    if call.usage.input_tokens is None and call.usage.output_tokens is None:
        return None
    models = tuple(dict.fromkeys(model for model in (call.model, call.response_model) if model))
    for model in models:
        if (call.provider, model) in own:
            return own[call.provider, model].of(call.usage)
    if call.provider in _FREE:
        return None
    usage = {name: getattr(call.usage, name) for name in Usage.__slots__}
    counted = tuple((name, count) for name, count in usage.items() if count is not None)
    kept = (_kept(call.provider, model, counted) for model in reversed(models))
    return next((found for found in kept if found is not None), None)


@functools.lru_cache(maxsize=4096)
def _kept(provider: str, model: str, usage: tuple[tuple[str, int], ...]) -> float | None:
    """By genai-prices; a price of nothing for a model that isn't billed by tokens is no price."""
    if find_spec("genai_prices") is None:
        return None
    import genai_prices

    counted = dict(usage)
    told: dict[str, Any] = {
        "input_tokens": counted.get("input_tokens"),
        "output_tokens": counted.get("output_tokens"),
        "cache_read_tokens": counted.get("cache_read_tokens"),
        "cache_write_tokens": counted.get("cache_write_tokens"),
        "input_audio_tokens": counted.get("audio_input_tokens"),
        "output_audio_tokens": counted.get("audio_output_tokens"),
    }
    try:
        made = genai_prices.calc_price(
            genai_prices.Usage(**{name: count for name, count in told.items() if count}),
            model,
            provider_id=_PROVIDERS.get(provider, provider),
        )
    except (LookupError, ValueError):
        return None
    if not made.total_price and made.model_price.input_mtok is None:
        return None
    return float(made.total_price)
