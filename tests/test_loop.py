"""Once round the loop on a scripted model: calls, feedback, dataset, tuning, evaluation, rollout, lineage, report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from openai import OpenAI

import loopkit
from loopkit import tuners
from loopkit.errors import InvalidInput, NotFound
from loopkit.testing import MemorySink, ScriptedProvider
from loopkit.types import Example, Score, Variant

TASK = "triage"
QUEUES = {"card": "cards", "loan": "loans", "app": "tech"}
BASE = Variant(model="base", prompt="Which queue? {ticket}")


def truth(ticket: str) -> str:
    return next(queue for word, queue in QUEUES.items() if word in ticket)


def answer(body: Any) -> str:
    """A model that only knows cards, unless it was shown demonstrations."""
    question = body["messages"][-1]["content"]
    return truth(question) if len(body["messages"]) > 1 else "cards"


def ticket(number: int) -> str:
    word = list(QUEUES)[number % 3]
    return f"my {word} is broken since day{number} and thing{number * 7} near place{number * 13}"


@pytest.fixture
def client() -> OpenAI:
    provider = ScriptedProvider(answer)
    return loopkit.wrap(OpenAI(api_key="k", http_client=httpx2.Client(transport=provider.transport(httpx2))))


@pytest.fixture
def desk(client: OpenAI, stored: MemorySink) -> Iterator[Any]:
    route = loopkit.Router(TASK, default=BASE, client=client)

    @loopkit.trace(task=TASK)
    def triage(ticket: str) -> tuple[str, str]:
        spans.append(loopkit.current_span().id)
        return route.call(ticket=ticket)

    spans: list[str] = []

    def serve(number: int, *, user: str | None = None) -> str:
        with loopkit.context(user_id=user or f"u{number}", segment="a" if number % 2 else "b"):
            triage(ticket(number))
        return spans[-1]

    serve.router = route  # type: ignore[attr-defined]
    return serve


def correct(span: str, number: int) -> None:
    loopkit.feedback(span, correction=truth(ticket(number)), by=f"editor{number % 2}", source="reviewer")


def served(desk: Any, count: int) -> None:
    for number in range(count):
        correct(desk(number), number)


def test_once_round(desk: Any, client: OpenAI) -> None:
    served(desk, 90)
    rows = {row.segment: row for row in loopkit.figures(TASK, by="segment")}
    assert (rows["a"].calls, rows["b"].calls) == (45, 45)
    assert rows["a"].right == pytest.approx(1 / 3)
    assert loopkit.confusion(TASK) == {("cards", "cards"): 30, ("loans", "cards"): 30, ("tech", "cards"): 30}
    wrong = loopkit.failures(TASK, newest=5)
    assert [failure.span.output for failure in wrong] == ["cards"] * 5
    assert wrong[0].expected == "tech"

    dataset = loopkit.Dataset.create(TASK)
    assert sum(dataset.report["splits"].values()) == 90
    tuned = {name: loopkit.tune(BASE, dataset, name) for name in ("few-shot", "nearest", "vote", "cascade")}
    assert {example.expected for example in tuned["few-shot"].demonstrations} == set(QUEUES.values())
    assert tuned["vote"].provenance["dataset"] == dataset.id
    found = loopkit.evaluate(TASK, {"base": BASE, **tuned}, dataset=dataset, baseline="base", client=client)
    means = {summary.variant: summary.mean for summary in found.overall()}
    assert means["few-shot"] == means["vote"] == 1.0
    assert means["base"] < 0.6
    assert found.best() != "base"
    assert all("better than base" in comparison.sentence for comparison in found.comparisons)

    registry = loopkit.Registry(loopkit.open_store())
    registry.promote(TASK, registry.add(TASK, BASE), reason="first")
    candidate = registry.add(TASK, tuned["vote"])
    rollout = loopkit.Rollout.start(TASK, candidate)
    desk.router.refresh()
    decision = rollout.decide()
    for number in range(100, 300):
        correct(desk(number), number)
        if number % 10 == 9:
            decision = rollout.step()
            if decision.action != "wait":
                break
    assert decision.action == "promote", decision.sentence
    assert registry.current(TASK) == candidate
    assert loopkit.Rollout.running(TASK) is None

    trail = loopkit.lineage(dataset.examples[0].spans[0])
    kinds = []

    def walk(node: Any) -> None:
        kinds.append(node.kind)
        for child in node.leads_to:
            walk(child)

    walk(trail)
    assert {"span", "feedback", "dataset", "variant", "rollout", "serving"} <= set(kinds)
    back = loopkit.lineage(rollout.id).came_from[0]
    assert (back.kind, back.id) == ("variant", f"{TASK}/{candidate}")
    assert [origin.id for origin in back.came_from] == [dataset.id]
    assert {span.id for span in back.came_from[0].came_from[1:]} <= {s for e in dataset.examples for s in e.spans}
    page = loopkit.report(TASK)
    assert "<script" not in page
    assert "vote" in page
    assert decision.sentence.split(":")[0] in page


def test_a_worse_candidate_is_stopped(desk: Any) -> None:
    desk(0)
    registry = loopkit.Registry(loopkit.open_store())
    good = Variant(callable=f"{__name__}:always_right")
    registry.promote(TASK, registry.add(TASK, good), reason="first")
    rollout = loopkit.Rollout.start(TASK, registry.add(TASK, BASE))
    desk.router.refresh()
    for number in range(200):
        correct(desk(number), number)
        if number % 20 == 19 and (decision := rollout.step()).action != "wait":
            break
    assert decision.action == "stop", decision.sentence
    assert "worse" in decision.sentence
    assert registry.current(TASK) == "v1"


def always_right(ticket: str) -> str:
    return truth(ticket)


def always_fails(ticket: str) -> str:
    raise RuntimeError("down")


def test_a_twin_is_another_name_for_the_same_variant(desk: Any) -> None:
    served(desk, 3)
    registry = loopkit.Registry(loopkit.open_store())
    registry.promote(TASK, registry.add(TASK, BASE), reason="first")
    rollout = loopkit.Rollout.start(TASK, "", twin=True)
    assert (rollout.current, rollout.candidate[:5], rollout.twin) == ("v1", "twin-", True)
    with pytest.raises(InvalidInput, match="is still running"):
        loopkit.Rollout.start(TASK, rollout.candidate)


def test_wrong_orders_are_one_sentence_each(desk: Any) -> None:
    desk(0)
    store = loopkit.open_store()
    registry = loopkit.Registry(store)
    with pytest.raises(NotFound, match="nothing is served for task 'triage' yet"):
        loopkit.Rollout.start(TASK, "v1")
    with pytest.raises(NotFound, match="task 'triage' has no variant 'v9'; known: none"):
        registry.promote(TASK, "v9", reason="x")
    with pytest.raises(NotFound, match="the task 'triag' is unknown"):
        loopkit.figures("triag")
    with pytest.raises(NotFound, match="the task 'triag' is unknown"):
        loopkit.Dataset.create("triag")
    with pytest.raises(InvalidInput, match="no example is left for 'triage': of 1 calls 1 without feedback"):
        loopkit.Dataset.create(TASK)
    with pytest.raises(NotFound, match="no dataset 'd'"):
        loopkit.Dataset.load("d")
    registry.promote(TASK, registry.add(TASK, BASE), reason="first")
    with pytest.raises(InvalidInput, match="serves 'triage' already"):
        loopkit.Rollout.start(TASK, "v1")
    for share in (0, 1, 2, "half"):
        with pytest.raises(InvalidInput, match="share is"):
            loopkit.Rollout.start(TASK, "v1", share=share)  # type: ignore[arg-type]
    with pytest.raises(NotFound, match="is no dataset, variant"):
        loopkit.lineage("nothing")


def test_golden_examples_never_enter_training_and_groups_stay_together(desk: Any) -> None:
    for number in range(120):
        correct(desk(number, user=f"u{number // 4}"), number)
    first = loopkit.Dataset.create(TASK)
    for number in range(120, 240):
        correct(desk(number, user=f"u{number // 4}"), number)
    second = loopkit.Dataset.create(TASK)
    sides: dict[str, set[str]] = {}
    for example in (*first.examples, *second.examples):
        assert example.group is not None
        sides.setdefault(example.group, set()).add(example.split)
    assert all(len(splits) == 1 for splits in sides.values())
    assert {example.split for example in second.examples} == {"train", "test", "golden"}
    assert first.id != second.id
    assert loopkit.Dataset.load(first.id) == first
    assert loopkit.Dataset.load(TASK) == second


def test_near_duplicates_of_held_out_examples_leave_training(desk: Any) -> None:
    served(desk, 30)
    sealed = [Example(id="g", input={"ticket": ticket(4)}, expected="loans", split="golden")]
    dataset = loopkit.Dataset.create(TASK, golden=0.0, test=0.0, add=sealed)
    assert dataset.report["left_out"]["near-duplicates of a held-out example"] == 1
    assert [example.id for example in dataset.split("golden")] == ["g"]
    assert ticket(4) not in {example.input["ticket"] for example in dataset.split("train")}


def test_thumbs_make_examples_and_a_reviewer_outweighs_a_user(desk: Any) -> None:
    spans = [desk(number) for number in range(4)]
    loopkit.feedback(spans[0], "helpful", True)
    loopkit.feedback(spans[1], "helpful", False)
    loopkit.feedback(spans[2], correction="cards", source="user")
    loopkit.feedback(spans[2], correction="tech", source="reviewer", at=1)
    dataset = loopkit.Dataset.create(TASK, golden=0.0, test=0.0)
    assert [example.expected for example in dataset.examples] == ["cards", "tech"]
    assert dataset.report["left_out"] == {"called wrong without a correction": 1, "without feedback": 1}
    assert dataset.report["conflicting_feedback"] == 1
    assert (dataset.examples[1].chosen, dataset.examples[1].rejected) == ("tech", "cards")


def test_evaluators_of_every_sort_and_one_that_fails(desk: Any, client: OpenAI) -> None:
    served(desk, 30)

    @loopkit.evaluator
    def short(output: str) -> Any:
        return {"score": len(output) < 6, "reason": "length"}

    @loopkit.evaluator(name="hosted")
    def hosted(inputs: Any, outputs: Any, reference_outputs: Any) -> bool:
        return bool(outputs == reference_outputs)

    @loopkit.evaluator
    def broken(output: str) -> float:
        raise RuntimeError("no judge")

    dataset = loopkit.Dataset.create(TASK)
    found = loopkit.evaluate(
        TASK, {"current": BASE}, dataset=dataset, evaluators=[short, hosted, broken, "exact"], client=client
    )
    scores = {score.name: score for score in found.rows[0].scores}
    assert scores["short"] == Score(name="short", value=1.0, reason="length")
    assert scores["hosted"].value == scores["exact"].value
    assert scores["broken"].error == "RuntimeError: no judge"
    with pytest.raises(InvalidInput, match="wants 'answer'"):
        loopkit.evaluator(lambda answer: True)
    with pytest.raises(NotFound, match="no evaluator named 'absent'"):
        loopkit.evaluate(TASK, {"current": BASE}, dataset=dataset, evaluators=["absent"])
    with pytest.raises(InvalidInput, match="the baseline 'x' is not among"):
        loopkit.evaluate(TASK, {"current": BASE}, dataset=dataset, baseline="x")


def test_a_variant_that_fails_is_a_row_and_scores_nothing(desk: Any, client: OpenAI) -> None:
    served(desk, 30)
    found = loopkit.evaluate(
        TASK,
        {"current": BASE, "down": Variant(callable=f"{__name__}:always_fails")},
        dataset=loopkit.Dataset.create(TASK),
        client=client,
    )
    down = [row for row in found.rows if row.variant == "down"]
    assert {row.error for row in down} == {"RuntimeError: down"}
    assert found.overall()[1].mean == 0.0
    assert loopkit.figures(TASK)[0].calls == 30  # an experiment's calls are not the service's


def test_tuners_by_name_with_options_and_bad_ones(desk: Any) -> None:
    served(desk, 30)
    dataset = loopkit.Dataset.create(TASK)
    assert loopkit.tune(BASE, dataset, "nearest", k=2).retriever == {"dataset": dataset.id, "k": 2, "fields": []}
    assert len(loopkit.tune(BASE, dataset, tuners.FewShot(per_label=2)).demonstrations) == 6
    with pytest.raises(NotFound, match="no tuner named 'magic'"):
        loopkit.tune(BASE, dataset, "magic")
    with pytest.raises(InvalidInput, match="doesn't take these options"):
        loopkit.tune(BASE, dataset, "nearest", depth=3)
    with pytest.raises(InvalidInput, match="k is 0"):
        tuners.Nearest(k=0)
    with pytest.raises(InvalidInput, match="need a variant with a model"):
        loopkit.tune(Variant(callable=f"{__name__}:always_right"), dataset, "few-shot")


def test_the_registry_keeps_rules_through_promotions_and_tells_its_history(desk: Any) -> None:
    desk(0)
    registry = loopkit.Registry(loopkit.open_store())
    first = registry.add(TASK, BASE)
    assert registry.add(TASK, BASE) == first == "v1"
    other = registry.add(TASK, Variant(callable=f"{__name__}:always_right"))
    registry.promote(TASK, first, reason="first")
    registry.rule(TASK, "segment:a", other)
    registry.promote(TASK, first, reason="again")
    desk.router.refresh()
    with loopkit.context(segment="a"):
        assert desk.router.choose(ticket="x").name == other
    assert [entry["reason"] for entry in registry.history(TASK)] == ["first", f"segment:a goes to {other}", "again"]
    assert registry.resolve(TASK, "candidate") == other
    for shares in ({"v1": 0.5}, {"v1": 1.5, "v2": -0.5}):
        with pytest.raises(InvalidInput, match="shares are"):
            registry.share(TASK, shares, reason="x", salt="y")


def test_routers_pick_up_what_another_process_promoted(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    desk(0)
    desk.router.choose(ticket="x")
    registry = loopkit.Registry(loopkit.open_store())  # as another process has it
    registry.promote(TASK, registry.add(TASK, Variant(callable=f"{__name__}:always_right")), reason="elsewhere")
    deadline = time.monotonic() + 5
    while desk.router.choose(ticket="x").name != "v1":
        assert time.monotonic() < deadline
        time.sleep(0.1)
