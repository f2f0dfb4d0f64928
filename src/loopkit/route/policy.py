"""Policies: from how a task is served, and what is known of a call, to a probability for each variant.

A policy says with which probability each variant is to serve, and the router draws: so the probability that is written
down is always the one that was there, whatever the policy, and what another would have earned can be told afterwards.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias

from loopkit.capture.ambient import NOTHING, Ambient
from loopkit.errors import InvalidInput
from loopkit.prompts.nearest import text_of
from loopkit.route.source import Serving

StickyBy: TypeAlias = Literal["user", "session", "call"]
"""Whose calls get the same variant. Of user and session the other one counts where the one isn't known."""
draw: Final[Callable[[], float]] = random.SystemRandom().random  # forked workers must not draw alike
_SUM: Final = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One call, as a policy sees it."""

    inputs: Mapping[str, Any]
    serving: Serving
    around: Ambient = NOTHING
    """User, session, tags and metadata."""

    @property
    def candidates(self) -> Collection[str]:
        """The variants that may serve by chance: those with a share, though it be none, and not by a rule alone."""
        return self.serving.shares.keys() & self.serving.variants.keys() or self.serving.variants

    def text(self, fields: Sequence[str] = ()) -> str:
        """What its inputs say: those of these names, or all."""
        return text_of(self.inputs, fields)


@dataclass(frozen=True, slots=True)
class Odds:
    """What a policy says of one call."""

    shares: Mapping[str, float]
    """The probability of each variant; they sum to 1."""
    reason: str
    best: str | None = None
    """The variant that it thinks best, where it tries others besides."""
    among: Collection[str] | None = None
    """Those that may serve this call at all; None for all that have a share of the registry."""


class Policy(Protocol):
    """Says which variant is to serve.

    May also have `learn(logged)`: it is given what came of the task's latest calls (`Logged`, oldest first), now and
    then, beside the calls.
    """

    def odds(self, ask: Ask) -> Odds:
        """The odds for one call. Memory only: no I/O, no waiting."""
        ...


class Decision(NamedTuple):
    """Which variant, with which probability, and why."""

    variant: str
    propensity: float
    reason: str
    explore: bool = False
    """Whether it is tried, where the policy thinks another one best."""


def odds_of(policy: Policy, ask: Ask) -> Odds:
    """What the registry's rules say, else the policy. Raises `InvalidInput` for odds that are none."""
    serving = ask.serving
    for tag, variant in serving.rules:
        if tag in ask.around.tags and variant in serving.variants:
            return Odds({variant: 1.0}, f"rule {tag}")
    odds = policy.odds(ask)
    total, variants = 0.0, serving.variants
    for name, share in odds.shares.items():
        total += share
        if share < 0 or name not in variants:
            total = math.inf
    if total != 1.0 and abs(total - 1) < _SUM:
        return replace(odds, shares={name: share / total for name, share in odds.shares.items()})
    if total != 1.0:
        raise InvalidInput(f"{type(policy).__name__} gave {dict(odds.shares)!r} for {sorted(variants)}: no odds")
    return odds


def decide(policy: Policy, ask: Ask, by: StickyBy = "user", place: Callable[[], float] = draw) -> Decision:
    """The decision for one call: the registry's rules, then the policy's odds; one unit always gets the same variant
    while the odds stay.

    A unit's place between 0 and 1 is the first 8 bytes of SHA-256 over "salt:unit", big-endian, divided by 2**64: the
    same in every process and language. Without a unit it is drawn. Raises `InvalidInput` for odds that are none.
    """
    odds = odds_of(policy, ask)
    shares = odds.shares
    unit = _unit(ask.around, by)
    variant = pick(shares, place() if unit is None else hashed(ask.serving.salt, unit))
    reason = odds.reason if unit is None or odds.reason != SHARE else f"sticky {by}"
    return Decision(variant, shares[variant], reason, odds.best is not None and variant != odds.best)


SHARE: Final = "share"


@dataclass(frozen=True, slots=True)
class Shares:
    """The registry's shares: the policy of a router that was given none."""

    def odds(self, ask: Ask) -> Odds:
        """See `Policy.odds`."""
        return Odds(ask.serving.shares, SHARE)


@dataclass(frozen=True, slots=True)
class Arm:
    """How often a variant serves, and whom. With weight 0 it serves where no other may."""

    weight: float = 1.0
    include: Collection[str] = ()
    """Tags (metadata are tags `key:value`): calls that bear none of them don't get it. None named: all calls."""
    exclude: Collection[str] = ()
    """Calls that bear one of these don't get it."""

    def takes(self, tags: Iterable[str]) -> bool:
        """Whether it may serve a call with these tags."""
        borne = set(tags)
        return (not self.include or bool(borne.intersection(self.include))) and not borne.intersection(self.exclude)


class Weights:
    """Shares of its own, whatever the registry's are, among the arms that may serve a call."""

    def __init__(self, arms: Mapping[str, Arm]) -> None:
        self._arms = dict(arms)
        self._tags = frozenset(tag for arm in arms.values() for tag in (*arm.include, *arm.exclude))
        self._told: tuple[Serving | None, dict[frozenset[str], Odds]] = (None, {})
        """What was said while this was served, by those of the tags that make a difference."""

    def odds(self, ask: Ask) -> Odds:
        """See `Policy.odds`. The registry's shares where no arm may serve."""
        serving, told = self._told
        if serving is not ask.serving:
            told = {}
            self._told = (ask.serving, told)
        tags = self._tags.intersection(ask.around.tags)
        odds = told.get(tags)
        if odds is None:
            odds = told[tags] = self._odds(ask, tags)
        return odds

    def _odds(self, ask: Ask, tags: Collection[str]) -> Odds:
        able = {n: arm.weight for n, arm in self._arms.items() if n in ask.serving.variants and arm.takes(tags)}
        among = [n for n in ask.candidates if n not in self._arms or n in able]
        total = sum(able.values())
        if total > 0:
            return Odds({name: weight / total for name, weight in able.items() if weight}, SHARE, among=among)
        if able:
            return Odds({next(iter(able)): 1.0}, "nothing else may serve")
        return Odds(ask.serving.shares, SHARE)


def weights(arms: Mapping[str, float | Arm]) -> Weights:
    """Weights by variant name; they need not sum to 1. An `Arm` says too whose calls it may serve.

        policies.weights({"small": 9, "large": policies.Arm(1, exclude=["plan:free"]), "spare": 0})

    A weight of 0 serves where no other may, the first of several.
    """
    if not isinstance(arms, Mapping):
        raise InvalidInput(f"weights are {arms!r}: give a dict from variant name to weight")
    made = {name: arm if isinstance(arm, Arm) else Arm(arm) for name, arm in arms.items()}
    bad = {name: arm.weight for name, arm in made.items() if not _is_weight(arm.weight)}
    if bad or not any(arm.weight for arm in made.values()):
        raise InvalidInput(f"weights are {dict(arms)!r}: give numbers of at least 0, one of them above")
    for name, arm in made.items():
        for tags in (arm.include, arm.exclude):
            if isinstance(tags, str):
                raise InvalidInput(f"the arm {name!r} has tags {tags!r}: give a list of tags")
    return Weights(made)


@dataclass(frozen=True, slots=True)
class Explored:
    """Another policy's odds, with a share of the calls for all variants alike."""

    policy: Policy
    share: float

    def odds(self, ask: Ask) -> Odds:
        """See `Policy.odds`."""
        found = self.policy.odds(ask)
        best = found.best or max(found.shares, key=lambda name: found.shares[name])
        among = ask.candidates if found.among is None else found.among
        return Odds(explored(found.shares, among, self.share), found.reason, best) if among else found


def explore(policy: Policy, share: float) -> Explored:
    """A policy that gives a share of the calls to all variants alike that may serve them: what it isn't sure of, it
    finds out, and what another policy would have earned can be told."""
    return Explored(policy, checked_share("share", share))


def explored(shares: Mapping[str, float], variants: Collection[str], share: float) -> dict[str, float]:
    """The odds with so large a share spread over all variants."""
    each = share / len(variants)
    return {
        name: (1 - share) * shares.get(name, 0.0) + (each if name in variants else 0.0)
        for name in dict.fromkeys((*variants, *shares))
    }


def learner(policy: Any) -> Any:
    """What of a policy learns, or was fitted: the one that another explores with."""
    while isinstance(policy, Explored):
        policy = policy.policy
    return policy


def checked_share(name: str, share: Any) -> float:
    """A share between 0 and 1. Raises `InvalidInput`."""
    if not isinstance(share, (int, float)) or isinstance(share, bool) or not 0 <= share <= 1:
        raise InvalidInput(f"{name} is {share!r}: give a share of the calls, from 0 to 1")
    return float(share)


def hashed(salt: str, unit: str) -> float:
    """The unit's place between 0 and 1."""
    digest = hashlib.sha256(f"{salt}:{unit}".encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def pick(shares: Mapping[str, float], place: float) -> str:
    """The variant whose interval, in order of the names, holds the place."""
    chosen = ""
    for name in sorted(shares):
        if shares[name] <= 0:
            continue
        chosen = name
        place -= shares[name]
        if place < 0:
            break
    return chosen


def _unit(around: Ambient, by: StickyBy) -> str | None:
    if by == "call":
        return None
    first, second = (around.session_id, around.user_id) if by == "session" else (around.user_id, around.session_id)
    return first or second


def _is_weight(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf
