"""Distributions, tests and intervals against scipy and by simulation."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from loopkit.errors import InvalidInput
from loopkit.statistics.paired import holm, holm_level, paired_difference, quantile, wilson
from loopkit.statistics.student import t_cdf, t_quantile


@given(st.floats(-40, 40), st.floats(1, 500))
def test_t_distribution_is_scipys(t: float, df: float) -> None:
    assert t_cdf(t, df) == pytest.approx(scipy.stats.t.cdf(t, df), abs=1e-10)


@given(st.floats(0.001, 0.999), st.integers(1, 300))
def test_t_quantile_is_scipys(p: float, df: int) -> None:
    assert t_quantile(p, df) == pytest.approx(scipy.stats.t.ppf(p, df), rel=1e-7, abs=1e-7)


scores = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=40)


@given(scores, st.sampled_from([0.01, 0.05, 0.2]), st.booleans())
def test_the_interval_leaves_out_zero_exactly_where_the_test_rejects_it(
    pairs: list[tuple[float, float]], alpha: float, binary: bool
) -> None:
    rounded = [(round(a), round(b)) if binary else (round(a, 3), round(b, 3)) for a, b in pairs]
    first, second = zip(*rounded, strict=True)
    result = paired_difference(first, second, [number // 2 for number in range(len(first))], alpha=alpha)
    assert result.low <= result.difference <= result.high
    assert (result.low <= 0 <= result.high) == (result.p_value > alpha)


def test_for_normal_differences_the_interval_is_near_the_paired_t_interval() -> None:
    generator = random.Random(7)
    first = [generator.gauss(0, 1) for _ in range(80)]
    second = [value + generator.gauss(0.3, 0.8) for value in first]
    result = paired_difference(first, second)
    expected = scipy.stats.ttest_rel(second, first).confidence_interval(0.95)
    assert (result.low, result.high) == (pytest.approx(expected.low, abs=0.02), pytest.approx(expected.high, abs=0.02))


@given(st.lists(st.floats(0.0001, 1), min_size=1, max_size=6), st.data())
def test_holms_level_decides_as_the_adjusted_p_value_does(p_values: list[float], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(p_values) - 1))
    adjusted = holm(p_values)[index]
    if abs(adjusted - 0.05) > 1e-9:
        assert (p_values[index] <= holm_level(p_values, index, 0.05)) == (adjusted <= 0.05)


def test_the_exact_p_value_is_scipys_permutation_test() -> None:
    first, second = [0, 0, 1, 0, 0, 1, 0, 0], [1, 1, 1, 0, 1, 1, 1, 0]
    expected = scipy.stats.permutation_test(
        (second, first), lambda x, y: sum(x) - sum(y), permutation_type="samples", n_resamples=math.inf
    ).pvalue
    assert paired_difference(first, second).p_value == pytest.approx(expected)


def test_the_drawn_p_value_is_near_the_exact_one() -> None:
    generator = random.Random(1)
    first = [float(generator.random() < 0.4) for _ in range(60)]
    second = [float(generator.random() < 0.6) for _ in range(60)]
    wins = sum(b > a for a, b in zip(first, second, strict=True))
    losses = sum(b < a for a, b in zip(first, second, strict=True))
    exact = scipy.stats.binomtest(wins, wins + losses).pvalue
    assert paired_difference(first, second).p_value == pytest.approx(exact, abs=0.02)


def test_under_no_difference_p_values_are_small_as_rarely_as_they_say() -> None:
    hits = 0
    for seed in range(400):
        generator = random.Random(seed)
        rates = [generator.random() for _ in range(40)]
        first = [float(generator.random() < rate) for rate in rates]
        second = [float(generator.random() < rate) for rate in rates]
        hits += paired_difference(first[:12], second[:12]).p_value <= 0.05
    assert hits / 400 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


def test_clustering_widens_the_interval_so_that_it_covers() -> None:
    """Five examples of one user share an effect: treated as independent they'd seem to say five times as much."""
    covered = naive = 0
    for seed in range(200):
        generator = random.Random(seed)
        second, groups = [], []
        for user in range(30):
            effect = generator.gauss(0, 1)
            second += [effect + generator.gauss(0, 0.2) for _ in range(5)]
            groups += [user] * 5
        first = [0.0] * len(second)
        result = paired_difference(first, second, groups)
        covered += result.low <= 0 <= result.high
        plain = paired_difference(first, second)
        naive += plain.low <= 0 <= plain.high
    assert covered / 200 >= 0.92
    assert naive / 200 < 0.75


def test_the_detectable_difference_is_found_8_times_in_10() -> None:
    generator = random.Random(5)
    found = 0
    noise = [generator.gauss(0, 0.5) for _ in range(100)]
    target = paired_difference([0.0] * 100, noise).detectable
    for seed in range(200):
        generator = random.Random(1000 + seed)
        second = [target + generator.gauss(0, 0.5) for _ in range(100)]
        result = paired_difference([0.0] * 100, second)
        found += result.low > 0
    assert 0.7 <= found / 200 <= 0.9


def test_where_nothing_differs_the_interval_still_allows_for_what_wasnt_seen() -> None:
    result = paired_difference([1.0] * 20, [1.0] * 20)
    assert (result.difference, result.p_value) == (0.0, 1.0)
    assert result.high == -result.low == pytest.approx(1 - 0.05 ** (1 / 20))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_monotone_and_between_the_raw_and_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for raw, p in zip(p_values, adjusted, strict=True):
        assert raw <= p <= min(1.0, raw * len(p_values)) + 1e-12
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    assert all(adjusted[a] <= adjusted[b] + 1e-12 for a, b in pairwise(order))


@given(st.integers(1, 200), st.data())
def test_wilson_is_scipys(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    expected = scipy.stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson(successes, n) == (pytest.approx(expected.low, abs=1e-9), pytest.approx(expected.high, abs=1e-9))


@settings(max_examples=50)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=30), st.floats(0, 1))
def test_quantile_lies_where_numpy_puts_it(values: list[float], q: float) -> None:
    import numpy

    assert quantile(values, q) == pytest.approx(float(numpy.quantile(values, q)), abs=1e-9)


def test_scores_that_dont_pair_up_are_refused() -> None:
    with pytest.raises(InvalidInput, match="2 and 3 scores don't pair up"):
        paired_difference([1, 2], [1, 2, 3])
    with pytest.raises(InvalidInput, match="1 groups for 2 scores"):
        paired_difference([1, 2], [1, 2], ["a"])
