"""What a model call cost: as the provider said, else by your own prices, else by those of the package genai-prices.

A model that none of them knows has no cost. Those prices cost a second to load, which happens when they are first
asked for.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from loopkit.types import ModelCall, Usage

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


def cost_of(call: ModelCall, own: Mapping[tuple[str, str], Price]) -> float | None:
    """In US dollars; `own` are prices of yours, by provider and model."""
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
    genai_prices = load_prices()
    if genai_prices is None:
        return None
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


@functools.cache
def load_prices() -> Any:
    """The package genai-prices, where it is installed."""
    return None if find_spec("genai_prices") is None else importlib.import_module("genai_prices")
