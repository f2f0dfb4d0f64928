"""The canary's tests, by simulation: how often they promote what is no better, what they cover, what they find."""

from __future__ import annotations

import math
import random

import pytest

from loopkit.errors import InvalidInput
from loopkit.statistics.sequential import (
    Exposure,
    Wealth,
    _observations,
    compare_arms,
    detectable_difference,
    exceeds,
)

RUNS = 300


def exposures(control: float, treated: float, n: int, share: float, seed: int) -> list[Exposure]:
    generator = random.Random(seed)
    made = []
    for _ in range(n):
        arm = generator.random() < share
        made.append(Exposure(arm, share, float(generator.random() < (treated if arm else control))))
    return made


def promoted_at(made: list[Exposure], alpha: float = 0.05) -> int | None:
    """The first look, of one after every exposure, at which the candidate would have been promoted."""
    wealth = Wealth()
    for number, each in enumerate(_observations(made), start=1):
        wealth.observe(each.value, each.lowest)
        if wealth.best >= math.log(1 / alpha):
            return number
    return None


@pytest.mark.parametrize(
    ("control", "treated", "share"),
    [(0.3, 0.3, 0.5), (0.9, 0.9, 0.1), (0.05, 0.05, 0.5), (0.5, 0.5, 0.8), (0.5, 0.45, 0.5)],
)
def test_a_candidate_that_is_not_better_is_promoted_at_most_alpha_of_the_time(
    control: float, treated: float, share: float
) -> None:
    promoted = sum(promoted_at(exposures(control, treated, 400, share, seed)) is not None for seed in range(RUNS))
    assert promoted / RUNS <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / RUNS)


def test_drifting_rates_dont_fool_it() -> None:
    """Both arms get better together over time: that is no difference."""
    promoted = 0
    for seed in range(RUNS):
        generator = random.Random(seed)
        made = []
        for number in range(400):
            arm = generator.random() < 0.5
            made.append(Exposure(arm, 0.5, float(generator.random() < 0.1 + 0.8 * number / 400)))
        promoted += promoted_at(made) is not None
    assert promoted / RUNS <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / RUNS)


def test_a_clear_winner_is_found() -> None:
    looks = [promoted_at(exposures(0.3, 0.7, 300, 0.5, seed)) for seed in range(100)]
    assert sum(look is not None for look in looks) >= 98


def test_the_confidence_sequence_covers_the_truth_at_every_look() -> None:
    missed = 0
    for seed in range(60):
        made = exposures(0.4, 0.6, 200, 0.5, seed)
        results = [compare_arms(made[:n]) for n in (20, 60, 120, 200)]
        missed += any(not result.low - 0.011 <= 0.2 <= result.high + 0.011 for result in results)
    assert missed <= 60 * 0.1 + 3 * math.sqrt(60 * 0.1 * 0.9)  # 90 %: each end at alpha, as the one-sided tests are


@pytest.mark.parametrize("n", [60, 180])
def test_the_detectable_difference_is_found_about_8_times_in_10(n: int) -> None:
    difference = detectable_difference(n, rate=0.3)
    found = sum(promoted_at(exposures(0.3, 0.3 + difference, n, 0.5, seed)) is not None for seed in range(200))
    assert 0.7 <= found / 200 <= 0.97


def test_what_is_still_needed_is_about_right() -> None:
    result = compare_arms(exposures(0.4, 0.55, 120, 0.5, 3))
    assert result.more is not None
    assert 0 < result.more < 2000


def test_more_than_a_tenth_is_noticed_fast_and_less_is_not() -> None:
    assert exceeds([True] * 3, 0.1) <= 0.05
    assert exceeds([False] * 500, 0.1) == 1.0
    false = 0
    for seed in range(RUNS):
        generator = random.Random(seed)
        false += exceeds([generator.random() < 0.1 for _ in range(300)], 0.1) <= 0.05
    assert false / RUNS <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / RUNS)


def test_nothing_seen_says_nothing() -> None:
    result = compare_arms([])
    assert (result.difference, result.p_better, result.more) == (0.0, 1.0, None)
    assert (result.low, result.high) == (-1.0, 1.0) or result.low <= -0.99


@pytest.mark.parametrize("bad", [Exposure(True, 0.0, 1.0), Exposure(True, 1.0, 1.0), Exposure(True, 0.5, 1.5)])
def test_what_cant_be_compared_is_refused(bad: Exposure) -> None:
    with pytest.raises(InvalidInput):
        compare_arms([bad])
