"""Policies as plain data, from a file: by name, with the arguments of the function of that name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from loopkit._plugins import named
from loopkit.errors import InvalidInput
from loopkit.route.bandits import best, linucb, thompson
from loopkit.route.learned import learned, semantic
from loopkit.route.policy import Arm, Policy, Shares, weights


def _weighted(arms: Mapping[str, Any]) -> Policy:
    if not isinstance(arms, Mapping):
        raise InvalidInput(f"arms is {arms!r}: give a table from variant name to weight")
    made: dict[str, Any] = {}
    for name, arm in arms.items():
        table: Any = arm  # isinstance makes a dict of unknown types; this stays Any
        made[name] = Arm(**table) if isinstance(arm, dict) else arm
    return weights(made)


_OWN: Final[Mapping[str, Callable[..., Policy]]] = {
    "best": best,
    "learned": learned,
    "linucb": linucb,
    "semantic": semantic,
    "shares": Shares,
    "thompson": thompson,
    "weights": _weighted,
}


def policy_of(table: Mapping[str, Any]) -> Policy:
    """The policy that a table describes: `policy` is its name, the rest are its arguments, as in Python.

        policy = "weights"
        arms = {small = 9, large = {weight = 1, exclude = ["plan:free"]}}

    Packages offer theirs as entry points in `loopkit.policies`. Raises `InvalidInput`, and `NotFound` for a name that
    nobody offers.
    """
    given = dict(table)
    name = given.pop("policy", None)
    if not isinstance(name, str):
        raise InvalidInput(f"the policy is {name!r}: write policy = {' or '.join(repr(each) for each in sorted(_OWN))}")
    make = named("policies", name, _OWN)
    try:
        made: Policy = make(**given)
    except TypeError as error:
        raise InvalidInput(f"the policy {name!r} takes no such arguments: {error}") from None
    return made
