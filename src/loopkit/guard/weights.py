"""Linear weights over hashed words: how much a text is like others that were labelled. Pure Python, no download.

What is counted: the words and signs of the folded text, those among the first 25 once more, and the first six by their
places: whoever gives orders begins with them. Counts go in by their logarithm, and a text's length is taken out. Fitted
by logistic regression, with AdaGrad's steps (Duchi, Hazan and Singer, 2011).
"""

from __future__ import annotations

import functools
import json
import math
import os
import random
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias
from zlib import crc32

from loopkit.detect.folding import folded
from loopkit.errors import InvalidInput
from loopkit.statistics.logistic import logistic

_BUCKETS: Final = 1 << 15
_TOKEN: Final = re.compile(r"[\w']+|[^\w\s]")
_LONGEST: Final = 40_000
"""Characters: what comes after them isn't counted."""
_HEAD: Final = 25
_PLACES: Final = 6
_ROUNDS: Final = 8
_STEP: Final = 0.5
_SURE: Final = 0.02
"""How often each text is seen, how large the first step is, and what error is none."""
_NEW: Final = 1e-6
_TRUST: Final = 0.001
"""Squares that are taken as seen: the more, the smaller the first steps away from weights that are known."""
_FEWEST: Final = 20


@dataclass(frozen=True, slots=True)
class Weights:
    """Of one question about texts. `threshold` is the probability from which the answer is yes."""

    values: array[int]
    """One byte a bucket."""
    scale: float
    bias: float
    threshold: float = 0.5
    fewest: int = 0
    """Words that a text must have for a yes: a few of them say little."""
    learnt: frozenset[int] = field(default=frozenset(), repr=False)
    """Of the texts that they were fitted to, their hashes: on those they can't be judged."""

    def probability(self, text: str) -> float:
        """How likely the answer is yes, as far as the texts that it was fitted to can tell."""
        return self._probability(words_of(text))

    def yes(self, text: str, *, is_folded: bool = False) -> float | None:
        """The probability where the answer is yes, else None; `is_folded` where the text went through `folded`."""
        words = _TOKEN.findall(text[:_LONGEST]) if is_folded else words_of(text)
        if not has_words(words, self.fewest):
            return None
        found = self._probability(words)
        return found if found >= self.threshold else None

    def _probability(self, words: Sequence[str]) -> float:
        values = self.values
        return logistic(self.scale * sum(values[bucket] * value for bucket, value in features(words)) + self.bias)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Into a file of 33 kB, and ten bytes for each text that they were fitted to."""
        head = {
            "scale": self.scale, "bias": self.bias, "threshold": self.threshold, "fewest": self.fewest,
            "buckets": len(self.values), **({"learnt": sorted(self.learnt)} if self.learnt else {}),
        }  # fmt: skip
        Path(path).write_bytes(json.dumps(head).encode() + b"\n" + self.values.tobytes())

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Weights:
        """From a file. Raises `InvalidInput` for one that is none."""
        head, _, data = Path(path).read_bytes().partition(b"\n")
        try:
            told: Any = json.loads(head)
            values = array("b", data)
            if len(values) != told["buckets"] or len(values) != _BUCKETS:
                raise ValueError(f"{len(values)} buckets")
            return Weights(
                values, float(told["scale"]), float(told["bias"]), float(told["threshold"]), int(told["fewest"]),
                frozenset(map(int, told.get("learnt", ()))),
            )  # fmt: skip
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidInput(f"{os.fspath(path)} holds no weights ({error}): save() makes such files") from None

    @staticmethod
    def fit(
        texts: Sequence[str], labels: Sequence[bool], *, threshold: float = 0.5, fewest: int = 0, seed: int = 0,
        start: Weights | None = None,
    ) -> Weights:  # fmt: skip
        """Weights for labelled texts, begun with others' where `start` is given: then fewer labels do. About a second
        for 1,000 texts. Raises `InvalidInput` for too few."""
        if len(texts) != len(labels):
            raise InvalidInput(f"fit() got {len(texts)} texts and {len(labels)} labels")
        yes = sum(map(bool, labels))
        if min(yes, len(labels) - yes) < _FEWEST:
            raise InvalidInput(
                f"fit() got {yes} texts labelled yes and {len(labels) - yes} labelled no: give {_FEWEST} of each"
            )
        rows = [features(words_of(text)) for text in texts]
        values, bias = _fitted(rows, [bool(each) for each in labels], seed, start)
        scale = max(map(abs, values)) / 127 or 1.0
        learnt: set[int] = {hash_of(text) for text in texts} | (set() if start is None else start.learnt)
        return Weights(
            array("b", (round(value / scale) for value in values)), scale, bias, threshold, fewest, frozenset(learnt)
        )


Source: TypeAlias = "Weights | str | os.PathLike[str]"


def weights_of(source: Source) -> Weights:
    """Weights, or those that a file holds. Raises `InvalidInput` for what is neither."""
    if not isinstance(source, (Weights, str, os.PathLike)):
        raise InvalidInput(f"weights is {source!r}: give checks.Weights, or a file of them")
    if isinstance(source, Weights):
        return source
    path = Path(source).resolve()
    try:
        there = path.stat()
    except OSError as error:
        raise InvalidInput(f"weights is {os.fspath(source)!r}, which can't be read: {error.strerror}") from None
    return _loaded(path, (there.st_mtime_ns, there.st_size))


@functools.lru_cache(maxsize=16)
def _loaded(path: Path, _: tuple[int, int]) -> Weights:
    """As the file is at that time, of that size."""
    return Weights.load(path)


def hash_of(text: str) -> int:
    """The same for texts that look the same."""
    return crc32(folded(text).encode("utf-8", "surrogatepass"))


def words_of(text: str) -> list[str]:
    """What is counted, in order."""
    return _TOKEN.findall(folded(text[:_LONGEST]))


def has_words(tokens: Sequence[str], fewest: int) -> bool:
    """Whether so many of them are words."""
    return len(tokens) >= fewest and sum(token[0].isalpha() for token in tokens) >= fewest


def features(tokens: Sequence[str]) -> list[tuple[int, float]]:
    """Buckets and how much is in each; their squares sum to one. Written for speed: each word is hashed once."""
    counts: dict[int, int] = {}
    for token, count in Counter(tokens).items():
        bucket = crc32(token.encode("utf-8", "surrogatepass")) % _BUCKETS
        counts[bucket] = counts.get(bucket, 0) + count
    for number, token in enumerate(tokens[:_HEAD]):
        data = token.encode("utf-8", "surrogatepass")
        for start in (1, 2 + number) if number < _PLACES else (1,):
            bucket = crc32(data, start) % _BUCKETS
            counts[bucket] = counts.get(bucket, 0) + 1
    values = [(bucket, 1 + math.log(count)) for bucket, count in counts.items()]
    length = math.sqrt(sum(value * value for _, value in values)) or 1.0
    return [(bucket, value / length) for bucket, value in values]


def _fitted(
    rows: list[list[tuple[int, float]]], labels: Iterable[bool], seed: int, start: Weights | None
) -> tuple[list[float], float]:
    weights, bias = [0.0] * _BUCKETS, 0.0
    if start is not None:
        weights, bias = [value * start.scale for value in start.values], start.bias
    trust = _NEW if start is None else _TRUST
    sums, bias_sum = [trust] * _BUCKETS, trust
    told = list(zip(rows, map(float, labels), strict=True))
    order = random.Random(seed)
    for _ in range(_ROUNDS):
        order.shuffle(told)
        for row, label in told:
            error = logistic(bias + sum(weights[bucket] * value for bucket, value in row)) - label
            if abs(error) < _SURE:
                continue
            for bucket, value in row:
                slope = error * value
                sums[bucket] += slope * slope
                weights[bucket] -= _STEP * slope / math.sqrt(sums[bucket])
            bias_sum += error * error
            bias -= _STEP * error / math.sqrt(bias_sum)
    return weights, bias
