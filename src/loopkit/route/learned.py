"""Policies that read what a call says: by what variants were good at, or by what it is like."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from loopkit.errors import InvalidInput
from loopkit.prompts.nearest import NearestIndex
from loopkit.route.fitting import pick
from loopkit.route.policy import Ask, Odds, checked_share, explored
from loopkit.route.quality import UNTIL, Quality

Embedder: TypeAlias = Callable[[Sequence[str]], Sequence[Sequence[float]]]
"""From texts to vectors, one a text."""


@dataclass(frozen=True, slots=True)
class Learned:
    """The variant that is worth most: its probability of a good answer, less what its cost is worth."""

    quality: Quality
    prices: tuple[tuple[float, float], ...]
    """Each with its share of the calls."""
    explore: float

    @property
    def until(self) -> int:
        """When the last call began that it was fitted to, nanoseconds since the epoch."""
        return int(self.quality.about.get(UNTIL, 0))

    def odds(self, ask: Ask) -> Odds:
        """See `Policy.odds`. Of the variants that are served only those count that it was fitted to."""
        known = ask.serving.variants
        told = self.quality.probabilities(ask.text(self.quality.fields))
        found = {name: probability for name, probability in told.items() if name in known}
        if not found:
            raise InvalidInput(f"the router was fitted to {sorted(told)}, and {sorted(known)} are served: fit it anew")
        shares: dict[str, float] = {}
        for price, share in self.prices:
            picked = pick(found, self.quality.costs, price)
            shares[picked] = shares.get(picked, 0.0) + share
        among = [name for name in found if name in ask.candidates] or list(found)
        best = max(shares, key=shares.__getitem__)
        return Odds(explored(shares, among, self.explore), "learned", best)


def learned(
    source: Quality | str | os.PathLike[str],
    *,
    strong: float | None = None,
    cost: float | None = None,
    quality: float | None = None,
    explore: float = 0.05,
) -> Learned:
    """The policy of a file that `loopkit router fit` has made, at one target: `strong` is the share of calls that the
    costlier of two variants gets; `cost` what a call may cost on average, in the file's unit; `quality` the mean reward
    that calls are to have, as cheaply as that goes. What the target comes to was measured on outcomes held out.

        router = loopkit.Router("triage", default=small, policy=policies.learned("triage.router", strong=0.3))

    `explore` is the share of calls that all variants get alike, so that the next fit can tell what it would have been
    like. It is part of `strong` and `cost`, and takes from `quality`.
    """
    found = source if isinstance(source, Quality) else Quality.load(source)
    tried = checked_share("explore", explore)
    mean, least = sum(found.costs.values()) / len(found.costs), min(found.costs.values())
    if strong is not None:
        strong = _without_exploring("strong", strong, tried, mean=0.5, least=0.0)
    if cost is not None:
        cost = _without_exploring("cost", cost, tried, mean=mean, least=least)
    return Learned(found, found.prices_for(strong=strong, cost=cost, quality=quality), tried)


def _without_exploring(name: str, target: Any, explore: float, *, mean: float, least: float) -> float:
    """What the calls that aren't explored may come to."""
    if not isinstance(target, (int, float)) or isinstance(target, bool) or explore == 1:
        return target  # type: ignore[no-any-return]  # what it is worth is seen to by `prices_for`
    left = (target - explore * mean) / (1 - explore)
    if left < least <= target:
        told = f"explore={explore:g} alone brings it to {explore * mean + (1 - explore) * least:.4g}"
        raise InvalidInput(f"{name}={target!r} can't be had: {told}; explore less")
    return min(left, 1.0) if name == "strong" and target <= 1 else left


@dataclass(frozen=True, slots=True)
class Semantic:
    """The variant whose examples a call is most like."""

    routes: Mapping[str, Sequence[str]]
    least: float
    otherwise: str | None
    nearest: Callable[[str], tuple[str, float]]
    """From a text to the variant of its nearest example, and how near that is."""
    fields: tuple[str, ...]

    def odds(self, ask: Ask) -> Odds:
        """See `Policy.odds`."""
        variant, similarity = self.nearest(ask.text(self.fields))
        if similarity >= self.least and variant in ask.serving.variants:
            return Odds({variant: 1.0}, f"like its examples ({similarity:.2f})")
        if self.otherwise is not None and self.otherwise in ask.serving.variants:
            return Odds({self.otherwise: 1.0}, "like no example")
        return Odds(ask.serving.shares, "like no example")


def semantic(
    routes: Mapping[str, Sequence[str]],
    *,
    least: float = 0.15,
    otherwise: str | None = None,
    fields: Sequence[str] = (),
    embedder: Embedder | None = None,
) -> Semantic:
    """By examples: a call goes to the variant that has the one it is most like, by cosine of TF-IDF over words and word
    pairs, or of an `embedder`'s vectors (which is asked at each call, and waited for). Less like than `least`, it goes
    to `otherwise`, else by the registry's shares.

        policies.semantic({"refunds": ["I want my money back"], "general": ["where are you?", "are you open?"]})
    """
    if not isinstance(routes, Mapping) or not routes or not all(routes.values()):
        raise InvalidInput(f"routes are {routes!r}: give each variant's examples, one or more")
    texts = [(name, text) for name, examples in routes.items() for text in _texts(name, examples)]
    if not isinstance(least, (int, float)) or not -1 <= least <= 1:
        raise InvalidInput(f"least is {least!r}: give a cosine, such as 0.15")
    nearest = _by_words(texts) if embedder is None else _by_vectors(texts, embedder)
    return Semantic(dict(routes), least, otherwise, nearest, tuple(fields))


def _texts(name: str, examples: Any) -> Sequence[str]:
    if isinstance(examples, str) or not all(isinstance(each, str) for each in examples):
        raise InvalidInput(f"the examples of {name!r} are {examples!r}: give a list of texts")
    texts: Sequence[str] = examples
    return texts


def _by_words(texts: Sequence[tuple[str, str]]) -> Callable[[str], tuple[str, float]]:
    index = NearestIndex([text for _, text in texts])

    def nearest(text: str) -> tuple[str, float]:
        found = index.nearest(text, 1)
        return (texts[found[0][0]][0], found[0][1]) if found else ("", -1.0)

    return nearest


def _by_vectors(texts: Sequence[tuple[str, str]], embedder: Embedder) -> Callable[[str], tuple[str, float]]:
    vectors = [_unit(vector) for vector in embedder([text for _, text in texts])]

    def nearest(text: str) -> tuple[str, float]:
        own = _unit(embedder([text])[0])
        near = [sum(a * b for a, b in zip(own, vector, strict=True)) for vector in vectors]
        at = max(range(len(near)), key=near.__getitem__)
        return texts[at][0], near[at]

    return nearest


def _unit(vector: Sequence[float]) -> list[float]:
    length = math.sqrt(math.fsum(value * value for value in vector)) or 1.0
    return [value / length for value in vector]
