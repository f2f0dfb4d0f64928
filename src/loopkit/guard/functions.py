"""Checks that are an application's own functions."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loopkit.errors import InvalidInput
from loopkit.guard.check import ALONE, PLAINLY, Action, How, OnError, Seen, Trip, whole_action

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from loopkit.guard.check import Options


@dataclass(frozen=True, slots=True)
class FunctionCheck:
    """Any function from text to bool: True lets the text pass. Fails closed."""

    name: str
    function: Callable[[str], bool]
    action: Action = "block"
    reason: str = ""
    how: How = PLAINLY
    on_error: OnError = "closed"

    def check(self, text: str, seen: Seen = ALONE) -> Trip | None:
        """See `Check.check`."""
        return self._tripped(self.function(text))

    def _tripped(self, said: Any) -> Trip | None:
        if isinstance(said, Trip) or said is None:
            return said
        if not isinstance(said, bool):
            if inspect.iscoroutine(said):
                said.close()
            raise TypeError(f"it returned {type(said).__name__}, not True, False or a Trip")
        return None if said else Trip(self.action, self.reason or f"{self.name} said no")


@dataclass(frozen=True, slots=True)
class AsyncFunctionCheck(FunctionCheck):
    """One that is awaited."""

    async def check(self, text: str, seen: Seen = ALONE) -> Trip | None:  # type: ignore[override]  # a guard asks which it is
        """See `Check.check`."""
        awaited: Any = self.function(text)
        return self._tripped(await awaited)


def passes(
    function: Callable[[str], bool | Trip | None] | Callable[[str], Awaitable[bool | Trip | None]],
    *,
    name: str | None = None,
    action: Action = "block",
    reason: str = "",
    **how: Unpack[Options],
) -> FunctionCheck:
    """Your own check: a function, async too, that says whether a text may pass. Instead of False it may give a `Trip`,
    which says what to do.

        checks.passes(lambda text: len(text) < 4000, name="length")
        checks.passes(ask_our_service, timeout=0.5, on_error="open")
    """
    if not callable(function):
        raise InvalidInput(f"passes() got {function!r}: give a function from a text to True or False")
    called = name or str(getattr(function, "__name__", type(function).__name__))
    why = f"{called} only says yes or no: give a Trip with the text instead"
    is_async = any(map(inspect.iscoroutinefunction, (function, type(function).__call__)))
    kind = AsyncFunctionCheck if is_async else FunctionCheck
    asked: Any = function
    return kind(called, asked, whole_action(action, why), reason, How.of(how))
