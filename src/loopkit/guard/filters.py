"""What a guard does to streams: texts are held back as far as they could still become a violation, the rest passes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from loopkit.capture.chain import Call, Effect, Passing
from loopkit.capture.dialects._content import Said, changed_texts
from loopkit.capture.dialects._protocol import Piece, Streaming
from loopkit.detect.patterns import Finding
from loopkit.errors import Blocked
from loopkit.guard.check import Placed, Seen
from loopkit.guard.examine import STOPPING, Examination, finds_spans, raise_for
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


class Gate:
    """One text of a stream, before its checks."""

    def __init__(self, examination: Examination, looks: Looks) -> None:
        self._examination = examination
        self._spans: list[_Spans] = []
        self._windows: list[tuple[Placed, Seen, Windows]] = []
        self._wholes: Looks = []
        for places, seen in looks:
            taking = [each for each in places if each.how.run != "after"]
            self._spans += [_Spans(each, seen, SpanWatch(each.check)) for each in taking if finds_spans(each)]  # type: ignore[arg-type]  # asked just now
            rest = [each for each in taking if not finds_spans(each)]
            self._windows += [(each, seen, Windows(_window(each))) for each in rest if _window(each)]
            self._wholes.append((tuple(each for each in rest if not _window(each)), seen))
        self._waits_for_all = any(places for places, _ in self._wholes)
        self._edits = Edits()
        self._pieces: list[str] = []
        self._instead: str | None = None
        self.length = 0
        self.settled = 0
        """Up to here it may go on."""
        self.is_over = False

    @property
    def text(self) -> str:
        """All that has come."""
        return "".join(self._pieces)

    def feed(self, piece: str, *, final: bool = False) -> Generator[Effect, Any, None]:
        """The next piece. Raises `Blocked` when the text may not go on."""
        if self.is_over and not piece:
            return
        self._pieces.append(piece)
        self.length += len(piece)
        self.is_over = final
        for each in self._spans:
            self._look(each, piece, final=final)
        for place, seen, windows in self._windows:
            for window in windows.feed(piece, final=final):
                verdict, _ = yield from self._examination.of([place], window, seen, runs=("before", "parallel"))
                self._stop(verdict, cant=("redact", "replace"))
        if final and self._waits_for_all:
            yield from self._look_at_all()
        if final:
            self.settled = self.length
        elif not self._waits_for_all:
            settled = [each.watch.settled for each in self._spans] + [each.settled for *_, each in self._windows]
            self.settled = min(settled, default=self.length)

    def passed(self, text: str, start: int) -> str:
        """A part of it that begins at `start` and is settled, as it goes on."""
        if self._instead is not None:
            return self._instead if start == 0 else ""
        return self._edits.applied(text, start)

    def _look(self, each: _Spans, piece: str, *, final: bool) -> None:
        place = each.place
        try:
            found = each.watch.feed(piece, final=final)
        except Exception as error:  # noqa: BLE001  # a check may raise anything; its class says what that means
            self._stop(self._examination.failed(place, each.seen, type(error).__name__, error))
            self._spans = [other for other in self._spans if other is not each]
            return
        each.found += found
        action: Any = place.check.action  # type: ignore[attr-defined]  # those that find spans have one
        stops = action in STOPPING and not place.how.shadow
        if each.found and (final or stops):
            self._stop(self._examination.verdict_of_spans(place, each.found, each.seen))
        if action == "redact" and not place.how.shadow:
            self._edits.add(found)

    def _look_at_all(self) -> Generator[Effect, Any, None]:
        came = self._edits.applied(self.text, 0)
        text = came
        for places, seen in self._wholes:
            verdict, text = yield from self._examination.of(places, text, seen, runs=("before", "parallel"))
            self._stop(verdict)
        if text != came:
            self._instead = text

    @staticmethod
    def _stop(verdict: Verdict, cant: tuple[str, ...] = ()) -> None:
        if verdict.action in (*STOPPING, *cant):
            raise_for(verdict)


def _window(place: Placed) -> int:
    return getattr(place.check, "window", 0)


class TextStream:
    """A function's stream: texts as one text, which may be cut anywhere; other data each by itself."""

    def __init__(self, examination: Examination, looks_at: LooksAt, answer: Callable[[Blocked], list[Any]]) -> None:
        self._examination = examination
        self._looks_at = looks_at
        self._answer = answer
        self._gate = Gate(examination, looks_at(Said("")))
        self._held = ""
        self._given = 0
        self._has_left = False
        self._is_over = False

    def feed(self, chunk: Any) -> Passing:
        """See `Filter.feed`."""
        if self._is_over:
            return []
        try:
            if isinstance(chunk, str):
                return (yield from self._passed(chunk, final=False))
            cleaned: dict[str, str] = {}
            for said in _texts_of(chunk):
                gate = Gate(self._examination, self._looks_at(Said(said)))
                yield from gate.feed(said, final=True)
                cleaned[said] = gate.passed(said, 0)
            self._has_left = True
            return [changed_texts(chunk, lambda text: cleaned.get(text, text))]
        except Blocked as blocked:
            return self._answered(blocked)

    def end(self) -> Passing:
        """See `Filter.end`."""
        if self._is_over or not self._gate.length:
            return []
        try:
            return (yield from self._passed("", final=True))
        except Blocked as blocked:
            return self._answered(blocked)

    def _answered(self, blocked: Blocked) -> list[Any]:
        """An answer is never glued to what has left."""
        self._is_over = True
        if self._has_left:
            raise blocked
        return self._answer(blocked)

    def _passed(self, piece: str, *, final: bool) -> Passing:
        gate = self._gate
        yield from gate.feed(piece, final=final)
        self._held += piece
        settled = gate.settled - self._given
        if settled <= 0 and not final:
            return []
        text = gate.passed(self._held[:settled], self._given)
        self._held, self._given = self._held[settled:], gate.settled
        self._has_left = self._has_left or bool(text)
        return [text] if text else []


def _texts_of(chunk: Any) -> list[str]:
    found: list[str] = []

    def see(text: str) -> str:
        found.append(text)
        return text

    changed_texts(chunk, see)
    return found


class ChunkStream:
    """A provider's stream, chunk by chunk: each passes when all that it says is settled, as it came unless something in
    it is not to go on."""

    def __init__(self, examination: Examination, looks_at: LooksAt, dialect: Streaming) -> None:
        self._examination = examination
        self._looks_at = looks_at
        self._dialect = dialect
        self._gates: dict[tuple[Any, ...], Gate] = {}
        self._said: dict[str, str] = {}
        """Texts that are over, as they go on."""
        self._waiting: deque[tuple[Any, list[_Extent]]] = deque()

    def feed(self, chunk: Any) -> Passing:
        """See `Filter.feed`."""
        extents: list[_Extent] = []
        for piece in self._dialect.pieces(chunk):
            extents.append((yield from self._taken(piece)))
        self._waiting.append((chunk, extents))
        for first in self._dialect.ended(chunk):
            for channel, gate in self._gates.items():
                if channel[0] == first:
                    yield from gate.feed("", final=True)
        return self._settled()

    def end(self) -> Passing:
        """See `Filter.end`."""
        for gate in self._gates.values():
            yield from gate.feed("", final=True)
        return self._settled()

    def _taken(self, piece: Piece) -> Generator[Effect, Any, _Extent]:
        if piece.is_whole:
            return (yield from self._taken_whole(piece))
        gate = self._gates.get(piece.channel)
        if gate is None or gate.is_over:
            looks = self._looks_at(Said(piece.text, piece.of, piece.tool))
            gate = self._gates[piece.channel] = Gate(self._examination, looks)
        start = gate.length
        yield from gate.feed(piece.text)
        return _Extent(gate, start, piece.text)

    def _taken_whole(self, piece: Piece) -> Generator[Effect, Any, _Extent]:
        """A text that came in pieces before goes on as those did; another is looked at now."""
        for gate in self._gates.values():
            if gate.length == len(piece.text) and gate.text == piece.text:
                yield from gate.feed("", final=True)
                return _Extent(gate, 0, piece.text)
        gate = self._gates[("whole", len(self._gates))] = Gate(
            self._examination, self._looks_at(Said(piece.text, piece.of, piece.tool))
        )
        yield from gate.feed(piece.text, final=True)
        return _Extent(gate, 0, piece.text)

    def _settled(self) -> list[Any]:
        passed: list[Any] = []
        while self._waiting and all(each.is_settled() for each in self._waiting[0][1]):
            chunk, extents = self._waiting.popleft()
            texts = [each.passed() for each in extents]
            is_changed = any(text != each.text for text, each in zip(texts, extents, strict=True))
            passed.append(self._dialect.with_pieces(chunk, texts) if is_changed else chunk)
        return passed


@dataclass(frozen=True, slots=True)
class _Extent:
    """A part of a text, which a chunk says."""

    gate: Gate
    start: int
    text: str

    def is_settled(self) -> bool:
        return self.start + len(self.text) <= self.gate.settled

    def passed(self) -> str:
        return self.gate.passed(self.text, self.start)


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
                gate = Gate(self._examination, self._looks_at(said))
                yield from gate.feed(said.text, final=True)
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
