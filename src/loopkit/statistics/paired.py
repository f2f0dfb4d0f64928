"""Two variants on the same examples: the mean difference, its interval, and whether it could be chance.

Differences within one group (a user's, a session's examples) are not independent, so the group is the unit: the
variance is the cluster-robust one of a mean (Liang and Zeger 1986, with the small-sample factor G/(G-1) and
t with G-1 degrees of freedom, where G counts groups). The p-value is that of the sign-flip permutation test over
groups (exact up to 12 groups, 10,000 seeded flips above): it needs no distribution at all.
"""

from __future__ import annotations

import itertools
import math
import operator
import random
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

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
    """The interval's ends, at the level that was asked for."""
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
    reach = t_quantile(1 - alpha / 2, count - 1) * error
    detectable = (t_quantile(1 - alpha / 2, count - 1) + t_quantile(0.8, count - 1)) * error
    if not any(residuals):
        # No two groups differ, so there is no variance to go by: what could still differ is bounded by how often
        # a difference of 1 may occur without having been seen in this many groups.
        reach = detectable = 1 - alpha ** (1 / count)
    return PairedResult(
        difference=mean,
        low=mean - reach,
        high=mean + reach,
        p_value=_sign_flip(_group_sums(differences, groups)),
        examples=n,
        groups=count,
        detectable=detectable,
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


def wilson(successes: float, n: int, *, alpha: float = 0.05) -> tuple[float, float]:
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


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile, interpolated as numpy does by default; NaN where there are no values."""
    if not values:
        return math.nan
    ordered = sorted(values)
    position = (len(ordered) - 1) * q
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def _group_sums(values: Sequence[float], groups: Sequence[Hashable] | None) -> list[float]:
    if groups is None:
        return list(values)
    sums: dict[Hashable, float] = defaultdict(float)
    for value, group in zip(values, groups, strict=True):
        sums[group] += value
    return list(sums.values())


def _sign_flip(sums: Sequence[float]) -> float:
    """How often random signs give a sum at least as far from zero."""
    moving = [abs(s) for s in sums if s]
    seen = abs(math.fsum(sums)) - 1e-12
    if len(moving) <= _EXACT_GROUPS:
        flips = itertools.product((1, -1), repeat=len(moving))
        hits = [abs(sum(map(float.__mul__, map(float, signs), moving))) >= seen for signs in flips]
        return sum(hits) / len(hits)
    generator = random.Random(0)
    total = sum(moving)
    tables = [_subset_sums(moving[start : start + 8]) for start in range(0, len(moving), 8)]
    hits_above = 0
    for _ in range(_FLIPS):
        drawn = generator.getrandbits(8 * len(tables)).to_bytes(len(tables), "big")
        # the sum of random signs is the total less twice the flipped ones
        hits_above += abs(total - 2 * sum(map(operator.getitem, tables, drawn))) >= seen
    return (hits_above + 1) / (_FLIPS + 1)


def _subset_sums(values: Sequence[float]) -> list[float]:
    """The sum of every subset of up to eight values, by its bits: eight signs are drawn in one look-up."""
    sums = [0.0]
    for value in values:
        sums += [known + value for known in sums]
    return sums * (256 // len(sums))
