"""A text that is still coming, under a guard's checks: what is settled may go on, what could become a finding waits.

A check that finds spans says how far a text is settled: whatever comes, nothing else will be found before that place.
So the verdict and the text that goes on are the same however the text was cut into pieces, and the same as of the
whole text. A check with a window is asked about windows that begin at places which only the text's length decides. Any
other check sees a text as a whole, and everything waits for its end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from loopkit.detect.patterns import Finding, label

CONTEXT: Final = 600
"""Characters before a finding that may have a say in it."""
LONGEST: Final = 16_384
"""What could still become a finding is held back so far, then decided as if the text ended there."""


class FindsSpans(Protocol):
    """A check that says where in a text something is. It may also have `may_hold(part)`, which says quickly that a part
    of a text holds nothing of what it finds."""

    action: Any

    def find(self, text: str) -> list[Finding]:
        """All spans, in order, apart from each other. What is before a span by more than `CONTEXT` has no say."""
        ...

    def open_at(self, text: str, start: int) -> int:
        """From where on something may still begin or grow, if the text goes on; `start` was settled before."""
        ...

    def why(self, found: list[Finding]) -> str:
        """What was found, in words."""
        ...


class SpanWatch:
    """One check's look at one text. Work is linear in the text's length, but for what is held back."""

    def __init__(self, check: FindsSpans) -> None:
        self._check = check
        self._may_hold: Callable[[str], bool] = getattr(check, "may_hold", bool)
        self._text = ""
        self._base = 0
        """Where in the whole text the part that is kept begins."""
        self._marks: deque[int] = deque()
        """Places that were settled once: where the part that is kept may begin."""
        self.settled = 0
        """Up to here nothing changes any more."""

    def feed(self, piece: str, *, final: bool) -> list[Finding]:
        """The findings that are settled now, by their places in the whole text."""
        found: list[Finding] = []
        taken = 0
        while True:
            room = self.settled + LONGEST - self._base - len(self._text)
            self._text += piece[taken : taken + room]
            taken += room
            is_last = taken >= len(piece)
            found += self._settle(final=final and is_last)
            if is_last:
                return found

    def _settle(self, *, final: bool) -> list[Finding]:
        start, end = self.settled - self._base, len(self._text)
        if not final and end - start < LONGEST:
            end = self._check.open_at(self._text, start)
        if end <= start:
            return []
        base, inside = self._base, []
        if self._may_hold(self._text[start:]):
            inside = [each for each in self._check.find(self._text) if start <= each.start < end]
        if inside and inside[-1].end > end:  # what is open may belong to it
            end = inside.pop().start
        found = [Finding(each.kind, each.start + base, each.end + base) for each in inside]
        self.settled = base + end
        self._forget()
        return found

    def _forget(self) -> None:
        """Let go what has no say any more."""
        self._marks.append(self.settled)
        while len(self._marks) > 1 and self.settled - self._marks[1] >= CONTEXT:
            self._marks.popleft()
        if self.settled - self._marks[0] >= CONTEXT and self._marks[0] > self._base:
            self._text = self._text[self._marks[0] - self._base :]
            self._base = self._marks[0]


class Windows:
    """The windows of one text, for checks that look at so many characters at a time; each overlaps the one before by
    half."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._text = ""
        self.settled = 0

    def feed(self, piece: str, *, final: bool) -> list[str]:
        """The windows that are full now. What the next one will see too is not settled."""
        self._text += piece
        step = self._size // 2
        full: list[str] = []
        while len(self._text) > self._size:
            full.append(self._text[: self._size])
            self._text = self._text[step:]
            self.settled += step
        if final and self._text:
            full.append(self._text)
            self.settled += len(self._text)
            self._text = ""
        return full


class Edits:
    """What is to stand in the place of spans, each by its place in the whole text."""

    def __init__(self) -> None:
        self._spans: list[tuple[int, int, str]] = []

    def add(self, found: list[Finding]) -> None:
        """Where two checks' findings overlap, what is before and what is longer stays, and the other is cut."""
        self._spans += [(each.start, each.end, label(each.kind)) for each in found]
        self._spans.sort(key=lambda span: (span[0], -span[1]))
        kept: list[tuple[int, int, str]] = []
        for start, end, said in self._spans:
            if kept and start < kept[-1][1]:
                if end > kept[-1][1]:
                    kept[-1] = (kept[-1][0], end, kept[-1][2])
                continue
            kept.append((start, end, said))
        self._spans = kept

    def applied(self, text: str, start: int) -> str:
        """A part of the text that begins at `start`, as it goes on: what replaces a span stands where it begins."""
        pieces: list[str] = []
        at, end = start, start + len(text)
        for first, last, said in self._spans:
            if last <= at or first >= end:
                continue
            pieces.append(text[at - start : max(first, at) - start])
            if first >= start:
                pieces.append(said)
            at = min(last, end)
        return "".join(pieces) + text[at - start :]
