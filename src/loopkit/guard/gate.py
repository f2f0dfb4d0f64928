"""One text of a stream before a guard's checks: how far it may go on, and as what."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeAlias

from loopkit.capture.chain import Effect
from loopkit.capture.dialects._content import Said, Whose
from loopkit.detect.patterns import Finding
from loopkit.guard.check import Placed, Seen
from loopkit.guard.examine import STOPPING, Examination, error_of, finds_spans, is_drawn
from loopkit.guard.stream import Edits, Follower, SpanWatch, Windows
from loopkit.types import Verdict

Looks: TypeAlias = "list[tuple[tuple[Placed, ...], Seen]]"
"""The checks that look at a text, by stage."""
LooksAt: TypeAlias = Callable[[Said], Looks]


@dataclass(slots=True)
class _Spans:
    place: Placed
    seen: Seen
    watch: SpanWatch
    found: list[Finding] = field(default_factory=list)

    @property
    def stops(self) -> bool:
        return self.action in STOPPING

    @property
    def action(self) -> str:
        """What is done about what it finds."""
        check: Any = self.place.check  # those that find spans have one
        return "flag" if self.place.how.shadow else str(check.action)


class Stopped(Exception):
    """A text may not go on."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.check)
        self.blocked = error_of(verdict)


class Gate:
    """One text of a stream, before its checks. What a tool is to get is looked at as a whole: no tool runs before."""

    def __init__(self, examination: Examination, looks: Looks, of: Whose = "words", *, keeps: bool = False) -> None:
        self._examination = examination
        self._spans: list[_Spans] = []
        self._windows: list[tuple[Placed, Seen, Windows]] = []
        self._followers: list[tuple[Placed, Seen, Follower]] = []
        self._wholes: Looks = []
        self._after: Looks = [
            (tuple(each for each in places if each.how.run == "after"), seen) for places, seen in looks
        ]
        for places, seen in looks:
            taking = [each for each in places if each.how.run != "after" and is_drawn(each)]
            rest = taking
            if of != "tool_call":
                in_parts = [each for each in taking if finds_spans(each) and not each.breaker.is_open()]
                self._spans += [_Spans(each, seen, SpanWatch(each.check)) for each in in_parts]  # type: ignore[arg-type]  # asked just now
                rest = [each for each in taking if each not in in_parts]
                rest = [each for each in rest if not self._follows(each, seen)]
                windowed = [each for each in rest if window_of(each)]
                self._windows += [(each, seen, Windows(window_of(each))) for each in windowed]
                rest = [each for each in rest if each not in windowed]
            self._wholes.append((tuple(rest), seen))
        self.of = of
        self._waits_for_all = any(places for places, _ in self._wholes)
        self._keeps = keeps or self._waits_for_all or any(places for places, _ in self._after)
        self._edits = Edits()
        self._pieces: list[str] = []
        self._instead: str | None = None
        self._instead_left = ""
        self.length = 0
        self.settled = 0
        """Up to here it may go on."""
        self._limit: int | None = None
        """Where something was found that is not to go on."""
        self.is_over = False

    def _follows(self, place: Placed, seen: Seen) -> bool:
        """Whether its check looks at the text as it comes. Where others take something out, it sees what they leave."""
        follow: Callable[[], Follower | None] | None = getattr(place.check, "follow", None)
        is_changed = any(each.action == "redact" for each in self._spans)
        follower = None if follow is None or is_changed or place.breaker.is_open() else follow()
        if follower is not None:
            self._followers.append((place, seen, follower))
        return follower is not None

    @property
    def text(self) -> str:
        """All that has come, where it was kept."""
        return "".join(self._pieces)

    def may_pass(self, end: int) -> bool:
        """Whether what is before this place may go on, and what came with it."""
        return self.is_over or (not self._waits_for_all and end <= self.settled)

    def feed(self, piece: str, *, final: bool = False) -> Generator[Effect, Any, None]:
        """The next piece. Raises `Stopped` where the text may go on up to `settled`, and no further."""
        if self.is_over:
            return
        if self._keeps:
            self._pieces.append(piece)
        self.length += len(piece)
        self._look(piece, final=final)
        self._follow(piece, final=final)
        for place, seen, windows in self._windows:
            for window in windows.feed(piece, final=final):
                verdict, _ = yield from self._examination.of([place], window, seen, runs=_ANY, is_drawn_already=True)
                if verdict.action in (*STOPPING, "redact", "replace"):
                    self.settled = min(self._settled(), windows.settled)
                    raise Stopped(verdict)
        if final and self._waits_for_all:
            yield from self._look_at_all()
        if final:
            if self._after:
                given = self._edits.applied(self.text, 0) if self._instead is None else self._instead
                yield from self._examination.ask_after([(places, given, seen) for places, seen in self._after])
            self.is_over, self.settled = True, self.length
        elif not self._waits_for_all:
            self.settled = self._settled()

    def _settled(self) -> int:
        others = [*self._windows, *self._followers]
        settled = [each.watch.settled for each in self._spans] + [each.settled for *_, each in others]
        found = min(settled, default=self.length)
        return found if self._limit is None else min(found, self._limit)

    def passed(self, text: str, start: int, *, is_again: bool = False) -> str:
        """A part of it that begins at `start` and is settled, as it goes on."""
        if self._instead is None:
            return self._edits.applied(text, start)
        if is_again or not text:
            return self._instead if is_again else ""
        said, self._instead_left = self._instead_left, ""
        return said

    def _follow(self, piece: str, *, final: bool) -> None:
        for each in list(self._followers):
            place, seen, follower = each
            verdict = self._examination.answered(place, seen, partial(follower.feed, piece, final=final))
            if verdict.action in STOPPING:
                self.settled = min(self._settled(), follower.settled)
                raise Stopped(verdict)
            if verdict.action != "allow":  # said once
                self._followers.remove(each)

    def _look(self, piece: str, *, final: bool) -> None:
        for each in list(self._spans):
            try:
                found = each.watch.feed(piece, final=final)
                self._edits.add(found if each.action == "redact" else ())
                each.found += found
            except Exception as error:  # noqa: BLE001  # a check may raise anything; its class says what that means
                self._spans.remove(each)
                verdict = self._examination.failed(each.place, each.seen, type(error).__name__, error)
                if verdict.action in STOPPING:
                    raise Stopped(verdict) from None
        stopping = [each for each in self._spans if each.found and each.stops]
        if stopping:
            self._stop(min(stopping, key=lambda each: each.found[0].start), final=final)
        for each in self._spans if final else ():
            self._examination.verdict_of_spans(each.place, each.found, each.seen)

    def _stop(self, first: _Spans, *, final: bool) -> None:
        """Once all have made up their minds about what is before it, and across it: another may stop there too."""
        at = self._limit = first.found[0].start
        if not final and any(each.watch.settled <= at for each in self._spans):
            return
        self.settled = 0 if self._waits_for_all else min([at, *(each.settled for *_, each in self._windows)])
        for each in self._spans:
            if each is not first:
                before = [found for found in each.found if found.end <= at]
                self._examination.verdict_of_spans(each.place, before, each.seen)
        raise Stopped(self._examination.verdict_of_spans(first.place, first.found[:1], first.seen))

    def _look_at_all(self) -> Generator[Effect, Any, None]:
        whole = self.text
        came = plain_arguments(whole) if self.of == "tool_call" else self._edits.applied(whole, 0)
        text = came
        for places, seen in self._wholes:
            verdict, text = yield from self._examination.of(places, text, seen, runs=_ANY, is_drawn_already=True)
            if verdict.action in STOPPING:
                raise Stopped(verdict)
        if text != came:
            self._instead = self._instead_left = text


_ANY: Final = ("before", "parallel")


def window_of(place: Placed) -> int:
    """How many characters its check sees at once; 0 where it sees all."""
    found: int = getattr(place.check, "window", 0)
    return found


def plain_arguments(text: str) -> str:
    """A tool's arguments without escapes, behind which something could hide: a tool reads them so."""
    if "\\" not in text:
        return text
    try:
        return json.dumps(json.loads(text), ensure_ascii=False)
    except (ValueError, RecursionError):
        return text
