"""Tests that may be looked at after every call: a candidate that is not better is promoted at most alpha of the time.

All of them are bets (Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting";
for randomised arms, Waudby-Smith, Wu, Ramdas, Karampatziakis and Mineiro 2022, "Anytime-valid off-policy inference
for contextual bandits"). A bettor whose stake can't grow on average when the null hypothesis holds multiplies its
wealth with every observation; by Ville's inequality the wealth ever reaches 1/alpha with probability at most
alpha. The stake is a mixture over a fixed grid of bets, so nothing is tuned on the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loopkit.errors import InvalidInput

_BETS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9)
"""Shares of the largest bet that can't ruin the bettor."""
_GRID = 200


class Wealth:
    """The bettor's wealth against "the mean of these observations is at most 0"."""

    __slots__ = ("_logs", "best")

    def __init__(self) -> None:
        self._logs = [0.0] * len(_BETS)
        self.best = 0.0
        """The largest log wealth so far: once the bound was passed, it stays passed."""

    def observe(self, value: float, lowest: float) -> None:
        """Bet on one observation, which was known beforehand to be at least `-lowest`."""
        step = value / lowest
        self._logs = [log + math.log1p(bet * step) for log, bet in zip(self._logs, _BETS, strict=True)]
        top = max(self._logs)
        now = top + math.log(sum(math.exp(log - top) for log in self._logs) / len(_BETS))
        self.best = max(self.best, now)

    def p_value(self) -> float:
        """Valid at every look."""
        return min(1.0, math.exp(-self.best))


@dataclass(frozen=True, slots=True)
class Exposure:
    """One unit's outcome in a rollout: a user's or a session's first call that has one."""

    treated: bool
    """Served by the candidate."""
    propensity: float
    """The probability with which the candidate would have been chosen."""
    outcome: float
    """Between 0 and 1, more is better."""


@dataclass(frozen=True, slots=True)
class ArmsResult:
    """The candidate's outcome less the current one's."""

    difference: float
    low: float
    high: float
    """A confidence sequence: it covers the true difference at all looks at once with probability 1 - 2 alpha.

    Each end is as sharp as the one-sided tests at alpha, so that interval and verdict agree.
    """
    p_better: float
    """Anytime-valid p-value against "the candidate is not better"."""
    p_worse: float
    exposures: int
    more: int | None
    """About how many more exposures until a decision, if the present difference is the true one; None: far off."""


def compare_arms(exposures: Sequence[Exposure], *, alpha: float = 0.05, margin: float = 0.0) -> ArmsResult:
    """Compare two randomised arms, unpaired, at whatever moment somebody looks.

    Each exposure gives an unbiased observation of the difference, `(treated/p - control/(1-p)) * (outcome - c)`;
    `c` is the mean of the outcomes before it, which takes out most of the noise and, since it doesn't know the
    coming arm, none of the signal. It rests on two things: that arms were drawn with these probabilities, one unit
    once, and that whether an outcome is known doesn't depend on the arm (`unbalanced` looks for that). `margin` is
    how much worse counts as no worse (for cheaper candidates).
    """
    observations = _observations(exposures)
    better, worse = Wealth(), Wealth()
    for each in observations:
        better.observe(each.value + margin, each.lowest)
        worse.observe(-each.value, each.highest)
    n = len(observations)
    low, high = _sequence(observations, alpha)
    return ArmsResult(
        difference=max(-1.0, min(1.0, math.fsum(each.value for each in observations) / n)) if n else 0.0,
        low=low,
        high=high,
        p_better=better.p_value(),
        p_worse=worse.p_value(),
        exposures=n,
        more=_more(observations, margin, alpha, better),
    )


def exceeds(outcomes: Sequence[bool], limit: float) -> float:
    """Anytime-valid p-value against "this happens at most `limit` of the time"."""
    wealth = Wealth()
    for outcome in outcomes:
        wealth.observe(float(outcome) - limit, limit)
    return wealth.p_value()


def unbalanced(treated: Sequence[bool], share: float) -> float:
    """Anytime-valid p-value against "each of these was treated with probability `share`", two-sided.

    The sample-ratio check: where outcomes are missing more often in one arm, arms can't be compared.
    """
    more, fewer = Wealth(), Wealth()
    for each in treated:
        more.observe(float(each) - share, share)
        fewer.observe(share - float(each), 1 - share)
    return min(1.0, 2 * min(more.p_value(), fewer.p_value()))


def detectable_difference(n: int, *, rate: float, share: float = 0.5, alpha: float = 0.05) -> float:
    """The smallest true difference that `compare_arms` would call better within n exposures, about 8 times in 10.

    By the growth rate of a bettor who bets best: log wealth after n is about normal with mean n(bd - b^2 v/2)
    and variance n b^2 v, for bet b, difference d and variance v of an observation; plus the price of the mixture.
    """
    if n < 1:
        return 1.0
    variance = rate * (1 - rate) * (1 / share + 1 / (1 - share)) or 1e-9
    target = math.log(1 / alpha) + math.log(len(_BETS)) * 0.6
    power = 0.8416  # the normal's 80 % quantile

    def reaches(difference: float) -> bool:
        bet = min(difference / (variance + difference * difference), share, 1 - share)
        mean = n * (bet * difference - bet * bet * (variance + difference * difference) / 2)
        return mean - power * math.sqrt(n * bet * bet * variance) >= target

    return _least(reaches, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class _Observation:
    """One unbiased observation of the difference, and how far down and up it could have been, known beforehand."""

    value: float
    lowest: float
    highest: float


def _observations(exposures: Sequence[Exposure]) -> list[_Observation]:
    observations: list[_Observation] = []
    total, count = 0.5, 1.0
    for exposure in exposures:
        share = exposure.propensity
        if not 0 < share < 1:
            raise InvalidInput(f"a propensity is {share!r}: arms can only be compared where both could be chosen")
        if not 0 <= exposure.outcome <= 1:
            raise InvalidInput(f"an outcome is {exposure.outcome!r}: scale outcomes to between 0 and 1")
        centre = total / count
        weight = 1 / share if exposure.treated else -1 / (1 - share)
        observations.append(
            _Observation(
                value=weight * (exposure.outcome - centre),
                lowest=max(centre / share, (1 - centre) / (1 - share)),
                highest=max((1 - centre) / share, centre / (1 - share)),
            )
        )
        total, count = total + exposure.outcome, count + 1
    return observations


def _sequence(observations: Sequence[_Observation], alpha: float) -> tuple[float, float]:
    """The differences that can't be ruled out: where neither bettor has ever reached 1/alpha."""
    threshold = math.log(1 / alpha)

    def not_above(null: float) -> bool:
        wealth = Wealth()
        for each in observations:
            wealth.observe(each.value - null, each.lowest + null)
        return wealth.best < threshold

    def not_below(null: float) -> bool:
        wealth = Wealth()
        for each in observations:
            wealth.observe(null - each.value, each.highest - null)
        return wealth.best < threshold

    return _least(not_above, -0.999, 1.0), -_least(lambda flipped: not_below(-flipped), -0.999, 1.0)


def _least(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The least value in the interval for which a monotone condition holds, to its 1/200 part or better."""
    if holds(low):
        return low
    if not holds(high):
        return high
    for _ in range(math.ceil(math.log2(_GRID)) + 2):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _more(observations: Sequence[_Observation], margin: float, alpha: float, better: Wealth) -> int | None:
    """Exposures still to come, by the growth of the best bet on the observations so far."""
    n = len(observations)
    missing = math.log(1 / alpha) - better.best
    if missing <= 0:
        return 0
    if n < 2:
        return None
    mean = math.fsum(each.value for each in observations) / n + margin
    variance = math.fsum((each.value + margin) ** 2 for each in observations) / n
    if mean <= 0 or variance == 0:
        return None
    bet = min(mean / variance, _BETS[-1] / max(each.lowest for each in observations))
    growth = bet * mean - bet * bet * variance / 2
    needed = math.ceil(missing / growth) if growth > 0 else None
    return needed if needed is not None and needed <= 100_000 else None
