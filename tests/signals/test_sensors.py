"""Sensors: what a session's turns show, what an edit amounts to, and that a signal is worth what the table says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

import loopkit
from loopkit._ids import Clock
from loopkit.errors import InvalidInput
from loopkit.signals.calls import expected_output
from loopkit.signals.calls import outcome as outcome_of
from loopkit.signals.rewards import MEANINGS, reward_of
from loopkit.signals.sensors import SOON, Turn, last_asked, sensed, similarity
from loopkit.testing import MemorySink, recording
from loopkit.types import Feedback, Span

SECOND = 10**9


def turns(*asked: str, every: int = 30 * SECOND) -> list[Turn]:
    return [Turn(f"t{n}", n * every, text, n * every + SECOND) for n, text in enumerate(asked)]


def names(*asked: str, **given: Any) -> list[tuple[str, str]]:
    return [(each.turn.id, each.name) for each in sensed(turns(*asked, **given))]


@pytest.mark.parametrize(
    ("first", "second", "name"),
    [
        ("Where is my card?", "where is  my CARD?", "regenerated"),
        ("Where is my cärd?", "Where is my ca\u0308rd?", "regenerated"),
        ("how do I block my lost credit card", "my credit card is lost, how to block", "rephrased"),
        ("where is my crad now", "where is my card now", "rephrased"),
        ("how can I reset the password of my account", "reset account password how", "rephrased"),
        ("Where is my card?", "No, I meant my account", "contradicted"),
        ("Where is my card?", "That's not what I asked", "contradicted"),
        ("Where is my card?", "I meant the debit card", "contradicted"),
        ("Where is my card?", "Nein, das Konto", "contradicted"),
        ("Where is my card?", "Sorry, I meant the loan", "contradicted"),
        ("Where is my card?", "That was wrong", "contradicted"),
        ("Where is my card?", "That isn't right", "contradicted"),
        ("Where is my card?", "no the other one", "contradicted"),
    ],
)
def test_what_the_next_turn_shows(first: str, second: str, name: str) -> None:
    assert names(first, second) == [("t0", name)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Where is my card?", "No problem, thank you!"),
        ("Where is my card?", "thanks"),
        ("Where is my card?", "How much does a loan cost?"),
        ("how are you", "how is it"),  # words that alone make no question the same
        ("", ""),
        ("Where is my card?", "Nobody told me about the fee for transfers"),
        ("Where is my card?", "Notify me about payments"),
        # what is polite, or begins with such a word
        ("Where is my card?", "No, thanks"),
        ("Where is my card?", "No, that's all, thank you!"),
        ("Where is my card?", "Actually that's great, thanks!"),
        ("Where is my card?", "Nein danke"),
        ("Where is my card?", "I said yes"),
        ("Where is my card?", "Non-stick pans, which are best?"),
        ("Where is my card?", "Wrong PIN entered three times"),
        ("Where is my card?", "Incorrect password error when I log in"),
        ("Where is my card?", "No one answers at the hotline"),
        ("What does it cost?", "No. 5 Chanel price?"),
        # the next thing of a kind
        ("Translate this letter into French for me", "Translate this letter into German for me"),
        ("what is the interest on a savings account", "what is the interest on a car loan"),
        ("write a unit test for the parser", "write a unit test for the lexer"),
        # what one says again and again
        ("yes", "yes"),
        ("continue", "continue"),
        # what can't be told
        ("", "Where is my card?"),
    ],
)
def test_what_it_does_not_show(first: str, second: str) -> None:
    assert names(first, second) == []


def test_what_is_asked_in_parallel_shows_nothing() -> None:
    assert names("Where is my card?", "Where is my card?", every=SECOND // 2) == []


def test_what_is_asked_much_later_shows_nothing() -> None:
    assert names("Where is my card?", "Where is my card?", every=SOON + 2 * SECOND) == []


def test_a_contradiction_is_the_critique() -> None:
    (seen,) = sensed(turns("Where is my card?", "No, I meant the loan"))
    assert seen.comment == "No, I meant the loan"


def test_who_leaves_is_seen_when_time_has_passed() -> None:
    made = turns("Where is my card?")
    assert [each.name for each in sensed(made, until=made[0].ended_at + 4 * SOON)] == ["abandoned"]
    assert list(sensed(made, until=made[0].ended_at + SOON)) == []


@given(st.text(max_size=60), st.text(max_size=60))
def test_similarity_is_one_only_for_the_same(first: str, second: str) -> None:
    alike = similarity(first, second)
    assert 0 <= alike <= 1
    assert alike == pytest.approx(similarity(second, first))
    assert similarity(first, first) == 1.0


def test_an_answer_that_was_edited_is_corrected(stored: MemorySink) -> None:
    message = {"role": "assistant", "content": "Dear Ana, yes."}
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}]}  # fmt: skip
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=body))
    client = loopkit.wrap(openai.OpenAI(api_key="k", http_client=httpx2.Client(transport=transport)))
    response = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
    same = loopkit.accepted(response, "Dear  Ana, yes.\n")
    edited = loopkit.accepted(response, "Dear Ana, no.", by="bo")
    later = loopkit.accepted(response.id, "Dear Ana, yes!", original="Dear Ana, yes.")
    with loopkit.span("draft") as s:
        s.set(output="a draft")
    of_span = loopkit.accepted(s, "a draft")
    for event in (same, edited, later, of_span):
        assert event is not None
        assert (event.name, event.kind) == ("accepted", "implicit")
    assert same is not None
    assert edited is not None
    assert (same.value, same.correction) == (1.0, None)
    assert edited.correction == "Dear Ana, no."
    assert 0.7 < float(edited.value or 0) < 1
    with pytest.raises(InvalidInput, match="give original="):
        loopkit.accepted(response.id, "x")
    with pytest.raises(InvalidInput, match="the final text is 5"):
        loopkit.accepted(response, 5)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="the outcome is 'yes'"):
        loopkit.outcome("ticket:1", "yes")  # type: ignore[arg-type]


class Hand(Clock):
    at = 1_767_225_600_000_000_000

    def now(self) -> int:
        self.at += SECOND
        return self.at


def test_sessions_are_read_and_what_was_seen_is_not_written_twice() -> None:
    clock = Hand()
    with recording(store=True, clock=clock):

        @loopkit.trace(task="chat")
        def chat(question: str) -> str:
            return "an answer"

        for session, questions in {
            "s1": [
                "how do I block my lost card",
                "how do I block my lost card",
                "No, the credit card, mail ana@example.org",
            ],
            "s2": ["what does a loan cost"],
        }.items():
            for question in questions:
                with loopkit.context(session_id=session, user_id="u"):
                    chat(question)
        first = loopkit.sense()
        assert [(event.name, event.kind) for event in first] == [
            ("regenerated", "implicit"),
            ("contradicted", "inferred"),
        ]
        assert first[1].comment == "No, the credit card, mail [EMAIL]"
        assert loopkit.sense() == []
        clock.at += 4 * SOON
        assert sorted(event.name for event in loopkit.sense()) == ["abandoned", "abandoned"]
        assert loopkit.sense(session_id="s1") == []
        assert loopkit.sense(since=clock.at) == []
        store = loopkit.open_store()
        assert len(store.feedback()) == 4
        assert loopkit.orphans(store) == []
        (row,) = loopkit.figures("chat", by="all")
        assert row.judged == 0  # shown is not said


def ask_in(session: str, *questions: str, task: str = "chat", user: str = "u") -> None:
    @loopkit.trace(task=task)
    def chat(question: str) -> str:
        with loopkit.span("inner", kind="tool"):
            pass
        return "an answer"

    for question in questions:
        with loopkit.context(session_id=session, user_id=user):
            chat(question)


def test_one_persons_turns_of_one_task_follow_each_other() -> None:
    with recording(store=True, clock=Hand()):
        for task in ("classify", "answer"):
            ask_in("s", "how do I block my lost card", task=task)
        ask_in("s", "how do I block my lost card", user="another")
        assert loopkit.sense() == []
        ask_in("s", "how do I block my lost card", user="another")
        assert [event.name for event in loopkit.sense()] == ["regenerated"]


def test_a_part_of_the_time_shows_no_other_things_than_the_whole() -> None:
    clock = Hand()
    with recording(store=True, clock=clock):
        moments = []
        for question in ("how do I block my lost card", "how do I block my lost card", "what does a loan cost"):
            ask_in("s", question)
            moments.append(clock.at)
        store = loopkit.open_store()
        starts = sorted(span.started_at for span in store.spans())
        everything = loopkit.sense()
        assert [event.name for event in everything] == ["regenerated"]
        for event in everything:
            loopkit.retract(event)
        for since in (*starts, *moments):
            assert loopkit.sense(since=since) == []  # all of it was seen


def test_who_comes_back_has_not_left() -> None:
    clock = Hand()
    with recording(store=True, clock=clock):
        ask_in("s", "how do I block my lost card")
        clock.at += 4 * SOON
        assert [event.name for event in loopkit.sense()] == ["abandoned"]
        assert len(loopkit.held(loopkit.open_store()).current) == 1
        ask_in("s", "what does a loan cost")
        assert [event.name for event in loopkit.sense()] == ["retraction"]
        assert loopkit.sense() == []
        assert loopkit.held(loopkit.open_store()).current == {}


def test_without_content_nothing_is_seen() -> None:
    with recording(store=True, clock=Hand(), content="off"):
        ask_in("s", "how do I block my lost card", "what does a loan cost")
        assert loopkit.sense() == []


CALL = Span(trace_id="0" * 32, span_id="0" * 16, name="c", started_at=1, ended_at=2, output="o")


@pytest.mark.parametrize(
    ("said", "good"),
    [
        ([("stars", 1.0)], 0.0),
        ([("stars", 5.0)], 1.0),
        ([("stars", 4.0)], 0.75),
        ([("quality", 0.3)], 0.3),
        ([("quality", 4.0)], None),
        ([("dwell", 0.5)], None),
    ],
)
def test_ratings_are_read_by_the_table(said: list[tuple[str, Any]], good: float | None) -> None:
    events = [
        Feedback(id=str(n), target=CALL.id, name=name, value=value, at=n, arrived_at=n)
        for n, (name, value) in enumerate(said)
    ]
    assert outcome_of(CALL, events) == good


def test_edits_are_no_verdict_until_somebody_accepts_them() -> None:
    edited = Feedback(
        id="e", target=CALL.id, name="edited", value=0.9, correction="p", correction_status="proposed", kind="implicit",
        at=1, arrived_at=1,
    )  # fmt: skip
    assert outcome_of(CALL, [edited]) is None
    assert expected_output(CALL, [edited])[1] is not None
    taken = replace(edited, correction_status="accepted")
    assert (outcome_of(CALL, [taken]), expected_output(CALL, [taken])) == (0.0, ("p", None))
    said = replace(edited, name="correction", kind="explicit")
    assert expected_output(CALL, [said]) == ("p", None)


def test_a_text_that_was_thrown_away_is_no_correction(stored: MemorySink) -> None:
    event = loopkit.accepted("order:1", "  ", original="an answer")
    assert event is not None
    assert (event.correction, event.value) == (None, 0.0)
    with pytest.raises(InvalidInput, match="the original is 5"):
        loopkit.accepted("order:1", "x", original=5)  # type: ignore[arg-type]


def test_signals_are_worth_what_the_table_says() -> None:
    def worth(name: str, value: Any, **more: Any) -> tuple[float, float] | None:
        found = reward_of(Feedback(id="e", target="t", name=name, value=value, at=1, arrived_at=1, **more))
        return None if found is None else (found.value, found.weight)

    assert worth("thumbs", False) == (-1, 1)
    assert worth("stars", 5.0) == (1, 1)
    assert worth("accepted", 0.75) == (0.5, 0.8)
    assert worth("regenerated", True) == (-0.6, 0.6)
    assert worth("copied", True, weight=0.1) == (0.5, 0.1)
    assert worth("copied", None) is worth("copied", 0.0) is worth("copied", "no") is None
    assert worth("dwell", 30.0) is None
    assert worth("abandoned", True) is None
    assert worth("tone", "curt") is None
    assert worth("resolved", True) == (1, 1)
    assert worth("stars", 7.0) is None


@given(st.sampled_from(sorted(MEANINGS)), st.none() | st.booleans() | st.floats(-10, 10) | st.text(max_size=3))
def test_every_worth_is_between_minus_one_and_one(name: str, value: Any) -> None:
    found = reward_of(Feedback(id="e", target="t", name=name, value=value, at=1, arrived_at=1))
    assert found is None or (-1 <= found.value <= 1 and 0 < found.weight <= 1)


@pytest.mark.parametrize("name", ["regenerated", "copied", "stopped", "rephrased", "abandoned", "accepted"])
def test_what_is_only_shown_calls_nothing_right_or_wrong(name: str) -> None:
    call = Span(trace_id="0" * 32, span_id="0" * 16, name="c", started_at=1, ended_at=2)
    event = Feedback(id="e", target=call.id, name=name, value=True, at=1, arrived_at=1)
    assert outcome_of(call, [event]) is None
    good = Feedback(id="f", target=call.id, name="outcome", value=False, kind="implicit", at=1, arrived_at=1)
    assert outcome_of(call, [event, good]) == 0.0


@pytest.mark.parametrize(
    ("given_input", "said"),
    [
        ("plain", "plain"),
        ({"question": "q"}, "q"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "a"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "c"}]}]}, "c"),
        (None, ""),
        ({}, ""),
        ({"tenant": "bank", "question": "q"}, "q"),
        ({"tenant": "bank", "place": "q"}, ""),
        ({"number": 1}, ""),
    ],
)
def test_what_was_asked_last(given_input: Any, said: str) -> None:
    assert last_asked(given_input) == said
