"""Two variants on the same examples: the mean difference, its interval, and whether it could be chance.

Differences within one group (a user's, a session's examples) are not independent, so the group is the unit. The
p-value is that of the sign-flip permutation test over groups (exact up to 12 groups, 10,000 seeded flips above): it
needs no distribution at all. The interval holds the differences that the same test does not reject, so that verdict and
interval agree: its ends are quantiles of the means of random subsets (Hartigan 1969, "Using subsample values as typical
values"). What would have been detected goes by the cluster-robust variance of a mean (Liang and Zeger 1986, with the
small-sample factor G/(G-1) and t with G-1 degrees of freedom, where G counts groups).
"""

from __future__ import annotations

import functools
import math
import operator
import random
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from loopkit.errors import InvalidInput
from loopkit.statistics.student import t_quantile

_EXACT_GROUPS = 12
_FLIPS = 10_000


@dataclass(frozen=True, slots=True)
class PairedResult:
    """How much better the second is than the first, per example."""

    difference: float
    low: float
    high: float
    """The interval's ends, at the level that was asked for; infinite where so few groups can exclude nothing."""
    p_value: float
    """Two-sided."""
    examples: int
    groups: int
    detectable: float
    """The smallest true difference that this many examples would have shown 8 times in 10."""


def paired_difference(
    first: Sequence[float],
    second: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    *,
    alpha: float = 0.05,
) -> PairedResult:
    """Compare scores of the same examples, in the same order. Raises `InvalidInput` where they don't pair up."""
    if len(first) != len(second) or len(first) < 2:
        raise InvalidInput(
            f"{len(first)} and {len(second)} scores don't pair up: give two or more of each, in one order"
        )
    if groups is not None and len(groups) != len(first):
        raise InvalidInput(f"{len(groups)} groups for {len(first)} scores: give one group a score, or none")
    differences = [b - a for a, b in zip(first, second, strict=True)]
    n = len(differences)
    mean = math.fsum(differences) / n
    residuals = _group_sums([d - mean for d in differences], groups)
    count = len(residuals)
    if count < 2:
        return PairedResult(mean, -math.inf, math.inf, 1.0, n, count, math.inf)
    error = math.sqrt(count / (count - 1) * math.fsum(r * r for r in residuals)) / n
    detectable = (t_quantile(1 - alpha / 2, count - 1) + t_quantile(0.8, count - 1)) * error
    flips = _SignFlips(_group_sums(differences, groups), _group_sums([1.0] * n, groups))
    p_value = flips.p_value()
    low, high = flips.interval(alpha)
    if not any(residuals):
        # No two groups differ, so there is no variance to go by: what could still differ is bounded by how often
        # a difference of 1 may occur without having been seen in this many groups.
        detectable = 1 - alpha ** (1 / count)
        low, high = min(low, mean - detectable), max(high, mean + detectable)
        p_value = 1.0 if p_value <= alpha and low <= 0 <= high else p_value
    return PairedResult(
        difference=mean, low=low, high=high, p_value=p_value, examples=n, groups=count, detectable=detectable
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values for several comparisons at once, in the order given (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def holm_level(p_values: Sequence[float], index: int, alpha: float) -> float:
    """The level of the Holm step that decides this comparison: an interval at it agrees with the adjusted p-value."""
    ordered = sorted(p_values)
    steps = len(ordered)
    first_kept = next((rank for rank, p in enumerate(ordered) if p * (steps - rank) > alpha), steps - 1)
    rank = sorted(range(steps), key=lambda other: p_values[other]).index(index)
    return alpha / (steps - min(rank, first_kept))


def wilson(successes: float, n: float, *, alpha: float = 0.05) -> tuple[float, float]:
    """The interval of a rate (Wilson 1927); (0, 1) where there is nothing to count."""
    from statistics import NormalDist

    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(1 - alpha / 2)
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    reach = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(centre - reach, 0.0), min(centre + reach, 1.0)


def mean_interval(values: Sequence[float], *, alpha: float = 0.05) -> tuple[float, float]:
    """The interval of a mean: Wilson's for scores between 0 and 1, Student's for others; without limits for none."""
    if all(0 <= value <= 1 for value in values):
        return wilson(sum(values), len(values), alpha=alpha)
    if len(values) < 2:
        return -math.inf, math.inf
    mean = math.fsum(values) / len(values)
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))
    reach = t_quantile(1 - alpha / 2, len(values) - 1) * spread
    return mean - reach, mean + reach


def quantile(values: Sequence[float], q: float, weights: Sequence[float] | None = None) -> float:
    """The q-quantile, interpolated as numpy does by default; NaN where there are no values.

    A value of weight w stands for w values like it; weights may be fractions.
    """
    if not values:
        return math.nan
    pairs = sorted(zip(values, weights or [1.0] * len(values), strict=True))
    position = (sum(weight for _, weight in pairs) - 1) * q
    below = 0.0  # how many values stand before this one
    for (low, weight), (high, _) in pairwise(pairs):
        if position <= below + weight - 1:
            return low
        if position < below + weight:
            return low + (high - low) * (position - below - weight + 1)
        below += weight
    return pairs[-1][0]


def effective_size(weights: Sequence[float]) -> float:
    """How many equally weighted values would tell as much (Kish 1965): between 1 and their number; 0 for none."""
    squares = sum(weight * weight for weight in weights)
    return sum(weights) ** 2 / squares if squares else 0.0


def _group_sums(values: Sequence[float], groups: Sequence[Hashable] | None) -> list[float]:
    if groups is None:
        return list(values)
    sums: dict[Hashable, float] = defaultdict(float)
    for value, group in zip(values, groups, strict=True):
        sums[group] += value
    return list(sums.values())


class _SignFlips:
    """The signs of whole groups flipped at random: all the ways for few groups, a seeded draw of them for many."""

    def __init__(self, sums: Sequence[float], sizes: Sequence[float]) -> None:
        self._sum, self._size = math.fsum(sums), math.fsum(sizes)
        self._exact = len(sums) <= _EXACT_GROUPS
        # Sum and size of the groups whose sign is flipped, for each draw.
        if self._exact:
            self._chosen = list(zip(_subset_sums(sums), _subset_sums(sizes), strict=True))
        else:
            self._chosen = list(zip(_drawn_sums(sums), _drawn_sums(sizes), strict=True))

    def p_value(self) -> float:
        """How often random signs give a sum at least as far from zero; two-sided, for a difference of zero."""
        seen = abs(self._sum) - 1e-9
        hits = sum(abs(self._sum - 2 * flipped) >= seen for flipped, _ in self._chosen)
        return hits / len(self._chosen) if self._exact else (hits + 1) / (len(self._chosen) + 1)

    def interval(self, alpha: float) -> tuple[float, float]:
        """The differences that the test would not reject.

        Random signs bring the sum at least as far out as seen exactly while the difference lies between the mean of
        the flipped groups and that of the others.
        """
        means = [
            (
                flipped / size if size else math.inf,
                (self._sum - flipped) / (self._size - size) if size < self._size else math.inf,
            )
            for flipped, size in self._chosen
        ]
        lows = sorted(-math.inf if math.inf in pair else min(pair) for pair in means)
        highs = sorted((max(pair) for pair in means), reverse=True)
        kept = math.floor(alpha * (len(means) + (not self._exact)) + 1e-9) + self._exact
        return (lows[kept - 1], highs[kept - 1]) if kept else (-math.inf, math.inf)


def _drawn_sums(values: Sequence[float]) -> list[float]:
    """The sums of `_FLIPS` seeded random subsets; the same subsets for as many values."""
    tables = [_subset_sums(values[at : at + 8], 256) for at in range(0, len(values), 8)]
    return [sum(map(operator.getitem, tables, draw)) for draw in _draws(len(tables))]


@functools.lru_cache(maxsize=4)
def _draws(width: int) -> list[bytes]:
    """Random subsets of eight times `width` values, a bit each."""
    generator = random.Random(0)
    return [generator.getrandbits(8 * width).to_bytes(width, "big") for _ in range(_FLIPS)]


def _subset_sums(values: Sequence[float], length: int = 0) -> list[float]:
    """The sum of every subset, by its bits; repeated to `length`, so that eight signs are drawn in one look-up."""
    sums = [0.0]
    for value in values:
        sums += [known + value for known in sums]
    return sums * (length // len(sums) or 1)
