"""Checks by likeness: to known texts, and to texts that were labelled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zlib import crc32

from loopkit.detect.folding import folded, views
from loopkit.errors import InvalidInput
from loopkit.guard.check import ALONE, PLAINLY, Action, How, OnError, Seen, Trip, share_of, texts_of, whole_action
from loopkit.guard.weights import Source, Weights, weights_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from loopkit.guard.check import Options

SHIPPED: Final = Path(__file__).with_name("toxicity.weights")
"""Made by `python -m benchmarks.train_toxicity --write`; docs/guardrails.md says of what."""
_RUN: Final = 3
"""Words in a row."""
_WHOLE: Final = "likeness is of a text as a whole"


@dataclass(frozen=True, slots=True)
class SimilarCheck:
    """Finds texts in which much of a known one stands. Fails closed."""

    name: str
    action: Action
    known: Mapping[int, tuple[int, ...]]
    """Runs of words, and the known texts that they are in."""
    sizes: tuple[int, ...]
    """Of each known text how many runs it has."""
    share: float
    how: How = PLAINLY
    on_error: OnError = "closed"

    def check(self, text: str, seen: Seen = ALONE) -> Trip | None:
        """See `Check.check`."""
        for view in views(text):
            counts: dict[int, int] = defaultdict(int)
            for run in _runs(view):
                for number in self.known.get(run, ()):
                    counts[number] += 1
            best = max((count / self.sizes[number] for number, count in counts.items()), default=0.0)
            if best >= self.share:
                return Trip(self.action, f"{best:.0%} of a known text stands in it", score=round(best, 4))
        return None


def similar(
    texts: Iterable[str], *, share: float = 0.5, name: str = "similar", action: Action = "block",
    **how: Unpack[Options],
) -> SimilarCheck:  # fmt: skip
    """Texts in which so large a `share` of a known one stands, by its runs of three words: attacks that were seen, with
    whatever around them, and however hidden.

        checks.similar(Path("attacks.txt").read_text().splitlines(), name="known_attack")
    """
    share = share_of("share", share)
    holding: dict[int, list[int]] = defaultdict(list)
    sizes: list[int] = []
    for text in filter(str.strip, texts_of("similar()", texts)):  # a file has empty lines
        runs = _runs(folded(text))
        if not runs:
            raise InvalidInput(f"similar() got {text!r}: give texts of {_RUN} words or more")
        for run in runs:
            holding[run].append(len(sizes))
        sizes.append(len(runs))
    if not sizes:
        raise InvalidInput("similar() got no texts")
    taken = whole_action(action, _WHOLE)
    return SimilarCheck(
        name, taken, {run: tuple(numbers) for run, numbers in holding.items()}, tuple(sizes), share, How.of(how)
    )


@dataclass(frozen=True, slots=True)
class LabelledCheck:
    """Finds texts that are like those that were labelled so. Fails closed."""

    name: str
    action: Action
    weights: Weights
    how: How = PLAINLY
    on_error: OnError = "closed"

    def check(self, text: str, seen: Seen = ALONE) -> Trip | None:
        """See `Check.check`."""
        likeness = self.weights.yes(text)
        return None if likeness is None else Trip(self.action, f"it is like {self.name}", score=round(likeness, 4))

    def fit(self, texts: Sequence[str], labels: Sequence[bool], *, threshold: float = 0.5) -> LabelledCheck:
        """The same check with weights of your own: see `InjectionCheck.fit`."""
        return replace(self, weights=Weights.fit(texts, labels, threshold=threshold, fewest=self.weights.fewest))


def labelled(name: str, weights: Source, *, action: Action = "block", **how: Unpack[Options]) -> LabelledCheck:
    """Texts like those of yours that were labelled so: a topic that isn't yours, a tone, requests for advice.

    checks.labelled("off_topic", checks.Weights.fit(texts, labels, threshold=0.8))
    """
    taken = whole_action(action, _WHOLE)
    return LabelledCheck(name, taken, weights_of(weights), How.of(how))


def toxicity(*, weights: Source = SHIPPED, action: Action = "flag", **how: Unpack[Options]) -> LabelledCheck:
    """Insults, hate, threats, self-harm, by words alone: weak, so it only flags unless you say otherwise. `fit` it to
    what your users write; docs/guardrails.md says how often it is wrong."""
    return labelled("toxicity", weights, action=action, **how)


def _runs(text: str) -> set[int]:
    words = "".join(each if each.isalnum() else " " for each in text).split()
    return {
        crc32(" ".join(words[at : at + _RUN]).encode("utf-8", "surrogatepass")) for at in range(len(words) - _RUN + 1)
    }
