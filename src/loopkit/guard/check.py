"""What a check is, and the ones that ship: personal data, secrets, prompt injection."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from loopkit.detect import personal
from loopkit.detect.folding import views
from loopkit.detect.patterns import SECRETS, Finding, find, merged, without
from loopkit.detect.rules import credentials_in
from loopkit.errors import InvalidInput

Action = Literal["flag", "redact", "block"]
CREDENTIAL: Final = "credential"
"""What rules find, besides the kinds that recording redacts."""


@dataclass(frozen=True, slots=True)
class Trip:
    """What a check found: what to do about it, and why. `text` goes on instead, with "redact"."""

    action: Action
    reason: str
    text: str | None = None
    score: float | None = None


class Check(Protocol):
    """One question about one text. Provisional until a check that streams stands behind it."""

    @property
    def name(self) -> str:
        """Stands on verdicts, spans and feedback."""
        ...

    @property
    def on_error(self) -> Literal["open", "closed"]:
        """What a failure of the check itself means: let the text pass, or stop it."""
        ...

    def check(self, text: str) -> Trip | None:
        """What was found, or None."""
        ...


@dataclass(frozen=True, slots=True)
class PatternCheck:
    """Finds what `loopkit.detect` knows. Fails closed."""

    name: str
    action: Action
    kinds: tuple[str, ...]
    find: Callable[[str, tuple[str, ...]], list[Finding]]
    on_error: Literal["open", "closed"] = "closed"

    def check(self, text: str) -> Trip | None:
        """See `Check.check`."""
        found = self.find(text, self.kinds)
        if not found:
            return None
        clean = without(text, found) if self.action == "redact" else None
        return Trip(self.action, f"found {', '.join(sorted({finding.kind for finding in found}))}", clean)


@dataclass(frozen=True, slots=True)
class InjectionCheck:
    """Finds phrases that try to replace a model's instructions. Rules only, so far. Fails closed."""

    action: Action
    name: str = "injection"
    on_error: Literal["open", "closed"] = "closed"

    def check(self, text: str) -> Trip | None:
        """See `Check.check`."""
        for plain in views(text):
            for rule, pattern in _INJECTION:
                if pattern.search(plain):
                    return Trip(self.action, f"the text tries to {rule}")
        return None


@dataclass(frozen=True, slots=True)
class FunctionCheck:
    """Any function from text to bool: True lets the text pass. Fails closed."""

    name: str
    function: Callable[[str], bool]
    action: Action = "block"
    on_error: Literal["open", "closed"] = "closed"

    def check(self, text: str) -> Trip | None:
        """See `Check.check`."""
        said: Any = self.function(text)
        if inspect.isawaitable(said):
            raise TypeError("it is async: a check is called and answers at once")
        return None if said else Trip(self.action, f"{self.name} said no")


def pii(*, action: Action = "redact", kinds: Iterable[str] = personal.DEFAULT) -> PatternCheck:
    """Personal data: e-mail addresses, cards (Luhn), IBANs (mod 97), phone numbers, IP addresses, US social security.

    `kinds` chooses, or adds "domain" for addresses in the web.
    """
    return PatternCheck("pii", _action(action), _kinds(kinds, personal.KINDS), personal.personal_in)


def secrets(*, action: Action = "block", kinds: Iterable[str] = (*SECRETS, CREDENTIAL)) -> PatternCheck:
    """Keys and tokens in the forms of some eighty services, private keys, JSON web tokens, and what stands where a
    password or a key belongs."""
    return PatternCheck("secrets", _action(action), _kinds(kinds, (*SECRETS, CREDENTIAL)), secrets_in)


def secrets_in(text: str, kinds: tuple[str, ...]) -> list[Finding]:
    """By rules, which know services' forms more exactly than what recording looks for; without them by that."""
    if CREDENTIAL not in kinds:
        return find(text, kinds)
    return merged(find(text, [kind for kind in kinds if kind != "key"]) + credentials_in(text))


def injection(*, action: Action = "block") -> InjectionCheck:
    """Texts that try to replace the model's instructions, however hidden: by unseen characters, lookalikes, letters
    spelled out, in base64, hex, URL or HTML escapes."""
    return InjectionCheck(_no_redacting("injection", action))


def passes(function: Callable[[str], bool], *, name: str | None = None, action: Action = "block") -> FunctionCheck:
    """Your own check: a function that says whether a text may pass. Raises `InvalidInput` for an async one."""
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise InvalidInput(f"passes() got {function!r}: give a function (no async one) from a text to True or False")
    called = name or str(getattr(function, "__name__", type(function).__name__))
    return FunctionCheck(called, function, _no_redacting(called, action))


def _action(action: Action) -> Action:
    if action not in ("flag", "redact", "block"):
        raise InvalidInput(f"action is {action!r}: choose flag, redact or block")
    return action


def _no_redacting(name: str, action: Action) -> Action:
    if action == "redact":
        raise InvalidInput(f"{name} finds no place in the text that could be redacted: choose flag or block")
    return _action(action)


def _kinds(kinds: Iterable[str], default: tuple[str, ...]) -> tuple[str, ...]:
    chosen = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    unknown = [kind for kind in chosen if kind not in default]
    if unknown or not chosen:
        raise InvalidInput(f"kinds has {unknown or chosen!r}: choose from {', '.join(default)}")
    return chosen


_BEFORE = r"(?:previous|prior|above|earlier|preceding|foregoing|initial|original|system|your|all)"
_INSTRUCTIONS = r"(?:instructions?|prompts?|rules?|directions?|guidelines?|context|commands?)"
_PROMPT = r"(?:system prompt|initial prompt|hidden (?:prompt|instructions)|your instructions)"
_UNBOUND = r"(?:dan|jailbroken|unrestricted|uncensored|developer mode|no (?:rules|restrictions|limits|filters))"
_INJECTION = tuple(
    (rule, re.compile(pattern))
    for rule, pattern in (
        (
            "set the instructions aside",
            r"\b(?:ignore|disregard|forget|override|bypass|skip)\b"
            rf"[^.!?\n]{{0,40}}\b{_BEFORE}\b[^.!?\n]{{0,30}}\b{_INSTRUCTIONS}\b",
        ),
        (
            "learn the system prompt",
            rf"\b(?:reveal|print|repeat|show|output|leak|tell me)\b[^.!?\n]{{0,40}}\b{_PROMPT}\b",
        ),
        (
            "make the model another assistant",
            r"\b(?:you are now|from now on,? you(?: are|'re| will)|pretend (?:to be|you are)|act as)\b"
            rf"[^.!?\n]{{0,60}}\b{_UNBOUND}\b",
        ),
        (
            "speak as the system",
            r"(?:^|[\s\"'>])(?:<\|?(?:im_start|system)\|?>|\[/?inst\]|###? ?(?:system|new instructions?) ?:)",
        ),
        (
            "switch the model's safety off",
            r"\b(?:enable|enter|activate|switch to)\b[^.!?\n]{0,20}\b(?:developer|debug|god|jailbreak|dan|sudo) mode\b",
        ),
    )
)
