"""What people show without saying it: taken as it is or edited, asked again, rephrased, contradicted, left.

Pure: turns of a session in, statements out. What a sensor sees is implicit or inferred feedback; what it is worth the
table in `loopkit.signals.rewards` says.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from loopkit._extras import require
from loopkit._json import canonical
from loopkit.capture.dialects._content import mapping, objects
from loopkit.capture.dialects.known import DIALECTS
from loopkit.capture.live import Handle
from loopkit.errors import InvalidInput
from loopkit.signals.say import feedback
from loopkit.types import Feedback

SOON: Final = 600 * 10**9
"""Nanoseconds in which what is asked next has to do with what was answered before."""
_ALIKE: Final = 0.55
"""Similarity of words from which a question is the one before in other words; below 3 words nothing is."""
_FEWEST: Final = 3
_AGAINST: Final = re.compile(
    r"""(?ix) ^\W* (?:
        no\b (?!\s+(?:problem|worries|thanks|thank|need)\b) | nope\b | wrong\b | incorrect\b | actually\b
        | not\s(?:that|this|what|right|correct|quite)\b
        | that(?:['’]s|\sis)\s(?:not|wrong|incorrect)\b | this\s(?:is|isn['’]t)\s(?:not|wrong|what)\b
        | i\s(?:meant|said|asked|wanted)\b
        | you\s(?:misunderstood|got\sit\swrong|are\swrong|didn['’]t|did\snot)\b
        | nein\b | falsch\b | non\b
    )"""
)
"""How people begin who say that the answer was not what they meant, in English and a little beyond."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its answer in a session."""

    id: str
    """Of its span."""
    at: int
    """When it was asked, nanoseconds since the epoch."""
    asked: str
    answered: str
    ended_at: int = 0


@dataclass(frozen=True, slots=True)
class Sensed:
    """What a sensor saw of a turn."""

    turn: Turn
    name: str
    value: bool | float
    comment: str | None = None


def accepted(target: Any, final_text: str, *, original: str | None = None, by: str | None = None) -> Feedback | None:
    """Say what became of an answer: the text that was sent, saved or merged in the end.

    The value of `accepted` is the similarity of both, from 0 to 1 (Indel: one minus insertions and deletions over the
    lengths' sum); where they differ, the final text is stored as a correction. `original` is what was answered, where
    the target is an id: a response or a span still has it. Needs `pip install 'loopkit-sdk[signals]'`.

    Raises `InvalidInput` where the answer's text isn't known, `MissingExtra` without rapidfuzz.
    """
    if not isinstance(final_text, str):
        raise InvalidInput(f"the final text is {final_text!r}: give a string")
    answered = original if original is not None else text_of(target)
    if answered is None:
        raise InvalidInput(f"the answer's own text isn't known of {target!r}: give original=")
    likeness = similarity(answered, final_text)
    correction = None if likeness == 1.0 else final_text
    return feedback(target, "accepted", likeness, correction=correction, kind="implicit", by=by)


def similarity(first: str, second: str) -> float:
    """How alike two texts are, from 0 to 1, but for how they are composed and spaced."""
    if _plain(first) == _plain(second):
        return 1.0
    ratio: float = require("rapidfuzz.distance", "signals").Indel.normalized_similarity(_plain(first), _plain(second))
    return min(ratio, 1 - 1e-6)


def outcome(
    target: Any, good: bool, *, what: str | None = None, at: Any = None, key: str | None = None
) -> Feedback | None:
    """Say what came of it in the world: a ticket stayed closed, a test passed, an order was sent back.

    `target` is mostly your own key (`ticket:4432`), known long after the call; `what` says which outcome it was.
    """
    if not isinstance(good, bool):
        raise InvalidInput(f"the outcome is {good!r}: give True or False")
    return feedback(target, "outcome", good, kind="implicit", source="system", reason=what, at=at, key=key)


def sensed(turns: Sequence[Turn], *, until: int | None = None, idle: int = 3 * SOON) -> Iterator[Sensed]:
    """What a session's turns show, in order.

    `regenerated`: the same was asked again soon. `rephrased`: soon, in other words. `contradicted`: what was said next
    begins as a correction does; it is the comment. `abandoned`: it is the last turn, and nobody came for `idle`
    nanoseconds until now (`until`).
    """
    for before, after in pairwise(turns):
        if after.at - (before.ended_at or before.at) > SOON:
            continue
        asked, again = _plain(before.asked), _plain(after.asked)
        if asked and asked.casefold() == again.casefold():
            yield Sensed(before, "regenerated", True)
        elif _AGAINST.match(again):
            yield Sensed(before, "contradicted", True, after.asked)
        elif _are_alike(asked, again):
            yield Sensed(before, "rephrased", True)
    if turns and until is not None and until - turns[-1].ended_at > idle:
        yield Sensed(turns[-1], "abandoned", True)


def text_of(target: Any) -> str | None:
    """The text of an answer that the application holds: a provider's response, or a span that was given its output."""
    if isinstance(target, Handle):
        return target.said()
    dump = getattr(target, "model_dump", None)
    body = mapping(dump(mode="json", warnings=False) if dump is not None else target)
    for dialect in DIALECTS.values():
        texts = [message.text for message in dialect.answered(body) if message.text] if body else []
        if texts:
            return texts[0]
    return None


def last_asked(input: Any) -> str:
    """What a person asked last, in what went into a call."""
    for turn in reversed(objects(mapping(input).get("messages"))):
        if turn.get("role") == "user":
            content = turn.get("content")
            return content if isinstance(content, str) else " ".join(str(p.get("text", "")) for p in objects(content))
    values = [value for value in mapping(input).values() if isinstance(value, str)]
    return input if isinstance(input, str) else values[0] if len(values) == 1 else canonical(input or "")


def _are_alike(first: str, second: str) -> bool:
    one, other = _words(first), _words(second)
    if min(len(one), len(other)) < _FEWEST:
        return False
    fuzz = require("rapidfuzz.fuzz", "signals")
    ratio: float = fuzz.token_set_ratio(" ".join(one), " ".join(other)) / 100
    return ratio >= _ALIKE


def _words(text: str) -> list[str]:
    return [word for word in re.findall(r"\w+", text.casefold()) if word not in _EMPTY]


_EMPTY: Final = frozenset(("a", "an", "and", "are", "can", "do", "does", "how", "i", "in", "is", "it", "me", "my", "of",
                           "on", "please", "the", "to", "what", "you", "your"))  # fmt: skip
"""Words that alone make no question the same."""


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())


def ordered(turns: Iterable[Turn]) -> list[Turn]:
    """By when they were asked."""
    return sorted(turns, key=lambda turn: (turn.at, turn.id))
