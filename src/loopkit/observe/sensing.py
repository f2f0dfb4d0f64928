"""Sensors over what was recorded: each session's turns, read once in a while, make implicit feedback."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from hashlib import sha256

from loopkit._ids import Clock
from loopkit.capture import slot
from loopkit.capture.finish import Finisher
from loopkit.config import settings
from loopkit.signals.rewards import MEANINGS
from loopkit.signals.sensors import Sensed, Turn, last_asked, ordered, sensed
from loopkit.store.locate import open_store
from loopkit.store.sqlite import Store
from loopkit.types import Feedback, Span

_TURNS = ("task", "agent", "llm")


def sense(*, session_id: str | None = None, since: int | None = None, store: Store | None = None) -> list[Feedback]:
    """Read what sessions show (asked again, rephrased, contradicted, left) and write it down as implicit feedback.

    Of one session, or of all that have a call since then (nanoseconds since the epoch). A turn is the outermost call of
    a trace with a session id; the turns of one session, user and task follow each other. What was seen before is the
    same event, so it may run as often as you like, and after late spans have come; who came back has not left, and that
    is retracted. Gives the events that are new. Needs `pip install 'loopkit-sdk[signals]'`.
    """
    store = store or open_store()
    recorder = slot.recorder
    now = (Clock() if recorder is None else recorder.clock).now()
    sessions: dict[tuple[str | None, str | None, str | None], list[Turn]] = defaultdict(list)
    for span in _outermost(_spans(store, session_id, since)):
        if span.session_id is not None and span.kind in _TURNS and span.status == "ok":
            sessions[span.session_id, span.user_id, span.task].append(_turn(span))
    known = {event.id for event in store.feedback()}
    seen: list[Feedback] = []
    for turns in map(ordered, sessions.values()):
        seen += [_event(each, now) for each in sensed(turns, until=now)]
        left = [_event(Sensed(turn, "abandoned", True), now) for turn in turns[:-1]]
        seen += [_back(event, now) for event in left if event.id in known]
    new = [event for event in seen if event.id not in known]
    finisher = Finisher(settings("sense", store=store.directory) if recorder is None else recorder.settings)
    kept = [finisher.feedback(event) for event in new]
    if kept:
        store.append(None, kept)
    return kept


def _spans(store: Store, session_id: str | None, since: int | None) -> list[Span]:
    """Of whole sessions: what is asked now has to do with what was answered before `since`."""
    if session_id is not None or since is None:
        return store.spans(session_id=session_id)
    recent = {span.session_id for span in store.spans(since=since) if span.session_id is not None}
    return [span for session in sorted(recent) for span in store.spans(session_id=session)]


def _outermost(spans: list[Span]) -> list[Span]:
    ids = {span.id for span in spans}
    return [span for span in spans if f"{span.trace_id}-{span.parent_id}" not in ids]


def _turn(span: Span) -> Turn:
    call = span.model_call
    asked = next((m.text for m in reversed(call.input) if m.role == "user"), "") if call else last_asked(span.input)
    return Turn(span.id, span.started_at, asked, span.ended_at)


def _back(event: Feedback, now: int) -> Feedback:
    """Whoever was said to have left came back."""
    id = sha256(f"back {event.id}".encode()).hexdigest()[:32]
    return replace(event, id=id, key=id, name="retraction", value=None, retracts=event.id, at=now, arrived_at=now)


def _event(each: Sensed, now: int) -> Feedback:
    """The same for the same turn and sensor, whenever and wherever it is seen."""
    key = f"sensor:{each.name}:{each.turn.id}"
    return Feedback(
        id=sha256(key.encode()).hexdigest()[:32], target=each.turn.id, name=each.name, value=each.value, key=key,
        comment=each.comment, kind=MEANINGS[each.name].kind, source="code", by="loopkit.sensors",
        at=each.turn.ended_at, arrived_at=now,
    )  # fmt: skip
