"""Fitting the heads of a learned router, and trying them on outcomes that they were not fitted to. Pure Python.

A head is a logistic regression with a ridge, fitted by coordinate ascent on its dual (Yu, Huang and Lin 2011, "Dual
coordinate descent methods for logistic regression and maximum entropy models"): each row's part in the weights is its
own error, so one pass over the rows does what dozens of gradient steps do.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from zlib import crc32

from loopkit.errors import InvalidInput
from loopkit.route.quality import BUCKETS, Head, Point, Quality, buckets_of
from loopkit.statistics.logistic import logistic

_TRUST: Final = 1.0
"""How much one row may weigh against the ridge (liblinear's C)."""
_PASSES: Final = 20
_STILL: Final = 0.005
"""The fit ends when a pass changes rows by less than this part of what they may weigh, on average."""
_PARTS: Final = 3
_POINTS: Final = 100
FEWEST: Final = 50
"""Outcomes that each variant must have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One text, and how good the answers of some variants to it were."""

    text: str
    rewards: Mapping[str, float]
    """From 0 to 1, by variant."""
    propensity: float | None = 1.0
    """The probability with which a router chose the variant whose reward is known; 1 where all are known, None where
    nobody can say."""
    group: str | None = None
    """User or session: held out together."""


def fit_quality(
    cases: Sequence[Case],
    costs: Mapping[str, float],
    *,
    fields: Sequence[str] = (),
    about: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Quality:
    """A learned router from outcomes: about 10 seconds for 7,000 texts of two variants.

    The curve, and what makes probabilities keep what they say (Platt 1999), come from heads that were fitted to the
    other two of three parts; a group, and the same text, is never in two parts. Where only the chosen variant's reward
    is known, a point's quality is the doubly robust estimate (Dudik, Langford and Li 2011). Raises `InvalidInput` for
    too few outcomes, and for costs that aren't numbers.
    """
    _check(cases, costs)
    names = sorted(costs, key=lambda name: (costs[name], name))
    rows = [buckets_of(case.text) for case in cases]
    parts = _parts(cases, seed)
    rewards = {name: [case.rewards.get(name) for case in cases] for name in names}
    fitted = {name: _fitted(rows, rewards[name], parts, seed) for name in names}
    held_out = {name: probabilities for name, (_, probabilities) in fitted.items()}
    return Quality(
        heads={name: head for name, (head, _) in fitted.items()},
        costs={name: float(costs[name]) for name in names},
        curve=curve_of(cases, held_out, costs),
        fields=tuple(fields),
        about={
            **(about or {}),
            "outcomes": {name: sum(each is not None for each in rewards[name]) for name in names},
            "good": {name: _mean([each for each in rewards[name] if each is not None]) for name in names},
            "off": {name: _off(held_out[name], rewards[name]) for name in names},
        },
    )


def _fitted(
    rows: Sequence[Sequence[int]], rewards: Sequence[float | None], parts: Sequence[int], seed: int
) -> tuple[Head, list[float]]:
    """A variant's head, and each row's probability by one that its part had no part in."""
    known = [(at, reward) for at, reward in enumerate(rewards) if reward is not None]
    logits = [0.0] * len(rows)
    for part in range(_PARTS):
        others = [(at, reward) for at, reward in known if parts[at] != part]
        weights, bias = fit_head([rows[at] for at, _ in others], [reward for _, reward in others], seed=seed)
        for at, own in enumerate(parts):
            if own == part:
                logits[at] = bias + logit_of(weights, rows[at])
    slope, shift = _calibrated([logits[at] for at, _ in known], [reward for _, reward in known])
    weights, bias = fit_head([rows[at] for at, _ in known], [reward for _, reward in known], seed=seed)
    head = _head([slope * weight for weight in weights], slope * bias + shift)
    return head, [logistic(slope * logit + shift) for logit in logits]


def fit_head(rows: Sequence[Sequence[int]], labels: Sequence[float], *, seed: int = 0) -> tuple[list[float], float]:
    """Weights by bucket and a bias for labels from 0 to 1. A row's values are one over the root of its length.

    Each row's part in the weights is `_TRUST * (label - probability)`; a step sets it so that this holds for the row,
    which is one Newton search in one unknown: the row's own logit.
    """
    base = (math.fsum(labels) + 1) / (len(labels) + 2)
    prior = math.log(base / (1 - base))
    weights, bias = [0.0] * BUCKETS, 0.0
    part = [0.0] * len(rows)
    order, draw = list(range(len(rows))), random.Random(seed)
    for _ in range(_PASSES):
        draw.shuffle(order)
        moved = 0.0
        for at in order:
            row = rows[at]
            scale = 1 / math.sqrt(len(row))
            # the square of a row, with its one for the bias, is 2
            others = prior + bias + scale * sum(map(weights.__getitem__, row)) - 2 * part[at]
            own = _TRUST * (labels[at] - logistic(_settled(others, labels[at])))
            step = own - part[at]
            part[at] = own
            moved += abs(step)
            bias += step
            step *= scale
            for bucket in row:
                weights[bucket] += step
        if moved <= _STILL * _TRUST * len(rows):
            break
    return weights, prior + bias


def curve_of(
    cases: Sequence[Case], held_out: Mapping[str, Sequence[float]], costs: Mapping[str, float]
) -> tuple[Point, ...]:
    """What each price of cost comes to, by falling cost. `held_out` are probabilities by variant, a case each."""
    names = list(held_out)
    cheapest = min(names, key=lambda name: (costs[name], name))
    worth = sorted(
        gain / (costs[name] - costs[cheapest])
        for name in names
        if costs[name] > costs[cheapest]
        for own, least in zip(held_out[name], held_out[cheapest], strict=True)
        if (gain := own - least) > 0
    )
    step = max(len(worth) / _POINTS, 1.0)
    prices = [0.0, *(worth[int(number * step)] for number in range(int(len(worth) / step)))]
    prices.append((worth[-1] if worth else 0.0) * 1.001 + 1e-9)
    probabilities = [dict(zip(names, each, strict=True)) for each in zip(*held_out.values(), strict=True)]
    points = [_point(price, cases, probabilities, costs) for price in dict.fromkeys(prices)]
    return tuple(sorted(points, key=lambda point: (-point.cost, point.price)))


def pick(probabilities: Mapping[str, float], costs: Mapping[str, float], price: float) -> str:
    """The variant that is worth most; of equals the cheaper, then by name."""
    return min(probabilities, key=lambda name: (price * costs[name] - probabilities[name], costs[name], name))


def _point(
    price: float, cases: Sequence[Case], probabilities: Sequence[Mapping[str, float]], costs: Mapping[str, float]
) -> Point:
    cost = quality = 0.0
    for case, odds in zip(cases, probabilities, strict=True):
        name = pick(odds, costs, price)
        cost += costs[name]
        quality += odds[name]
        reward = case.rewards.get(name)
        if reward is not None and case.propensity is not None:
            quality += (reward - odds[name]) / case.propensity
    return Point(price, cost / len(cases), quality / len(cases))


def _settled(others: float, label: float) -> float:
    """The logit `t` with `t = others + 2 * _TRUST * (label - logistic(t))`: Newton's steps on a rising function."""
    logit, pull = others, 2 * _TRUST
    for _ in range(5):
        odds = logistic(logit)
        off = logit - others - pull * (label - odds)
        logit -= off / (1 + pull * odds * (1 - odds))
        if abs(off) < 1e-4:
            break
    return logit


def _calibrated(logits: Sequence[float], labels: Sequence[float]) -> tuple[float, float]:
    """Slope and shift after which probabilities keep what they say (Platt 1999), by Newton's steps."""
    slope, shift = 1.0, 0.0
    for _ in range(25):
        gradient = [0.0, 0.0]
        curve = [1e-3, 0.0, 1e-3]
        for logit, label in zip(logits, labels, strict=True):
            odds = logistic(slope * logit + shift)
            error, weight = odds - label, odds * (1 - odds)
            gradient[0] += error * logit
            gradient[1] += error
            curve[0] += weight * logit * logit
            curve[1] += weight * logit
            curve[2] += weight
        room = curve[0] * curve[2] - curve[1] ** 2
        down = (gradient[0] * curve[2] - gradient[1] * curve[1]) / room
        across = (gradient[1] * curve[0] - gradient[0] * curve[1]) / room
        slope, shift = slope - down, shift - across
        if abs(down) + abs(across) < 1e-6:
            break
    # heads that know nothing may come out turned round: then the base rate is all there is to say
    return (slope, shift) if slope > 0 else (0.0, _log_odds(_mean(labels)))


def _head(weights: Sequence[float], bias: float) -> Head:
    scale = max(map(abs, weights)) / 127 or 1.0
    return Head(bytes(round(weight / scale) + 128 for weight in weights), scale, bias)


def logit_of(weights: Sequence[float], row: Sequence[int]) -> float:
    """What the weights come to for a row, without the bias."""
    return sum(map(weights.__getitem__, row)) / math.sqrt(len(row))


def _parts(cases: Sequence[Case], seed: int) -> list[int]:
    """A part for each case; cases of one group are in one, and so are cases of one text."""
    above: dict[str, str] = {}

    def top(key: str) -> str:
        while above.setdefault(key, key) != key:
            above[key] = key = above[above[key]]
        return key

    for case in cases:
        if case.group is not None:
            above[top(f"text {case.text}")] = top(f"group {case.group}")
    tops = [top(f"text {case.text}") for case in cases]
    return [crc32(f"{seed} {key}".encode("utf-8", "surrogatepass")) % _PARTS for key in tops]


def _off(probabilities: Sequence[float], rewards: Sequence[float | None]) -> float:
    """How far probabilities are from what came of them, on average over ten bins of equal size (the expected
    calibration error)."""
    told = sorted((p, reward) for p, reward in zip(probabilities, rewards, strict=True) if reward is not None)
    size = math.ceil(len(told) / 10)
    bins = [told[at : at + size] for at in range(0, len(told), size)]
    return math.fsum(abs(math.fsum(p - reward for p, reward in each)) for each in bins) / len(told)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _log_odds(rate: float) -> float:
    kept = min(max(rate, 1e-6), 1 - 1e-6)
    return math.log(kept / (1 - kept))


def _check(cases: Sequence[Case], costs: Mapping[str, float]) -> None:
    written = (case.propensity for case in cases if case.propensity is not None)
    odd = next((each for each in written if not 0 < each <= 1), None)
    if odd is not None:
        raise InvalidInput(f"a propensity is {odd!r}: it is a probability above 0, or None where nobody knows it")
    bad = {name: cost for name, cost in costs.items() if not isinstance(cost, (int, float)) or not 0 <= cost < math.inf}
    if len(costs) < 2 or bad:
        raise InvalidInput(f"costs are {dict(costs)!r}: give two variants or more, each with a number of at least 0")
    for name in costs:
        known = [case.rewards[name] for case in cases if name in case.rewards]
        if len(known) < FEWEST:
            raise InvalidInput(f"variant {name!r} has {len(known)} outcomes that are known: {FEWEST} are needed")
        wrong = next((reward for reward in known if not 0 <= reward <= 1), None)
        if wrong is not None:
            raise InvalidInput(f"a reward of variant {name!r} is {wrong!r}: rewards are from 0 to 1")
