"""The fold: from a bag of feedback events to what is held to be true now.

A pure function with laws that the tests hold: any permutation, duplication or split of the same events gives the
same state. It knows nothing of storage; targets are resolved by the function it is given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from loopkit._json import to_json
from loopkit.types import Feedback

Slot = tuple[str, str, str | None, str]
"""Resolved target, name, by, source: one person's word on one matter."""


@dataclass(frozen=True, slots=True)
class State:
    """What the events amount to."""

    current: Mapping[Slot, Feedback]
    """The event that counts, by slot."""
    events: int
    """Distinct events seen."""
    conflicts: int
    """Copies of an event (same key or id) with different content; the earliest arrival was kept."""
    taken_back: int
    """Events that were retracted or superseded."""

    def about(self, target: str) -> list[Feedback]:
        """What is said about one target, oldest first."""
        found = [event for slot, event in self.current.items() if slot[0] == target]
        return sorted(found, key=_order)


@dataclass(slots=True)
class Fold:
    """Takes events in any order and any portions; `state` may be asked at any time."""

    _copies: dict[str, Feedback] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)
    """Every event id seen, to the identity it belongs to: copies under one key may bear several ids."""
    _contents: dict[str, set[str]] = field(default_factory=dict)

    def add(self, events: Iterable[Feedback]) -> Fold:
        """Take more events."""
        for event in events:
            identity = _identity(event)
            self._names[event.id] = min(identity, self._names.get(event.id, identity))
            self._contents.setdefault(identity, set()).add(_content_hash(event))
            known = self._copies.get(identity)
            if known is None or _precedence(event) < _precedence(known):
                self._copies[identity] = event
        return self

    def state(self, resolve: Callable[[Feedback], str] = lambda event: event.target) -> State:
        """The state of all events so far. `resolve` gives an event's target as it is known today."""
        taken_back = self._taken_back()
        current: dict[Slot, Feedback] = {}
        # In the order in which they count, the later over the earlier; the identity makes that order total, for
        # senders who give two events one id.
        for identity, event in sorted(self._copies.items(), key=lambda item: (_order(item[1]), item[0])):
            if identity not in taken_back and event.retracts is None:
                current[resolve(event), event.name, event.by, event.source] = event
        conflicts = sum(len(contents) - 1 for contents in self._contents.values())
        return State(dict(sorted(current.items(), key=_slot_order)), len(self._copies), conflicts, len(taken_back))

    def _taken_back(self) -> set[str]:
        """Identities that a standing event retracts or supersedes: causal order, whatever the clocks say.

        An event stands unless one that stands takes it back. Walked from the latest id down; in a circle the
        latest one stands.
        """
        against: dict[str, list[str]] = {}
        for identity, event in self._copies.items():
            for named in (event.retracts, event.supersedes):
                if named is not None:
                    against.setdefault(self._names.get(named, named), []).append(identity)
        standing: dict[str, bool] = {}
        for identity in sorted(self._copies, key=lambda one: (self._copies[one].id, one), reverse=True):
            self._settle(identity, against, standing)
        return {identity for identity, stands in standing.items() if not stands}

    def _settle(self, identity: str, against: Mapping[str, list[str]], standing: dict[str, bool]) -> None:
        """Decide whether an event stands, its opponents first; without recursion, since chains may be long."""
        path = [identity]
        while path:
            one = path[-1]
            if one in standing:
                path.pop()
                continue
            open_ones = [o for o in sorted(against.get(one, ())) if o not in standing and o not in path]
            if open_ones:
                path.append(open_ones[-1])
                continue
            standing[one] = not any(standing.get(other, False) for other in against.get(one, ()))
            path.pop()


def fold(events: Iterable[Feedback], resolve: Callable[[Feedback], str] = lambda event: event.target) -> State:
    """The state of these events."""
    return Fold().add(events).state(resolve)


def _identity(event: Feedback) -> str:
    return f"id {event.id}" if event.key is None else f"key {event.key}"


def _precedence(event: Feedback) -> tuple[int, str, int, str]:
    """Of copies the one that arrived first, then the one with the least content hash; the rest makes it total."""
    return event.arrived_at, _content_hash(event), event.at, event.id


def _order(event: Feedback) -> tuple[int, str]:
    """Within a slot the later counts; a clock in the future is clamped to the arrival."""
    return min(event.at, event.arrived_at), event.id


def _content_hash(event: Feedback) -> str:
    """Of what the event says: when it was sent, when it arrived and under which id are not part of that."""
    from dataclasses import replace

    bare = replace(event, at=0, arrived_at=0, id="")
    return hashlib.sha256(to_json(bare).encode("utf-8", "replace")).hexdigest()


def _slot_order(item: tuple[Slot, Feedback]) -> tuple[str, str, str, str]:
    target, name, by, source = item[0]
    return target, name, by or "", source
