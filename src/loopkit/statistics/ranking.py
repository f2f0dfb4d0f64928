"""How well a score tells the good from the bad: the area under the ROC curve, with weights and with groups."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from loopkit.statistics.paired import effective_size, wilson
from loopkit.statistics.student import t_quantile


@dataclass(frozen=True, slots=True)
class Area:
    """The probability that a good one has the higher score, ties counting half."""

    value: float
    """0.5 where the score says nothing; NaN without one of each."""
    low: float
    high: float


def area(
    scores: Sequence[float],
    good: Sequence[bool],
    *,
    weights: Sequence[float] | None = None,
    groups: Sequence[Hashable] | None = None,
    alpha: float = 0.05,
) -> Area:
    """The area with its interval.

    The variance is that of the structural components (DeLong et al. 1988), summed by group where values of one group (a
    user's) may hang together (Obuchowski 1997); the interval is Student's on the logit. Where there is no variance to
    be seen, as when all good ones are above all bad ones, it is Wilson's, of as many as there are of the rarer side.
    """
    n = len(scores)
    weights = [1.0] * n if weights is None else weights
    groups = range(n) if groups is None else groups
    sides: dict[bool, list[int]] = {True: [], False: []}
    for index in range(n):
        sides[good[index]].append(index)
    total = {side: math.fsum(weights[i] for i in found) for side, found in sides.items()}
    if not total[True] or not total[False]:
        return Area(math.nan, 0.0, 1.0)
    below = {side: _Below(sorted((scores[i], weights[i]) for i in found)) for side, found in sides.items()}
    wins = {i: below[False](scores[i]) for i in sides[True]}  # the part of the bad ones that a good one is above
    wins |= {i: 1 - below[True](scores[i]) for i in sides[False]}  # the part of the good ones that are above a bad one
    value = math.fsum(weights[i] * wins[i] for i in sides[True]) / total[True]
    influence: dict[Hashable, float] = defaultdict(float)
    for i in range(n):
        influence[groups[i]] += weights[i] * (wins[i] - value) / total[good[i]]
    count = len(influence)
    variance = math.fsum(each * each for each in influence.values()) * count / max(count - 1, 1)
    if variance < 1e-12 or not 0 < value < 1 or count < 3:
        rarer = min(effective_size(_by_group(found, weights, groups)) for found in sides.values())
        return Area(value, *wilson(value * rarer, rarer, alpha=alpha))
    logit = math.log(value / (1 - value))
    reach = t_quantile(1 - alpha / 2, count - 1) * math.sqrt(variance) / (value * (1 - value))
    return Area(value, _of_logit(logit - reach), _of_logit(logit + reach))


def _by_group(side: Sequence[int], weights: Sequence[float], groups: Sequence[Hashable]) -> list[float]:
    found: dict[Hashable, float] = defaultdict(float)
    for index in side:
        found[groups[index]] += weights[index]
    return list(found.values())


class _Below:
    """What part of these weighted scores is below a score, those at it counting half."""

    def __init__(self, ordered: list[tuple[float, float]]) -> None:
        self._scores = [score for score, _ in ordered]
        self._sums = list(accumulate((weight for _, weight in ordered), initial=0.0))

    def __call__(self, score: float) -> float:
        left, right = bisect_left(self._scores, score), bisect_right(self._scores, score)
        return (self._sums[left] + self._sums[right]) / 2 / self._sums[-1]


def _of_logit(logit: float) -> float:
    return 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0
