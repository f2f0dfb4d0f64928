"""Whose doing it was: what is said of a whole trace or session, handed on to the calls in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from loopkit._json import as_text
from loopkit.errors import InvalidInput
from loopkit.types import Feedback, Span

Method = Literal["last", "uniform", "decay", "touched"]
StepJudge = Callable[[Sequence[Span], Feedback], "int | None"]
"""From the calls, in order, and what was said to the index of the one whose doing it was; None where nobody can say."""
_DECAY: Final = 0.5
_WORDS: Final = 5
"""In a row: as many are no chance."""


def credits(
    steps: Sequence[Span], event: Feedback, method: Method | StepJudge | None = None, *, shown: str | None = None
) -> list[float]:
    """For each of these calls, in order, which part of what was said is its doing: from 0 to 1, together 1.

    "last": the last one's. "uniform": everybody's alike. "decay": each half as much as the one after it. "touched":
    theirs whose words reached the user, five in a row, in what was `shown` in the end (the last one's, where none did).
    A function names one, or none, and then it is nobody's. None is "uniform" for agents, and "last" for others.
    """
    check_method(method)
    if not steps:
        return []
    if method is None:
        method = "uniform" if any(step.kind == "agent" for step in steps) else "last"
    if callable(method):
        named = method(steps, event)
        if named is not None and (not isinstance(named, int) or not 0 <= named < len(steps)):
            raise InvalidInput(f"the judge named step {named!r} of {len(steps)}: it names one from 0, or None")
        return [float(index == named) for index in range(len(steps))]
    last = [0.0] * (len(steps) - 1) + [1.0]
    if method == "last":
        parts = last
    elif method == "uniform":
        parts = [1.0] * len(steps)
    elif method == "decay":
        parts = [_DECAY ** (len(steps) - 1 - index) for index in range(len(steps))]
    else:
        seen = _words(as_text(steps[-1].output) if shown is None else shown)
        parts = [float(_reached(_words(as_text(step.output)), seen)) for step in steps]
    total = sum(parts)
    return [part / total for part in parts] if total else last


def check_method(method: Method | StepJudge | None) -> None:
    """Raises `InvalidInput` for what is none."""
    if method is not None and not callable(method) and method not in get_args(Method):
        raise InvalidInput(f"credit is {method!r}: choose one of {', '.join(get_args(Method))}, or give a function")


@dataclass(frozen=True, slots=True)
class FirstWrongStep:
    """Asks a model which step went wrong first: `FirstWrongStep(ask)`, with a function from a prompt to an answer."""

    ask: Callable[[str], str]
    longest: int = 2000
    """Characters of each input and output that are shown."""

    def __call__(self, steps: Sequence[Span], event: Feedback) -> int | None:
        """The step it names; None where it names none of them."""
        told = "\n\n".join(
            f"Step {number}\nin: {as_text(step.input)[: self.longest]}\nout: {as_text(step.output)[: self.longest]}"
            for number, step in enumerate(steps, start=1)
        )
        said = as_text(event.comment or event.correction or event.value)
        prompt = (
            "Below are the steps of one piece of work, in order, and what was said of the result "
            f"({event.name}: {said}).\n"
            "Which step is the first one that explains it? Answer with its number alone, or 0 if none does.\n\n"
            f"{told}\n\nNumber:"
        )
        found = re.search(r"\d+", self.ask(prompt))
        number = int(found[0]) if found else 0
        return number - 1 if 1 <= number <= len(steps) else None


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _reached(words: Sequence[str], shown: Sequence[str]) -> bool:
    """Whether five of these words in a row are there; of fewer words all of them."""
    length = min(len(words), _WORDS)
    runs = {tuple(shown[at : at + length]) for at in range(len(shown) - length + 1)}
    return length > 0 and any(tuple(words[at : at + length]) in runs for at in range(len(words) - length + 1))
