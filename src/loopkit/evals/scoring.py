"""`@evaluator`: one object that scores an output, wherever it stands in the loop."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, overload

from loopkit.errors import InvalidInput
from loopkit.evals.gating import EvaluatorCheck
from loopkit.guard.check import Action, How, whole_action
from loopkit.types import Example, Score

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from loopkit.guard.check import Options

_GIVEN = ("input", "inputs", "output", "outputs", "expected", "reference_outputs", "example")
_EXPECTED = ("expected", "reference_outputs")


class Evaluator:
    """A function that scores one output. Call it as the function it is, or `score` to get a `Score`."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self.function = function
        self.name = name
        self._wants = _wanted(function)
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the function returns."""
        return self.function(*args, **kwargs)

    def at_least(self, least: float, *, action: Action = "block", **how: Unpack[Options]) -> EvaluatorCheck:
        """A check for a guard: texts that it scores lower don't pass. It is given `output`, and as `input` what a
        client was asked (`messages`) or a function was called with. A `timeout=` has it run on a thread.

            loopkit.Guard(output=[politeness.at_least(0.7, action="retry")])
        """
        if not isinstance(least, (int, float)) or isinstance(least, bool) or not math.isfinite(least):
            raise InvalidInput(f"at_least() got {least!r}: give a number")
        parameters = inspect.signature(self.function).parameters.values()
        needed = [each.name for each in parameters if each.name in _EXPECTED and each.default is each.empty]
        if needed:
            raise InvalidInput(
                f"the evaluator {self.name!r} compares with {needed[0]!r}, which no live call has: gate with one that"
                " judges the output by itself"
            )
        if any(map(inspect.iscoroutinefunction, (self.function, type(self.function).__call__))):
            raise InvalidInput(f"the evaluator {self.name!r} is async: give it to checks.passes(), which awaits")
        why = "it says how good a text is, not how to mend it"
        taken = whole_action(action, why)
        return EvaluatorCheck(self.name, self.score, float(least), taken, How.of(how))

    def score(self, output: Any, example: Example) -> Score:
        """The function's result as a `Score`. A function that raises gives a score with `error`, never an exception."""
        given = {
            "input": example.input, "inputs": example.input, "output": output, "outputs": output,
            "expected": example.expected, "reference_outputs": example.expected, "example": example,
        }  # fmt: skip
        try:
            return normalise(self.name, self.function(**{name: given[name] for name in self._wants}))
        except Exception as error:  # noqa: BLE001  # an evaluator's failure is a row, not the end of the run
            return Score(name=self.name, error=f"{type(error).__name__}: {error}")


@overload
def evaluator(function: Callable[..., Any], /) -> Evaluator: ...


@overload
def evaluator(*, name: str) -> Callable[[Callable[..., Any]], Evaluator]: ...


def evaluator(function: Callable[..., Any] | None = None, /, *, name: str | None = None) -> Any:
    """Make a function an evaluator.

    It takes any of `input`, `output`, `expected` and `example` by name (or `inputs`, `outputs`,
    `reference_outputs`), and returns a bool, a number, a string (a label), a `Score`, or a dict of a score's
    fields.

        @loopkit.evaluator
        def right_queue(output, expected):
            return output == expected
    """

    def make(target: Callable[..., Any]) -> Evaluator:
        return Evaluator(target, name or target.__name__)

    return make if function is None else make(function)


def normalise(name: str, result: Any) -> Score:
    """A bare result as a `Score`. Raises `InvalidInput` for what is none."""
    if isinstance(result, Score):
        result = {"value": result.value, "label": result.label, "reason": result.reason}
    if isinstance(result, bool):
        return Score(name=name, value=float(result), label=str(result).lower())
    if isinstance(result, (int, float)) and math.isfinite(result):
        return Score(name=name, value=float(result))
    if isinstance(result, str):
        return Score(name=name, label=result)
    fields: Any = result  # isinstance makes `result` a mapping of unknown types; this stays Any
    if isinstance(result, Mapping) and result.keys() <= {"value", "score", "label", "reason"}:
        value = fields.get("value", fields.get("score"))
        if value is not None and not math.isfinite(float(value)):
            raise InvalidInput(f"evaluator {name!r} returned the value {value!r}: return a finite number")
        return Score(
            name=name,
            value=None if value is None else float(value),
            label=fields.get("label"),
            reason=fields.get("reason"),
        )
    raise InvalidInput(f"evaluator {name!r} returned {result!r}: return a bool, a finite number, a string or a Score")


def _wanted(function: Callable[..., Any]) -> tuple[str, ...]:
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return ("input", "output", "expected", "example")
    unknown = [p.name for p in parameters if p.name not in _GIVEN and p.default is p.empty]
    if unknown:
        raise InvalidInput(
            f"the evaluator {getattr(function, '__name__', function)!r} wants {', '.join(map(repr, unknown))}: "
            "it is given input, output, expected and example"
        )
    return tuple(p.name for p in parameters if p.name in _GIVEN)


def _exact(output: Any, expected: Any) -> bool:
    """Equal, texts but for case and surrounding space."""
    if isinstance(output, str) and isinstance(expected, str):
        return output.strip().casefold() == expected.strip().casefold()
    return bool(output == expected)


def _contains(output: Any, expected: Any) -> bool:
    """The expected text occurs in the output, but for case."""
    return str(expected).strip().casefold() in str(output).casefold()


def _same_json(output: Any, expected: Any) -> bool:
    """Equal as JSON values, whatever their spacing and key order."""

    def value(given: Any) -> Any:
        return json.loads(given) if isinstance(given, str) else given

    return bool(value(output) == value(expected))


exact = Evaluator(_exact, "exact")
contains = Evaluator(_contains, "contains")
same_json = Evaluator(_same_json, "same_json")

EVALUATORS = {found.name: found for found in (exact, contains, same_json)}
"""By name; other packages add theirs by the entry-point group `loopkit.evaluators`."""
