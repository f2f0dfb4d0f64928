"""Checks by regular expressions of an application's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loopkit.detect.bounded import Bounded, bounded
from loopkit.detect.patterns import Finding
from loopkit.errors import InvalidInput
from loopkit.guard.check import PLAINLY, Action, How, OnError
from loopkit.guard.spans import Finder, finding_action

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from loopkit.guard.check import Options


@dataclass(frozen=True, slots=True)
class MatchCheck(Finder):
    """Finds what an expression matches. Fails closed."""

    name: str
    action: Action
    bounded: Bounded
    how: How = PLAINLY
    on_error: OnError = "closed"

    def why(self, found: Sequence[Finding]) -> str:
        """How much was found: what, isn't repeated."""
        return f"it has {len(found)} of what may not be in it"

    def find(self, text: str) -> list[Finding]:
        """See `Finder.find`."""
        return [Finding(self.name, match.start(), match.end()) for match in self.bounded.pattern.finditer(text)]

    def open_at(self, text: str, start: int) -> int:
        """See `SpanCheck.open_at`."""
        begun = self.bounded.begins.search(text, max(start, len(text) - self.bounded.width))
        return len(text) if begun is None else begun.start()


def matches(
    expression: str,
    *,
    name: str = "matches",
    action: Action = "block",
    ignore_case: bool = True,
    **how: Unpack[Options],
) -> MatchCheck:
    """What a regular expression matches: numbers of customers, contracts, tickets.

        checks.matches(r"\\bEMP-\\d{6}\\b", name="employee", action="redact")

    Repetitions need a bound (`{1,40}` for `+`), and what could be tried in very many ways is refused: while Python's
    matcher runs nothing else does, and no timeout helps. It sees the text as it is; what is hidden in it, such as by
    unseen characters, it doesn't find. Raises `InvalidInput`.
    """
    if not isinstance(expression, str):
        raise InvalidInput(f"matches() got {expression!r}: give a regular expression as a text")
    if not isinstance(name, str) or not name.isidentifier():
        raise InvalidInput(f"name is {name!r}: give a word, which stands where something was redacted")
    found = bounded(expression, ignore_case=ignore_case)
    return MatchCheck(name, finding_action(action), found, How.of(how))
