"""Whether an answer says what its sources say: each sentence's words, numbers and names, looked for in them.

By words alone, without a model: it knows no synonyms and does no arithmetic. What it is good at is the number, the name
or the "not" that the sources don't have.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from loopkit.guard.check import ALONE, PLAINLY, Action, How, OnError, Seen, Trip, share_of, texts_of, whole_action

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from loopkit.guard.check import Options

_SENTENCE: Final = re.compile(r"(?<=[.!?])[\"')\]]?\s+(?=[\"'(\[]?[^\Wa-z_])|\n\s*")
_WORD: Final = re.compile(r"(?:(?<=\s)[-−])?\d+(?:[.,:]\d+)*|[^\W\d_]+(?:['’-][^\W\d_]+)*|[$€£%]")
_FUNCTION: Final = frozenset(
    """
    a about after again all also am an and any are as at be because been before being between both but by can could did
    do does doing down during each few for from further had has have having he her here hers him his how i if in into is
    it its itself just me more most my of off on once one only or other our out over own said same say says she should
    so some such than that the their them then there these they this those through to too under until up very was we
    were what when where which while who whom why will with would you your
    """.split()  # noqa: SIM905  # as a list it would be a page
)
_NEGATIONS: Final = frozenset(
    """
    no not none never nobody nothing neither nor without cannot fails failed refuses refused denies denied
    """.split()  # noqa: SIM905  # see above
)
_THOUSANDS: Final = re.compile(r",(?=\d{3}(?!\d))")
_SAY_LITTLE: Final = _FUNCTION | _NEGATIONS
_SIGNS: Final = {"$": "dollar", "€": "euro", "£": "pound", "%": "percen"}
_STEM: Final = 6
"""Letters by which a word is known: what ends on them is grammar, mostly."""
_WEIGHT: Final = 2.0
"""Of a number or a name, where a word has one."""
_MISSING: Final = 0.5
"""What is left of the support of a sentence for each number or name that isn't there."""
_APART: Final = 0.8
"""The same for each that stands in the sentence before or after alone."""
_DENIED: Final = 0.45
"""The same where one of the two denies what the other says."""
_BESIDE: Final = 0.9
"""What a word counts that stands in the sentence before or after."""
_NOWHERE: Final[set[int]] = set()
_MOST_CANDIDATES: Final = 200
"""Sentences of the sources that are looked at for one of an answer."""
_FEWEST: Final = 3
"""Words and names that a sentence must have to be judged."""


@dataclass(frozen=True, slots=True)
class Support:
    """How much of one sentence stands in the sources."""

    sentence: str
    score: float
    """From 0 to 1."""
    missing: tuple[str, ...]
    """Its numbers and names that don't stand where the rest of it does."""


class Sources:
    """Texts that an answer should rest on. Made once, asked about many sentences."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._holding: dict[str, set[int]] = defaultdict(set)
        self._denied: list[frozenset[str]] = []
        """Of each sentence the words that it denies."""
        for text in texts:
            for sentence in _sentences(text):
                number = len(self._denied)
                words = _WORD.findall(sentence)
                for word in words:
                    self._holding[_known_by(word)].add(number)
                self._denied.append(_denied(words))
            self._denied.append(frozenset())  # so that the last of one text isn't beside the first of the next

    def support(self, answer: str) -> list[Support]:
        """Of each sentence of an answer that says enough to be judged."""
        return [found for sentence in _sentences(answer) if (found := self._support(sentence)) is not None]

    def _support(self, sentence: str) -> Support | None:
        words = _WORD.findall(sentence)
        hard = {_known_by(word): word for number, word in enumerate(words) if _is_hard(words, number)}
        plain = {_known_by(word) for word in words if word.lower() not in _SAY_LITTLE and word[0].isalnum()}
        weights = {**dict.fromkeys(plain, 1.0), **dict.fromkeys(hard, _WEIGHT)}
        if len(weights) < _FEWEST:
            return None
        places = {stem: self._holding.get(stem, _NOWHERE) for stem in weights}
        candidates: set[int] = set()
        for held in sorted(filter(None, places.values()), key=len):  # what is rare says where to look
            candidates.update(islice(held, _MOST_CANDIDATES))
            if len(candidates) >= _MOST_CANDIDATES:
                break
        if not candidates:
            return Support(sentence, 0.0, tuple(hard.values()))

        def found_at(at: int) -> tuple[float, float]:
            own = near = 0.0
            for stem, weight in weights.items():
                held = places[stem]
                if at in held:
                    own, near = own + weight, near + weight
                elif at - 1 in held or at + 1 in held:
                    near += weight * _BESIDE
            return near, own

        best = max(sorted(candidates), key=found_at)
        covered = found_at(best)[0] / sum(weights.values())
        around = {best - 1, best, best + 1}
        missing = tuple(word for stem, word in hard.items() if not around & places[stem])
        apart = sum(best not in places[stem] for stem in hard) - len(missing)
        score = covered * _MISSING ** len(missing) * _APART**apart
        if len(_denied(words)) != len(self._denied[best] & {_known_by(word) for word in words}):
            score *= _DENIED
        return Support(sentence, min(score, 1.0), missing)


@dataclass(frozen=True, slots=True)
class GroundedCheck:
    """Finds answers with sentences that their sources don't support. Fails closed."""

    action: Action
    least: float
    sources: Sources | None
    """That were given."""
    how: How = PLAINLY
    name: str = "grounded"
    on_error: OnError = "closed"

    def check(self, text: str, seen: Seen = ALONE) -> Trip | None:
        """See `Check.check`."""
        sources = self.sources
        if sources is None:
            read = seen.read
            if not read:
                return None
            sources = Sources(read)
        found = sources.support(text)
        weak = sorted((each for each in found if each.score < self.least), key=lambda each: each.score)
        if not weak:
            return None
        told = "Your answer says what isn't in the sources: " + " ".join(each.sentence for each in weak[:3])
        of = f"{len(weak)} of {len(found)} sentences aren't supported by the sources"
        return Trip(self.action, of, f"{told}\nAnswer with what they say alone.", round(weak[0].score, 4))


def grounded(
    *, least: float = 0.5, sources: Iterable[str] = (), action: Action = "flag", **how: Unpack[Options]
) -> GroundedCheck:
    """Answers whose every sentence stands in their sources, by its words, numbers and names: those with a support under
    `least` (0 to 1) don't. The sources are what the model was asked and what tools gave it, documents that were
    retrieved among them, of a function its arguments; or those that are given. Where there are none, nothing is said.
    Made for English: of a language written without spaces it can say little.

        checks.grounded(action="retry", tasks=["answer_from_manual"])
    """
    least = share_of("least", least)
    texts = texts_of("grounded(sources=)", sources)
    taken = whole_action(action, "it finds sentences that can't be mended")
    return GroundedCheck(taken, least, Sources(texts) if texts else None, How.of(how))


def _sentences(text: str) -> list[str]:
    return [each for each in _SENTENCE.split(text) if each.strip()]


def _is_hard(words: list[str], number: int) -> bool:
    """Whether it is a figure or a name; what begins a sentence is a name where another follows."""
    word = words[number]
    if word[-1].isdigit() or word in _SIGNS:
        return True
    is_name = word[0].isupper() and (number > 0 or (len(words) > 1 and words[1][0].isupper()))
    return is_name and word.lower() not in _FUNCTION


def _denied(words: list[str]) -> frozenset[str]:
    """The word after each negation, else the one before."""
    found: set[str] = set()
    waits = False
    for number, word in enumerate(words):
        small = word.lower().replace("’", "'")
        if small in _NEGATIONS or small.endswith("n't"):
            waits = True
            if number + 1 == len(words) and number:
                found.add(_known_by(words[number - 1]))
        elif waits and small not in _FUNCTION:
            found.add(_known_by(word))
            waits = False
    return frozenset(found)


def _known_by(word: str) -> str:
    if word in _SIGNS:
        return _SIGNS[word]
    if word[-1].isdigit():
        return _THOUSANDS.sub("", word).replace("−", "-")
    bare = unicodedata.normalize("NFC", word).lower().replace("’", "'").removesuffix("'s")
    return bare[:_STEM] if len(bare) > _STEM else bare.removesuffix("s") if len(bare) > 3 else bare
