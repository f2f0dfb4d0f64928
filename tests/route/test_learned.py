"""The learned router: heads from outcomes, probabilities that keep what they say, and targets that are met."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopkit import policies
from loopkit.errors import InvalidInput
from loopkit.route.fitting import Case, _parts, curve_of, fit_head, fit_quality, logit_of
from loopkit.route.quality import BUCKETS, Quality, buckets_of
from loopkit.statistics.logistic import logistic
from tests.route.test_policies import ask, serving

TOPICS = {
    "sums": ["what is {} plus {}", "add {} to {} please", "the sum of {} and {} is"],
    "poems": ["write a poem about {} and {}", "a verse on {} with {} in it", "rhyme {} with {}"],
}


def text_of_topic(topic: str, draw: random.Random) -> str:
    return draw.choice(TOPICS[topic]).format(f"w{draw.randrange(200)}", f"w{draw.randrange(200)}")


def cases(n: int, *, seed: int = 0, known: str = "both") -> list[Case]:
    """The small one is good at sums (.9) and bad at poems (.3); the large one is good at both (.9, .85)."""
    draw = random.Random(seed)
    made: list[Case] = []
    for _ in range(n):
        topic = draw.choice(list(TOPICS))
        good = {"small": 0.9 if topic == "sums" else 0.3, "large": 0.9 if topic == "sums" else 0.85}
        rewards = {name: float(draw.random() < p) for name, p in good.items()}
        if known == "one":
            variant = draw.choice(["small", "large"])
            made.append(Case(text=text_of_topic(topic, draw), rewards={variant: rewards[variant]}, propensity=0.5))
        else:
            made.append(Case(text=text_of_topic(topic, draw), rewards=rewards))
    return made


COSTS = {"small": 1.0, "large": 10.0}


@pytest.mark.parametrize("known", ["both", "one"])
def test_it_sends_each_call_where_it_is_answered_well(known: str) -> None:
    quality = fit_quality(cases(1500, known=known), COSTS)
    draw = random.Random(9)
    policy = policies.learned(quality, strong=0.5, explore=0.0)
    of = serving("small", "large")
    for topic, wanted in (("sums", "small"), ("poems", "large")):
        chosen = [policy.odds(ask(text_of_topic(topic, draw), of=of)).best for _ in range(200)]
        assert chosen.count(wanted) >= 190
    # half of the calls at the large one's quality: (.9 + .85) / 2, where all at the small one have .6
    point = min(quality.curve, key=lambda each: abs(each.cost - 5.5))
    assert point.quality == pytest.approx(0.875, abs=0.05)


def test_probabilities_keep_what_they_say() -> None:
    quality = fit_quality(cases(3000), COSTS)
    assert all(off < 0.05 for off in quality.about["off"].values())
    draw = random.Random(5)
    told = [quality.probabilities(text_of_topic("poems", draw))["small"] for _ in range(300)]
    assert sum(told) / len(told) == pytest.approx(0.3, abs=0.06)


@pytest.mark.parametrize("explore", [0.0, 0.1])
@pytest.mark.parametrize("strong", [0.1, 0.3, 0.6])
def test_the_share_that_was_asked_for_is_met_on_other_texts(strong: float, explore: float) -> None:
    policy = policies.learned(fit_quality(cases(3000), COSTS), strong=strong, explore=explore)
    draw, of = random.Random(7), serving("small", "large")
    shares = [
        policy.odds(ask(text_of_topic(draw.choice(list(TOPICS)), draw), of=of)).shares["large"] for _ in range(1500)
    ]
    assert sum(shares) / len(shares) == pytest.approx(strong, abs=0.05)


def test_a_cost_between_two_prices_is_met_by_both_of_them() -> None:
    """All texts are the same: either all go to the large one or none, unless they are shared out."""
    rows = [Case(text="the same", rewards={"small": float(n % 2), "large": 1.0}) for n in range(400)]
    quality = fit_quality(rows, COSTS)
    for strong in (0.0, 0.3, 0.8):
        policy = policies.learned(quality, strong=strong, explore=0.0)
        shares = policy.odds(ask("the same", of=serving("small", "large"))).shares
        assert shares.get("large", 0.0) == pytest.approx(strong, abs=0.02)
    with pytest.raises(InvalidInput, match="the costlier of two variants"):
        fit_quality(rows, {"small": 1.0, "large": 1.0}).prices_for(strong=0.3)


def test_a_group_is_in_one_part_whatever_its_texts() -> None:
    draw = random.Random(0)
    rows = [
        Case(text=f"text {draw.randrange(30)}", rewards={"small": 1.0}, group=f"user {draw.randrange(60)}")
        for _ in range(80)
    ]
    parts = _parts(rows, 0)
    for of in (lambda case: case.text, lambda case: case.group):
        found: dict[Any, set[int]] = {}
        for case, part in zip(rows, parts, strict=True):
            found.setdefault(of(case), set()).add(part)
        assert all(len(each) == 1 for each in found.values())


def test_a_quality_is_had_as_cheaply_as_it_can_be() -> None:
    quality = fit_quality(cases(2000), COSTS)
    cheap, dear = (policies.learned(quality, quality=q, explore=0.0).prices[0][0] for q in (0.65, 0.86))
    assert cheap > dear
    with pytest.raises(InvalidInput, match=r"quality 0\.99 can't be had: the best that was held out is 0\.8"):
        quality.prices_for(quality=0.99)


def test_a_head_is_where_the_slope_is_nought() -> None:
    """The gradient of the ridge's objective is nought at the weights: there is one such place."""
    rows = [buckets_of(each.text) for each in cases(120)]
    labels = [each.rewards["small"] for each in cases(120)]
    weights, bias = fit_head(rows, labels)
    base = (sum(labels) + 1) / (len(labels) + 2)
    errors = [label - logistic(bias + logit_of(weights, row)) for row, label in zip(rows, labels, strict=True)]
    pulled = [0.0] * BUCKETS
    for row, error in zip(rows, errors, strict=True):
        for bucket in row:
            pulled[bucket] += error / len(row) ** 0.5
    assert max(abs(own - pull) for own, pull in zip(weights, pulled, strict=True)) < 0.05
    assert bias - math.log(base / (1 - base)) == pytest.approx(sum(errors), abs=0.05)


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    quality = fit_quality(cases(300), COSTS, fields=["text"])
    path = tmp_path / "triage.router"
    quality.save(path)
    assert path.stat().st_size < 200_000
    assert Quality.load(path) == quality
    path.write_bytes(path.read_bytes()[:-1])
    for broken in (path, tmp_path / "none"):
        with pytest.raises(InvalidInput, match=r"holds no router|can't be read"):
            policies.learned(broken, strong=0.3)
    for text in ("", "{}", "[]", "\x00", '{"format": 1, "heads": 3}'):
        path.write_text(text)
        with pytest.raises(InvalidInput, match="holds no router"):
            Quality.load(path)


@given(st.text(max_size=300))
def test_any_text_has_buckets(text: str) -> None:
    found = buckets_of(text)
    assert len(found) >= 2
    assert len(set(found)) == len(found)
    assert all(0 <= bucket < BUCKETS for bucket in found)


def test_scripts_without_spaces_are_read_by_the_character() -> None:
    one, other = (
        buckets_of("\u6211\u60f3\u9000\u6b3e\u53ef\u4ee5\u5417" * 3),
        buckets_of("\u6211\u60f3\u9000\u6b3e\u8bf7" * 4),
    )
    assert len(set(one) & set(other)) > 6
    assert buckets_of("\ud800" * 50)  # half a character


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "the targets are none: give one of"),
        ({"strong": 0.3, "cost": 2}, "give one of"),
        ({"strong": 1.3}, r"strong is 1\.3 for costs"),
        ({"strong": "much"}, "strong is 'much': give a number"),
        ({"cost": 0.5}, "no call costs 0.5: the cheapest variant's cost 1"),
        ({"cost": float("nan")}, "cost is nan"),
        ({"strong": 0.01, "explore": 0.2}, "strong=0.01 can't be had: explore=0.2 alone brings it to 0.1"),
    ],
)
def test_targets_that_cant_be_had_are_refused(given: Any, said: str) -> None:
    quality = fit_quality(cases(300), COSTS)
    with pytest.raises(InvalidInput, match=said):
        policies.learned(quality, **{"explore": 0.0, **given})


@pytest.mark.parametrize(
    ("rows", "costs", "said"),
    [
        (cases(60)[:40], COSTS, "variant 'small' has 40 outcomes that are known: 50 are needed"),
        (cases(60), {"small": 1.0}, "costs are .*: give two variants or more"),
        (cases(60), {"small": 1.0, "large": -1}, "costs are"),
        (cases(60), {"small": 1.0, "other": 1}, "variant 'other' has 0 outcomes"),
        ([Case(text="x", rewards={"small": 1.0, "large": 1.0}, propensity=0.0)] * 60, COSTS, r"a propensity is 0\.0"),
        ([Case(text="x", rewards={"small": 3.0, "large": 1.0})] * 60, COSTS, r"a reward of variant 'small' is 3\.0"),
    ],
)
def test_outcomes_that_teach_nothing_are_refused(rows: Any, costs: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        fit_quality(rows, costs)


def test_the_same_text_and_the_same_user_are_in_one_part() -> None:
    """Labels at random, each text ten times over: who has seen a text knows it, and held out nobody has."""
    draw = random.Random(3)
    rows = [
        Case(text=f"unique{n} words{n * 7}", rewards={"small": float(label), "large": float(not label)})
        for n in range(60)
        for label in [draw.random() < 0.5]
        for _ in range(10)
    ]
    best = max(point.quality for point in fit_quality(rows, COSTS).curve)
    assert best < 0.75


def test_variants_that_it_doesnt_know_get_nothing_and_none_known_is_an_error() -> None:
    quality = fit_quality(cases(300), COSTS)
    policy = policies.learned(quality, strong=0.5)
    assert set(policy.odds(ask("x", of=serving("small", "new"))).shares) == {"small"}
    with pytest.raises(InvalidInput, match=r"was fitted to \['large', 'small'\]|fit it anew"):
        policy.odds(ask("x", of=serving("new", "newer")))


def test_the_curve_counts_what_is_known_and_expects_the_rest() -> None:
    """With the reward of the chosen variant alone the curve is what it would be with all, but for chance."""
    whole, parts = cases(6000, seed=1), cases(6000, seed=1, known="one")
    odds = {name: [0.6 if name == "large" else 0.5 for _ in range(6000)] for name in COSTS}
    for rows in (whole, parts):
        dear, *_, cheap = curve_of(rows, odds, COSTS)
        assert (dear.cost, cheap.cost) == (10.0, 1.0)
        assert dear.quality == pytest.approx(0.875, abs=0.03)
        assert cheap.quality == pytest.approx(0.6, abs=0.03)
