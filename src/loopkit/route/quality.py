"""How likely each variant answers a text well: one logistic head a variant, over hashed words and pairs of words.

Pure Python to ask: a head is a byte a bucket. What is counted is whether a word, a pair or a sign is there at all, and
how long the text, its lines and its words are. `loopkit.route.fitting` makes heads from outcomes.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, pairwise
from operator import itemgetter, sub
from pathlib import Path
from typing import Any, Final
from zlib import crc32

from loopkit.errors import InvalidInput
from loopkit.statistics.logistic import logistic

BUCKETS: Final = 1 << 16
_MASK: Final = BUCKETS - 1
_SIGNS: Final = tuple(b"!\"#$%&'()*+,-./:;<=>?@[\\]^`{|}~")
_BREAKS: Final = bytes(32 if byte in _SIGNS or byte < 32 or byte == 127 else byte for byte in range(256))
_LONGEST: Final = 20_000
"""Characters: what comes after them isn't looked at."""
_LONG_WORD: Final = 24
"""Bytes: where words are longer on average, the script has no spaces, and characters are counted instead."""
_ZERO: Final = 128
FORMAT: Final = 1
UNTIL: Final = "until"
"""In `Quality.about`: when the last call began that the heads were fitted to, nanoseconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Head:
    """Of one variant: the logit of a good answer is `bias + scale * sum(values) / sqrt(buckets)`."""

    values: bytes
    """One a bucket, each less 128."""
    scale: float
    bias: float


@dataclass(frozen=True, slots=True)
class Point:
    """Where one may work: what a price of cost comes to, on outcomes that had no part in the heads it was tried on."""

    price: float
    """What one unit of cost is worth in probability of a good answer: the variant with the largest
    `probability - price * cost` serves."""
    cost: float
    """Mean of a call."""
    quality: float
    """Mean reward of a call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Heads by variant, what each variant costs, and the curve of cost against quality."""

    heads: Mapping[str, Head]
    costs: Mapping[str, float]
    """Of one call, in any one unit."""
    curve: tuple[Point, ...]
    """By falling cost."""
    fields: tuple[str, ...] = ()
    """Which inputs are read; all where none is named."""
    about: Mapping[str, Any]
    """How it was made: rows, figures held out, when."""

    def probabilities(self, text: str) -> dict[str, float]:
        """Of a good answer to the text, by variant."""
        buckets = buckets_of(text)
        of_all, count = itemgetter(*buckets), len(buckets)
        root = math.sqrt(count)
        return {
            name: logistic(head.bias + head.scale * (sum(of_all(head.values)) - _ZERO * count) / root)
            for name, head in self.heads.items()
        }

    def prices_for(
        self, *, cost: float | None = None, quality: float | None = None, strong: float | None = None
    ) -> tuple[tuple[float, float], ...]:
        """The prices, each with its share of the calls, at which calls cost at most so much on average, are at least so
        good, or at which so large a share goes to the costlier of two variants. Raises `InvalidInput` where that can't
        be had, or isn't one target."""
        given = {k: v for k, v in (("cost", cost), ("quality", quality), ("strong", strong)) if v is not None}
        if len(given) != 1:
            raise InvalidInput(f"the targets are {given or 'none'}: give one of cost=, quality= and strong=")
        ((name, target),) = given.items()
        if not isinstance(target, (int, float)) or isinstance(target, bool) or not math.isfinite(target):
            raise InvalidInput(f"{name} is {target!r}: give a number")
        if quality is not None:
            return ((self._price_of_quality(quality), 1.0),)
        return self._prices_of_cost(float(target) if strong is None else self._cost_of_share(strong))

    def _cost_of_share(self, strong: float) -> float:
        low, high = min(self.costs.values()), max(self.costs.values())
        if len(self.costs) != 2 or low == high or not 0 <= strong <= 1:
            raise InvalidInput(
                f"strong is {strong!r} for costs {dict(self.costs)}: it is the share, from 0 to 1, of the costlier of "
                "two variants; of others, give cost="
            )
        return low + strong * (high - low)

    def _prices_of_cost(self, cost: float) -> tuple[tuple[float, float], ...]:
        """Where no price comes to that cost, two that do so together."""
        dear, cheap = self.curve[0], self.curve[-1]
        if cost >= dear.cost:
            return ((dear.price, 1.0),)
        if cost < cheap.cost * (1 - 1e-9):
            raise InvalidInput(f"no call costs {cost:.6g}: the cheapest variant's cost {cheap.cost:.6g}")
        for above, below in pairwise(self.curve):
            if below.cost <= cost < above.cost:
                part = (cost - below.cost) / (above.cost - below.cost)
                return ((above.price, part), (below.price, 1 - part)) if part else ((below.price, 1.0),)
        return ((cheap.price, 1.0),)

    def _price_of_quality(self, quality: float) -> float:
        enough = [point for point in self.curve if point.quality >= quality]
        if not enough:
            best = max(point.quality for point in self.curve)
            raise InvalidInput(f"quality {quality:.4g} can't be had: the best that was held out is {best:.4g}")
        return min(enough, key=lambda point: point.cost).price

    def save(self, path: str | os.PathLike[str]) -> None:
        """Into a file: a line of JSON, and 64 KiB a variant."""
        head = {
            "format": FORMAT,
            "heads": {name: [head.scale, head.bias] for name, head in self.heads.items()},
            "costs": dict(self.costs),
            "curve": [[point.price, point.cost, point.quality] for point in self.curve],
            "fields": list(self.fields),
            "about": dict(self.about),
        }
        told = json.dumps(head).encode() + b"\n"
        Path(path).write_bytes(told + b"".join(head.values for head in self.heads.values()))

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Quality:
        """From a file. Raises `InvalidInput` for one that holds none, or isn't there."""
        try:
            told, _, data = Path(path).read_bytes().partition(b"\n")
            head: Any = json.loads(told)
            if head["format"] != FORMAT or len(data) != BUCKETS * len(head["heads"]):
                raise ValueError(f"format {head['format']}, {len(data)} bytes")
            heads = {
                name: Head(data[at * BUCKETS : (at + 1) * BUCKETS], float(scale), float(bias))
                for at, (name, (scale, bias)) in enumerate(head["heads"].items())
            }
            return Quality(
                heads=heads,
                costs={name: float(head["costs"][name]) for name in heads},
                curve=tuple(Point(*map(float, each)) for each in head["curve"]),
                fields=tuple(map(str, head["fields"])),
                about=head["about"],
            )
        except OSError as error:
            raise InvalidInput(f"{os.fspath(path)} can't be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidInput(
                f"{os.fspath(path)} holds no router ({type(error).__name__}): `loopkit router fit` makes such files"
            ) from None


def buckets_of(text: str) -> list[int]:
    """Which buckets a text is in, each once; at least one. Written for speed: words are found and hashed in C."""
    read = text[:_LONGEST].lower()
    data = read.encode("utf-8", "surrogatepass")
    words = data.translate(_BREAKS).split()
    if len(data) > _LONG_WORD * (len(words) or 1):
        words = [character.encode("utf-8", "surrogatepass") for character in read if character.isalnum()]
    hashes = list(map(crc32, words))
    found = {number & _MASK for number in chain(hashes, map(sub, hashes, hashes[1:]))}
    found.update([sign for sign in _SIGNS if sign in data])
    size, lines, word = len(data).bit_length(), data.count(b"\n").bit_length(), len(data) // (len(words) or 1)
    found.update(crc32(fact) & _MASK for fact in (b"length %d" % size, b"lines %d" % lines, b"word %d" % word))
    return list(found)
