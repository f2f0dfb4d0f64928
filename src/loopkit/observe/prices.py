"""What recorded calls cost, by prices that can be put right afterwards."""

from __future__ import annotations

import math
from collections.abc import Mapping

from loopkit._prices import Price, cost_of
from loopkit.errors import InvalidInput, NotFound
from loopkit.store.locate import open_store
from loopkit.store.sqlite import Store
from loopkit.types import ModelCall, Span, Usage

_KIND = "price"


def cost(span: Span | ModelCall, *, store: Store | None = None) -> float | None:
    """What a model call cost, in US dollars; None where it used nothing that we know of, or no price is known.

    Prices are the provider's own word, else yours (`set_price`), else those of genai-prices, where that is installed:
    pip install 'loopkit-sdk[prices]'.
    """
    call = span.model_call if isinstance(span, Span) else span
    return None if call is None else cost_of(call, prices(store))


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
        one = cost_of(call, own)
        if one is None:
            return None
        total += one * weight
        known = True
    return total if known else None
