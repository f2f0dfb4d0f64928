"""Lists of words and phrases that may not be said, or have to be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from loopkit.detect.folding import folded
from loopkit.detect.patterns import Finding
from loopkit.errors import InvalidInput
from loopkit.guard.check import ALONE, PLAINLY, Action, How, OnError, Seen, Trip, texts_of, whole_action
from loopkit.guard.spans import Finder, finding_action

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from loopkit.guard.check import Options

_WORD: Final = re.compile(
    r"[\w\u00ad\u0300-\u036f\u0483-\u0489\u061c\u115f\u1160\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    r"\u20d0-\u20ff\u24b6-\u24e9\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U0001f110-\U0001f149"
    r"\U000e0000-\U000e01ef]+(?:[+#]+(?!\w))?"
)
"""C++ and C# are words; what can't be seen parts none."""
Phrase: TypeAlias = "tuple[str, ...]"
"""Its words, as they are compared."""
_Word: TypeAlias = "tuple[str, int, int]"
"""As it is compared, and where it stands."""
_BETWEEN: Final = 6
"""Characters that may stand between the words of a phrase: `** **`, and a dash with spaces."""
_KIND: Final = "banned"


@dataclass(frozen=True, slots=True)
class ListCheck(Finder):
    """Finds whole words, whatever their case, their accents, and what is hidden in them. Fails closed."""

    action: Action
    phrases: Mapping[str, tuple[Phrase, ...]]
    """By their first word, the longest first."""
    allowed: Mapping[str, tuple[Phrase, ...]]
    """The same of those that may be said."""
    beginnings: frozenset[Phrase]
    """Of phrases of several words, the words that one may have said already."""
    name: str = "banned"
    how: How = PLAINLY
    on_error: OnError = "closed"

    def why(self, found: Sequence[Finding]) -> str:
        """How much was found: what, isn't repeated."""
        return f"{len(found)} of the list" if len(found) > 1 else "one of the list"

    def find(self, text: str) -> list[Finding]:
        """See `Finder.find`."""
        words = _read(_words(text))
        found: list[Finding] = []
        spared = free = 0
        """Up to which word one that is allowed reaches, and from which on nothing was found yet."""
        for at, (word, start, _) in enumerate(words):
            spared = max(spared, at + _longest(words, at, self.allowed.get(word, ())))
            end = at + _longest(words, at, self.phrases.get(word, ()))
            if at >= free and end > at and end > spared:
                found.append(Finding(_KIND, start, words[end - 1][2]))
                free = end
        return found

    def open_at(self, text: str, start: int) -> int:
        """See `SpanCheck.open_at`."""
        words = _words(text[start:])
        last = len(text)
        if words and start + words[-1][2] == len(text):  # it may go on
            last = start + words.pop()[1]
        words = _read(words)
        longest = max(map(len, self.beginnings), default=0)
        for count in range(min(longest, len(words)), 0, -1):
            begun = words[-count:]
            if tuple(word for word, *_ in begun) in self.beginnings and last - start - begun[-1][2] <= _BETWEEN:
                return start + begun[0][1]
        return last


def banned(
    phrases: Iterable[str], *, allowed: Iterable[str] = (), action: Action = "block", **how: Unpack[Options]
) -> ListCheck:
    """Words and phrases that may not be said, as whole words: names of competitors, projects, topics. `allowed` are
    longer phrases that may be, though one that may not is in them.

        checks.banned(["project nightingale", "acme"], allowed=["acme foundation"], action="redact")
    """
    taken, spared = _phrases("banned", phrases), _phrases("banned", allowed)
    if not taken:
        raise InvalidInput("banned() got no phrases")
    both = taken & spared
    if both:
        raise InvalidInput(f"banned() got {' '.join(min(both))!r} as banned and as allowed")
    beginnings = frozenset(phrase[:count] for phrase in taken | spared for count in range(1, len(phrase)))
    return ListCheck(finding_action(action), _by_first(taken), _by_first(spared), beginnings, how=How.of(how))


@dataclass(frozen=True, slots=True)
class RequiredCheck:
    """Lets texts pass that say all of a list. Fails closed."""

    action: Action
    phrases: Mapping[Phrase, str]
    """As they are compared, and as they were given."""
    how: How = PLAINLY
    name: str = "required"
    on_error: OnError = "closed"

    def check(self, text: str, seen: Seen = ALONE) -> Trip | None:
        """See `Check.check`."""
        words = _read(_words(text))
        missing = [
            given for phrase, given in self.phrases.items()
            if not any(_stands(words, at, phrase) for at, (word, *_) in enumerate(words) if word == phrase[0])
        ]  # fmt: skip
        if not missing:
            return None
        named = ", ".join(repr(each) for each in missing)
        return Trip(self.action, f"it doesn't say {named}", f"Your answer has to say {named}.")


def required(phrases: Iterable[str], *, action: Action = "retry", **how: Unpack[Options]) -> RequiredCheck:
    """Words and phrases that an answer has to say, whatever their case: a notice, the product's name. The model is told
    what is missing, and asked again.

        checks.required(["this is no legal advice"], tasks=["contracts"])
    """
    given = texts_of("required()", phrases)
    found = {_phrase("required", each): each for each in given}
    if not found:
        raise InvalidInput("required() got no phrases")
    why = "what is missing has no place"
    return RequiredCheck(whole_action(action, why), found, How.of(how))


def _by_first(phrases: Iterable[Phrase]) -> dict[str, tuple[Phrase, ...]]:
    found: dict[str, tuple[Phrase, ...]] = {}
    for phrase in sorted(phrases, key=len, reverse=True):
        found[phrase[0]] = (*found.get(phrase[0], ()), phrase)
    return found


def _longest(words: list[_Word], at: int, phrases: Iterable[Phrase]) -> int:
    """Of how many words the longest is that stands there; 0 where none does."""
    return next((len(phrase) for phrase in phrases if _stands(words, at, phrase)), 0)


def _phrases(name: str, phrases: Iterable[str]) -> set[Phrase]:
    return {_phrase(name, each) for each in texts_of(f"{name}()", phrases)}


def _phrase(name: str, phrase: str) -> Phrase:
    found = _read(_words(phrase)) if isinstance(phrase, str) else []
    words = tuple(word for word, *_ in found)
    if not words:
        raise InvalidInput(f"{name}() got {phrase!r}: give phrases of letters or digits")
    if not _stands(found, 0, words):
        raise InvalidInput(f"{name}() got {phrase!r}: between two words there may be {_BETWEEN} signs at most")
    return words


def _words(text: str) -> list[_Word]:
    """What may be a word, and will be when it goes on."""
    return [
        (word.casefold() if (word := match[0]).isascii() else folded(word), match.start(), match.end())
        for match in _WORD.finditer(text)
    ]


def _read(words: list[_Word]) -> list[_Word]:
    """Those of which something is seen."""
    return [word for word in words if word[0]]


def _stands(words: list[_Word], at: int, phrase: Phrase) -> bool:
    there: Any = words[at : at + len(phrase)]
    if len(there) < len(phrase) or any(word != own for (word, *_), own in zip(there, phrase, strict=True)):
        return False
    return all(after[1] - before[2] <= _BETWEEN for before, after in pairwise(there))
