"""The fold: from a bag of feedback events to what is held to be true now.

A pure function with laws that the tests hold: any permutation, duplication or split of the same events gives the
same state. It knows nothing of storage; targets are resolved by the function it is given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from loopkit._json import to_json
from loopkit.types import Feedback

Slot = tuple[str, str, str | None, str]
"""Resolved target, name, by, source: one person's word on one matter."""
Fate = Literal["stands", "retracted", "superseded"]


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

    _kept: dict[str, Feedback] = field(default_factory=dict)
    """By identity: of copies the one that counts."""
    _contents: dict[str, set[str]] = field(default_factory=dict)
    """Of identities that came more than once, the hashes of what they say."""
    _names: dict[str, str] = field(default_factory=dict)
    """Ids of events with a key, to their identity: copies under one key may bear several."""
    _against: dict[str, Feedback] = field(default_factory=dict)
    """Of those kept, the ones that retract or supersede another."""

    def add(self, events: Iterable[Feedback]) -> Fold:
        """Take more events."""
        kept = self._kept
        for event in events:
            identity = _identity(event)
            if event.key is not None:
                self._names[event.id] = min(identity, self._names.get(event.id, identity))
            known = kept.setdefault(identity, event)
            if known is not event:
                hashes = self._contents.setdefault(identity, {_content_hash(known)})
                hashes.add(_content_hash(event))
                if _precedence(event) < _precedence(known):
                    kept[identity] = known = event
            if known is event and (event.retracts is not None or event.supersedes is not None):
                self._against[identity] = event
            elif known is event:
                self._against.pop(identity, None)
        return self

    def state(self, resolve: Callable[[Feedback], str] = lambda event: event.target) -> State:
        """The state of all events so far. `resolve` gives an event's target as it is known today."""
        taken_back = self._taken_back()
        latest: dict[Slot, tuple[int, str, str, Feedback]] = {}
        for identity, event in self._kept.items():
            if event.retracts is not None or identity in taken_back:
                continue
            # The identity makes the order total, for senders who give two events one id.
            entry = min(event.at, event.arrived_at), event.id, identity, event
            slot = resolve(event), event.name, event.by, event.source
            known = latest.setdefault(slot, entry)
            if known is not entry and entry[:3] > known[:3]:
                latest[slot] = entry
        current = {slot: latest[slot][3] for slot in sorted(latest, key=_slot_order)}
        conflicts = sum(len(hashes) - 1 for hashes in self._contents.values())
        return State(current, len(self._kept), conflicts, len(taken_back))

    def _identified(self, id: str) -> str:
        """The identity of the event with this id."""
        bare = f"id {id}"
        named = self._names.get(id, bare)
        return min(named, bare) if bare in self._kept else named

    def _taken_back(self) -> set[str]:
        """Identities that are retracted or superseded: causal order, whatever the clocks say.

        A retraction holds while it stands itself: retracting it restores. An event that supersedes another does so
        even when it is superseded in turn, until it is retracted. So an event is settled when all that speak against
        it are. Where nothing can be settled, events speak against each other in a circle, and the one that counts
        latest stands.
        """
        against: dict[str, list[tuple[str, bool]]] = {identity: [] for identity in self._against}
        targets: dict[str, list[str]] = {}
        for identity, event in self._against.items():
            for named, retracts in ((event.retracts, True), (event.supersedes, False)):
                target = None if named is None else self._identified(named)
                if target in self._kept:
                    against.setdefault(target, []).append((identity, retracts))
                    targets.setdefault(identity, []).append(target)
        unsettled = {identity: len(found) for identity, found in against.items()}
        ready = [identity for identity, count in unsettled.items() if not count]
        latest_last = sorted(against, key=lambda one: (_order(self._kept[one]), one))
        fate: dict[str, Fate] = {}
        while len(fate) < len(against):
            if not ready:
                while latest_last[-1] in fate:
                    latest_last.pop()
                ready.append(latest_last.pop())
            one = ready.pop()
            if one in fate:
                continue
            fate[one] = _fate((fate.get(other), retracts) for other, retracts in against[one])
            for target in targets.get(one, ()):
                unsettled[target] -= 1
                if not unsettled[target]:
                    ready.append(target)
        return {identity for identity, found in fate.items() if found != "stands"}


def _fate(against: Iterable[tuple[Fate | None, bool]]) -> Fate:
    """What becomes of an event by what became of those that speak against it; None has not been settled."""
    found: Fate = "stands"
    for other, retracts in against:
        if retracts and other == "stands":
            return "retracted"
        if not retracts and other in ("stands", "superseded"):
            found = "superseded"
    return found


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


def _slot_order(slot: Slot) -> tuple[str, str, bool, str, str]:
    target, name, by, source = slot
    return target, name, by is not None, by or "", source
