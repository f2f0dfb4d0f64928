"""Splits without leakage: by user or session, never by row, and no near-duplicate on both sides.

A group's side is a hash of its name and the task's, so that a later dataset puts it on the same side: what was
golden once can never be trained on.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from loopkit.prompts.nearest import text_of
from loopkit.types import Example

NEAR = 0.85
"""Two texts are near-duplicates when this share of their distinct words is common to both (Jaccard)."""

_WORD = re.compile(r"[^\W_]+")
_ORDER = {"golden": 0, "test": 1, "train": 2}


def separate(
    examples: Sequence[Example], added: Sequence[Example], *, golden: float, test: float, salt: str
) -> tuple[list[Example], dict[str, int]]:
    """The examples with their splits (those `added` keep theirs), and how many near-duplicates were removed.

    Of near-duplicates the golden one stays, else the test one, else the earliest.
    """
    placed = [replace(e, split=side(e.group or e.id, golden=golden, test=test, salt=salt)) for e in examples]
    placed += added
    placed.sort(key=lambda e: (_ORDER[e.split], e.at, e.id))
    kept: list[Example] = []
    removed: Counter[str] = Counter()
    seen = _Seen()
    for example in placed:
        twin = seen.find(text_of(example.input))
        if twin is None:
            seen.add(text_of(example.input))
            kept.append(example)
        elif kept[twin].split == example.split:
            removed["near-duplicates within a split"] += 1
        else:
            removed["near-duplicates of a held-out example"] += 1
    return sorted(kept, key=lambda e: (e.at, e.id)), dict(removed)


def side(group: str, *, golden: float, test: float, salt: str) -> Literal["train", "test", "golden"]:
    """The split that a group belongs to, for ever."""
    digest = hashlib.sha256(f"{salt}:{group}".encode("utf-8", "replace")).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < golden:
        return "golden"
    return "test" if place < golden + test else "train"


class _Seen:
    """Texts seen so far, by their words: only texts that share a word are compared."""

    def __init__(self) -> None:
        self._words: list[frozenset[str]] = []
        self._holders: dict[str, list[int]] = defaultdict(list)

    def find(self, text: str) -> int | None:
        words = _words(text)
        if not words:
            return None
        common: Counter[int] = Counter()
        for word in words:
            common.update(self._holders.get(word, ()))
        for index, shared in common.most_common():
            if shared < NEAR * len(words):  # the intersection is at most the union's share
                return None
            if shared >= NEAR * len(words | self._words[index]):
                return index
        return None

    def add(self, text: str) -> None:
        words = _words(text)
        for word in words:
            self._holders[word].append(len(self._words))
        self._words.append(words)


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.casefold()))
