"""Guards and what was recorded: what people said of verdicts, and what another guard would have said."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, get_args

from loopkit.capture.dialects._content import INSTRUCT, SPOKE, changed, plain_texts, since_the_model_spoke
from loopkit.errors import InvalidInput
from loopkit.guard.check import ASKED
from loopkit.guard.examine import GRAVITY
from loopkit.guard.guard import Guard
from loopkit.guard.learning import Labelled
from loopkit.signals.state import held
from loopkit.store.locate import open_store
from loopkit.store.sqlite import Store
from loopkit.types import Feedback, Part, Span, Stage, Verdict
from loopkit.wire import names

_TRUST: Final = {"reviewer": 3, "user": 2, "code": 1, "judge": 0, "system": 0}


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
    if stage not in get_args(Stage):
        raise InvalidInput(f"stage is {stage!r}: choose {', '.join(get_args(Stage))}")
    store = store or open_store()
    said: dict[str, Feedback] = {}
    for (target, name, *_), event in held(store).current.items():
        if name != f"guard.{check}" or event.source == "guardrail" or _is_bad(event) is None:
            continue
        known = said.get(target)
        if known is None or _weight(event) >= _weight(known):
            said[target] = event
    found: list[Labelled] = []
    stages: dict[str, Stage] = {span_id: said[-1].stage for span_id, said in _verdicts(store, check).items()}
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
    verdicts = _verdicts(store)
    people_said: dict[str, list[Feedback]] = {}
    for (target, name, *_), event in held(store).current.items():
        if name.startswith("guard.") and event.source != "guardrail" and _is_bad(event) is not None:
            people_said.setdefault(target, []).append(event)
    for span in _calls(spans):
        people = sorted(people_said.get(span.id, ()), key=_weight)
        done = [each.action for each in verdicts.get(span.id, ()) if each.mode == "enforce"]
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
        turns = [{"role": "assistant" if message.role in SPOKE else message.role} for message in call.input]
        asked = [call.input[at] for at in since_the_model_spoke(turns)]
        parts = [part for message in asked if message.role not in INSTRUCT for part in message.parts]
        if stage == "tool_result":
            parts = [part for part in parts if part.type == "tool_call_response"]
        return [(text, part.name) for part in parts for text in _said(part)]
    parts = [part for message in call.output for part in message.parts]
    called = [(_arguments(part), part.name) for part in parts if part.type == "tool_call"]
    if stage == "tool_call":
        return called
    return [(text, None) for part in parts if part.type != "tool_call" for text in _said(part)] + called


def _said(part: Part) -> list[str]:
    """What it says, whatever its type: thoughts, refusals and a provider's own shapes too, as the dialects have it."""
    if part.type in ("uri", "blob", "file"):
        return []
    said: list[str] = []

    def see(text: str) -> str:
        said.append(text)
        return text

    changed(part.content, see)
    return said


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
    listed = [span for span in spans if not (span.task or "").startswith(ASKED)]  # what checks asked themselves
    with_models = {span.trace_id for span in listed if span.model_call is not None}
    ids = {span.span_id for span in listed}
    return [
        span for span in listed
        if span.model_call is not None
        or (span.trace_id not in with_models and span.kind != "guardrail" and span.parent_id not in ids)
    ]  # fmt: skip


def _verdicts(store: Store, check: str | None = None) -> dict[str, list[Verdict]]:
    """By call, in order, those of one check or of all: their spans are all there, where feedback keeps the last."""
    found: dict[str, list[Verdict]] = {}
    for span in store.spans(kind="guardrail"):
        told: Any = span.attributes
        name, outcome = told.get(names.GUARD_NAME), told.get(names.GUARD_OUTCOME)
        if check not in (None, name) or outcome is None:
            continue
        if outcome == "error":
            outcome = "block" if told.get(names.GUARD_ON_ERROR) == "closed" else "allow"
        mode, stage = told.get(names.GUARD_MODE, "enforce"), told.get(names.GUARD_STAGE, "input")
        verdict = Verdict(action=outcome, check=str(name), stage=stage, mode=mode)
        found.setdefault(f"{span.trace_id}-{span.parent_id}", []).append(verdict)
    return found


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
