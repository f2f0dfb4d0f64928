"""An evaluator as a check: what it scores too low doesn't pass."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from loopkit.errors import InvalidInput
from loopkit.guard.check import ALONE, PLAINLY, Action, How, OnError, Seen, Trip, action_of
from loopkit.types import Example, Score

if TYPE_CHECKING:
    from loopkit.evals.scoring import Evaluator

_EXPECTED: Final = ("expected", "reference_outputs")


@dataclass(frozen=True, slots=True)
class EvaluatorCheck:
    """Lets texts pass that an evaluator scores well enough. Fails closed."""

    evaluator: Evaluator
    least: float
    action: Action
    how: How = PLAINLY
    on_error: OnError = "closed"

    @property
    def name(self) -> str:
        """The evaluator's."""
        return self.evaluator.name

    def check(self, text: str, seen: Seen = ALONE) -> Trip | None:
        """See `Check.check`."""
        score: Score = self.evaluator.score(text, Example(id="", input=seen.inputs))
        if score.error is not None:
            raise RuntimeError(score.error)
        if score.value is None:
            raise TypeError(f"{self.name} gave no number")
        if score.value >= self.least:
            return None
        reason = f"{score.value:g}, where {self.least:g} is the least"
        if score.reason:
            reason = f"{reason}: {score.reason}"
        return Trip(self.action, reason, score.reason, score.value)


def gate(evaluator: Evaluator, least: float, action: Action, how: Mapping[str, Any]) -> EvaluatorCheck:
    """See `Evaluator.at_least`."""
    if not isinstance(least, (int, float)) or isinstance(least, bool) or not math.isfinite(least):
        raise InvalidInput(f"at_least() got {least!r}: give a number")
    needed = [each for each in evaluator.needs if each in _EXPECTED]
    if needed:
        raise InvalidInput(
            f"the evaluator {evaluator.name!r} compares with {needed[0]!r}, which no live call has: gate with one that"
            " judges the output by itself"
        )
    function = evaluator.function
    if any(map(inspect.iscoroutinefunction, (function, type(function).__call__))):
        raise InvalidInput(f"the evaluator {evaluator.name!r} is async: give it to checks.passes(), which awaits")
    why = "it says how good a text is, not how to mend it"
    return EvaluatorCheck(evaluator, float(least), action_of(action, but=("redact", "replace"), why=why), How.of(how))
