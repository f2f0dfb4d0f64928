"""Prompt injection: texts that try to replace a model's instructions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from loopkit.detect.folding import views
from loopkit.guard.check import ALONE, PLAINLY, Action, How, OnError, Seen, Trip, whole_action
from loopkit.guard.weights import Source, Weights, weights_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from loopkit.guard.check import Options

SHIPPED: Final = Path(__file__).with_name("injection.weights")
"""Made by `python -m benchmarks.train_injection --write`; docs/guardrails.md says of what."""


@dataclass(frozen=True, slots=True)
class InjectionCheck:
    """Finds phrases that try to replace a model's instructions, and texts like others that did. Fails closed."""

    action: Action
    weights: Weights | None
    how: How = PLAINLY
    name: str = "injection"
    on_error: OnError = "closed"

    def check(self, text: str, seen: Seen = ALONE) -> Trip | None:
        """See `Check.check`."""
        weights = self.weights
        for plain in views(text):
            for rule, hints, pattern in _INJECTION:
                if any(hint in plain for hint in hints) and pattern.search(plain):
                    return Trip(self.action, f"the text tries to {rule}", score=1.0)
            likeness = None if weights is None else weights.yes(plain, is_folded=True)
            if likeness is not None:
                return Trip(self.action, "the text is like known injections", score=round(likeness, 4))
        return None

    def fit(self, texts: Sequence[str], labels: Sequence[bool], *, threshold: float = 0.5) -> InjectionCheck:
        """The same check with weights of your own, fitted to texts that are labelled True where they are injections.
        About a second for 1,000 texts. Keep some back to see how good it is. Raises `InvalidInput` for fewer than 20 of
        each."""
        return replace(self, weights=Weights.fit(texts, labels, threshold=threshold))


def injection(
    *,
    action: Action = "block",
    weights: Source | None = SHIPPED,
    **how: Unpack[Options],
) -> InjectionCheck:
    """Texts that try to replace the model's instructions, however hidden: by unseen characters, lookalikes, letters
    spelled out, in base64, hex, URL or HTML escapes. By rules, and by `weights`: those that ship, your own (`fit`,
    `Weights.save`), or None for rules alone."""
    why = "injection finds no place in the text that could be redacted"
    taken = whole_action(action, why)
    return InjectionCheck(taken, None if weights is None else weights_of(weights), How.of(how))


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
