"""Guards learn from what people said of their verdicts: weights and thresholds, judged on texts that were kept back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any, Final, TypeVar
from zlib import crc32

from loopkit.detect.folding import folded
from loopkit.errors import InvalidInput
from loopkit.guard.check import Check
from loopkit.guard.weights import Weights, hash_of
from loopkit.statistics.paired import PairedResult, paired_difference, wilson

_T = TypeVar("_T")
_PARTS: Final = 5
_ALPHA: Final = 0.05
FEWEST: Final = 25
"""Different texts of each label: four parts of five have to have enough to learn from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """A text of which somebody said whether a check should find something in it."""

    text: str
    is_bad: bool
    span: str | None = None
    """The call that it is of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hits:
    """How a check does on labelled texts that it didn't learn from."""

    found: int
    bad: int
    false: int
    good: int

    @property
    def recall(self) -> float:
        """The share of the bad ones that it finds."""
        return self.found / self.bad if self.bad else float("nan")

    @property
    def false_share(self) -> float:
        """The share of the good ones that it finds something in."""
        return self.false / self.good if self.good else float("nan")

    @property
    def least_false(self) -> float:
        """The lower end of the 95 % interval of that share."""
        return wilson(self.false, self.good)[0]

    def __str__(self) -> str:
        return f"finds {_share(self.found, self.bad)}, false alarms {_share(self.false, self.good)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What a check learnt."""

    check: Check
    """The one that does better: the new one, else the one that was there."""
    is_better: bool
    before: Hits
    after: Hits
    """Of weights that the text at hand had no part in, at a threshold that its part of the texts had none in."""


def fitted(check: Any, labelled: Iterable[Labelled], *, most_false: float | None = None) -> Fitted:
    """The check, fitted to labelled texts where that makes it better: its weights, begun with those that it has, and
    its threshold: where recall less false alarms is largest, of those at which no larger share of good texts than
    `most_false` is stopped. Raises `InvalidInput` for a check without weights, and for too few texts.

    Judged on the texts that the check hasn't learnt from before, in five parts, the same text always in one. "Better"
    is a larger mean of recall and of the share of good texts that pass, by more than chance would have it
    (`paired_difference`, p at most .05); or false alarms that may be as few as `most_false`, by their 95 % interval,
    where they couldn't. What finds no more than it is wrong about, by the same, is never better.
    """
    weights = getattr(check, "weights", None)
    if not isinstance(weights, Weights) or not hasattr(check, "__dataclass_fields__"):
        name = getattr(check, "name", check)
        raise InvalidInput(f"{name!r} has no weights that could learn: injection, labelled and toxicity have")
    rows = list(labelled) if isinstance(labelled, Iterable) else [labelled]
    if not all(isinstance(each, Labelled) and isinstance(each.text, str) for each in rows):
        raise InvalidInput("fit() takes Labelled texts: loopkit.guard_labels() gives them")
    texts, labels = [each.text for each in rows], [bool(each.is_bad) for each in rows]
    hashes = [hash_of(text) for text in texts]
    is_new = [each not in weights.learnt for each in hashes]
    _require_enough(compress(hashes, is_new), compress(labels, is_new), learnt=len(texts) - sum(is_new))
    flags, told = _cross_fitted(check, texts, labels, is_new, most_false)
    judged = list(compress(labels, is_new))
    was = [check.check(text) is not None for text in compress(texts, is_new)]
    groups = list(compress(hashes, is_new))
    before, after = _hits(was, judged, groups), _hits(flags, judged, groups)
    gain = paired_difference(_balanced(was, judged), _balanced(flags, judged), groups=groups)
    if not _is_better(before, after, gain, most_false):
        return Fitted(check=check, is_better=False, before=before, after=after)
    threshold = _threshold(told, judged, most_false)
    learnt = Weights.fit(texts, labels, threshold=threshold, fewest=weights.fewest, start=weights)
    return Fitted(check=replace(check, weights=learnt), is_better=True, before=before, after=after)


def _cross_fitted(
    check: Any, texts: Sequence[str], labels: Sequence[bool], is_new: Sequence[bool], most_false: float | None
) -> tuple[list[bool], list[float]]:
    """Of each new text whether a check finds something in it, and the probability, by weights and a threshold that its
    part of the texts had no part in."""
    weights: Weights = check.weights
    parts = _parts(texts, labels)
    of_part = {
        part: Weights.fit(*_those(texts, labels, [each != part for each in parts]), start=weights)
        for part in range(_PARTS)
    }
    told = [of_part[part].probability(text) for text, part in zip(texts, parts, strict=True)]
    kept_back: dict[int, Any] = {}
    for part, own in of_part.items():
        others = [each != part and new for each, new in zip(parts, is_new, strict=True)]
        threshold = _threshold(*_those(told, labels, others), most_false)
        kept_back[part] = replace(check, weights=replace(own, threshold=threshold, fewest=weights.fewest))
    new = compress(zip(texts, parts, strict=True), is_new)
    return [kept_back[part].check(text) is not None for text, part in new], list(compress(told, is_new))


def _is_better(before: Hits, after: Hits, gain: PairedResult, most_false: float | None) -> bool:
    is_larger = gain.difference > 0 and gain.p_value <= _ALPHA
    keeps_to = most_false is not None and after.least_false <= most_false < before.least_false
    finds = wilson(after.found, after.bad)[0] > wilson(after.false, after.good)[1]
    return finds and (is_larger or keeps_to)


def _require_enough(hashes: Iterable[int], labels: Iterable[bool], *, learnt: int) -> None:
    pairs = set(zip(hashes, labels, strict=True))
    for label, kind in ((True, "bad"), (False, "good")):
        count = sum(own is label for _, own in pairs)
        if count < FEWEST:
            new = f", besides the {learnt} that it has learnt from before" if learnt else ""
            raise InvalidInput(f"there are {count} different texts labelled {kind}{new}: {FEWEST} of each are needed")


def _parts(texts: Sequence[str], labels: Sequence[bool]) -> list[int]:
    """A part for each text, with as many of each label in each; the same text is always in one."""
    of_text: dict[str, int] = {}
    for label in (True, False):
        keys = {folded(text) for text, own in zip(texts, labels, strict=True) if own is label} - of_text.keys()
        ordered = sorted(keys, key=lambda key: crc32(key.encode("utf-8", "surrogatepass")))
        of_text.update((key, number % _PARTS) for number, key in enumerate(ordered))
    return [of_text[folded(text)] for text in texts]


def _those(values: Sequence[_T], labels: Sequence[bool], wanted: Sequence[bool]) -> tuple[list[_T], list[bool]]:
    return list(compress(values, wanted)), list(compress(labels, wanted))


def _threshold(told: Sequence[float], labels: Sequence[bool], most_false: float | None) -> float:
    """Where recall less false alarms is largest, with no more false alarms than may be."""
    bad = sum(labels)
    good = len(labels) - bad
    best, at = 0.0, 1.0
    found = false = 0
    ranked = sorted(zip(told, labels, strict=True), reverse=True)
    for number, (score, label) in enumerate(ranked):
        found, false = found + label, false + (not label)
        is_last = number + 1 == len(ranked) or ranked[number + 1][0] < score
        if is_last and (most_false is None or false <= most_false * good) and found / bad - false / good > best:
            best, at = found / bad - false / good, score
    return at


def _balanced(flags: Sequence[bool], labels: Sequence[bool]) -> list[float]:
    """What each text adds to the mean of recall and of the share of good texts that pass."""
    bad = sum(labels)
    weights = {True: len(labels) / (2 * bad), False: len(labels) / (2 * (len(labels) - bad))}
    return [weights[label] * (flag is label) for flag, label in zip(flags, labels, strict=True)]


def _hits(flags: Sequence[bool], labels: Sequence[bool], hashes: Sequence[int]) -> Hits:
    """Each text counts once, however often it was said."""
    of_text = {(each, label): flag for flag, label, each in zip(flags, labels, hashes, strict=True)}
    bad = {each: flag for (each, label), flag in of_text.items() if label}
    good = {each: flag for (each, label), flag in of_text.items() if not label}
    return Hits(found=sum(bad.values()), bad=len(bad), false=sum(good.values()), good=len(good))


def _share(count: int, n: int) -> str:
    low, high = wilson(count, n)
    return f"{count} of {n} ({count / n:.1%} [{low:.1%}, {high:.1%}])" if n else "none of none"
