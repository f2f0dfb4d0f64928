"""Characters that nobody sees: a text says something else to its reader than to a model."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from loopkit.detect.patterns import UNSEEN, Finding
from loopkit.guard.check import Action, How, action_of
from loopkit.guard.spans import SpanCheck

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from loopkit.guard.check import Options

_FOUND: Final = re.compile(
    "\U0001f3f4[\U000e0020-\U000e007e]{1,12}\U000e007f"  # flags of regions are made of tags
    "|(?P<unseen>[\U000e0000-\U000e007f]+"
    "|[\u202a-\u202e\u2066-\u2069]+"  # other directions than the letters have
    "|[\u200b\u2060-\u2064\ufeff\u115f\u1160\u3164\uffa0\u180e]+"
    "|(?<=[\x21-\x7e])[\u00ad\u034f\u200c\u200d]+(?=[\x21-\x7e])"
    "|(?<=[\x21-\x7e])[\ufe00-\ufe0f\U000e0100-\U000e01ef]+(?!\u20e3)"  # but for keys, such as 1 in a box
    "|(?<=[\ufe00-\ufe0f\U000e0100-\U000e01ef])[\ufe00-\ufe0f\U000e0100-\U000e01ef]+)"
)
"""Joiners and selectors have their place in scripts and in pictures, and none between two letters of ASCII."""
_MAY: Final = re.compile("[^\x00-\x7f]")


def invisible(*, action: Action = "redact", **how: Unpack[Options]) -> SpanCheck:
    """Unseen characters with which text is smuggled: tags, zero width, other directions, runs of selectors. Redacting
    takes them away. Emoji, flags and the joiners of Arabic and Indian scripts stay."""
    why = "what is found is taken away by redacting it"
    return SpanCheck(
        "invisible", action_of(action, but=("replace",), why=why), (UNSEEN,), _find, _open, _may_hold, How.of(how)
    )


def _find(text: str, kinds: tuple[str, ...]) -> list[Finding]:
    if text.isascii():
        return []
    return [Finding(UNSEEN, *match.span()) for match in _FOUND.finditer(text) if match["unseen"]]


def _open(text: str, start: int) -> int:
    """A run at the end may go on, and a joiner waits for what it joins."""
    end = len(text)
    while end > start and _MARK.match(text[end - 1]):
        end -= 1
    return end


_MARK: Final = re.compile("[\u00ad\u034f\u115f\u1160\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
                          "\ufeff\uffa0\U0001f3f4\U000e0000-\U000e01ef]")  # fmt: skip


def _may_hold(text: str) -> bool:
    return _MAY.search(text) is not None
