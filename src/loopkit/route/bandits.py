"""Policies that learn from feedback while they serve: what came of the latest calls is their state.

Rewards may come late, and change: each time a policy learns, it is given the task's latest calls as they are held to be
now. A call of which nobody has said anything is not a bad one; `unsaid` says what it is worth after a while, where
silence means something.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import time_ns
from typing import Any, Final, TypeAlias
from zlib import crc32

from loopkit.errors import InvalidInput
from loopkit.prompts.nearest import terms, text_of
from loopkit.route.policy import Ask, Odds, checked_share, explored
from loopkit.route.source import Logged

_DRAWS: Final = 4_000
"""From the posteriors, to tell how likely each arm is the best."""
_SILENT: Final = 100
"""Calls of a variant of which nobody has said anything: it may wait for that no longer."""
_SPOTS: Final = 15
"""Numbers that words come to, where nobody says what is to be seen of a call."""


@dataclass(frozen=True, slots=True)
class Worth:
    """What a call was worth: its reward, less what its cost and its time are worth."""

    cost: float = 0.0
    """Reward for a US dollar."""
    seconds: float = 0.0
    """Reward for a second."""
    unsaid: tuple[float, float] | None = None
    """What a call is worth of which nobody has said anything for so many seconds."""

    def reward(self, call: Logged, now: int) -> float | None:
        """The reward as it stands; None where it has still to come."""
        if call.reward is not None or self.unsaid is None:
            return call.reward
        value, seconds = self.unsaid
        return value if now - call.at > seconds * 1e9 else None

    def price(self, call: Logged) -> float:
        """What is taken off it."""
        return self.cost * (call.cost or 0.0) + self.seconds * call.seconds


@dataclass(slots=True)
class _Record:
    """What came of one variant's calls."""

    rewards: float = 0.0
    known: float = 0.0
    prices: float = 0.0
    calls: float = 0.0

    @property
    def price(self) -> float:
        return self.prices / self.calls if self.calls else 0.0


def _records(logged: Sequence[Logged], worth: Worth, now: int) -> dict[str, _Record]:
    found: dict[str, _Record] = defaultdict(_Record)
    mean = sum(call.weight for call in logged) / len(logged) if logged else 1.0
    for call in logged:
        mine, weight = found[call.variant], call.weight / mean  # a sample knows no more than its calls do
        mine.calls += weight
        mine.prices += weight * worth.price(call)
        reward = worth.reward(call, now)
        if reward is not None:
            mine.known += weight
            mine.rewards += weight * reward
    return dict(found)


@dataclass
class Thompson:
    """Each variant as often as it is likely to be the best (Thompson 1933), by a Beta posterior of its mean reward."""

    worth: Worth
    least: float
    now: Callable[[], int] = time_ns
    _records: Mapping[str, _Record] = field(default_factory=dict[str, _Record])
    _odds: dict[tuple[str, ...], dict[str, float]] = field(default_factory=dict[tuple[str, ...], dict[str, float]])
    """By the variants that are served: told once, drawn from at each call."""

    def odds(self, ask: Ask) -> Odds:
        """See `Policy.odds`."""
        names = tuple(sorted(ask.candidates))
        known = self._odds
        shares = known.get(names)
        if shares is None:
            shares = known[names] = self._likely_best(names)
        return Odds(shares, "thompson", max(shares, key=shares.__getitem__))

    def learn(self, logged: Sequence[Logged]) -> None:
        """See `Policy`."""
        self._records = _records(logged, self.worth, self.now())
        self._odds = {names: self._likely_best(names) for names in self._odds}

    def _likely_best(self, names: Sequence[str]) -> dict[str, float]:
        of = [self._records.get(name) or _Record() for name in names]
        beta = random.Random(0).betavariate  # a numerical integral, the same for the same records
        columns = [
            [beta(1 + each.rewards, 1 + each.known - each.rewards) - each.price for _ in range(_DRAWS)] for each in of
        ]
        wins = [0] * len(names)
        for row in zip(*columns, strict=True):
            wins[row.index(max(row))] += 1
        return explored(
            {n: w / _DRAWS for n, w in zip(names, wins, strict=True)}, names, min(self.least * len(names), 1.0)
        )


@dataclass
class Best:
    """The variant whose calls were worth most on average, and now and then another."""

    worth: Worth
    explore: float
    now: Callable[[], int] = time_ns
    _records: Mapping[str, _Record] = field(default_factory=dict[str, _Record])

    def odds(self, ask: Ask) -> Odds:
        """See `Policy.odds`. One that was never judged goes before all others for a while: nobody knows better."""
        names = sorted(ask.candidates)
        best = max(names, key=self._mean)
        return Odds(explored({best: 1.0}, names, self.explore), "best so far", best)

    def learn(self, logged: Sequence[Logged]) -> None:
        """See `Policy`."""
        self._records = _records(logged, self.worth, self.now())

    def _mean(self, name: str) -> float:
        record = self._records.get(name) or _Record()
        if record.known:
            return record.rewards / record.known - record.price
        return math.inf if record.calls < _SILENT else -math.inf


Features: TypeAlias = Callable[[Mapping[str, Any]], Sequence[float]]
"""From a call's inputs to numbers, always as many, of about the size of 1."""


def words(inputs: Mapping[str, Any]) -> list[float]:
    """A one, and how often each of 15 kinds of words and pairs stands in the inputs' texts; which word is of which kind
    is its hash's say."""
    spots = [0.0] * _SPOTS
    for term in terms(text_of(inputs)):
        number = crc32(term.encode("utf-8", "surrogatepass"))
        spots[number % _SPOTS] += 1 if number & 0x10000 else -1
    length = math.sqrt(sum(value * value for value in spots)) or 1.0
    return [1.0, *(value / length for value in spots)]


class _Ridge:
    """A linear regression that grows by the row, its inverse kept (Sherman and Morrison 1950)."""

    def __init__(self, size: int) -> None:
        self.inverse = [[float(row == column) for column in range(size)] for row in range(size)]
        self.told = [0.0] * size
        self.weights = [0.0] * size

    def add(self, row: Sequence[float], value: float) -> None:
        """One more observation."""
        through = self._through(row)
        scale = 1 + sum(a * b for a, b in zip(row, through, strict=True))
        for own, by in zip(self.inverse, through, strict=True):
            part = by / scale
            for at, other in enumerate(through):
                own[at] -= part * other
        self.told = [own + value * each for own, each in zip(self.told, row, strict=True)]
        self.weights = self._through(self.told)

    def bound(self, row: Sequence[float], width: float) -> float:
        """What is to be expected, and how far above that it may be."""
        through = self._through(row)
        expected = sum(a * b for a, b in zip(row, self.weights, strict=True))
        return expected + width * math.sqrt(max(sum(a * b for a, b in zip(row, through, strict=True)), 0.0))

    def _through(self, row: Sequence[float]) -> list[float]:
        return [sum(a * b for a, b in zip(own, row, strict=True)) for own in self.inverse]


@dataclass
class LinUcb:
    """The variant that may be worth most for a call like this (LinUCB: Li, Chu, Langford and Schapire 2010)."""

    worth: Worth
    width: float
    explore: float
    features: Features
    now: Callable[[], int] = time_ns
    _ridges: Mapping[str, _Ridge] = field(default_factory=dict[str, _Ridge])
    _seen: dict[str, float] = field(default_factory=dict[str, float])
    """By call, what it was worth when it was added."""

    def odds(self, ask: Ask) -> Odds:
        """See `Policy.odds`."""
        names = sorted(ask.candidates)
        row = self.features(ask.inputs)
        new = _Ridge(len(row))
        bounds = {name: self._ridges.get(name, new).bound(row, self.width) for name in names}
        best = max(names, key=bounds.__getitem__)
        return Odds(explored({best: 1.0}, names, self.explore), "linucb", best)

    def learn(self, logged: Sequence[Logged]) -> None:
        """See `Policy`. What is new is added; where what was added has changed, or gone, all is reckoned anew."""
        now = self.now()
        told = {
            call.id: (call, reward - self.worth.price(call))
            for call in logged
            if call.inputs and (reward := self.worth.reward(call, now)) is not None
        }
        is_same = all(id in told and told[id][1] == value for id, value in self._seen.items())
        seen = dict(self._seen) if is_same else {}
        ridges = dict(self._ridges) if is_same else {}
        for id, (call, value) in told.items():
            if id not in seen:
                row = self.features(call.inputs)
                ridges.setdefault(call.variant, _Ridge(len(row))).add(row, value)
                seen[id] = value
        self._ridges, self._seen = ridges, seen


def thompson(
    *, cost: float = 0.0, seconds: float = 0.0, unsaid: tuple[float, float] | None = None, least: float = 0.01,
    now: Callable[[], int] = time_ns,
) -> Thompson:  # fmt: skip
    """A bandit: each variant serves as often as it is likely to be the best by the feedback so far, and never less
    often than `least`, so that what another policy would have earned can be told.

    `cost` and `seconds` are what a US dollar and a second are worth in reward (0 to 1). `unsaid=(0.0, 3600)` counts a
    call of which nobody has said anything for an hour as a 0.
    """
    if not isinstance(least, (int, float)) or not 0 <= least <= 0.1:
        raise InvalidInput(f"least is {least!r}: give a small share, from 0 to 0.1")
    return Thompson(_worth(cost, seconds, unsaid), float(least), now)


def best(
    *, explore: float = 0.1, cost: float = 0.0, seconds: float = 0.0, unsaid: tuple[float, float] | None = None,
    now: Callable[[], int] = time_ns,
) -> Best:  # fmt: skip
    """The variant whose calls were worth most so far; `explore` is the share of calls that all get alike
    (epsilon-greedy). With `cost` and `seconds`, what a US dollar and a second are worth in reward, it is aware of
    both. See `thompson`."""
    return Best(_worth(cost, seconds, unsaid), checked_share("explore", explore), now)


def linucb(
    *, features: Features = words, width: float = 0.25, explore: float = 0.05, cost: float = 0.0, seconds: float = 0.0,
    unsaid: tuple[float, float] | None = None, now: Callable[[], int] = time_ns,
) -> LinUcb:  # fmt: skip
    """A bandit that looks at the call: for each variant a linear regression of rewards on `features` of the inputs, and
    that one serves whose upper bound is highest. `width` is how many standard errors that is above the mean. `explore`
    as for `best`, the rest as for `thompson`."""
    if not isinstance(width, (int, float)) or not 0 <= width < math.inf:
        raise InvalidInput(f"width is {width!r}: give a number of standard errors, such as 1")
    if not callable(features):
        raise InvalidInput(f"features is {features!r}: give a function from inputs to numbers")
    return LinUcb(_worth(cost, seconds, unsaid), float(width), checked_share("explore", explore), features, now)


def _worth(cost: float, seconds: float, unsaid: tuple[float, float] | None) -> Worth:
    for name, value in (("cost", cost), ("seconds", seconds)):
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < math.inf:
            raise InvalidInput(f"{name} is {value!r}: give what one is worth in reward, 0 or more")
    if unsaid is not None:
        pair: Any = unsaid
        is_pair = isinstance(pair, (tuple, list)) and len(unsaid) == 2
        if not is_pair or not all(isinstance(each, (int, float)) and each >= 0 for each in unsaid):
            raise InvalidInput(f"unsaid is {unsaid!r}: give (reward, seconds), such as (0.0, 3600)")
    return Worth(float(cost), float(seconds), None if unsaid is None else (float(unsaid[0]), float(unsaid[1])))
