"""A variant without a model: the nearest logged examples vote. Always print it beside what a model can do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from loopkit.route.answer import Answer
from loopkit.types import Example

CALLABLE = "loopkit.route.vote:vote"


def vote(*, nearest: Sequence[tuple[Example, float]], otherwise: str = "", **_: Any) -> Answer:
    """The expected output with the most similarity behind it; its confidence is its lead over the second.

    The lead is a share of all similarity that was cast: 1 where all agree, 0 at a tie. Where nothing is near the
    answer is `otherwise`, with confidence 0.
    """
    cast: dict[str, float] = defaultdict(float)
    for example, similarity in nearest:
        cast[str(example.expected)] += similarity
    if not cast:
        return Answer(otherwise, 0.0)
    ranked = sorted(cast.items(), key=lambda item: (-item[1], item[0]))
    second = ranked[1][1] if len(ranked) > 1 else 0.0
    total = sum(cast.values())
    return Answer(ranked[0][0], (ranked[0][1] - second) / total if total else 0.0)
