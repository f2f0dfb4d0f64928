"""Rollouts that could go wrong: failing candidates, unequal judging, wrong orders, races."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

import loopkit
from loopkit.errors import InvalidInput
from loopkit.statistics.sequential import unbalanced
from loopkit.testing import MemorySink
from loopkit.types import Variant

TASK = "triage"


def base(ticket: str) -> str:
    return "right" if "easy" in ticket else "wrong"


def brittle(ticket: str) -> str:
    if "easy" not in ticket:
        raise RuntimeError("too hard")
    return "right"


def other(ticket: str) -> str:
    return base(ticket)


BASE, BRITTLE, OTHER = (Variant(callable=f"{__name__}:{name}") for name in ("base", "brittle", "other"))


@pytest.fixture
def registry(stored: MemorySink) -> loopkit.Registry:
    with loopkit.span("first", task=TASK):
        pass
    made = loopkit.Registry(loopkit.open_store())
    made.promote(TASK, made.add(TASK, BASE), reason="first")
    return made


def serve(router: loopkit.Router, count: int, judged: object = lambda candidate: True, start: int = 0) -> None:
    """Calls of one user each, half of them easy; judged right or wrong where `judged(is it the candidate's)`."""
    for number in range(start, start + count):
        with loopkit.context(user_id=f"u{number}"), loopkit.span("request"):
            output = router.call(ticket=f"{'easy' if number % 2 else 'hard'} {number}")
        call = loopkit.open_store().spans(task=TASK, kind="task", newest=1)[0]
        if judged(call.variant != "v1"):  # type: ignore[operator]
            loopkit.feedback(call.id, "right", output == "right")


def test_a_candidate_that_fails_is_stopped_even_where_the_default_rescues_its_calls(registry: loopkit.Registry) -> None:
    rollout = loopkit.Rollout.start(TASK, registry.add(TASK, BRITTLE))
    router = loopkit.Router(TASK, default=BASE)
    serve(router, 60)
    decision = rollout.step()
    assert decision.action == "stop"
    assert "fails in more than 5%" in decision.sentence
    assert registry.current(TASK) == "v1"


def test_arms_that_are_judged_unequally_are_not_compared(registry: loopkit.Registry) -> None:
    rollout = loopkit.Rollout.start(TASK, registry.add(TASK, OTHER))
    generator = random.Random(1)
    serve(loopkit.Router(TASK, default=BASE), 160, lambda candidate: generator.random() < (0.1 if candidate else 0.9))
    decision = rollout.decide()
    assert decision.action == "wait"
    assert "judged unequally" in decision.sentence


def test_the_sample_ratio_check_rarely_cries_wolf() -> None:
    false = 0
    for seed in range(300):
        generator = random.Random(seed)
        false += unbalanced([generator.random() < 0.3 for _ in range(300)], 0.3) <= 0.05
    assert false / 300 <= 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5


def test_a_late_outcome_is_added_at_the_end_and_a_unit_counts_once(registry: loopkit.Registry) -> None:
    rollout = loopkit.Rollout.start(TASK, registry.add(TASK, OTHER))
    router = loopkit.Router(TASK, default=BASE)
    with loopkit.context(user_id="one"):
        for number in range(4):
            router.call(ticket=f"easy {number}")
    calls = loopkit.open_store().spans(task=TASK, kind="task")[1:]
    loopkit.feedback(calls[3].id, "right", True)
    assert rollout.decide().quality.exposures == 1
    for call in calls[:3]:
        loopkit.feedback(call.id, "right", False)
    decision = rollout.decide()
    assert decision.quality.exposures == 1
    assert abs(decision.quality.difference) <= 1.0


def test_an_ended_rollout_changes_nothing_more(registry: loopkit.Registry) -> None:
    rollout = loopkit.Rollout.start(TASK, registry.add(TASK, OTHER))
    rollout.end(True, "by hand")
    registry.promote(TASK, "v1", reason="back")
    for act in (rollout.step, lambda: rollout.end(True, "again")):
        with pytest.raises(InvalidInput, match="has ended"):
            act()
    assert registry.current(TASK) == "v1"


def test_a_promotion_by_hand_ends_the_rollout(registry: loopkit.Registry) -> None:
    candidate = registry.add(TASK, OTHER)
    loopkit.Rollout.start(TASK, candidate)
    registry.promote(TASK, "v1", reason="enough")
    assert loopkit.Rollout.running(TASK) is None
    loopkit.Rollout.start(TASK, candidate)


def test_a_router_inside_a_helper_binds_the_tasks_own_span(registry: loopkit.Registry, stored: MemorySink) -> None:
    router = loopkit.Router(TASK, default=BASE)

    @loopkit.trace(task=TASK)
    def triage(ticket: str) -> str:
        with loopkit.span("helper"):
            return router.call(ticket=ticket)

    @loopkit.trace(task="support")
    def support(ticket: str) -> str:
        return router.call(ticket=ticket)

    triage("easy")
    support("easy")
    spans = stored.spans()
    own = next(span for span in spans if span.input == {"ticket": "easy"} and span.name == TASK)
    assert own.variant == "v1"
    outer = next(span for span in spans if span.name == "support")
    assert (outer.task, outer.variant) == ("support", None)
    assert loopkit.figures("support")[0].calls == 1


def test_processes_that_add_variants_at_once_lose_none(registry: loopkit.Registry) -> None:
    code = (
        "import sys, loopkit\n"
        "registry = loopkit.Registry(loopkit.open_store())\n"
        "for n in range(5): print(registry.add('triage', loopkit.Variant(model=f'm{sys.argv[1]}-{n}', prompt='x')))"
    )
    loopkit.flush()
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(n)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd())
        for n in range(4)
    ]
    names = [name for process in processes for name in process.communicate(timeout=60)[0].split()]
    assert len(set(names)) == 20
    assert len(registry.variants(TASK)) == 21


def test_a_candidate_that_was_better_and_turned_worse_is_not_promoted(registry: loopkit.Registry) -> None:
    rollout = loopkit.Rollout.start(TASK, registry.add(TASK, OTHER))
    router = loopkit.Router(TASK, default=BASE)
    for number in range(240):
        with loopkit.context(user_id=f"u{number}"):
            router.call(ticket="easy")
        call = loopkit.open_store().spans(task=TASK, kind="task", newest=1)[0]
        loopkit.feedback(call.id, "right", (call.variant != "v1") == (number < 60))
    decision = rollout.step()
    assert decision.action == "wait"
    assert "was better than v1 for a time and isn't any more" in decision.sentence


def test_a_later_word_on_a_call_does_not_change_what_an_earlier_look_saw(registry: loopkit.Registry) -> None:
    rollout = loopkit.Rollout.start(TASK, registry.add(TASK, OTHER))
    serve(loopkit.Router(TASK, default=BASE), 12)
    before = rollout.decide().quality
    for call in loopkit.open_store().spans(task=TASK, kind="task", since=rollout.started_at):
        loopkit.feedback(call.id, "right", False, by="somebody else")
    assert rollout.decide().quality == before


def test_a_failing_candidate_with_little_feedback_is_compared_fairly(registry: loopkit.Registry) -> None:
    """Failures count as often as answers are judged: not always, which would look like unequal judging."""
    rollout = loopkit.Rollout.start(TASK, registry.add(TASK, BRITTLE))
    generator = random.Random(3)
    serve(loopkit.Router(TASK, default=BASE), 120, lambda _: generator.random() < 0.2)
    store = loopkit.open_store()
    calls = store.spans(task=TASK, kind="task", since=rollout.started_at)
    failed = {call.id for call in calls if call.attributes.get("loopkit.router.fallback")}
    judged = {event.target for event in store.feedback()} - failed
    assert len(judged) < rollout.decide().quality.exposures < len(judged) + len(failed) * 0.6


def test_promoting_an_arm_by_hand_ends_the_rollout(registry: loopkit.Registry) -> None:
    candidate = registry.add(TASK, OTHER)
    rollout = loopkit.Rollout.start(TASK, candidate)
    registry.promote(TASK, candidate, reason="by hand")
    with pytest.raises(InvalidInput, match="has ended"):
        rollout.step()
    assert registry.current(TASK) == candidate
    loopkit.Rollout.start(TASK, "v1")


def test_a_rule_that_is_set_while_another_process_promotes_undoes_nothing(registry: loopkit.Registry) -> None:
    candidate = registry.add(TASK, OTHER)
    other = loopkit.Registry(loopkit.open_store())
    registry.rule(TASK, "plan:pro", candidate)
    other.promote(TASK, candidate, reason="meanwhile")
    registry.rule(TASK, "plan:free", "v1")
    assert registry.current(TASK) == candidate
    assert registry.history(TASK)[-1]["rules"] == [["plan:pro", candidate], ["plan:free", "v1"]]
