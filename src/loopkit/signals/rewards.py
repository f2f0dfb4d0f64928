"""What signals are worth: one table with a version, so that events stay as they are and rewards can be made anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from loopkit.types import Feedback, FeedbackKind

VERSION: Final = 1
"""Changes with the table."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a signal of this name means."""

    kind: FeedbackKind
    weight: float
    """How much it counts beside others, between 0 and 1."""
    reward: Callable[[Any], float | None]
    """From its value to between -1 and 1; None where it says nothing of quality."""


@dataclass(frozen=True, slots=True)
class Reward:
    """What an event is worth."""

    value: float
    """Between -1 and 1."""
    weight: float
    version: int = VERSION


def _yes_or_no(value: Any) -> float | None:
    return (1.0 if value else -1.0) if isinstance(value, bool) else None


def _when_it_happened(worth: float) -> Callable[[Any], float | None]:
    return lambda value: worth if value is True or (isinstance(value, float) and value > 0) else None


def _similarity(value: Any) -> float | None:
    return 2 * value - 1 if isinstance(value, float) and 0 <= value <= 1 else None


def _of_five(value: Any) -> float | None:
    return (value - 3) / 2 if isinstance(value, float) and 1 <= value <= 5 else None


def _nothing(_: Any) -> None:
    return None


MEANINGS: Final[Mapping[str, Meaning]] = {
    "thumbs": Meaning("explicit", 1.0, _yes_or_no),
    "stars": Meaning("explicit", 1.0, _of_five),
    "comment": Meaning("explicit", 0.0, _nothing),
    "outcome": Meaning("implicit", 1.0, _yes_or_no),
    "accepted": Meaning("implicit", 0.8, _similarity),
    "edited": Meaning("implicit", 0.8, _similarity),
    "copied": Meaning("implicit", 0.4, _when_it_happened(0.5)),
    "regenerated": Meaning("implicit", 0.6, _when_it_happened(-0.6)),
    "stopped": Meaning("implicit", 0.6, _when_it_happened(-0.6)),
    "rephrased": Meaning("inferred", 0.4, _when_it_happened(-0.5)),
    "contradicted": Meaning("inferred", 0.5, _when_it_happened(-0.7)),
    "dwell": Meaning("implicit", 0.0, _nothing),
    "abandoned": Meaning("implicit", 0.0, _nothing),
}
"""By signal. Dwelling and leaving may mean either: they are recorded, and are worth nothing by themselves."""


MARKS: Final = frozenset(("copied", "regenerated", "stopped", "rephrased", "contradicted", "abandoned"))
"""Of these signals those that happen, or don't."""


def reward_of(event: Feedback) -> Reward | None:
    """What an event is worth by the table; None where it says nothing of quality.

    Under other names a yes is 1 and a no -1. The event's own weight goes before the table's.
    """
    meaning = MEANINGS.get(event.name, Meaning(event.kind, 1.0, _yes_or_no))
    value = meaning.reward(event.value)
    weight = meaning.weight if event.weight is None else event.weight
    return None if value is None or weight == 0 else Reward(value, weight)
