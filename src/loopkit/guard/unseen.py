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

_NOWHERE: Final = (
    "\u115f\u1160\u180e\u200b\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e007f"
)
"""What has its place in no text: other directions than the letters have, fillers, tags."""
_ELSEWHERE: Final = "\u00ad\u034f\u061c\u180b-\u180d\u200c-\u200f\ufe00-\ufe0f\U000e0100-\U000e01ef"
"""What has its place in scripts and in pictures: joiners, marks of direction, selectors."""
_RUN: Final = re.compile(
    "\U0001f3f4[\U000e0020-\U000e007e]{1,12}\U000e007f"  # flags of regions are made of tags
    f"|(?P<run>[{_NOWHERE}{_ELSEWHERE}]+)"
)
_MISPLACED: Final = re.compile(f"[{_NOWHERE}]")
_SELECTORS: Final = re.compile(
    "(?<=[\x21-\x7e])[\ufe00-\ufe0f\U000e0100-\U000e01ef]+"
    "|(?<=[\ufe00-\ufe0f\U000e0100-\U000e01ef])[\ufe00-\ufe0f\U000e0100-\U000e01ef]+"
)
"""One chooses how the sign before it looks, and none does so for ASCII, or for another."""
_KEY: Final = "\u20e3"
_OF_KEYS: Final = "\ufe0f"
"""But for keys, such as 1 in a box."""
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
    found: list[Finding] = []
    for match in _RUN.finditer(text):
        start, end = match.span()
        if match["run"] is None:
            continue
        is_amid = start > 0 and "!" <= text[start - 1] <= "~" and "!" <= text[end : end + 1] <= "~"
        if is_amid or _MISPLACED.search(match[0]) is not None:
            found.append(Finding(UNSEEN, start, end))
        elif match[0] != _OF_KEYS or text[end : end + 1] != _KEY:
            found += [Finding(UNSEEN, *each.span()) for each in _SELECTORS.finditer(text, start, end)]
    return found


def _open(text: str, start: int) -> int:
    """A run at the end may go on, and a joiner waits for what it joins."""
    end = len(text)
    while end > start and _MARK.match(text[end - 1]):
        end -= 1
    return end


_MARK: Final = re.compile(f"[{_NOWHERE}{_ELSEWHERE}\U0001f3f4]")


def _may_hold(text: str) -> bool:
    return _MAY.search(text) is not None
