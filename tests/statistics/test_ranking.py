"""The area under the ROC curve: against scipy's Mann-Whitney, by its laws, and by simulation."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from loopkit.statistics.ranking import area

PAIRS = st.lists(st.tuples(st.integers(-3, 3).map(float), st.booleans()), min_size=1, max_size=40)


@given(PAIRS)
def test_it_is_mann_whitneys_statistic(pairs: list[tuple[float, bool]]) -> None:
    scores, good = [score for score, _ in pairs], [side for _, side in pairs]
    above = [score for score, side in pairs if side]
    below = [score for score, side in pairs if not side]
    found = area(scores, good)
    if not above or not below:
        assert math.isnan(found.value)
        assert (found.low, found.high) == (0, 1)
        return
    assert found.value == pytest.approx(mannwhitneyu(above, below).statistic / len(above) / len(below))
    assert 0 <= found.low <= found.value + 1e-9
    assert found.value - 1e-9 <= found.high <= 1


@given(PAIRS, st.lists(st.integers(1, 4), min_size=40, max_size=40))
def test_a_weight_stands_for_as_many_and_a_group_for_one(pairs: list[tuple[float, bool]], times: list[int]) -> None:
    scores, good = [score for score, _ in pairs], [side for _, side in pairs]
    repeated = [(pair, index) for index, pair in enumerate(pairs) for _ in range(times[index])]
    weighted = area(scores, good, weights=[float(n) for n in times[: len(pairs)]])
    spelled_out = area(
        [score for (score, _), _ in repeated], [side for (_, side), _ in repeated], groups=[i for _, i in repeated]
    )
    assert weighted.value == pytest.approx(spelled_out.value, nan_ok=True)
    if 0 < weighted.value < 1 and len(pairs) > 3:
        assert (weighted.low, weighted.high) == pytest.approx((spelled_out.low, spelled_out.high), abs=1e-6)


@given(PAIRS)
def test_turned_round_it_is_the_other_part(pairs: list[tuple[float, bool]]) -> None:
    scores, good = [score for score, _ in pairs], [side for _, side in pairs]
    found, turned = area(scores, good), area([-score for score in scores], good)
    assert turned.value == pytest.approx(1 - found.value, nan_ok=True)


def test_the_variance_is_delongs() -> None:
    """By its definition: the variances of the structural components over their numbers."""
    draw = random.Random(5)
    above, below = [draw.gauss(0.8, 1) for _ in range(60)], [draw.gauss(0, 1) for _ in range(90)]
    wins = [sum((a > b) + 0.5 * (a == b) for b in below) / len(below) for a in above]
    losses = [sum((a > b) + 0.5 * (a == b) for a in above) / len(above) for b in below]
    value = sum(wins) / len(wins)

    def spread(values: list[float]) -> float:
        return sum((each - value) ** 2 for each in values) / (len(values) - 1) / len(values)

    error = math.sqrt(spread(wins) + spread(losses))
    found = area(above + below, [True] * 60 + [False] * 90)
    logit = [math.log(p / (1 - p)) for p in (found.low, found.value, found.high)]
    assert (logit[2] - logit[0]) / 2 == pytest.approx(1.976 * error / (value * (1 - value)), rel=0.02)


@pytest.mark.parametrize("per_user", [1, 5])
def test_the_interval_holds_what_it_promises(per_user: int) -> None:
    """Simulated: two normals one apart have the area Phi(1/sqrt 2) = 0.760, also where users' values hang together."""
    draw = random.Random(7)
    held = 0
    rounds = 400
    for _ in range(rounds):
        scores: list[float] = []
        good: list[bool] = []
        users: list[int] = []
        for user in range(120 // per_user):
            mood = draw.gauss(0, 0.7) if per_user > 1 else 0.0
            for _ in range(per_user):
                side = draw.random() < 0.5
                rest = math.sqrt(1 - 0.7**2) if per_user > 1 else 1.0
                scores.append((1.0 if side else 0.0) + mood + draw.gauss(0, rest))
                good.append(side)
                users.append(user)
        found = area(scores, good, groups=users)
        held += found.low <= 0.7602 <= found.high
    assert 0.91 <= held / rounds <= 0.985
