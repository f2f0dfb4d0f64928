"""What another policy would have earned: by simulation, where the truth is known."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopkit.errors import InvalidInput
from loopkit.statistics.offpolicy import Draw, off_policy


def simulated(n: int, seed: int, *, epsilon: float = 0.2, knows: bool = False) -> tuple[list[Draw], float]:
    """Two kinds of calls, two variants; one is better for each. The log mostly picks by the kind, wrongly for one."""
    draw = random.Random(seed)
    good = {("x", "a"): 0.9, ("x", "b"): 0.4, ("y", "a"): 0.3, ("y", "b"): 0.7}
    draws: list[Draw] = []
    for number in range(n):
        kind = draw.choice("xy")
        shares = {"a": 1 - epsilon / 2, "b": epsilon / 2}
        chosen = "a" if draw.random() < shares["a"] else "b"
        target = {"a": float(kind == "x"), "b": float(kind == "y")}
        draws.append(
            Draw(
                reward=float(draw.random() < good[kind, chosen]),
                propensity=shares[chosen],
                target=target[chosen],
                unit=number,
                predicted=good[kind, chosen] if knows else 0.5,
                expected=(0.9 if kind == "x" else 0.7) if knows else 0.5,
            )
        )
    return draws, 0.8


def test_the_estimates_are_unbiased_and_the_naive_mean_is_not() -> None:
    runs = [off_policy(simulated(2000, seed)[0]) for seed in range(120)]
    truth = 0.8
    for name in ("ips", "snips", "dr"):
        mean = sum(getattr(run, name).value for run in runs) / len(runs)
        assert mean == pytest.approx(truth, abs=0.012), name
    naive = sum(run.logged.value for run in runs) / len(runs)
    assert abs(naive - truth) > 0.15
    assert sum(run.mean_weight for run in runs) / len(runs) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("name", ["snips", "dr"])
def test_intervals_hold_the_truth_as_often_as_they_say(name: str) -> None:
    held = 0
    for seed in range(300):
        found = getattr(off_policy(simulated(1500, seed)[0]), name)
        held += found.low <= 0.8 <= found.high
    assert 0.90 <= held / 300 <= 0.99


def test_predictions_that_are_right_make_it_surer() -> None:
    plain, sure = (off_policy(simulated(3000, 1, knows=knows)[0]).dr for knows in (False, True))
    assert sure.high - sure.low < 0.95 * (plain.high - plain.low)
    assert sure.low <= 0.8 <= sure.high


def test_what_one_user_got_is_one_observation() -> None:
    draws, _ = simulated(1000, 2)
    thrice = [each for each in draws for _ in range(3)]
    one, same = off_policy(draws).snips, off_policy(thrice).snips
    assert same.value == pytest.approx(one.value)
    assert same.high - same.low == pytest.approx(one.high - one.low, rel=0.02)


def test_too_few_say_nothing() -> None:
    draws, _ = simulated(2000, 0, epsilon=0.02)
    other = [Draw(reward=d.reward, propensity=d.propensity, target=1 - (d.propensity > 0.5)) for d in draws]
    with pytest.raises(
        InvalidInput, match=r"2000 decisions tell as much of this policy as \d+ of its own would, and 100"
    ):
        off_policy(other)
    with pytest.raises(InvalidInput, match="0 decisions"):
        off_policy([])


def test_what_is_clipped_is_said() -> None:
    draws, _ = simulated(4000, 3, epsilon=0.05)
    found, whole = off_policy(draws, clip=10), off_policy(draws)
    assert whole.clipped == 0
    assert found.clipped == sum(each.target / each.propensity > 10 for each in draws) > 0
    assert found.clipped_share > 0.1
    assert found.effective > whole.effective


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.floats(-3, 3), st.floats(0.1, 4))
def test_estimates_move_with_the_rewards(seed: int, shift: float, scale: float) -> None:
    draws, _ = simulated(900, seed)
    moved = [
        Draw(
            reward=scale * d.reward + shift, propensity=d.propensity, target=d.target, unit=d.unit,
            predicted=scale * d.predicted + shift, expected=scale * d.expected + shift,
        )
        for d in draws
    ]  # fmt: skip
    before, after = off_policy(draws), off_policy(moved)
    for name in ("snips", "dr"):  # IPS moves with its weights' mean
        assert getattr(after, name).value == pytest.approx(scale * getattr(before, name).value + shift, abs=1e-9)


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (Draw(reward=1, propensity=0, target=1), "made with probability 0"),
        (Draw(reward=1, propensity=0.5, target=1.5), "probability is 1.5"),
        (Draw(reward=float("nan"), propensity=0.5, target=0.5), "a reward is nan"),
    ],
)
def test_what_is_no_probability_is_refused(draw: Draw, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        off_policy([draw] * 500)
    with pytest.raises(InvalidInput, match="clip is 0"):
        off_policy([Draw(reward=1, propensity=0.5, target=0.5)] * 500, clip=0)
