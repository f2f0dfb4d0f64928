"""Policies: from how a task is served, and what is known of a call, to a decision with its probability."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from loopkit.capture.ambient import Ambient
from loopkit.errors import InvalidInput
from loopkit.route.source import Serving

_random = random.SystemRandom()  # forked workers must not draw alike


@dataclass(frozen=True, slots=True)
class Decision:
    """Which variant, with which probability, and why."""

    variant: str
    propensity: float
    reason: str


class Policy(Protocol):
    """Chooses among what is served. Provisional until a learned one stands behind it."""

    def decide(self, serving: Serving, around: Ambient) -> Decision:
        """The decision for one call. Memory only: no I/O, no waiting."""
        ...


@dataclass(frozen=True, slots=True)
class Sticky:
    """The registry's rules, then its shares; one user (or session) always gets the same variant.

    The unit's place between 0 and 1 is the first 8 bytes of SHA-256 over "salt:unit", big-endian, divided by
    2**64: the same in every process and language. Without a unit the draw is random.
    """

    by: str = "user"
    draw: Callable[[], float] = _random.random

    def decide(self, serving: Serving, around: Ambient) -> Decision:
        """See `Policy.decide`."""
        for tag, variant in serving.rules:
            if tag in around.tags and variant in serving.variants:
                return Decision(variant, 1.0, f"rule {tag}")
        unit = self._unit(around)
        place = self.draw() if unit is None else hashed(serving.salt, unit)
        variant = pick(serving.shares, place)
        return Decision(variant, serving.shares[variant], "share" if unit is None else f"sticky {self.by}")

    def _unit(self, around: Ambient) -> str | None:
        first, second = (
            (around.session_id, around.user_id) if self.by == "session" else (around.user_id, around.session_id)
        )
        return first or second


@dataclass(frozen=True, slots=True)
class Weights:
    """Fixed shares of its own, whatever the registry says of shares; its rules still come first."""

    shares: Mapping[str, float]
    by: str = "user"

    def decide(self, serving: Serving, around: Ambient) -> Decision:
        """See `Policy.decide`."""
        known = {name: share for name, share in self.shares.items() if name in serving.variants and share > 0}
        if not known:
            return Sticky(self.by).decide(serving, around)
        total = sum(known.values())
        own = Serving(
            variants=serving.variants,
            shares={name: share / total for name, share in known.items()},
            rules=serving.rules,
            salt=serving.salt,
        )
        return Sticky(self.by).decide(own, around)


def sticky(by: str = "user") -> Sticky:
    """The default policy: rules, then shares, the same variant for the same user or session."""
    if by not in ("user", "session"):
        raise InvalidInput(f"by is {by!r}: choose 'user' or 'session'")
    return Sticky(by)


def weights(shares: Mapping[str, float], *, by: str = "user") -> Weights:
    """Shares by variant name; they need not sum to 1. A weight of 0 never serves."""
    if not isinstance(shares, Mapping):
        raise InvalidInput(f"weights are {shares!r}: give a dict from variant name to weight")
    bad = {n: s for n, s in shares.items() if not isinstance(s, (int, float)) or isinstance(s, bool) or not s >= 0}
    if bad or not any(shares.values()):
        raise InvalidInput(f"weights are {dict(shares)!r}: give numbers of at least 0, one of them above")
    return Weights(dict(shares), by)


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
