"""Personal data as Microsoft's Presidio finds it: names and places too, by models of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loopkit._extras import require
from loopkit.detect.patterns import Finding, merged
from loopkit.errors import InvalidInput
from loopkit.guard.check import PLAINLY, Action, How, OnError, texts_of
from loopkit.guard.spans import Finder, finding_action

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from loopkit.guard.check import Options


@dataclass(frozen=True, slots=True)
class PresidioCheck(Finder):
    """Finds what a Presidio analyzer does. Fails closed."""

    action: Action
    analyzer: Any
    entities: tuple[str, ...] | None
    language: str
    least: float
    how: How = PLAINLY
    name: str = "presidio"
    on_error: OnError = "closed"

    def find(self, text: str) -> list[Finding]:
        """See `Finder.find`."""
        entities = None if self.entities is None else list(self.entities)
        said = self.analyzer.analyze(text, language=self.language, entities=entities, score_threshold=self.least)
        return merged([Finding(each.entity_type.lower(), each.start, each.end) for each in said])

    def why(self, found: Sequence[Finding]) -> str:
        """See `Finder.why`."""
        return f"found {', '.join(sorted({each.kind for each in found}))}"


def presidio(
    analyzer: Any = None,
    *,
    entities: Iterable[str] | None = None,
    language: str = "en",
    least: float = 0.5,
    action: Action = "redact",
    **how: Unpack[Options],
) -> PresidioCheck:
    """What Presidio finds (`pip install 'loopkit-sdk[presidio]'`), with an `AnalyzerEngine` of yours or its default
    one, which needs a spaCy model. `entities` are its names, such as "PERSON" and "LOCATION"; `least` is the score from
    which a finding counts. It takes milliseconds and sees texts as a whole: a stream waits for its end.
    """
    if analyzer is None:
        analyzer = require("presidio_analyzer", "presidio").AnalyzerEngine()
    if not callable(getattr(analyzer, "analyze", None)):
        raise InvalidInput(f"presidio() got {analyzer!r}: give a presidio_analyzer.AnalyzerEngine, or nothing")
    named = None if entities is None else texts_of("presidio(entities=)", entities)
    if not isinstance(least, (int, float)) or isinstance(least, bool) or not 0 <= least <= 1:
        raise InvalidInput(f"least is {least!r}: give a score, 0 to 1")
    return PresidioCheck(finding_action(action), analyzer, named, language, float(least), How.of(how))
