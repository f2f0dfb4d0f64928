"""Checks that find spans in a text, which can be redacted: personal data and secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from loopkit.detect import personal
from loopkit.detect.opening import credentials_open, may_be_credential, may_be_personal, personal_open
from loopkit.detect.patterns import SECRETS, Finding, find, merged, without
from loopkit.detect.rules import credentials_in
from loopkit.errors import InvalidInput
from loopkit.guard.check import ALONE, PLAINLY, Action, How, OnError, Seen, Trip, action_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from loopkit.guard.check import Options

CREDENTIAL: Final = "credential"
"""What rules find, besides the kinds that recording redacts."""


class Finder:
    """What checks that find spans have in common. Fails closed."""

    __slots__ = ()
    action: Action

    def check(self, text: str, seen: Seen = ALONE) -> Trip | None:
        """See `Check.check`."""
        found = self.find(text)
        return Trip(self.action, self.why(found), without(text, found)) if found else None

    def find(self, text: str) -> list[Finding]:
        """All spans, in order, apart from each other. What is before one by more than 600 characters has no say."""
        raise NotImplementedError

    def why(self, found: Sequence[Finding]) -> str:
        """What was found, in words."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class SpanCheck(Finder):
    """Finds what `loopkit.detect` knows."""

    name: str
    action: Action
    kinds: tuple[str, ...]
    finder: Callable[[str, tuple[str, ...]], list[Finding]]
    opener: Callable[[str, int], int]
    prefilter: Callable[[str], bool]
    how: How = PLAINLY
    on_error: OnError = "closed"

    def why(self, found: Sequence[Finding]) -> str:
        """See `Finder.why`."""
        return f"found {', '.join(sorted({each.kind for each in found}))}"

    def find(self, text: str) -> list[Finding]:
        """See `Finder.find`."""
        return self.finder(text, self.kinds)

    def may_hold(self, text: str) -> bool:
        """Whether a part of a text may hold any of a span. Written for speed: in a stream it is asked at every word."""
        return self.prefilter(text)

    def open_at(self, text: str, start: int) -> int:
        """From where on something may still begin or grow, if the text goes on; what was settled before is given."""
        return self.opener(text, start)


def pii(*, action: Action = "redact", kinds: Iterable[str] = personal.DEFAULT, **how: Unpack[Options]) -> SpanCheck:
    """Personal data: e-mail addresses, cards (Luhn), IBANs (mod 97), phone numbers, IP addresses, US social security.

    `kinds` chooses, or adds "domain" for addresses in the web.
    """
    chosen = _kinds(kinds, personal.KINDS)
    return SpanCheck(
        "pii", finding_action(action), chosen, personal.personal_in, personal_open, may_be_personal, How.of(how)
    )


def secrets(
    *, action: Action = "block", kinds: Iterable[str] = (*SECRETS, CREDENTIAL), **how: Unpack[Options]
) -> SpanCheck:
    """Keys and tokens in the forms of some eighty services, private keys, JSON web tokens, and what stands where a
    password or a key belongs."""
    chosen = _kinds(kinds, (*SECRETS, CREDENTIAL))
    return SpanCheck(
        "secrets", finding_action(action), chosen, secrets_in, credentials_open, may_be_credential, How.of(how)
    )


def secrets_in(text: str, kinds: tuple[str, ...]) -> list[Finding]:
    """By rules, which know services' forms more exactly than what recording looks for; without them by that."""
    if CREDENTIAL not in kinds:
        return find(text, kinds)
    return merged(find(text, [kind for kind in kinds if kind != "key"]) + credentials_in(text))


def finding_action(action: Action) -> Action:
    """What a check may do that finds spans. Raises `InvalidInput`."""
    return action_of(action, but=("replace",), why="what is found is replaced by redacting it")


def _kinds(kinds: Iterable[str], default: tuple[str, ...]) -> tuple[str, ...]:
    chosen = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    unknown = [kind for kind in chosen if kind not in default]
    if unknown or not chosen:
        raise InvalidInput(f"kinds has {unknown or chosen!r}: choose from {', '.join(default)}")
    return chosen
