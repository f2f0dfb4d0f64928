"""A list of words and phrases that may not be said."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from loopkit.detect.folding import folded
from loopkit.detect.patterns import Finding
from loopkit.errors import InvalidInput
from loopkit.guard.check import PLAINLY, Action, How, OnError, action_of
from loopkit.guard.spans import Finder

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from loopkit.guard.check import Options

_WORD: Final = re.compile(
    r"[\w\u00ad\u0300-\u036f\u0483-\u0489\u061c\u115f\u1160\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    r"\u20d0-\u20ff\u24b6-\u24e9\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb]+(?:[+#]+(?!\w))?"
)
"""C++ and C# are words; what can't be seen parts none."""
_BETWEEN: Final = 3
"""Characters that may stand between the words of a phrase."""
_KIND: Final = "banned"


@dataclass(frozen=True, slots=True)
class ListCheck(Finder):
    """Finds whole words, whatever their case, their accents, and what is hidden in them. Fails closed."""

    action: Action
    phrases: Mapping[str, tuple[tuple[str, ...], ...]]
    """By their first word, the longest first."""
    beginnings: frozenset[tuple[str, ...]]
    """Of phrases of several words, the words that one may have said already."""
    name: str = "banned"
    how: How = PLAINLY
    on_error: OnError = "closed"

    def why(self, found: Sequence[Finding]) -> str:
        """How much was found: what, isn't repeated."""
        return f"{len(found)} of the list" if len(found) > 1 else "one of the list"

    def find(self, text: str) -> list[Finding]:
        """See `Finder.find`."""
        words = _words(text)
        found: list[Finding] = []
        at = 0
        while at < len(words):
            length = next((len(each) for each in self.phrases.get(words[at][0], ()) if _stands(words, at, each)), 0)
            if length:
                found.append(Finding(_KIND, words[at][1], words[at + length - 1][2]))
            at += length or 1
        return found

    def open_at(self, text: str, start: int) -> int:
        """See `SpanCheck.open_at`."""
        words = _words(text[start:])
        last = len(text)
        if words and start + words[-1][2] == len(text):  # it may go on
            last = start + words.pop()[1]
        longest = max(map(len, self.beginnings), default=0)
        for count in range(min(longest, len(words)), 0, -1):
            begun = words[-count:]
            if tuple(word for word, *_ in begun) in self.beginnings and last - start - begun[-1][2] <= _BETWEEN:
                return start + begun[0][1]
        return last


def banned(phrases: Iterable[str], *, action: Action = "block", **how: Unpack[Options]) -> ListCheck:
    """Words and phrases that may not be said, as whole words: names of competitors, projects, topics.

    checks.banned(["project nightingale", "acme"], action="redact")
    """
    if isinstance(phrases, str):
        raise InvalidInput(f"banned() got one text, {phrases!r}: give a list of phrases")
    by_first: dict[str, set[tuple[str, ...]]] = {}
    beginnings: set[tuple[str, ...]] = set()
    for phrase in phrases:
        words = tuple(word for word, *_ in _words(phrase)) if isinstance(phrase, str) else ()
        if not words:
            raise InvalidInput(f"banned() got {phrase!r}: give phrases of letters or digits")
        by_first.setdefault(words[0], set()).add(words)
        beginnings |= {words[:count] for count in range(1, len(words))}
    if not by_first:
        raise InvalidInput("banned() got no phrases")
    sorted_: dict[str, tuple[tuple[str, ...], ...]] = {
        first: tuple(sorted(found, key=len, reverse=True)) for first, found in by_first.items()
    }
    why = "what is found is replaced by redacting it"
    return ListCheck(action_of(action, but=("replace",), why=why), sorted_, frozenset(beginnings), how=How.of(how))


def _words(text: str) -> list[tuple[str, int, int]]:
    """Each as it is compared, and where it stands."""
    return [
        (word.casefold() if (word := match[0]).isascii() else folded(word), match.start(), match.end())
        for match in _WORD.finditer(text)
    ]


def _stands(words: list[tuple[str, int, int]], at: int, phrase: tuple[str, ...]) -> bool:
    there: Any = words[at : at + len(phrase)]
    if len(there) < len(phrase) or any(word != own for (word, *_), own in zip(there, phrase, strict=True)):
        return False
    return all(after[1] - before[2] <= _BETWEEN for before, after in pairwise(there))
