"""An evaluator as a check: what it scores too low doesn't pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from loopkit.guard.check import ALONE, PLAINLY, Action, How, OnError, Seen, Trip
from loopkit.types import Example, Score


@dataclass(frozen=True, slots=True)
class EvaluatorCheck:
    """Lets texts pass that an evaluator scores well enough. Fails closed."""

    name: str
    """The evaluator's."""
    score: Callable[[Any, Example], Score]
    least: float
    action: Action
    how: How = PLAINLY
    on_error: OnError = "closed"

    def check(self, text: str, seen: Seen = ALONE) -> Trip | None:
        """See `Check.check`."""
        score = self.score(text, Example(id="", input=seen.inputs))
        if score.error is not None:
            raise RuntimeError(score.error)
        if score.value is None:
            raise TypeError(f"{self.name} gave no number")
        if score.value >= self.least:
            return None
        reason = f"{score.value:g}, where {self.least:g} is the least"  # why, may quote the text
        return Trip(self.action, reason, score.reason, score.value)
