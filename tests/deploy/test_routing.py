"""Routers at the desk: what was logged teaches a router, is shown, and says what another would have earned."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import loopkit
from loopkit import policies
from loopkit.deploy.decisions import logged
from loopkit.errors import InvalidInput
from loopkit.types import Variant
from tests.cli.test_commands import command
from tests.route.test_learned import TOPICS, text_of_topic

GOOD = {("sums", "small"): 0.9, ("sums", "large"): 0.9, ("poems", "small"): 0.2, ("poems", "large"): 0.9}


def small(question: str) -> str:
    return "small"


def large(question: str) -> str:
    if "break" in question:
        raise RuntimeError("the large one broke")
    return "large"


SMALL = Variant(callable=f"{__name__}:small")
LARGE = Variant(callable=f"{__name__}:large")


def served(n: int, *, seed: int = 0, judged: float = 1.0, policy: policies.Ask | None = None) -> None:
    """Calls of a router that explores, and what users said of them."""
    draw = random.Random(seed)
    registry = loopkit.Registry(loopkit.open_store())
    if not registry.variants("ask"):
        registry.add("ask", SMALL, name="small")
        registry.add("ask", LARGE, name="large")
        registry.promote("ask", "small", reason="cheap")
        registry.share("ask", {"small": 0.7, "large": 0.3}, reason="to learn", salt="s1")
    router = loopkit.Router("ask", default=SMALL)
    for number in range(n):
        topic = draw.choice(list(TOPICS))
        with loopkit.context(user_id=f"u{seed}-{number}"), loopkit.span("ask", task="ask") as span:
            question = text_of_topic(topic, draw)
            span.set(input={"question": question})
            choice = router.choose(question=question)
            span.set(output=choice.call(question=question))
        if draw.random() < judged:
            loopkit.feedback(span.id, "thumbs", draw.random() < GOOD[topic, choice.name])


@pytest.fixture
def shop(clean_environment: Path) -> Path:
    loopkit.init("shop")
    served(900)
    loopkit.flush()
    return clean_environment


def test_what_was_decided_is_logged_with_what_came_of_it(shop: Path) -> None:
    found = logged("ask")
    assert len(found) == 900
    assert {(call.variant, call.propensity) for call in found} == {("small", 0.7), ("large", 0.3)}
    assert all(call.inputs["question"] and call.reward in (0.0, 1.0) and call.user_id for call in found)
    share = sum(call.variant == "large" for call in found) / len(found)
    assert share == pytest.approx(0.3, abs=0.05)
    newer = logged("ask", since=found[500].at)
    assert len(newer) == 400


def test_a_failed_variant_has_earned_nothing_whatever_the_default_said(clean_environment: Path) -> None:
    loopkit.init("shop")
    registry = loopkit.Registry(loopkit.open_store())
    registry.promote("ask", registry.add("ask", LARGE, name="large"), reason="try")
    router = loopkit.Router("ask", default=SMALL)
    assert router.call(question="please break") == "small"
    loopkit.feedback(loopkit.open_store().spans(task="ask", kind="task")[0].id, "thumbs", True)
    (call,) = logged("ask")
    assert (call.variant, call.failed, call.reward) == ("large", True, 0.0)


def test_the_way_from_logs_to_a_router_that_serves(shop: Path, tmp_path: Path) -> None:
    quality = loopkit.fit_router("ask", costs={"small": 1.0, "large": 10.0}, fields=["question"])
    assert quality.about["outcomes"] == {"small": pytest.approx(630, abs=60), "large": pytest.approx(270, abs=60)}
    quality.save(tmp_path / "ask.router")
    policy = policies.learned(tmp_path / "ask.router", strong=0.5, explore=0.05)
    router = loopkit.Router("ask", default=SMALL, policy=policy, sticky_by="call")
    poem, total = [], [router.choose(question="what is w3 plus w5").name for _ in range(60)]
    poem = [router.choose(question="write a poem about w3 and w5").name for _ in range(60)]
    assert poem.count("large") > 50
    assert total.count("small") > 50


def test_what_another_policy_would_have_earned_is_near_what_it_earns(shop: Path) -> None:
    """A policy that sends poems to the large one earns .9, where the log earned about .64."""

    class ByKind:
        def odds(self, ask: policies.Ask) -> policies.Odds:
            is_sum = any(word in ask.text() for word in ("plus", "add", "sum"))
            return policies.Odds({"small" if is_sum else "large": 1.0}, "by kind")

    found = loopkit.simulate_router("ask", ByKind())
    for each in (found.earned.snips, found.earned.dr):
        assert each.low <= 0.9 <= each.high
        assert each.value == pytest.approx(0.9, abs=0.06)
    assert found.earned.logged.value < 0.75
    assert found.difference > 0.15
    assert found.shares["large"] == pytest.approx(0.5, abs=0.06)
    assert (found.untried, found.left_out) == (0.0, {})


def test_calls_that_taught_a_policy_dont_judge_it(shop: Path) -> None:
    quality = loopkit.fit_router("ask", costs={"small": 1.0, "large": 10.0})
    with pytest.raises(InvalidInput, match="no call of 'ask' can be used of 900: 900 that it was fitted to"):
        loopkit.simulate_router("ask", policies.learned(quality, strong=0.5))
    served(900, seed=1, judged=0.8)
    loopkit.flush()
    found = loopkit.simulate_router("ask", policies.learned(quality, strong=0.5))
    assert found.left_out["that it was fitted to"] == 900
    assert found.left_out["of which nothing was said"] == pytest.approx(180, abs=50)
    assert found.earned.dr.low > found.earned.logged.value
    learning = loopkit.simulate_router("ask", policies.best(explore=0.0))
    assert learning.left_out["that it learnt from"] > 700
    assert learning.shares == {"large": 1.0, "small": 0.0}


def test_exploring_beside_it_changes_nothing_of_that(shop: Path) -> None:
    quality = loopkit.fit_router("ask", costs={"small": 1.0, "large": 10.0})
    with pytest.raises(InvalidInput, match="900 that it was fitted to"):
        loopkit.simulate_router("ask", policies.explore(policies.learned(quality, strong=0.5), 0.1))
    plain = loopkit.simulate_router("ask", policies.explore(policies.weights({"small": 1}), 0.1))
    assert plain.left_out == {}


def test_failures_count_as_often_as_answers_are_judged(clean_environment: Path) -> None:
    """One call in ten is judged; the large one fails in a tenth, and is good in nine tenths of the rest."""
    loopkit.init("shop")
    registry = loopkit.Registry(loopkit.open_store())
    registry.promote("ask", registry.add("ask", LARGE, name="large"), reason="try")
    router, draw = loopkit.Router("ask", default=SMALL, retry=None), random.Random(4)
    for number in range(1500):
        fails = draw.random() < 0.1
        with loopkit.span("ask", task="ask", input={"question": "q"}) as span:
            router.choose(question="q").call(question="break" if fails else f"q{number}")
        if not fails and draw.random() < 0.1:
            loopkit.feedback(span.id, "thumbs", draw.random() < 0.9)
    loopkit.flush()
    (row,) = loopkit.routes("ask")
    assert row.failed == pytest.approx(0.1, abs=0.03)
    assert row.low <= 0.81 <= row.high
    assert row.reward == pytest.approx(0.81, abs=0.09)


def test_a_router_learns_after_another_init_too(clean_environment: Path) -> None:
    policy = policies.best(explore=0.0)
    router = loopkit.Router("ask", default=SMALL, policy=policy)
    loopkit.init("shop")
    router.choose(question="x")
    loopkit.shutdown()
    loopkit.init("shop")
    served(300)
    router.choose(question="x")
    loopkit.flush()
    assert router.choose(question="x").name == "large"


def test_what_was_never_tried_is_said(shop: Path) -> None:
    registry = loopkit.Registry(loopkit.open_store())
    registry.add("ask", Variant(callable=f"{__name__}:large", parameters={}, provenance={"note": "new"}), name="new")
    registry.share("ask", {"small": 0.4, "large": 0.3, "new": 0.3}, reason="more", salt="s2")
    found = loopkit.simulate_router("ask", policies.weights({"new": 1, "small": 3}))
    assert found.untried == pytest.approx(0.25)
    assert found.earned.mean_weight == pytest.approx(0.75, abs=0.05)


def test_how_each_variant_does(shop: Path) -> None:
    rows = {row.variant: row for row in loopkit.routes("ask")}
    assert set(rows) == {"small", "large"}
    large_one = rows["large"]
    assert (large_one.share, large_one.failed) == (0.3, 0.0)
    assert large_one.reward == pytest.approx(0.9, abs=0.06)
    assert large_one.low < large_one.reward < large_one.high
    assert rows["small"].drawn + large_one.drawn == pytest.approx(1)
    assert [row.task for row in loopkit.routes()] == ["ask", "ask"]


def test_a_router_learns_from_feedback_while_it_serves(clean_environment: Path) -> None:
    loopkit.init("shop")
    served(300)
    loopkit.flush()
    policy = policies.best(explore=0.0)
    router = loopkit.Router("ask", default=SMALL, policy=policy)
    router.choose(question="x")
    loopkit.flush()  # what is learnt is learnt on the worker, which flush waits for
    assert router.choose(question="x").name == "large"


def test_by_commands(shop: Path, tmp_path: Path) -> None:
    loopkit.shutdown()

    def says(*words: str) -> str:
        done = command(*words, home=shop)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "large" in says("routes", "ask", "--since", "7d")
    file = tmp_path / "ask.router"
    told = says("router", "fit", "ask", "--out", str(file), "--cost", "small=1", "--cost", "large=10")
    assert "quality, held out" in told
    assert file.stat().st_size < 200_000
    plan = tmp_path / "new.toml"
    plan.write_text('policy = "weights"\narms = {small = 1, large = 1}\n')
    told = says("router", "simulate", "ask", "--policy", str(plan), "--since", "1h")
    assert "doubly robust" in told
    assert "large 50%, small 50%" in told
    for words, said in (
        (("routes", "nope"), "the task 'nope' is unknown"),
        (("router", "fit", "ask", "--out", str(file)), "what 'small' costs isn't known"),
        (("router", "fit", "ask", "--out", str(file), "--cost", "small"), "--cost is 'small'"),
        (("router", "simulate", "ask", "--policy", str(tmp_path / "none.toml")), "can't be read"),
        (("router", "simulate", "ask", "--policy", str(plan), "--since", "soon"), "--since is 'soon'"),
    ):
        done = command(*words, home=shop)
        assert done.returncode == 1
        assert said in done.stderr.replace("\n", " ")


def test_a_log_that_says_nothing(clean_environment: Path) -> None:
    loopkit.init("shop")
    served(20, judged=0.0)
    loopkit.flush()
    with pytest.raises(InvalidInput, match="nothing was said of any"):
        loopkit.fit_router("ask", costs={"small": 1, "large": 2}, fields=["questoin"])
    with pytest.raises(InvalidInput, match="20 calls of 'ask' were decided by a router, and nothing was said of any"):
        loopkit.fit_router("ask", costs={"small": 1, "large": 2})
    with pytest.raises(InvalidInput, match="no call of 'ask' can be used of 20: 20 of which nothing was said"):
        loopkit.simulate_router("ask", policies.weights({"small": 1}))
    assert all(row.judged == 0 and row.reward != row.reward for row in loopkit.routes("ask"))
    assert loopkit.routes("nothing") == []
