"""What a guard does to streams: texts are held back as far as they could still become a violation, the rest passes."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from loopkit.capture.chain import Call, Cut, Effect, Passing
from loopkit.capture.dialects._content import Said, Whose, changed_texts, texts_in
from loopkit.capture.dialects._protocol import Piece, Streaming
from loopkit.detect.patterns import Finding
from loopkit.errors import Blocked
from loopkit.guard.check import Placed, Seen
from loopkit.guard.examine import STOPPING, Examination, error_of, finds_spans, is_drawn
from loopkit.guard.stream import Edits, SpanWatch, Windows
from loopkit.types import Part, Verdict
from loopkit.wire.messages import dumps

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
        self.is_over = False

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
        for place, seen, windows in self._windows:
            for window in windows.feed(piece, final=final):
                verdict, _ = yield from self._examination.of([place], window, seen, runs=_ANY, is_drawn_already=True)
                if verdict.action in (*STOPPING, "redact", "replace"):
                    self.settled = min(self._settled(), windows.settled)
                    raise Stopped(verdict)
        if final and self._waits_for_all:
            yield from self._look_at_all()
        if final:
            yield from self._examination.ask_after([(places, self.text, seen) for places, seen in self._after])
            self.is_over, self.settled = True, self.length
        elif not self._waits_for_all:
            self.settled = self._settled()

    def _settled(self) -> int:
        settled = [each.watch.settled for each in self._spans] + [each.settled for *_, each in self._windows]
        return min(settled, default=self.length)

    def passed(self, text: str, start: int, *, is_again: bool = False) -> str:
        """A part of it that begins at `start` and is settled, as it goes on."""
        if self._instead is None:
            return self._edits.applied(text, start)
        if is_again or not text:
            return self._instead if is_again else ""
        said, self._instead_left = self._instead_left, ""
        return said

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
            self._stop(min(stopping, key=lambda each: each.found[0].start))
        for each in self._spans if final else ():
            self._examination.verdict_of_spans(each.place, each.found, each.seen)

    def _stop(self, first: _Spans) -> None:
        """At the first place that may not go on, which another check may still find before this one."""
        for each in self._spans:
            at = first.found[0].start
            more = each.watch.until(at)
            self._edits.add(more if each.action == "redact" else ())
            each.found += more
            if each.stops and each.found and each.found[0].start < at:
                first = each
        at = first.found[0].start
        self.settled = 0 if self._waits_for_all else min([at, *(each.settled for *_, each in self._windows)])
        for each in self._spans:
            before = [found for found in each.found if found.end <= at]
            if each is not first:
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


class TextStream:
    """A function's stream: texts as one text, which may be cut anywhere; other data each by itself, in order."""

    def __init__(self, examination: Examination, looks_at: LooksAt, answer: Callable[[Blocked], list[Any]]) -> None:
        self._examination = examination
        self._looks_at = looks_at
        self._answer = answer
        self._gate = Gate(examination, looks_at(Said("")))
        self._held: list[str] = []
        self._others: deque[tuple[int, Any]] = deque()
        """What isn't text, and how much of the text was before it."""
        self._given = 0
        self._has_left = False

    def feed(self, chunk: Any) -> Passing:
        """See `Filter.feed`."""
        try:
            if isinstance(chunk, str):
                self._held.append(chunk)
                yield from self._gate.feed(chunk)
            else:
                self._others.append((self._gate.length, (yield from self._cleaned(chunk))))
        except Stopped as stopped:
            raise self._cut(stopped) from None
        return self._settled()

    def end(self) -> Passing:
        """See `Filter.end`."""
        try:
            if self._gate.length:
                yield from self._gate.feed("", final=True)
        except Stopped as stopped:
            raise self._cut(stopped) from None
        return self._settled()

    def _cleaned(self, chunk: Any) -> Generator[Effect, Any, Any]:
        cleaned: dict[str, str] = {}
        for said in texts_in(lambda change: changed_texts(chunk, change)):
            gate = Gate(self._examination, self._looks_at(Said(said)))
            yield from gate.feed(said, final=True)
            cleaned[said] = gate.passed(said, 0)
        return changed_texts(chunk, lambda text: cleaned.get(text, text))

    def _settled(self) -> list[Any]:
        passed: list[Any] = []
        while self._others and self._others[0][0] <= self._gate.settled:
            at, chunk = self._others.popleft()
            passed += [*self._text_until(at), chunk]
        passed += self._text_until(self._gate.settled)
        self._has_left = self._has_left or bool(passed)
        return passed

    def _text_until(self, end: int) -> list[str]:
        if end <= self._given:
            return []
        whole = "".join(self._held)
        taken = whole[: end - self._given]
        text = self._gate.passed(taken, self._given)
        self._held, self._given = [whole[len(taken) :]] if len(taken) < len(whole) else [], end
        return [text] if text else []

    def _cut(self, stopped: Stopped) -> Cut:
        """An answer is never glued to what has left."""
        passed = self._settled()
        if self._has_left:
            return Cut(passed, stopped.blocked)
        try:
            return Cut(self._answer(stopped.blocked), None)
        except Blocked as blocked:
            return Cut([], blocked)


class ChunkStream:
    """A provider's stream, chunk by chunk: each passes when all that it says is settled, as it came unless something in
    it is not to go on."""

    def __init__(self, examination: Examination, looks_at: LooksAt, dialect: Streaming) -> None:
        self._examination = examination
        self._looks_at = looks_at
        self._dialect = dialect
        self._gates: dict[tuple[Any, ...], Gate] = {}
        self._waiting: deque[tuple[Any, list[_Extent]]] = deque()

    def feed(self, chunk: Any) -> Passing:
        """See `Filter.feed`."""
        extents: list[_Extent] = []
        self._waiting.append((chunk, extents))
        try:
            for piece in self._dialect.pieces(chunk):
                yield from self._take(piece, extents)
            for first in self._dialect.ended(chunk):
                for channel, gate in self._gates.items():
                    if channel[0] == first:
                        yield from gate.feed("", final=True)
        except Stopped as stopped:
            raise Cut([*self._settled(), *self._begun()], stopped.blocked) from None
        return self._settled()

    def end(self) -> Passing:
        """See `Filter.end`."""
        try:
            for gate in self._gates.values():
                yield from gate.feed("", final=True)
        except Stopped as stopped:
            raise Cut([*self._settled(), *self._begun()], stopped.blocked) from None
        return self._settled()

    def _take(self, piece: Piece, extents: list[_Extent]) -> Generator[Effect, Any, None]:
        if piece.is_whole:
            yield from self._take_whole(piece, extents)
            return
        gate = self._gates.get(piece.channel)
        if gate is None or gate.is_over:
            gate = self._gates[piece.channel] = self._gate(piece)
        extents.append(_Extent(gate, gate.length, piece.text))
        yield from gate.feed(piece.text)

    def _take_whole(self, piece: Piece, extents: list[_Extent]) -> Generator[Effect, Any, None]:
        """A text that came in pieces before goes on as those did; another is looked at now."""
        for gate in self._gates.values():
            if gate.of == piece.of and gate.length == len(piece.text) and gate.text == piece.text:
                extents.append(_Extent(gate, 0, piece.text, is_again=True))
                yield from gate.feed("", final=True)
                return
        gate = self._gates["whole", len(self._gates)] = self._gate(piece)
        extents.append(_Extent(gate, 0, piece.text, is_again=True))
        yield from gate.feed(piece.text, final=True)

    def _gate(self, piece: Piece) -> Gate:
        looks = self._looks_at(Said(piece.text, piece.of, piece.tool))
        return Gate(self._examination, looks, piece.of, keeps=self._dialect.says_twice)

    def _settled(self) -> list[Any]:
        passed: list[Any] = []
        while self._waiting and all(each.may_pass() for each in self._waiting[0][1]):
            chunk, extents = self._waiting.popleft()
            passed.append(self._changed(chunk, extents, [each.passed() for each in extents]))
        return passed

    def _begun(self) -> list[Any]:
        """Of the chunk in which something was found what is before it."""
        if not self._waiting:
            return []
        chunk, extents = self._waiting[0]
        texts = [each.begun() for each in extents]
        return [self._dialect.with_pieces(chunk, texts)] if any(texts) else []

    def _changed(self, chunk: Any, extents: list[_Extent], texts: list[str]) -> Any:
        is_changed = any(text != each.text for text, each in zip(texts, extents, strict=True))
        return self._dialect.with_pieces(chunk, texts) if is_changed else chunk


@dataclass(frozen=True, slots=True)
class _Extent:
    """A part of a text, which a chunk says."""

    gate: Gate
    start: int
    text: str
    is_again: bool = False

    def may_pass(self) -> bool:
        return self.gate.may_pass(self.start + len(self.text))

    def passed(self) -> str:
        return self.gate.passed(self.text, self.start, is_again=self.is_again)

    def begun(self) -> str:
        """As far as it may go on."""
        if self.is_again or not self.gate.may_pass(self.start):
            return ""
        return self.gate.passed(self.text[: max(self.gate.settled - self.start, 0)], self.start)


class WholeStream:
    """A stream whose chunks can't be changed: held back until its whole text has passed."""

    def __init__(self, examination: Examination, looks_at: LooksAt, call: Call) -> None:
        assert call.dialect is not None
        self._examination = examination
        self._looks_at = looks_at
        self._dialect = call.dialect
        self._fold = call.dialect.fold()
        self._chunks: list[Any] = []

    def feed(self, chunk: Any) -> list[Any]:
        """See `Filter.feed`."""
        self._chunks.append(chunk)
        self._fold.feed(chunk)
        return []

    def end(self) -> Passing:
        """See `Filter.end`."""
        for message in self._dialect.answered(self._fold.result()):
            for said in filter(None, map(_said, message.parts)):
                gate = Gate(self._examination, self._looks_at(said), said.of)
                try:
                    yield from gate.feed(said.text, final=True)
                except Stopped as stopped:
                    raise stopped.blocked from None
                if gate.passed(said.text, 0) != said.text:
                    why = "this provider's stream can't be redacted"
                    raise Blocked(Verdict(action="block", check="stream", stage="output", reason=why))
        return self._chunks


def _said(part: Part) -> Said | None:
    """What a part of an answer says: its text, or a tool call's arguments."""
    if part.type == "tool_call":
        return None if part.arguments is None else Said(_text(part.arguments), "tool_call", part.name)
    return None if part.content is None else Said(_text(part.content))


def _text(said: Any) -> str:
    return said if isinstance(said, str) else dumps(said)
