"""What a model was told in confidence, in what it says: its system prompt, and tokens put there to be recognised."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from string import ascii_lowercase
from typing import TYPE_CHECKING, Final

from loopkit.detect.folding import views
from loopkit.errors import InvalidInput
from loopkit.guard.check import ALONE, PLAINLY, Action, How, OnError, Seen, Trip, whole_action

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from loopkit.guard.check import Options

_WORDS: Final = 8
"""In the same order: fewer are said by chance."""


@dataclass(frozen=True, slots=True)
class LeakCheck:
    """Finds canary tokens, and passages of system prompts, also where they are encoded. Fails closed."""

    action: Action
    canaries: tuple[str, ...]
    passages: frozenset[tuple[str, ...]]
    """Of prompts that were given."""
    words: int
    how: How = PLAINLY
    name: str = "leakage"
    on_error: OnError = "closed"

    @property
    def window(self) -> int:
        """Characters that it has to see at once."""
        return 600

    def check(self, text: str, seen: Seen = ALONE) -> Trip | None:
        """See `Check.check`."""
        passages = self.passages | {each for prompt in seen.system_prompts for each in _passages(prompt, self.words)}
        for view in views(text):
            if any(canary in view or canary in view.replace(" ", "") for canary in self.canaries):
                return Trip(self.action, "a canary token")
            if passages and any(each in passages for each in _passages(view, self.words)):
                return Trip(self.action, "a passage of the system prompt")
        return None


def leakage(
    *,
    canaries: Iterable[str] = (),
    prompts: Iterable[str] = (),
    words: int = _WORDS,
    action: Action = "block",
    **how: Unpack[Options],
) -> LeakCheck:
    """What a model was told in confidence: so many `words` in a row of the call's own system prompt or of `prompts`,
    and `canaries`, tokens that you put there (`canary()`) so that it is found out who says them."""
    given = tuple((canaries,) if isinstance(canaries, str) else canaries)
    short = [each for each in given if not isinstance(each, str) or len(each.strip()) < 8]
    if short:
        raise InvalidInput(f"a canary token is {short[0]!r}: give one of at least 8 characters, or make it by canary()")
    if not isinstance(words, int) or words < 3:
        raise InvalidInput(f"words is {words!r}: give a number, 3 or more")
    texts = (prompts,) if isinstance(prompts, str) else tuple(prompts)
    passages = frozenset(each for prompt in texts for each in _passages(prompt, words))
    why = "it tells that something has leaked, not where"
    return LeakCheck(
        whole_action(action, why), tuple(each.casefold() for each in given), passages,
        words, How.of(how),
    )  # fmt: skip


def canary() -> str:
    """A token that stands nowhere else, to be put into a prompt: `leakage(canaries=[...])` finds it in what is said."""
    return "".join(secrets.choice(ascii_lowercase) for _ in range(20))


def _passages(text: str, words: int) -> set[tuple[str, ...]]:
    found = "".join(each if each.isalnum() else " " for each in text.casefold()).split()
    return {tuple(found[at : at + words]) for at in range(len(found) - words + 1)}
