"""In which language a text is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from loopkit._extras import require
from loopkit.errors import InvalidInput
from loopkit.guard.check import ALONE, PLAINLY, Action, How, OnError, Seen, Trip, texts_of, whole_action

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from loopkit.guard.check import Options

_FEWEST: Final = 8
"""Letters by which a language can be told."""
_MARGIN: Final = 10.0
"""By how much, in logarithms of likelihood, another language must be likelier than those that are allowed."""
_LONGEST: Final = 4_000
"""Characters that are looked at."""
_NONE: Final = "zxx"
"""Digits and signs: no language."""


@dataclass(frozen=True, slots=True)
class LanguageCheck:
    """Lets texts in some languages pass. Fails closed."""

    action: Action
    allowed: frozenset[str]
    ranked: Callable[[str], Any]
    how: How = PLAINLY
    name: str = "language"
    on_error: OnError = "closed"

    def check(self, text: str, seen: Seen = ALONE) -> Trip | None:
        """See `Check.check`."""
        text = text[:_LONGEST]
        if sum(each.isalpha() for each in text) < _FEWEST:
            return None
        likelihoods: dict[str, float] = dict(self.ranked(text))
        best = max(likelihoods, key=likelihoods.__getitem__)
        nearest = max(likelihoods[each] for each in self.allowed)
        if best == _NONE or likelihoods[best] - nearest <= _MARGIN:
            return None
        wanted = " or ".join(sorted(self.allowed))
        return Trip(self.action, f"it is {best}, not {wanted}", f"Answer in the language {wanted}.")


def language(allow: Iterable[str], *, action: Action = "block", **how: Unpack[Options]) -> LanguageCheck:
    """Texts in other languages than those, by ISO 639-1's codes; `pip install 'loopkit-sdk[languages]'` (py3langid).
    The first 4,000 characters are looked at. Texts of fewer than eight letters pass, and those of which it is not
    clear. Tables and code may be taken for a language.

        checks.language(["en", "de"])
    """
    codes = frozenset(texts_of("language()", allow))
    identifier: Any = require("py3langid", "languages")
    known = {code for code, _ in identifier.rank("hello")}  # which loads it: a second, now and not in a call
    unknown = sorted(str(code) for code in codes if code not in known)
    if unknown or not codes:
        raise InvalidInput(f"language() got {unknown or 'no languages'}: give codes such as 'en', 'de' or 'pt'")
    why = "it is of the text as a whole"
    return LanguageCheck(whole_action(action, why), codes, identifier.rank, How.of(how))
