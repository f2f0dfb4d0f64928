"""Policies: the odds they give, what they learn from feedback, and what they refuse."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopkit import policies
from loopkit.capture.ambient import Ambient
from loopkit.errors import InvalidInput, NotFound
from loopkit.route.policy import Ask, Policy, decide, odds_of
from loopkit.route.source import Logged, Serving
from loopkit.types import Variant

ANY = Variant(model="m", prompt="{text}")


def serving(*names: str, **shares: float) -> Serving:
    named = names or tuple(shares)
    return Serving(
        variants=dict.fromkeys(named, ANY), shares=shares or {name: 1 / len(named) for name in named}, salt="s"
    )


def ask(text: str = "", *, of: Serving | None = None, tags: Sequence[str] = (), user: str | None = None) -> Ask:
    return Ask(inputs={"text": text}, serving=of or serving("a", "b"), around=Ambient(tags=tuple(tags), user_id=user))


def call(variant: str, reward: float | None, number: int = 0, **more: Any) -> Logged:
    return Logged(id=f"c{number}", at=0, variant=variant, propensity=0.5, reward=reward, **more)


# weights and tags


def test_tags_are_looked_at_before_weights() -> None:
    policy = policies.weights({
        "small": 3,
        "large": policies.Arm(1, include=["plan:pro"], exclude=["region:eu"]),
        "spare": 0,
    })  # fmt: skip
    of = serving("small", "large", "spare")
    assert policy.odds(ask(of=of)).shares == {"small": 1.0}
    assert policy.odds(ask(of=of, tags=["plan:pro"])).shares == {"small": 0.75, "large": 0.25}
    assert policy.odds(ask(of=of, tags=["plan:pro", "region:eu"])).shares == {"small": 1.0}


def test_weight_none_serves_where_nothing_else_may() -> None:
    policy = policies.weights({"large": policies.Arm(1, include=["plan:pro"]), "spare": 0, "other": 0})
    found = policy.odds(ask(of=serving("large", "spare", "other")))
    assert (found.shares, found.reason) == ({"spare": 1.0}, "nothing else may serve")
    assert policy.odds(ask(of=serving("x"))).shares == {"x": 1.0}  # none of them is served: the registry's shares


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        ({"a": 0}, "weights are"),
        ({"a": -1, "b": 2}, "weights are"),
        ({"a": float("nan")}, "weights are"),
        ({"a": True}, "weights are"),
        ([("a", 1)], "weights are"),
        ({"a": policies.Arm(1, include="pro")}, "has tags 'pro': give a list"),
    ],
)
def test_weights_that_are_none_are_refused(arms: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        policies.weights(arms)


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 5), min_size=1).filter(lambda w: sum(w.values()) > 0.01),
    st.floats(0, 1, exclude_max=True),
)
def test_each_variant_has_its_share_of_the_places(arms: dict[str, float], place: float) -> None:
    policy = policies.weights(arms)
    of = serving(*"abcdef")
    found = decide(policy, ask(of=of), "call", lambda: place)
    assert found.propensity == pytest.approx(arms[found.variant] / sum(arms.values()))
    drawn = [decide(policy, ask(of=of), "call", lambda at=at: (at + 0.5) / 400).variant for at in range(400)]
    for name, weight in arms.items():
        assert drawn.count(name) / 400 == pytest.approx(weight / sum(arms.values()), abs=0.01)


def test_exploring_gives_each_variant_its_part() -> None:
    policy = policies.explore(policies.weights({"a": 1}), 0.2)
    found = odds_of(policy, ask())
    assert (dict(found.shares), found.best) == ({"a": 0.9, "b": 0.1}, "a")
    assert decide(policy, ask(), "call", lambda: 0.95).explore
    assert not decide(policy, ask(), "call", lambda: 0.5).explore
    with pytest.raises(InvalidInput, match=r"share is 1\.5"):
        policies.explore(policy, 1.5)


def test_only_those_are_tried_that_may_serve() -> None:
    ruled = Serving(variants={"a": ANY, "b": ANY}, shares={"a": 1.0}, rules=(("plan:pro", "b"),))
    plain: Any = policies.explore(policies.weights({"a": 1}), 0.2)
    for policy in (plain, policies.thompson(), policies.best(), policies.linucb()):
        assert odds_of(policy, ask(of=ruled)).shares == pytest.approx({"a": 1.0})
    closed = policies.explore(policies.weights({"a": 1, "b": policies.Arm(1, exclude=["plan:free"])}), 0.2)
    assert odds_of(closed, ask(tags=["plan:free"])).shares == {"a": 1.0}
    assert odds_of(closed, ask()).shares == {"a": 0.5, "b": 0.5}


def test_sums_that_are_a_little_off_are_put_right() -> None:
    class Added:
        def odds(self, ask: Ask) -> policies.Odds:
            return policies.Odds({"a": 0.1 + 0.2, "b": 0.7000001}, "added up")

    assert sum(odds_of(Added(), ask()).shares.values()) == pytest.approx(1, abs=1e-12)


def test_many_variants_are_no_trouble_to_thompson() -> None:
    names = [f"v{number}" for number in range(120)]
    policy = policies.thompson()
    policy.learn([call(name, 1.0, number) for number, name in enumerate(names)])
    shares = odds_of(policy, ask(of=serving(*names))).shares
    assert min(shares.values()) >= 0


# by examples


def test_a_call_goes_where_its_like_is() -> None:
    policy = policies.semantic(
        {"a": ["I want my money back", "please refund my order"], "b": ["when are you open?"]}, otherwise="b"
    )
    assert policy.odds(ask("can I have my money back?")).shares == {"a": 1.0}
    assert policy.odds(ask("when are you open on sundays?")).shares == {"b": 1.0}
    found = policy.odds(ask("xyzzy"))
    assert (found.shares, found.reason) == ({"b": 1.0}, "like no example")
    assert policy.odds(ask("money back", of=serving("b", "c"))).shares == {"b": 1.0}  # a isn't served
    registry = policies.semantic({"a": ["I want my money back"]})
    assert registry.odds(ask("xyzzy")).shares == {"a": 0.5, "b": 0.5}


def test_an_embedder_may_say_what_is_like_what() -> None:
    def embedder(texts: Sequence[str]) -> list[list[float]]:
        return [[float("dog" in text), float("cat" in text), 0.1] for text in texts]

    policy = policies.semantic({"a": ["a dog"], "b": ["a cat"]}, embedder=embedder, least=0.5)
    assert policy.odds(ask("my cat sleeps")).shares == {"b": 1.0}
    assert policy.odds(ask("my dog sleeps")).shares == {"a": 1.0}


@pytest.mark.parametrize("routes", [{}, {"a": []}, {"a": "text"}, {"a": [3]}, ["a"]])
def test_routes_without_examples_are_refused(routes: Any) -> None:
    with pytest.raises(InvalidInput, match=r"routes are|the examples of"):
        policies.semantic(routes)


# bandits


def world(
    policy: Any, means: Mapping[str, float], *, steps: int, seed: int, delay: int = 0, batch: int = 50
) -> list[str]:
    """The policy's choices where rewards come `delay` calls late, and are learnt from now and then."""
    draw = random.Random(seed)
    of, log, chosen = serving(*means), [], []
    for step in range(steps):
        if step % batch == 0:
            told = [
                each if number <= step - delay else call(each.variant, None, number) for number, each in enumerate(log)
            ]
            policy.learn(told)
        variant = decide(policy, ask(of=of), "call", draw.random).variant
        chosen.append(variant)
        log.append(call(variant, float(draw.random() < means[variant]), step))
    return chosen


@pytest.mark.parametrize("make", [policies.thompson, policies.best])
def test_the_better_arm_comes_to_serve_though_rewards_are_late(make: Any) -> None:
    for seed in range(5):
        chosen = world(make(), {"a": 0.3, "b": 0.6}, steps=1500, seed=seed, delay=200)
        assert chosen[-500:].count("b") > 400


def test_thompson_gives_each_arm_its_probability_of_being_best() -> None:
    policy = policies.thompson(least=0.0)
    policy.learn([call("a", 1.0, n) for n in range(8)] + [call("b", 0.0, n + 8) for n in range(2)])
    shares = policy.odds(ask()).shares
    draw = random.Random(1)
    truth = sum(draw.betavariate(9, 1) > draw.betavariate(1, 3) for _ in range(20_000)) / 20_000
    assert shares["a"] == pytest.approx(truth, abs=0.02)
    floor = policies.thompson(least=0.05)
    floor.learn([call("a", 1.0, n) for n in range(500)] + [call("b", 0.0, n + 500) for n in range(500)])
    assert floor.odds(ask()).shares["b"] == pytest.approx(0.05, abs=0.001)
    assert sum(floor.odds(ask()).shares.values()) == pytest.approx(1)


def test_what_nobody_has_judged_is_not_bad_unless_silence_means_it() -> None:
    quiet = [call("a", None, n) for n in range(90)] + [call("b", 0.0, n + 100) for n in range(20)]
    kind = policies.best(explore=0.0)
    kind.learn(quiet)
    assert kind.odds(ask()).shares == {"a": 1.0, "b": 0.0}
    kind.learn([*quiet, *[call("a", None, n + 200) for n in range(10)]])  # nobody will ever say anything of it
    assert kind.odds(ask()).best == "b"
    stern = policies.best(explore=0.0, unsaid=(0.2, 60), now=lambda: 61_000_000_000)
    stern.learn(quiet)
    assert stern.odds(ask()).best == "a"
    stern.learn([*quiet, *[call("b", 1.0, n + 200) for n in range(20)]])
    assert stern.odds(ask()).best == "b"
    early = policies.best(explore=0.0, unsaid=(0.0, 60), now=lambda: 59_000_000_000)
    early.learn([call("a", None), call("b", 0.5, 1)])
    assert early.odds(ask()).best == "a"  # its time isn't over


def test_cost_and_time_count_as_much_as_they_are_said_to() -> None:
    log = [call("a", 0.8, n, cost=0.01, seconds=4.0) for n in range(60)]
    log += [call("b", 0.7, n + 60, cost=0.001, seconds=0.5) for n in range(60)]
    for make in (policies.best, policies.thompson):
        for worth, wanted in (({}, "a"), ({"cost": 50.0}, "b"), ({"seconds": 0.1}, "b")):
            policy = make(**worth)
            policy.learn(log)
            assert policy.odds(ask()).best == wanted


def test_linucb_learns_which_calls_are_whose() -> None:
    policy = policies.linucb(explore=0.0, width=0.3)
    draw = random.Random(0)
    log: list[Logged] = []
    for number in range(400):
        topic, variant = draw.choice(["refund my order please", "the app crashes on start"]), draw.choice("ab")
        reward = float((variant == "a") == topic.startswith("refund"))
        log.append(call(variant, reward, number, inputs={"text": f"{topic} {draw.random()}"}))
    policy.learn(log)
    assert policy.odds(ask("please refund this order")).best == "a"
    assert policy.odds(ask("my app crashes")).best == "b"


def test_linucb_learns_the_same_bit_by_bit_and_when_rewards_change() -> None:
    log = [call("ab"[n % 2], n % 3 / 2, n, inputs={"text": f"word{n % 7} other{n % 5}"}) for n in range(60)]
    whole, parts = policies.linucb(), policies.linucb()
    for upto in (10, 25, 60):
        parts.learn(
            [each if n < upto else call(each.variant, None, n, inputs=each.inputs) for n, each in enumerate(log)]
        )
    changed = [call(each.variant, 1.0, n, inputs=each.inputs) if n == 3 else each for n, each in enumerate(log)]
    for told in (log, changed):
        whole = policies.linucb()
        whole.learn(told)
        parts.learn(told)
        for variant in "ab":
            assert parts._ridges[variant].weights == pytest.approx(whole._ridges[variant].weights)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: policies.thompson(least=0.5), r"least is 0\.5"),
        (lambda: policies.thompson(cost=-1), "cost is -1"),
        (lambda: policies.best(explore=2), "explore is 2"),
        (lambda: policies.best(unsaid=(0,)), "unsaid is"),  # type: ignore[arg-type]
        (lambda: policies.linucb(width=-1), "width is -1"),
        (lambda: policies.linucb(features=3), "features is 3"),  # type: ignore[arg-type]
    ],
)
def test_bandits_that_make_no_sense_are_refused(make: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        make()


# as data


def test_a_policy_is_plain_data_too() -> None:
    made = policies.policy_of({"policy": "weights", "arms": {"a": 3, "b": {"weight": 1, "exclude": ["plan:free"]}}})
    assert made.odds(ask(tags=["plan:free"])).shares == {"a": 1.0}
    assert made.odds(ask()).shares == {"a": 0.75, "b": 0.25}
    assert policies.policy_of({"policy": "shares"}).odds(ask()).shares == {"a": 0.5, "b": 0.5}


@pytest.mark.parametrize(
    ("table", "error", "said"),
    [
        ({}, InvalidInput, "the policy is None: write policy = "),
        ({"policy": "nope"}, NotFound, "no policie? named 'nope'|known: best"),
        ({"policy": "best", "explor": 1}, InvalidInput, "takes no such arguments"),
        ({"policy": "weights", "arms": 3}, InvalidInput, "arms is 3"),
        ({"policy": "learned", "source": "no/such.router"}, InvalidInput, "can't be read"),
    ],
)
def test_tables_that_describe_none_are_refused(table: Any, error: Any, said: str) -> None:
    with pytest.raises(error, match=said):
        policies.policy_of(table)


def test_a_policy_of_ones_own_needs_one_method(tmp_path: Path) -> None:
    class LongOnes:
        def odds(self, ask: policies.Ask) -> policies.Odds:
            return policies.Odds({"b" if len(ask.text()) > 20 else "a": 1.0}, "by length")

    mine: Policy = LongOnes()
    assert decide(mine, ask("short")).variant == "a"
    assert decide(mine, ask("a much longer question than that")).variant == "b"
