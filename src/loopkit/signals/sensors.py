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
from loopkit.capture.dialects._content import mapping, objects
from loopkit.capture.dialects.known import DIALECTS
from loopkit.capture.live import Handle
from loopkit.errors import InvalidInput
from loopkit.signals.say import feedback
from loopkit.types import Feedback

SOON: Final = 600 * 10**9
"""Nanoseconds in which what is asked next has to do with what was answered before."""
_SHARED: Final = 0.6
"""The part of a question's words that another way to put it has too."""
_FEWEST: Final = 3
"""Words of a question that says something by itself; "yes", "next" and "thanks" may be said again and again."""
_THANKS: Final = re.compile(r"(?i)\b(?:thanks?|thank\s+you|thx|danke|merci|gracias|great|perfect|all\s+good)\b")
_AGAINST: Final = re.compile(
    r"""(?ix) ^\W* (?:(?:sorry|hmm+|um+|well|but|nope|ah|oh)\W+)* (?:
        no\W+ (?:i|that|this|it|the|not|my|you|they|we|only|just)\b
        | (?:no|nope|nein|non) \s*[,;!–]\s* \w | (?:no|nope|wrong|incorrect)\W*$ | (?:wrong|incorrect) \s*[,;:!–]
        | that (?:['’]s|\sis|\swas) \s (?:not|wrong|incorrect|false)\b | that\s(?:isn|wasn|doesn|didn)['’]t\b
        | (?:this|it) (?:['’]s|\sis|\swas) \s (?:wrong|incorrect|false|not\s(?:what|right|correct|true))\b
        | (?:this|it)\s(?:isn|wasn)['’]t\s(?:what|right|correct|true)\b
        | not\s(?:that|what\si|quite|right|correct)\b
        | actually\W+(?:i|it|no|not|that|the|my)\b
        | i\s(?:meant|mean|didn['’]t\s(?:mean|ask|say)|was\sasking|asked\s(?:for|about))\b
        | you\s(?:misunderstood|misread|got\s(?:it|that|me)\swrong|are\swrong)\b
        | you\sdid(?:n['’]t|\snot)\s(?:answer|understand)\b | falsch\b
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
    """Empty where that can't be told."""
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
    if original is not None and not isinstance(original, str):
        raise InvalidInput(f"the original is {original!r}: give the answer's text")
    answered = original if original is not None else text_of(target)
    if answered is None:
        raise InvalidInput(f"the answer's own text isn't known of {target!r}: give original=")
    likeness = similarity(answered, final_text)
    correction = None if likeness == 1.0 or not final_text.strip() else final_text  # thrown away is no other answer
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
        if not 0 <= after.at - (before.ended_at or before.at) <= SOON:  # before it has ended: in parallel
            continue
        asked, again = _plain(before.asked), _plain(after.asked)
        if not asked or not again:
            continue
        if len(_words(asked)) >= _FEWEST and _words(asked) == _words(again):
            yield Sensed(before, "regenerated", True)
        elif _AGAINST.match(again) and not _THANKS.search(again):
            yield Sensed(before, "contradicted", True, after.asked)
        elif _is_rephrased(_content(asked), _content(again)):
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
    """What a person asked last, in what went into a call; empty where that can't be told."""
    for turn in reversed(objects(mapping(input).get("messages"))):
        if turn.get("role") == "user":
            content = turn.get("content")
            return content if isinstance(content, str) else " ".join(str(p.get("text", "")) for p in objects(content))
    if isinstance(input, str):
        return input
    texts = {name: value for name, value in mapping(input).items() if isinstance(value, str)}
    named = next((texts[name] for name in _ASKED if name in texts), None)
    return named if named is not None else next(iter(texts.values())) if len(texts) == 1 else ""


_ASKED: Final = ("question", "query", "prompt", "message", "user_message", "input", "text", "ticket")
"""Arguments that hold what was asked, where there are several."""


def _is_rephrased(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether the second asks for the same in other words: most words are there again, and none has merely been put in
    another's place, as when the next thing of a kind is asked for."""
    if min(len(first), len(second)) < _FEWEST:
        return False
    if sorted(first) == sorted(second):
        return True
    if len(first) == len(second):
        changed = [(one, other) for one, other in zip(first, second, strict=True) if one != other]
        if 0 < len(changed) <= 2:
            return all(_is_typo(one, other) for one, other in changed)
    one, other = set(first), set(second)
    left, right = one - other, other - one
    if len(left) == len(right) == 1:  # in another order, and still another thing
        return _is_typo(*left, *right)
    return len(one & other) / max(len(one), len(other)) >= _SHARED


def _is_typo(one: str, other: str) -> bool:
    distance = require("rapidfuzz.distance", "signals").OSA.distance(one, other)
    return bool(distance <= 1 + max(len(one), len(other)) // 6)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _content(text: str) -> list[str]:
    return [word for word in _words(text) if word not in _EMPTY]


_EMPTY: Final = frozenset(("a", "an", "and", "are", "can", "do", "does", "for", "how", "i", "in", "is", "it", "me",
                           "my", "of", "on", "please", "the", "to", "what", "with", "you", "your"))  # fmt: skip
"""Words that alone make no question the same."""


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())


def ordered(turns: Iterable[Turn]) -> list[Turn]:
    """By when they were asked."""
    return sorted(turns, key=lambda turn: (turn.at, turn.id))
