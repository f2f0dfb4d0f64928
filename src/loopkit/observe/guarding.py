"""Guards and what was recorded: what people said of verdicts, and what another guard would have said."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from loopkit.capture.dialects._content import INSTRUCT, plain_texts, since_the_model_spoke
from loopkit.guard.examine import GRAVITY
from loopkit.guard.guard import Guard
from loopkit.guard.learning import Labelled
from loopkit.signals.state import held
from loopkit.store.locate import open_store
from loopkit.store.sqlite import Store
from loopkit.types import Feedback, Part, Span, Stage, Verdict
from loopkit.wire import names

_TRUST: Final = {"reviewer": 3, "user": 2, "code": 1, "judge": 0, "system": 0}
_SPOKE: Final = ("assistant", "model")


def guard_labels(
    check: str, *, stage: Stage = "input", task: str | None = None, store: Store | None = None
) -> list[Labelled]:
    """What people said of a check's verdicts: texts that it should have found something in, and others.

    A verdict is feedback under the name `guard.<check>`; whoever sees that it was wrong says so under the same name, of
    the same call: "allow" for a false alarm, "block" for one that it missed.

        loopkit.feedback(call_id, "guard.injection", "allow", source="reviewer")

    The text is the one that the check looked at, as its verdict says; of calls about which it said nothing, that of
    `stage`. Of several statements a reviewer's counts, then a user's, then the last. Calls whose content wasn't kept
    have none.
    """
    store = store or open_store()
    said: dict[str, Feedback] = {}
    for (target, name, *_), event in held(store).current.items():
        if name != f"guard.{check}" or event.source == "guardrail" or _is_bad(event) is None:
            continue
        known = said.get(target)
        if known is None or _weight(event) >= _weight(known):
            said[target] = event
    found: list[Labelled] = []
    stages = _stages(store, check)
    for span in store.spans(task=task):
        statement = said.get(span.id)
        if statement is None:
            continue
        text = "\n\n".join(text for text, _ in texts_of(span, stages.get(span.id, stage)))
        if text.strip():
            found.append(Labelled(text=text, is_bad=bool(_is_bad(statement)), span=span.id))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """One recorded call, and what a guard says of it."""

    span: Span
    before: str
    """What was done about it then: the gravest verdict."""
    now: Verdict
    """The gravest of what the guard says of its texts."""
    text: str
    """The one that it is about, else the first."""
    is_bad: bool | None
    """What people said of it, where they did."""

    @property
    def changed(self) -> bool:
        """Whether something else would be done about it."""
        return self.before != self.now.action


def replay_guard(
    guard: Guard, *, task: str | None = None, since: int | None = None, store: Store | None = None
) -> Iterator[Replayed]:
    """What a guard would have done about recorded calls: model calls, and of traces without any their outermost call.

    `since` is in nanoseconds since the epoch. Its checks are asked, services and models too; nothing is recorded. They
    see texts as they were kept: what recording redacted is gone, what wasn't kept isn't asked about. Checks that look
    at the call around a text, such as its system prompt, see none.
    """
    store = store or open_store()
    spans = store.spans(task=task, since=since)
    verdicts: dict[str, list[Feedback]] = {}
    for (target, name, *_), event in held(store).current.items():
        if name.startswith("guard."):
            verdicts.setdefault(target, []).append(event)
    for span in _calls(spans):
        events = verdicts.get(span.id, [])
        done = [str(e.value) for e in events if e.source == "guardrail" and not e.metadata.get("mode")]
        people = sorted((e for e in events if e.source != "guardrail" and _is_bad(e) is not None), key=_weight)
        now, about = _judged(guard, span)
        yield Replayed(
            span=span, before=max(done, key=_gravity, default="allow"), now=now, text=about,
            is_bad=_is_bad(people[-1]) if people else None,
        )  # fmt: skip


def texts_of(span: Span, stage: Stage) -> list[tuple[str, str | None]]:
    """The texts of a recorded call that a guard looks at there, each with the tool that it is of."""
    call = span.model_call
    if call is None:
        value = span.input if stage in ("input", "tool_call") else span.output
        if stage in ("tool_call", "tool_result") and span.kind != "tool":
            return []
        if stage == "tool_call":
            return [] if value is None else [(json.dumps(value, ensure_ascii=False), span.name)]
        return [(text, None) for text in plain_texts(value)]
    if stage in ("input", "tool_result"):
        turns = [{"role": "assistant" if message.role in _SPOKE else message.role} for message in call.input]
        asked = [call.input[at] for at in since_the_model_spoke(turns)]
        parts = [part for message in asked if message.role not in INSTRUCT for part in message.parts]
        wanted = ("tool_call_response",) if stage == "tool_result" else ("text", "tool_call_response")
        return [(text, part.name) for part in parts if part.type in wanted for text in plain_texts(part.content)]
    parts = [part for message in call.output for part in message.parts]
    called = [(_arguments(part), part.name) for part in parts if part.type == "tool_call"]
    if stage == "tool_call":
        return called
    return [(text, None) for part in parts if part.type == "text" for text in plain_texts(part.content)] + called


def _judged(guard: Guard, span: Span) -> tuple[Verdict, str]:
    gravest = Verdict(action="allow", check="", stage="input")
    about: str | None = None
    stages: tuple[Stage, ...] = ("input", "tool_result", "output", "tool_call")
    for stage in stages:
        for text, tool in texts_of(span, stage):
            verdict = guard.check(text, stage=stage, tool=tool, task=span.task, record=False)
            if about is None or _gravity(verdict.action) > _gravity(gravest.action):
                gravest, about = verdict, text
    return gravest, about or ""


def _calls(spans: Iterable[Span]) -> list[Span]:
    listed = list(spans)
    with_models = {span.trace_id for span in listed if span.model_call is not None}
    ids = {span.span_id for span in listed}
    models = {span.span_id for span in listed if span.model_call is not None}
    return [
        span for span in listed
        if (span.model_call is not None and span.parent_id not in models)  # below one are those that a check made
        or (span.trace_id not in with_models and span.kind != "guardrail" and span.parent_id not in ids)
    ]  # fmt: skip


def _stages(store: Store, check: str) -> dict[str, Any]:
    """Where the check looked at each call, as its verdicts say."""
    return {
        f"{span.trace_id}-{span.parent_id}": span.attributes.get(names.GUARD_STAGE, "input")
        for span in store.spans(kind="guardrail")
        if span.attributes.get(names.GUARD_NAME) == check
    }


def _is_bad(event: Feedback) -> bool | None:
    """Whether the text should have been found; None where that isn't said."""
    if event.value in (True, False):
        return bool(event.value)
    return event.value != "allow" if event.value in GRAVITY else None


def _weight(event: Feedback) -> tuple[int, int, str]:
    return _TRUST.get(event.source, 0), event.at, event.id


def _gravity(action: str) -> int:
    return GRAVITY.get(action, 0)


def _arguments(part: Part) -> str:
    return part.arguments if isinstance(part.arguments, str) else json.dumps(part.arguments, ensure_ascii=False)
