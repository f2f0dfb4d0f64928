"""What a guard does to streams: texts are held back as far as they could still become a violation, the rest passes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any

from loopkit.capture.chain import Call, Cut, Effect, Passing
from loopkit.capture.dialects._content import Said, changed_texts, texts_in
from loopkit.capture.dialects._protocol import Piece, Streaming
from loopkit.errors import Blocked
from loopkit.guard.examine import Examination
from loopkit.guard.gate import Gate, LooksAt, Stopped
from loopkit.types import Message, Part, Verdict
from loopkit.wire.messages import dumps


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
        for said in texts_said(self._dialect.answered(self._fold.result())):
            gate = Gate(self._examination, self._looks_at(said), said.of)
            try:
                yield from gate.feed(said.text, final=True)
            except Stopped as stopped:
                raise stopped.blocked from None
            if gate.passed(said.text, 0) != said.text:
                why = "this provider's stream can't be redacted"
                raise Blocked(Verdict(action="block", check="stream", stage="output", reason=why))
        return self._chunks


def texts_said(messages: Iterable[Message]) -> list[Said]:
    """What these answers say, in order."""
    return [said for message in messages for said in map(_said, message.parts) if said is not None]


def _said(part: Part) -> Said | None:
    """What a part of an answer says: its text, or a tool call's arguments."""
    if part.type == "tool_call":
        return None if part.arguments is None else Said(_text(part.arguments), "tool_call", part.name)
    return None if part.content is None else Said(_text(part.content))


def _text(said: Any) -> str:
    return said if isinstance(said, str) else dumps(said)
