"""A text that is still coming, under a guard's checks: what is settled may go on, what could become a finding waits.

A check that finds spans says how far a text is settled: whatever comes, nothing else will be found before that place.
So the verdict and the text that goes on are the same however the text was cut into pieces, and the same as of the
whole text. A check with a window is asked about windows that begin at places which only the text's length decides. Any
other check sees a text as a whole, and everything waits for its end.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol, TypeAlias

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
    """One check's look at one text. Work is linear in the text's length."""

    def __init__(self, check: FindsSpans) -> None:
        self._check = check
        self._may_hold: Callable[[str], bool] = getattr(check, "may_hold", bool)
        self._text = ""
        self._base = 0
        """Where in the whole text the part that is kept begins."""
        self._looked = 0
        """How much was held back when it was last asked how far the text is settled."""
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
        held = end - start
        if not final:
            # what waits long is asked about less often, or a word without an end would cost its square
            if held < LONGEST and held - self._looked < held // 8 - _OFTEN:
                return []
            self._looked = held
            opened = self._check.open_at(self._text, start)
            end = opened if held < LONGEST or opened > start else end
        if end <= start:
            return []
        inside: list[Finding] = []
        if self._may_hold(self._text[start:]):
            inside = [each for each in self._check.find(self._text) if start <= each.start < end]
            if inside and inside[-1].end > end:  # what is open may belong to it
                cut = inside.pop()
                end = cut.start if held < LONGEST or cut.start > start else end
        found = [self._placed(each) for each in inside]
        self.settled = self._base + end
        self._looked = 0
        self._forget()
        return found

    def _placed(self, found: Finding) -> Finding:
        return Finding(found.kind, found.start + self._base, found.end + self._base)

    def _forget(self) -> None:
        """Let go what has no say any more."""
        self._marks.append(self.settled)
        while len(self._marks) > 1 and self.settled - self._marks[1] >= CONTEXT:
            self._marks.popleft()
        if self.settled - self._marks[0] >= CONTEXT and self._marks[0] > self._base:
            self._text = self._text[self._marks[0] - self._base :]
            self._base = self._marks[0]


_OFTEN: Final = 32
"""Characters held back of which every piece is looked at, times eight."""


class Follower(Protocol):
    """A check's look at one text as it comes. A check may have `follow()`, which makes one, or None."""

    settled: int
    """Up to here the text may go on."""

    def feed(self, piece: str, *, final: bool) -> Any:
        """The next piece. Gives a `Trip` where the text is not to go on, after what is settled; else None."""
        ...


class Windows:
    """The windows of one text, for checks that look at so many characters at a time; each overlaps the one before by
    half."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._text = ""
        self.settled = 0

    def feed(self, piece: str, *, final: bool) -> Iterator[str]:
        """The windows that are full now, while each is looked at `settled` is where it begins: what the next one will
        see too isn't settled."""
        self._text += piece
        step, at = self._size // 2, 0
        while len(self._text) - at > self._size:
            yield self._text[at : at + self._size]
            at += step
            self.settled += step
        self._text = self._text[at:]
        if final and self._text:
            yield self._text
            self.settled += len(self._text)
            self._text = ""


class Edits:
    """What is to stand in the place of spans, each by its place in the whole text."""

    def __init__(self) -> None:
        self._spans: list[_Edit] = []
        """In order, apart from each other."""

    def add(self, found: Iterable[Finding]) -> None:
        """Where two checks' findings overlap, they are one, by the name of what is before, or longer."""
        for each in found:
            self._add(each.start, each.end, label(each.kind))

    def _add(self, start: int, end: int, said: str) -> None:
        at = bisect_left(self._spans, start, key=_end)
        at += at < len(self._spans) and self._spans[at][1] == start  # it ends where this one begins
        last = at
        while last < len(self._spans) and self._spans[last][0] < end:
            last += 1
        over = [(start, -end, said), *((first, -own, name) for first, _, name, own in self._spans[at:last])]
        first, own, name = min(over)
        end = max([end, *(until for _, until, *_ in self._spans[at:last])])
        self._spans[at:last] = [(first, end, name, -own)]

    def applied(self, text: str, start: int) -> str:
        """A part of the text that begins at `start`, as it goes on: what replaces a span stands where it begins."""
        pieces: list[str] = []
        at, end = start, start + len(text)
        number = bisect_right(self._spans, start, key=_end)
        while number < len(self._spans) and self._spans[number][0] < end:
            first, last, said, _ = self._spans[number]
            pieces.append(text[at - start : max(first, at) - start])
            if first >= start:
                pieces.append(said)
            at = min(last, end)
            number += 1
        return "".join(pieces) + text[at - start :]


_Edit: TypeAlias = "tuple[int, int, str, int]"
"""Where it begins and ends, what stands there, and where the finding ended that it is named by."""


def _end(span: _Edit) -> int:
    return span[1]
