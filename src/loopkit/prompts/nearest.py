"""The nearest of some texts, by TF-IDF over words and word pairs: for demonstrations and for votes.

No model and no download; an index over a few thousand short texts answers in well under a millisecond, since
only texts that share a term are looked at.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")


class NearestIndex:
    """An inverted index over texts; cosine similarity of TF-IDF vectors (idf smoothed, tf logarithmic)."""

    def __init__(self, texts: Sequence[str]) -> None:
        counts = [Counter(terms(text)) for text in texts]
        seen = Counter(term for count in counts for term in count)
        self._idf = {term: math.log((1 + len(texts)) / (1 + n)) + 1 for term, n in seen.items()}
        self._idf_of_none = math.log(1 + len(texts)) + 1
        self._postings: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for index, count in enumerate(counts):
            for term, weight in self._vector(count).items():
                self._postings[term].append((index, weight))

    def nearest(self, text: str, k: int) -> list[tuple[int, float]]:
        """The positions of the k most similar texts with their similarity, best first; ties by position."""
        scores: dict[int, float] = defaultdict(float)
        for term, weight in self._vector(Counter(terms(text))).items():
            for index, other in self._postings.get(term, ()):
                scores[index] += weight * other
        return sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:k]

    def _vector(self, count: Mapping[str, int]) -> dict[str, float]:
        weights = {t: (1 + math.log(n)) * self._idf.get(t, self._idf_of_none) for t, n in count.items()}
        length = math.sqrt(sum(w * w for w in weights.values()))
        return {term: weight / length for term, weight in weights.items()} if length else {}


def terms(text: str) -> list[str]:
    """Words and pairs of neighbouring words, case-folded."""
    words = _WORD.findall(text.casefold())
    return words + [f"{a} {b}" for a, b in itertools.pairwise(words)]


def text_of(inputs: Mapping[str, Any], names: Iterable[str] = ()) -> str:
    """The inputs' texts, joined: those of these names, or all."""
    wanted = tuple(names) or tuple(inputs)
    return "\n".join(str(inputs[name]) for name in wanted if inputs.get(name) is not None)
