"""What a model may have tools do."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loopkit.errors import InvalidInput
from loopkit.guard.answers import Shape, shape_of
from loopkit.guard.check import ALONE, PLAINLY, Action, How, OnError, Seen, Trip, whole_action

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from loopkit.guard.check import Options


@dataclass(frozen=True, slots=True)
class ToolCheck:
    """Lets tools on a list be called, with arguments of their shape. Fails closed."""

    action: Action
    allowed: Mapping[str, Shape | None]
    side_effects: frozenset[str]
    how: How = PLAINLY
    name: str = "tools"
    on_error: OnError = "closed"

    def check(self, text: str, seen: Seen = ALONE) -> Trip | None:
        """See `Check.check`. Looks at calls of tools alone."""
        if seen.stage != "tool_call":
            return None
        if seen.tool is None or seen.tool not in self.allowed:
            return Trip(self.action, f"{seen.tool or 'a tool without a name'} is not on the list")
        shape = self.allowed[seen.tool]
        try:
            arguments: Any = json.loads(text or "{}")
        except (ValueError, RecursionError):
            return Trip(self.action, f"the arguments of {seen.tool} are no JSON")
        wrong = None if shape is None else shape.why_not(arguments)
        if wrong is not None:
            return Trip(self.action, f"the arguments of {seen.tool} are not as declared: {wrong}")
        if seen.tool in self.side_effects and seen.has_read_from_tools:
            return Trip("hold", f"{seen.tool} has side effects, and the model has read what came from elsewhere")
        return None


def tools(
    allow: Iterable[str] | Mapping[str, Any],
    *,
    side_effects: Iterable[str] = (),
    action: Action = "block",
    **how: Unpack[Options],
) -> ToolCheck:
    """Tools that may be called, for `Guard(tool_call=)`: names, or names with the shape of their arguments, a pydantic
    model or a JSON schema (`pip install 'loopkit-sdk[schemas]'`). A call of one of `side_effects` is held where the
    model has read what tools gave: whoever wrote that could have asked for it.

        checks.tools({"look_up": None, "refund": Refund}, side_effects=["refund"])
    """
    if isinstance(allow, str):
        raise InvalidInput(f"tools() got one text, {allow!r}: give a list of names")
    given: Any = allow  # isinstance makes it a mapping of unknown types; this stays Any
    named: dict[str, Any] = dict(given) if isinstance(allow, Mapping) else dict.fromkeys(given)
    effects = frozenset([side_effects] if isinstance(side_effects, str) else side_effects)
    unknown = sorted(effects - set(named))
    if unknown:
        raise InvalidInput(f"side_effects has {unknown}: they aren't on the list of tools, so they are never called")
    shapes = {name: None if shape is None else shape_of(shape) for name, shape in named.items()}
    why = "a call is made or not"
    return ToolCheck(whole_action(action, why), shapes, effects, How.of(how))
