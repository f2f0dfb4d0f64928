"""What shown signals are worth, of simulated users whose truth is known; and credit for what is said of traces."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import loopkit
from loopkit import evaluators
from loopkit.errors import InvalidInput, NotFound
from loopkit.signals.cards import FEWEST, Calibration, Call, calibrations
from loopkit.signals.credit import credits
from loopkit.testing import MemorySink
from loopkit.types import Feedback, Span


def call(number: int, *said: tuple[str, Any], user: str | None = None, **more: Any) -> Call:
    span = Span(
        trace_id=f"{number:032x}", span_id=f"{number:016x}", name="t", task="t", started_at=number, ended_at=number + 1,
        output="o", user_id=user, **more,
    )  # fmt: skip
    events = [
        Feedback(id=f"{number}-{n}", target=span.id, name=name, value=value, at=number, arrived_at=number,
                 kind="explicit" if name == "thumbs" else "implicit")
        for n, (name, value) in enumerate(said)
    ]  # fmt: skip
    return Call(span, events)


def card(calls: Sequence[Call], name: str = "regenerated") -> Calibration:
    (found,) = [each for each in calibrations("t", calls) if each.signal == name]
    return found


def simulated(
    n: int,
    *,
    seed: int = 3,
    told: Callable[[bool, bool], float] = lambda *_: 0.5,
    signal: tuple[float, float] = (0.1, 0.6),
) -> list[Call]:
    """Calls, 70 in 100 good; who regenerates with which probability after a good and a bad one; who says so."""
    draw = random.Random(seed)
    made: list[Call] = []
    for number in range(n):
        good = draw.random() < 0.7
        seen = draw.random() < signal[0 if good else 1]
        said: list[tuple[str, Any]] = [("regenerated", True)] if seen else []
        if draw.random() < told(good, seen):
            said.append(("thumbs", good))
        made.append(call(number, *said, user=f"u{number % (n // 4)}"))
    return made


TRUE_AREA = 0.5 * (1 + 0.6 - 0.1)
"""Of a mark that comes after 10 in 100 good and 60 in 100 bad calls."""


def test_a_card_says_how_far_a_signal_agrees_with_what_people_say() -> None:
    made = card(simulated(4000))
    assert made.area is not None
    assert made.low <= TRUE_AREA <= made.high
    assert made.high - made.low < 0.06
    assert made.trains
    assert 0.4 < made.weight < 0.5
    bins = {each.shown: each for each in made.bins}
    assert bins["seen"].low <= 0.28 <= bins["seen"].high  # 0.7 * 0.1 of 0.7 * 0.1 + 0.3 * 0.6
    assert bins["not seen"].low <= 0.84 <= bins["not seen"].high
    assert bins["seen"].calls == made.calls


def test_a_mark_that_may_mean_either_has_a_card_too() -> None:
    """Who goes away may be content or not: the table doesn't say, people do."""
    draw = random.Random(4)
    calls = []
    for number in range(400):
        good = draw.random() < 0.5
        seen = draw.random() < (0.1 if good else 0.6)
        calls.append(call(number, *([("abandoned", True)] if seen else []), ("thumbs", good), user=f"u{number}"))
    made = card(calls, "abandoned")
    assert made.area is not None
    assert made.low <= TRUE_AREA <= made.high
    assert made.trains


def test_who_bothers_to_say_so_is_weighed_out() -> None:
    """Those who regenerate say something ten times as often: the bare area is far off, the weighted one is not."""
    made = [card(simulated(3000, seed=seed, told=lambda good, seen: 0.6 if seen else 0.06)) for seed in range(20)]
    assert sum(each.low <= TRUE_AREA <= each.high for each in made) >= 17
    weighted = sum(each.area or 0 for each in made) / 20
    bare = sum(each.raw_area or 0 for each in made) / 20
    assert abs(weighted - TRUE_AREA) < 0.02 < abs(bare - TRUE_AREA)
    assert all(each.effective < each.calls for each in made)


def test_loud_users_count_for_a_few() -> None:
    """One user who regenerates everything and likes everything can't turn a card."""
    calm = simulated(600, told=lambda *_: 1.0)
    loud = [call(10_000 + n, ("regenerated", True), ("thumbs", True), user="loud") for n in range(600)]
    alone, both = card(calm), card([*calm, *loud])
    assert both.raw_area is not None
    assert both.area is not None
    assert both.raw_area < 0.5  # by numbers alone it would mean the contrary
    assert both.area > both.raw_area + 0.15
    assert alone.trains


@pytest.mark.parametrize(
    ("calls", "reason"),
    [
        (simulated(60, told=lambda *_: 1.0, signal=(0.2, 0.5)), f"labelled pairs, {FEWEST} are needed"),
        (simulated(3000, signal=(0.3, 0.3)), "no better than chance"),
        (
            [call(n, ("regenerated", True), ("thumbs", True), user=f"u{n}") for n in range(80)],
            "0 users with the rarer verdict",
        ),
        ([call(n, ("regenerated", True)) for n in range(80)], "0 labelled pairs"),
    ],
)
def test_what_is_too_little_ranks_and_does_not_train(calls: list[Call], reason: str) -> None:
    made = card(calls)
    assert not made.trains
    assert made.weight == 0
    assert made.why_not is not None
    assert reason in made.why_not
    assert "ranks what to review" in made.why_not


def test_graded_signals_are_parted_by_their_values() -> None:
    draw = random.Random(9)
    made = []
    for number in range(600):
        alike = draw.random()
        made.append(call(number, ("accepted", alike), ("thumbs", draw.random() < alike), user=f"u{number}"))
    found = card(made, "accepted")
    assert found.trains
    goods = [each.good for each in found.bins]
    assert [each.shown for each in found.bins] == [
        "0 to 0.25",
        "0.25 to 0.5",
        "0.5 to 0.75",
        "0.75 to 0.95",
        "0.95 to 1",
    ]
    assert goods == sorted(goods, key=lambda good: good or 0)
    assert sum(each.calls for each in found.bins) == 600


@pytest.mark.parametrize(("users", "each"), [(1, 10), (3, 5), (5, 2)])
def test_few_users_decide_nothing(users: int, each: int) -> None:
    """A score that is each user's own, and says nothing: by chance it would part them from the others."""
    trains = 0
    for seed in range(60):
        draw = random.Random(seed)
        made = []
        for user in range(60 + users):
            alike = draw.random()
            for _ in range(each):
                good = user >= users
                made.append(call(len(made), ("accepted", alike), ("thumbs", good), user=f"u{user}"))
        trains += card(made, "accepted").trains
    assert trains == 0


def test_signals_of_ones_own_have_cards_too() -> None:
    draw = random.Random(2)
    made = []
    for number in range(300):
        good = draw.random() < 0.5
        made.append(
            call(
                number, ("thumbs", good), ("confidence", draw.uniform(0.4, 1) if good else draw.uniform(0, 0.6)),
                ("dwell", draw.uniform(1, 60)), ("clicked", good or draw.random() < 0.3), user=f"u{number}",
            )
        )  # fmt: skip
    cards = {each.signal: each for each in calibrations("t", made)}
    assert set(cards) == {"confidence", "dwell", "clicked"}
    assert [each.shown for each in cards["confidence"].bins] == [
        "0 to 0.25", "0.25 to 0.5", "0.5 to 0.75", "0.75 to 0.95", "0.95 to 1",
    ]  # fmt: skip
    assert (cards["confidence"].trains, cards["dwell"].trains, cards["clicked"].trains) == (True, False, True)
    assert len(cards["dwell"].bins) == 4
    assert sum(each.calls for each in cards["dwell"].bins) == 300


def record(n: int, *, edits: bool = True) -> None:
    draw = random.Random(1)
    for number in range(n):
        with (
            loopkit.context(user_id=f"u{number % 40}"),
            loopkit.span("reply", task="reply", input={"question": f"what about number {number * 7919}"}) as s,
        ):
            s.set(output=f"answer {number * 104_729}")
        good = draw.random() < 0.6
        if edits:
            final = f"answer {number * 104_729}" if good else f"quite another text about {number * 15_485_863}"
            loopkit.accepted(s, final)
        if draw.random() < 0.5:
            loopkit.feedback(s, "thumbs", good)
    loopkit.flush()


def test_edits_train_when_they_were_calibrated(stored: MemorySink) -> None:
    record(240)
    before = loopkit.Dataset.create("reply")
    assert before.report["trusted"] == []
    (made,) = loopkit.calibrate("reply")
    assert (made.signal, made.trains) == ("accepted", True)
    after = loopkit.Dataset.create("reply")
    assert after.report["trusted"] == ["accepted"]
    assert len(after.examples) > 1.5 * len(before.examples)
    edited = [example for example in after.examples if example.rejected is not None]
    assert edited
    assert all(str(example.expected).startswith("quite another") for example in edited)
    assert loopkit.calibrate()[0] == made  # of all tasks


def test_too_few_do_not(stored: MemorySink) -> None:
    record(40)
    (made,) = loopkit.calibrate("reply")
    assert not made.trains
    assert loopkit.Dataset.create("reply").report["trusted"] == []
    with pytest.raises(NotFound):
        loopkit.calibrate("unknown")


# Credit


def steps(*outputs: str, kind: Any = "task") -> list[Span]:
    return [
        Span(trace_id="1" * 32, span_id=f"{n:016x}", name="s", kind=kind, started_at=n, ended_at=n + 1, output=output)
        for n, output in enumerate(outputs)
    ]


SAID = Feedback(id="e", target=f"trace:{'1' * 32}", name="thumbs", value=False, comment="too short", at=1, arrived_at=1)
ANSWER = "Your card was declined since its limit is spent, so please wait until Monday."


@pytest.mark.parametrize(
    ("method", "parts"),
    [
        ("last", [0, 0, 1]),
        ("uniform", [1 / 3, 1 / 3, 1 / 3]),
        ("decay", [1 / 7, 2 / 7, 4 / 7]),
        ("touched", [0.5, 0, 0.5]),
        (None, [0, 0, 1]),
        (lambda found, event: 1, [0, 1, 0]),
        (lambda found, event: None, [0, 0, 0]),
    ],
)
def test_each_method_says_whose_doing_it_was(method: Any, parts: list[float]) -> None:
    made = steps("the limit is spent, so please wait until", "a plan nobody saw in the end", ANSWER)
    assert credits(made, SAID, method, shown=f"Dear Ana, {ANSWER}") == pytest.approx(parts)


def test_agents_steps_share_it_and_short_words_reach_the_user_too() -> None:
    assert credits(steps("a", "b", kind="agent"), SAID) == [0.5, 0.5]
    assert credits(steps("cards", "loans"), SAID, "touched", shown="Sent to Cards!") == [1, 0]
    assert credits(steps("cards", ""), SAID, "touched", shown="nothing of it") == [0, 1]  # the last one's then
    assert credits([], SAID, "uniform") == []
    with pytest.raises(InvalidInput, match="credit is 'first'"):
        credits(steps("a"), SAID, "first")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="named step 4 of 1"):
        credits(steps("a"), SAID, lambda *_: 4)


@given(st.lists(st.text(max_size=30), min_size=1, max_size=6), st.sampled_from(["last", "uniform", "decay", "touched"]))
def test_the_parts_are_a_whole(outputs: list[str], method: Any) -> None:
    parts = credits(steps(*outputs), SAID, method)
    assert sum(parts) == pytest.approx(1)
    assert all(0 <= part <= 1 for part in parts)


def test_a_model_names_the_first_wrong_step() -> None:
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return " 2."

    judge = evaluators.FirstWrongStep(ask)
    assert judge(steps("plan", "search", "answer"), SAID) == 1
    assert all(part in asked[0] for part in ("Step 3", "search", "thumbs: too short"))
    for answer in ("0", "none of them", "17", ""):
        assert evaluators.FirstWrongStep(lambda _, said=answer: said)(steps("a", "b"), SAID) is None  # type: ignore[misc]


def test_what_is_said_of_a_trace_or_session_counts_for_its_calls(stored: MemorySink) -> None:
    def reply(text: str) -> str:
        with loopkit.span("reply", task="reply", input={"question": f"about {text}"}) as s:
            s.set(output=text)
        return s.id

    with loopkit.context(session_id="s1", user_id="u1"):
        with loopkit.span("request") as first:
            drafts = [reply("a draft of number one two three four"), reply("the other text that was sent as it is")]
            first.set(output="the other text that was sent as it is")
        with loopkit.span("request") as second:
            late = reply("an answer in another trace of this session")
    loopkit.feedback(f"trace:{first.trace_id}", "thumbs", True)
    loopkit.feedback("session:s1", "thumbs", False)
    loopkit.feedback(drafts[0], "thumbs", False)  # said of it alone
    assert late
    assert second.id
    (row,) = loopkit.figures("reply", by="all")
    assert (row.judged, row.right) == (3, pytest.approx(1 / 3))
    made = loopkit.Dataset.create("reply")
    assert [example.spans for example in made.examples] == [(drafts[1],)]
    assert made.report["left_out"]["called wrong without a correction"] == 2


def test_what_is_said_counts_before_what_is_shown(stored: MemorySink) -> None:
    record(400)
    (card_before,) = loopkit.calibrate("reply")
    assert card_before.trains
    with loopkit.context(user_id="x"), loopkit.span("reply", task="reply", input={"question": "an odd one out"}) as s:
        s.set(output="an answer nobody liked")
    loopkit.feedback(s, "thumbs", False)
    loopkit.accepted(s, "an answer nobody liked")
    made = loopkit.Dataset.create("reply")
    assert not any(s.id in example.spans for example in made.examples)
    shown = [example for example in made.examples if example.weight < 1]
    assert shown
    assert {round(example.weight, 6) for example in shown} == {round(card_before.weight, 6)}


def test_later_calls_and_other_tasks_take_nothing(stored: MemorySink) -> None:
    with loopkit.context(session_id="s9"):
        with loopkit.span("request", task="answer", input={"question": "who"}) as root:
            with loopkit.span("rewrite", task="rewrite", input={"question": "who is it"}) as step:
                step.set(output="who is it, really")
            root.set(output="nobody")
        loopkit.feedback("session:s9", "thumbs", True)
        loopkit.flush()
        with loopkit.span("request", task="answer", input={"question": "and then"}) as later:
            later.set(output="nothing")
    loopkit.feedback(f"trace:{root.trace_id}", correction="somebody")
    answers = {example.spans[0]: example for example in loopkit.Dataset.create("answer").examples}
    assert answers[root.id].expected == "somebody"
    assert later.id not in answers
    rewritten = loopkit.Dataset.create("rewrite").examples
    assert [example.expected for example in rewritten] == ["who is it, really"]  # by the session's thumb, not by that


def test_whose_doing_it_was_may_be_asked_for(stored: MemorySink) -> None:
    drafts: list[str] = []
    with loopkit.context(session_id="s1", user_id="u1"), loopkit.span("request") as first:
        for text in ("a draft of number one two three four", "the other text that was sent as it is"):
            with loopkit.span("reply", task="reply", input={"question": f"about {text}"}) as s:
                s.set(output=text)
            drafts.append(s.id)
        first.set(output="the other text that was sent as it is")
    loopkit.feedback(f"trace:{first.trace_id}", "thumbs", True)
    loopkit.feedback(drafts[0], "thumbs", False)
    shared = loopkit.Dataset.create("reply", credit="uniform")
    assert [(example.spans, example.weight) for example in shared.examples] == [((drafts[1],), 0.5)]
    touched = loopkit.Dataset.create("reply", credit="touched")
    assert [(example.spans, example.weight) for example in touched.examples] == [((drafts[1],), 1.0)]
    judged = loopkit.Dataset.create("reply", credit=lambda found, event: len(found) - 1)
    assert [example.spans for example in judged.examples] == [(drafts[1],)]
    with pytest.raises(InvalidInput, match="credit is 'most'"):
        loopkit.Dataset.create("reply", credit="most")  # type: ignore[arg-type]
