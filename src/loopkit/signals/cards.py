"""What a signal that people only show is worth, learned from calls of which somebody also said how good they were.

Who says anything is no random sample of all who were answered: labelled calls are weighed by how rarely calls like them
(task, what the signal showed, how much their user does) are labelled, and no user counts for more than a few.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import Any, Final, Protocol

from loopkit._json import from_dict, to_dict
from loopkit.signals.calls import goodness, judges, outcome
from loopkit.signals.rewards import MARKS, VERSION
from loopkit.statistics.paired import effective_size, wilson
from loopkit.statistics.ranking import area
from loopkit.types import Feedback, Span

FEWEST: Final = 50
"""Labelled pairs below which a signal ranks what to review, and does not train."""
_FEWEST_OF_A_SIDE: Final = 10
"""Users who met a verdict, for each verdict: with fewer the interval promises more than it holds."""
_MOST_OF_A_USER: Final = 10
_LARGEST_WEIGHT: Final = 20.0
"""Times the mean: what is labelled more rarely than that counts no more."""
_BINS: Final = (0.25, 0.5, 0.75, 0.95)
"""Where similarities are parted."""


_KIND: Final = "calibration"


class Documents(Protocol):
    """Where they lie. Provisional until a second store implements it."""

    def documents(self, kind: str, *, task: str) -> list[Any]:
        """The bodies of this kind and task, oldest first."""
        ...

    def put(self, kind: str, id: str, body: Any, *, task: str) -> None:
        """One more."""
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """A whole call, and what was said of it."""

    span: Span
    events: Sequence[Feedback]


@dataclass(frozen=True, slots=True)
class Bin:
    """Calls on which a signal showed the same, or nearly."""

    shown: str
    """"seen" and "not seen", or a part of the values such as "0.5 to 0.75"."""
    calls: int
    """All of them."""
    labelled: int
    good: float | None
    """The weighted share of the good ones, and its interval; None where nobody said."""
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """A signal's card: how far what it shows agrees with what people say."""

    signal: str
    task: str
    pairs: int
    """Labelled calls on which it was seen."""
    calls: int
    """Calls on which it was seen, labelled or not."""
    users: int
    """Whose calls were labelled; a call without a user counts as one."""
    area: float | None
    """The probability that of a good and a bad call the good one looks better by it (AUC), weighted; None without
    one of each."""
    low: float
    high: float
    raw_area: float | None
    """The same without any weights."""
    effective: float
    """How many equally weighted pairs would tell as much."""
    bins: tuple[Bin, ...] = field(default=())
    weight: float = 0.0
    """What it counts beside others, from 0 to 1: how far the lower end of the area's interval is above chance."""
    trains: bool = False
    """Whether it may stand for a verdict: enough pairs, and better than chance."""
    why_not: str | None = None
    version: int = VERSION
    """Of the table of meanings that it was made with."""


def calibrations(task: str, calls: Sequence[Call]) -> list[Calibration]:
    """A card for each shown signal that occurs in the task, by name."""
    names = sorted({event.name for call in calls for event in call.events if _is_shown(event)})
    return [_card(name, task, calls) for name in names]


def _card(name: str, task: str, calls: Sequence[Call]) -> Calibration:
    seen = [_score(name, call) for call in calls]
    # of what is graded nothing is known where it isn't; of what only happens, that it did not
    known = [(call, score) for call, score in zip(calls, seen, strict=True) if score is not None or name in MARKS]
    volumes = Counter(call.span.user_id for call, _ in known)
    names = _bins_of(name, [score for _, score in known])
    strata = [(bin, _volume(call, volumes)) for bin, (call, _) in zip(names, known, strict=True)]
    labels = [outcome(call.span, [e for e in call.events if e.name != name]) for call, _ in known]
    labelled = [i for i, label in enumerate(labels) if label is not None and label != 0.5]
    weights = _weights(known, strata, labelled)
    scores = [0.5 if score is None else score for _, score in known]
    good = [(labels[i] or 0.0) > 0.5 for i in labelled]
    groups = [known[i][0].span.user_id or known[i][0].span.id for i in labelled]
    picked, weighed = [scores[i] for i in labelled], [weights[i] for i in labelled]
    found = area(picked, good, weights=weighed, groups=groups)
    raw = area(picked, good)
    pairs = sum(known[i][1] is not None for i in labelled)
    why_not = _why_not(pairs, _users_of_the_rarer(groups, good), found.low)
    return Calibration(
        signal=name,
        task=task,
        pairs=pairs,
        calls=sum(score is not None for score in seen),
        users=len(set(groups)),
        area=_known(found.value),
        low=found.low,
        high=found.high,
        raw_area=_known(raw.value),
        effective=effective_size(weighed),
        bins=_bins(names, labelled, weights, good),
        weight=max(2 * found.low - 1, 0.0) if why_not is None else 0.0,
        trains=why_not is None,
        why_not=why_not,
    )


def _users_of_the_rarer(groups: Sequence[str], good: Sequence[bool]) -> int:
    """Who met the verdict that fewer met."""
    met = set(zip(groups, good, strict=True))
    return min(sum(is_good is side for _, is_good in met) for side in (True, False))


def _why_not(pairs: int, rarer: int, low: float) -> str | None:
    if pairs < FEWEST:
        return f"{pairs} labelled pairs, {FEWEST} are needed: it ranks what to review, and does not train"
    if rarer < _FEWEST_OF_A_SIDE:
        return f"{rarer} users with the rarer verdict, {_FEWEST_OF_A_SIDE} are needed: it ranks what to review"
    if low <= 0.5:
        return "it tells good from bad no better than chance might: it ranks what to review"
    return None


def _is_shown(event: Feedback) -> bool:
    return not judges(event) and event.name != "comment" and _value(event) is not None


def _value(event: Feedback) -> float | None:
    """What it shows, the more the better: from 0 to 1 by the table, else the number itself."""
    good = goodness(event)
    if good is not None:
        return good
    if event.name in MARKS:  # worth nothing by the table, since it may mean either
        return 0.0 if event.value is True else None
    return float(event.value) if isinstance(event.value, (bool, float)) else None


def _score(name: str, call: Call) -> float | None:
    values = [value for event in call.events if event.name == name and (value := _value(event)) is not None]
    return values[-1] if values else None


def _bins_of(name: str, scores: Sequence[float | None]) -> list[str]:
    """By score the bin that it belongs in: seen or not, parts of 0 to 1, else quarters of what there is."""
    if name in MARKS:
        return ["not seen" if score is None else "seen" for score in scores]
    known = sorted(score for score in scores if score is not None)
    if 0 <= known[0] <= known[-1] <= 1:
        whole: tuple[float, ...] = (0.0, *_BINS, 1.0)
    else:
        whole = (known[0], *sorted({known[len(known) * n // 4] for n in (1, 2, 3)}), known[-1])
    found: list[str] = []
    for score in scores:
        index = sum((score or 0.0) >= edge for edge in whole[1:-1])
        found.append(f"{whole[index]:g} to {whole[index + 1]:g}")
    return found


def _volume(call: Call, volumes: Counter[str | None]) -> int:
    """How much the user does: nobody known, one call, a few, many."""
    if call.span.user_id is None:
        return 0
    count = volumes[call.span.user_id]
    return 1 if count == 1 else 2 if count <= 5 else 3


def _weights(
    known: Sequence[tuple[Call, float | None]], strata: Sequence[tuple[str, int]], labelled: Sequence[int]
) -> dict[int, float]:
    """Of the labelled ones: calls like it, recorded or not, over labelled ones like it, with a bound for each user."""
    everyone: dict[tuple[str, int], float] = defaultdict(float)
    for (call, _), stratum in zip(known, strata, strict=True):
        everyone[stratum] += call.span.weight
    told = Counter(strata[i] for i in labelled)
    weights = {i: everyone[strata[i]] / told[strata[i]] for i in labelled}
    mean = sum(weights.values()) / len(weights) if weights else 0.0
    of_user = Counter(known[i][0].span.user_id for i in labelled)
    for i in labelled:
        user = known[i][0].span.user_id
        share = 1.0 if user is None else min(1.0, _MOST_OF_A_USER / of_user[user])
        weights[i] = min(weights[i], _LARGEST_WEIGHT * mean) * share
    return weights


def _bins(
    names: Sequence[str], labelled: Sequence[int], weights: dict[int, float], good: Sequence[bool]
) -> tuple[Bin, ...]:
    sides: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for i, is_good in zip(labelled, good, strict=True):
        sides[names[i]].append((weights[i], is_good))
    counts = Counter(names)
    made: list[Bin] = []
    for name in sorted(counts, key=_place):
        pairs = sides.get(name, [])
        total = sum(weight for weight, _ in pairs)
        share = sum(weight for weight, is_good in pairs if is_good) / total if total else None
        size = effective_size([weight for weight, _ in pairs])
        low, high = wilson((share or 0.0) * size, size)
        made.append(Bin(name, counts[name], len(pairs), share, low, high))
    return tuple(made)


def _place(name: str) -> tuple[float, str]:
    start = name.partition(" to ")[0]
    return (0.0, name) if start in ("seen", "not seen") else (float(start), "")


def _known(value: float) -> float | None:
    return None if isnan(value) else value


def keep_cards(store: Documents, task: str, cards: Sequence[Calibration], at: int) -> None:
    """Write them down, as they were at that time (nanoseconds since the epoch)."""
    store.put(_KIND, f"{task}:{at}", {"at": at, "task": task, "cards": [to_dict(card) for card in cards]}, task=task)


def last_cards(store: Documents, task: str) -> list[Calibration]:
    """As they were last made; none that were made with another table of meanings."""
    made = store.documents(_KIND, task=task)
    found = [from_dict(Calibration, card) for card in made[-1]["cards"]] if made else []
    return [card for card in found if card.version == VERSION]
