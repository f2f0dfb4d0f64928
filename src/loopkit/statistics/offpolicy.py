"""What another policy would have earned, from the decisions of the one that was there and their probabilities.

Three estimates of the mean reward: inverse propensity scores (Horvitz and Thompson 1952), the same divided by the sum
of its weights (SNIPS: Swaminathan and Joachims 2015), and the doubly robust one (Dudik, Langford and Li 2011), which
is right where either the probabilities or the predictions are. Intervals are of the cluster-robust variance, as in
`loopkit.statistics.paired`: what one user got is one observation.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final

from loopkit.errors import InvalidInput
from loopkit.statistics.paired import effective_size
from loopkit.statistics.student import t_quantile

_SUM: Final = 1e-6
"""As far as probabilities that were added up may be off."""
FEWEST: Final = 100
"""The effective sample below which nothing is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """One decision that was made, and what the other policy makes of it."""

    reward: float
    propensity: float
    """The probability with which it was made: above 0."""
    target: float
    """The probability with which the other policy would have made it."""
    unit: Hashable = None
    """User or session; None where the decision stands for itself."""
    weight: float = 1.0
    """How many decisions like it it stands for."""
    predicted: float = 0.0
    """The reward that was to be expected of it, by somebody who hasn't seen this one."""
    expected: float = 0.0
    """The reward that is to be expected of the other policy, by the same."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean reward, with its 95 % interval or at another level."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OffPolicy:
    """What the other policy would have earned."""

    ips: Estimate
    snips: Estimate
    dr: Estimate
    logged: Estimate
    """What was earned by the one that was there."""
    draws: int
    effective: float
    """How many decisions of the other policy's own would tell as much (Kish 1965)."""
    clipped: int
    """Draws whose weight was larger than `clip`, and was taken as that."""
    clipped_share: float
    """Of all the weight what was cut off by it: so much of the other policy isn't seen, which biases the estimates."""
    mean_weight: float
    """1, but for chance, where what the other policy does has been tried: what is below 1 has not."""


def off_policy(draws: Sequence[Draw], *, clip: float | None = None, alpha: float = 0.05) -> OffPolicy:
    """The estimates of some draws. Raises `InvalidInput` for an effective sample under 100, and for probabilities that
    are none."""
    _check(draws, clip)
    weights = [each.weight * each.target / each.propensity for each in draws]
    most = math.inf if clip is None else clip
    ratios = [min(each.target / each.propensity, most) for each in draws]
    kept = [each.weight * ratio for each, ratio in zip(draws, ratios, strict=True)]
    effective = effective_size(kept)
    if effective < FEWEST:
        raise InvalidInput(
            f"{len(draws)} decisions tell as much of this policy as {effective:.0f} of its own would, and {FEWEST} are "
            "needed: what it does was hardly tried; log longer, or let the router explore more"
        )
    rewards, own = [each.reward for each in draws], [each.weight for each in draws]
    units = [number if each.unit is None else each.unit for number, each in enumerate(draws)]
    total = math.fsum(own)
    corrections = [
        each.expected + ratio * (each.reward - each.predicted) for each, ratio in zip(draws, ratios, strict=True)
    ]
    uncut = math.fsum(weights)
    return OffPolicy(
        ips=weighted_mean([ratio * reward for ratio, reward in zip(ratios, rewards, strict=True)], own, units, alpha),
        snips=weighted_mean(rewards, kept, units, alpha),
        dr=weighted_mean(corrections, own, units, alpha),
        logged=weighted_mean(rewards, own, units, alpha),
        draws=len(draws),
        effective=effective,
        clipped=sum(each.target / each.propensity > most for each in draws),
        clipped_share=1 - math.fsum(kept) / uncut if uncut else 0.0,
        mean_weight=uncut / total,
    )


def weighted_mean(
    values: Sequence[float], weights: Sequence[float], units: Sequence[Hashable], alpha: float = 0.05
) -> Estimate:
    """A weighted mean with its interval, of observations in units."""
    total = math.fsum(weights)
    value = math.fsum(weight * each for weight, each in zip(weights, values, strict=True)) / total
    sums: dict[Hashable, float] = defaultdict(float)
    for each, weight, unit in zip(values, weights, units, strict=True):
        sums[unit] += weight * (each - value)
    count = len(sums)
    if count < 2:
        return Estimate(value, -math.inf, math.inf)
    error = math.sqrt(count / (count - 1) * math.fsum(each * each for each in sums.values())) / total
    reach = t_quantile(1 - alpha / 2, count - 1) * error
    return Estimate(value, value - reach, value + reach)


def _check(draws: Sequence[Draw], clip: float | None) -> None:
    if clip is not None and not 1 <= clip < math.inf:
        raise InvalidInput(f"clip is {clip!r}: give the largest ratio of probabilities that counts, 1 or more")
    for each in draws:
        if not 0 < each.propensity <= 1 + _SUM:
            raise InvalidInput(f"a decision was made with probability {each.propensity!r}: it is above 0, at most 1")
        if not 0 <= each.target <= 1 + _SUM:
            raise InvalidInput(f"the other policy's probability is {each.target!r}: it is between 0 and 1")
        if not math.isfinite(each.reward):
            raise InvalidInput(f"a reward is {each.reward!r}: give numbers")
