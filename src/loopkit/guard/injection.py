"""Prompt injection: texts that try to replace a model's instructions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loopkit.detect.folding import views
from loopkit.guard.check import ALONE, PLAINLY, Action, How, OnError, Seen, Trip, action_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from loopkit.guard.check import Options


@dataclass(frozen=True, slots=True)
class InjectionCheck:
    """Finds phrases that try to replace a model's instructions. Rules only, so far. Fails closed."""

    action: Action
    how: How = PLAINLY
    name: str = "injection"
    on_error: OnError = "closed"

    def check(self, text: str, seen: Seen = ALONE) -> Trip | None:
        """See `Check.check`."""
        for plain in views(text):
            for rule, hints, pattern in _INJECTION:
                if any(hint in plain for hint in hints) and pattern.search(plain):
                    return Trip(self.action, f"the text tries to {rule}")
        return None


def injection(*, action: Action = "block", **how: Unpack[Options]) -> InjectionCheck:
    """Texts that try to replace the model's instructions, however hidden: by unseen characters, lookalikes, letters
    spelled out, in base64, hex, URL or HTML escapes."""
    why = "injection finds no place in the text that could be redacted"
    return InjectionCheck(action_of(action, but=("redact", "replace"), why=why), How.of(how))


_BEFORE = r"(?:previous|prior|above|earlier|preceding|foregoing|initial|original|system|your|all)"
_INSTRUCTIONS = r"(?:instructions?|prompts?|rules?|directions?|guidelines?|context|commands?)"
_PROMPT = r"(?:system prompt|initial prompt|hidden (?:prompt|instructions)|your instructions)"
_UNBOUND = r"(?:dan|jailbroken|unrestricted|uncensored|developer mode|no (?:rules|restrictions|limits|filters))"
_INJECTION = tuple(
    (rule, hints, re.compile(pattern))
    for rule, hints, pattern in (
        (
            "set the instructions aside",
            ("ignore", "disregard", "forget", "override", "bypass", "skip"),
            r"\b(?:ignore|disregard|forget|override|bypass|skip)\b"
            rf"[^.!?\n]{{0,40}}\b{_BEFORE}\b[^.!?\n]{{0,30}}\b{_INSTRUCTIONS}\b",
        ),
        (
            "learn the system prompt",
            ("system prompt", "initial prompt", "hidden ", "your instructions"),
            rf"\b(?:reveal|print|repeat|show|output|leak|tell me)\b[^.!?\n]{{0,40}}\b{_PROMPT}\b",
        ),
        (
            "make the model another assistant",
            ("you are now", "from now on", "pretend ", "act as"),
            r"\b(?:you are now|from now on,? you(?: are|'re| will)|pretend (?:to be|you are)|act as)\b"
            rf"[^.!?\n]{{0,60}}\b{_UNBOUND}\b",
        ),
        (
            "speak as the system",
            ("im_start", "system", "inst]", "instruction"),
            r"(?:^|[\s\"'>])(?:<\|?(?:im_start|system)\|?>|\[/?inst\]|###? ?(?:system|new instructions?) ?:)",
        ),
        (
            "switch the model's safety off",
            (" mode",),
            r"\b(?:enable|enter|activate|switch to)\b[^.!?\n]{0,20}\b(?:developer|debug|god|jailbreak|dan|sudo) mode\b",
        ),
    )
)
"""Of each rule one of the hints is in every text that it finds: to look for those costs next to nothing."""
