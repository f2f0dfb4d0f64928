"""The fold's laws: the order, the number of copies and the portions in which events come change nothing."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from loopkit.signals.fold import Fold, fold
from loopkit.types import Feedback

ids = st.sampled_from([f"e{n}" for n in range(8)])


@st.composite
def events(draw: st.DrawFn) -> Feedback:
    arrived = draw(st.integers(1, 9))
    return Feedback(
        id=draw(ids),
        target=draw(st.sampled_from(["a", "b"])),
        name=draw(st.sampled_from(["helpful", "rating"])),
        value=draw(st.sampled_from([True, False, 1.0, "x"])),
        source=draw(st.sampled_from(["user", "reviewer"])),
        by=draw(st.sampled_from([None, "ana", "bo"])),
        at=draw(st.integers(1, 12)),
        arrived_at=arrived,
        key=draw(st.sampled_from([None, None, "k1", "k2"])),
        supersedes=draw(st.none() | ids),
        retracts=draw(st.none() | st.none() | ids),
    )


bags = st.lists(events(), max_size=12)


@given(bags, st.randoms(use_true_random=False))
def test_any_permutation_gives_the_same_state(bag: list[Feedback], random: object) -> None:
    shuffled = list(bag)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert fold(shuffled) == fold(bag)


@given(bags, st.lists(st.integers(0, 11), max_size=12))
def test_any_duplication_gives_the_same_state(bag: list[Feedback], repeats: list[int]) -> None:
    copies = [bag[index] for index in repeats if index < len(bag)]
    assert fold([*copies, *bag]) == fold(bag)


@given(bags, st.integers(0, 12))
def test_any_split_gives_the_same_state(bag: list[Feedback], at: int) -> None:
    parts = Fold().add(bag[at:])
    parts.state()
    assert parts.add(bag[:at]).state() == fold(bag)


@given(bags)
def test_a_slot_holds_one_event_and_it_was_said(bag: list[Feedback]) -> None:
    for (target, name, by, source), event in fold(bag).current.items():
        assert event in bag
        assert (event.target, event.name, event.by, event.source) == (target, name, by, source)


def said(id: str, value: bool, **more: object) -> Feedback:
    return Feedback(id=id, target="a", name="helpful", value=value, **{"at": 5, "arrived_at": 5, **more})  # type: ignore[arg-type]


def only(*bag: Feedback) -> object:
    (event,) = fold(bag).about("a")
    return event.value


def test_a_clock_in_the_future_is_clamped_to_the_arrival() -> None:
    assert only(said("e1", True, at=99, arrived_at=2), said("e2", False, at=5, arrived_at=6)) is False


def test_late_feedback_is_ordered_by_when_it_happened() -> None:
    assert only(said("e1", True, at=2, arrived_at=9), said("e2", False, at=5, arrived_at=5)) is False


def test_superseding_beats_time() -> None:
    assert only(said("e1", True, at=5), said("e2", False, at=1, supersedes="e1")) is False


def test_a_retracted_retraction_restores_the_event() -> None:
    first = said("e1", True)
    away = said("e2", True, retracts="e1")
    assert fold([first, away]).about("a") == []
    assert fold([first, away, said("e3", True, retracts="e2")]).about("a") == [first]


def test_of_copies_with_one_key_the_first_arrival_wins_and_others_are_counted() -> None:
    first = said("e2", True, key="k", arrived_at=3)
    later = said("e1", False, key="k", arrived_at=4)
    state = fold([later, first])
    assert state.about("a") == [first]
    assert (state.events, state.conflicts) == (1, 1)


def test_retracting_any_copys_id_retracts_the_event() -> None:
    first, copy = said("e1", True, key="k"), said("e2", True, key="k", arrived_at=6)
    assert fold([first, copy, said("e3", True, retracts="e2")]).about("a") == []


def test_one_id_with_and_without_a_key_is_settled_whatever_the_order() -> None:
    with_key, without = said("e0", True, key="k1"), said("e0", True)
    assert fold([with_key, without]) == fold([without, with_key])


def test_long_chains_of_superseding_dont_exhaust_the_stack() -> None:
    chain = [said("e00000", True)]
    chain += [replace(chain[0], id=f"e{n:05d}", supersedes=f"e{n - 1:05d}", value=bool(n % 2)) for n in range(1, 3000)]
    state = fold(chain)
    assert state.about("a") == [chain[-1]]


def test_in_a_circle_the_latest_stands() -> None:
    circle = [said("a", True, supersedes="b"), said("b", False, supersedes="a")]
    assert fold(circle).about("a") == [circle[1]]


def test_a_chain_whose_ids_run_backwards_is_settled_too() -> None:
    # ids from a process whose clock was behind: the superseding event sorts before the one it replaces
    count = 12_000
    chain = [said(f"e{count:05d}", True, at=1)]
    chain += [said(f"e{n:05d}", bool(n % 2), at=1, supersedes=f"e{n + 1:05d}") for n in range(count - 1, 0, -1)]
    assert fold(chain).about("a") == [chain[-1]]


def test_superseding_twice_does_not_restore_the_first_and_retracting_does() -> None:
    first, second = said("e9", True), said("e8", False, supersedes="e9")
    third = replace(first, id="e7", supersedes="e8", target="b")
    assert fold([first, second, third]).about("a") == []
    gone = said("e6", True, retracts="e8")
    assert fold([first, second, gone]).about("a") == [first]
