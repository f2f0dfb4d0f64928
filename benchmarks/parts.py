"""Weights judged on texts that they were not fitted to: five parts, near-duplicates in one."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from zlib import crc32

from loopkit.detect.folding import folded
from loopkit.guard.weights import Weights, has_words, words_of

PARTS = 5


def judged(texts: list[str], labels: list[bool], parts: list[int], fewest: int) -> list[float]:
    """Of each text the probability by weights that were fitted to the other parts; 0 where it has fewer words."""
    told = [0.0] * len(texts)
    for part in sorted(set(parts)):
        others = [n for n in range(len(texts)) if parts[n] != part]
        weights = Weights.fit([texts[n] for n in others], [labels[n] for n in others])
        for n in range(len(texts)):
            if parts[n] == part:
                told[n] = weights.probability(texts[n]) if has_words(words_of(texts[n]), fewest) else 0.0
    return told


def lowest(told: list[float], sets: list[str], benign: Iterable[str], most_flagged: float) -> float:
    """The lowest threshold at which of no benign set more than such a share is flagged."""
    found = 0.0
    for name in benign:
        ranked = sorted((s for s, own in zip(told, sets, strict=True) if own == name), reverse=True)
        found = max(found, ranked[int(most_flagged * len(ranked))] + 1e-9)
    return found


def flagged_by_part(
    texts: list[str], labels: list[bool], sets: list[str], benign: Iterable[str], *, most_flagged: float, fewest: int
) -> tuple[list[bool], list[float]]:
    """Whether each text is flagged by weights and a threshold that its part had no say in, and its probability."""
    parts = parted(texts)
    told = judged(texts, labels, parts, fewest)
    flagged = [False] * len(texts)
    for part in range(PARTS):
        others = [n for n in range(len(texts)) if parts[n] != part]
        inner = judged([texts[n] for n in others], [labels[n] for n in others], [parts[n] for n in others], fewest)
        threshold = lowest(inner, [sets[n] for n in others], benign, most_flagged)
        for n in range(len(texts)):
            if parts[n] == part:
                flagged[n] = told[n] >= threshold
    return flagged, told


def parted(texts: list[str]) -> list[int]:
    """A part for each text; those that share a third of their runs of five words are in one."""
    runs = [_runs(text) for text in texts]
    holding: dict[int, list[int]] = defaultdict(list)
    for number, own in enumerate(runs):
        for run in sorted(own):
            holding[run].append(number)
    shared: Counter[tuple[int, int]] = Counter()
    for found in holding.values():
        if len(found) < 300:
            shared.update((a, b) for i, a in enumerate(found) for b in found[i + 1 :])
    root = list(range(len(texts)))

    def top(number: int) -> int:
        while root[number] != number:
            number = root[number]
        return number

    for (a, b), count in shared.items():
        if count >= 0.3 * min(len(runs[a]), len(runs[b])):
            root[top(a)] = top(b)
    groups = sorted({top(number) for number in range(len(texts))})
    random.Random(0).shuffle(groups)
    of_group = {group: number % PARTS for number, group in enumerate(groups)}
    return [of_group[top(number)] for number in range(len(texts))]


def _runs(text: str) -> set[int]:
    words = folded(text).split()
    return {
        crc32(" ".join(words[at : at + 5]).encode("utf-8", "surrogatepass")) for at in range(max(len(words) - 4, 1))
    }
