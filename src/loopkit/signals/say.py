"""`feedback()`: one statement about something the application did."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, get_args

from loopkit import _host
from loopkit._pseudonyms import pseudonym
from loopkit.capture import slot
from loopkit.capture.dialects._content import mapping, sequence
from loopkit.capture.live import UNRECORDED
from loopkit.capture.recorder import Recorder
from loopkit.config import Signal
from loopkit.errors import InvalidInput
from loopkit.signals.schemas import why_not
from loopkit.signals.targets import level_of, part_of, target_of
from loopkit.types import JSON, CorrectionStatus, Feedback, FeedbackKind, Message, Source, split_target

_SOURCES = get_args(Source)
_KINDS = get_args(FeedbackKind)
_STATUSES = get_args(CorrectionStatus)
_FLUSH_SECONDS = 5.0
_strict_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def feedback(
    target: Any,
    name: str | None = None,
    value: bool | float | str | None = None,
    *,
    correction: JSON = None,
    correction_status: CorrectionStatus | None = None,
    preferred_over: Any = None,
    ranking: Sequence[Any] = (),
    document: str | int | None = None,
    range: tuple[int, int] | None = None,
    comment: str | None = None,
    reason: str | None = None,
    source: Source = "user",
    kind: FeedbackKind = "explicit",
    by: str | None = None,
    weight: float | None = None,
    metadata: Mapping[str, JSON] | None = None,
    at: datetime | int | None = None,
    key: str | None = None,
    supersedes: str | None = None,
    retracts: str | None = None,
) -> Feedback | None:
    """Say something about a span, a trace, a session, a provider's response or your own join key.

    Returns the event at once (its `id` can be retracted or superseded later); it is on disk within the append
    delay. The target need not be known yet: feedback waits for it. Without a name it is a "correction",
    "preference" or "ranking". With `key`, the same key is the same event; without, every call is a new one.
    Before `init()` it says once that it has nowhere to go, and returns None, as it does for a call that was sampled
    out.

        loopkit.feedback(response, "helpful", True)
        loopkit.feedback(response.id, correction="declined_card_payment", by="ana")
        loopkit.feedback(retrieval, "relevant", False, document="faq-12")
        loopkit.feedback(response, "wrong", True, range=(10, 25))

    `document` is one that a retrieval span found, by its id, or by its position from 0; `range` is of the output,
    in characters. A correction is a text, a message or JSON, "proposed" unless a reviewer gives it or
    `correction_status` says otherwise. `weight` is between 0 and 1, `source` user, reviewer, code, judge, guardrail
    or system, `kind` explicit, implicit or inferred. `by` is kept as a pseudonym.

    Raises `InvalidInput` when there is nothing to say, a value has a wrong type or isn't what `init(signals=)`
    declares, or a correction breaks the JSON schema that its call asked for; nothing is written then.
    """
    recorder = slot.recorder
    made = _statement(
        _signals(recorder), recorder, target, name, value, correction=correction, correction_status=correction_status,
        preferred_over=preferred_over, ranking=ranking, document=document, range=range, comment=comment, reason=reason,
        source=source, kind=kind, by=by, weight=weight, metadata=metadata, at=at, key=key, supersedes=supersedes,
        retracts=retracts,
    )  # fmt: skip
    return _said(recorder, made)


async def afeedback(target: Any, name: str | None = None, value: Any = None, **given: Any) -> Feedback | None:
    """`feedback`, and it waits until the event is on disk, up to 5 s, without blocking the event loop."""
    event = feedback(target, name, value, **given)
    recorder = slot.recorder
    if event is not None and recorder is not None:
        await asyncio.to_thread(recorder.worker.flush, _FLUSH_SECONDS)
    return event


def feedback_batch(statements: Iterable[Mapping[str, Any]]) -> list[Feedback]:
    """Many statements, each with `feedback`'s arguments by name. Nothing is written unless all of them are good.

    Gives the events. Raises `InvalidInput` with the number of the statement, from 1.
    """
    recorder = slot.recorder
    made: list[tuple[str, dict[str, Any]]] = []
    for number, given in enumerate(statements, start=1):
        try:
            made.append(_statement(_signals(recorder), recorder, **_named(given)))
        except InvalidInput as error:
            raise InvalidInput(f"statement {number}: {error}") from error
    return [event for each in made if (event := _said(recorder, each)) is not None]


def retract(event: Feedback | str, *, by: str | None = None) -> Feedback | None:
    """Take an event back. What it said before it counts again, as if the event had never been."""
    given = event.id if isinstance(event, Feedback) else event
    target = event.target if isinstance(event, Feedback) else f"event:{given}"
    return feedback(target, "retraction", retracts=given, by=by, source="system")


def supersede(event: Feedback, **changes: Any) -> Feedback | None:
    """Put another event in the place of one: what it said, with these of `feedback`'s arguments changed.

        loopkit.supersede(event, correction_status="accepted")

    It is of the same author unless `by` says otherwise. Raises `InvalidInput` as `feedback` does.
    """
    if not isinstance(event, Feedback):
        raise InvalidInput(f"{event!r} is no event: give what feedback() returned, or one of open_store().feedback()")
    unknown = [name for name in changes if name not in ARGUMENTS or name in ("supersedes", "retracts", "key")]
    if unknown:
        raise InvalidInput(f"supersede() can't change {unknown[0]!r}: give others of feedback()'s arguments")
    known: dict[str, Any] = {name: getattr(event, name) for name in _CARRIED}
    known = {name: value for name, value in known.items() if value not in (None, (), {})}
    if {"correction", "source"} & changes.keys():  # the verdict was on other words, or another's
        known = {name: value for name, value in known.items() if name not in ("correction_status", "reason")}
    given: dict[str, Any] = {"at": event.at, **known, **changes}
    target = event.whole if {"document", "range"} & changes.keys() else event.target
    return feedback(given.pop("target", target), given.pop("name", event.name), **given, supersedes=event.id)


_CARRIED = (
    "value", "correction", "correction_status", "preferred_over", "ranking", "comment", "reason", "source", "kind",
    "by", "weight", "metadata",
)  # fmt: skip
ARGUMENTS = tuple(inspect.signature(feedback).parameters)


def _named(given: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(given, Mapping) or "target" not in given:
        raise InvalidInput(f"{given!r} has no target: give a dict with 'target' and feedback()'s other arguments")
    unknown = [name for name in given if name not in ARGUMENTS]
    if unknown:
        raise InvalidInput(f"unknown field {unknown[0]!r}; known: {', '.join(ARGUMENTS)}")
    return {"name": None, "value": None, **given}


def _said(recorder: Recorder | None, made: tuple[str, dict[str, Any]]) -> Feedback | None:
    target, event = made
    if recorder is None:
        _host.warn_once("feedback before init", "feedback() has nowhere to go: call loopkit.init() first")
        return None
    if target == UNRECORDED:
        return None
    if "by" in event:
        event["by"] = pseudonym(event["by"], recorder.settings.store)
    return recorder.say(target, **event)


def checked(given: Mapping[str, Any], signals: Mapping[str, Signal]) -> tuple[str, dict[str, Any]]:
    """The target and the fields of a statement that was written down elsewhere. Raises `InvalidInput`."""
    named = _named(given)
    for target in (named["target"], named.get("preferred_over") or "", *(named.get("ranking") or ())):
        if not isinstance(target, str):
            raise InvalidInput(f"the target is {target!r}: in a file it is a string")
    return _statement(signals, slot.recorder, **named)


def _signals(recorder: Recorder | None) -> Mapping[str, Signal]:
    return {} if recorder is None else recorder.settings.signals


def _statement(
    signals: Mapping[str, Signal], recorder: Recorder | None, target: Any, name: str | None, value: Any, **given: Any
) -> tuple[str, dict[str, Any]]:
    """The target and the fields of a statement, checked. Raises `InvalidInput` naming the value and what to do."""
    fields = {key: item for key, item in given.items() if item is not None}
    about = part_of(target_of(target), fields.pop("document", None), fields.pop("range", None))
    if given.get("preferred_over") is not None:
        fields["preferred_over"] = target_of(given["preferred_over"])
    if not isinstance(given.get("ranking") or (), (list, tuple)):
        raise InvalidInput(f"ranking is {given['ranking']!r}: give a list of targets, best first")
    fields["ranking"] = tuple(target_of(item) for item in given.get("ranking") or ())
    fields["name"] = _name(name, value, fields)
    fields["value"] = _value(fields["name"], value)
    _one_of("source", fields.get("source", "user"), _SOURCES)
    _one_of("kind", fields.get("kind", "explicit"), _KINDS)
    if "weight" in fields and not (_is_number(fields["weight"]) and 0 <= fields["weight"] <= 1):
        raise InvalidInput(f"weight is {fields['weight']!r}: it is a number between 0 and 1")
    if "at" in fields:
        fields["at"] = _nanoseconds(fields["at"])
    if "metadata" in fields and not isinstance(fields["metadata"], Mapping):
        raise InvalidInput(f"metadata is {fields['metadata']!r}: give a dict")
    for name in ("correction", "metadata"):
        if name in fields:
            fields[name] = _json_value(name, fields[name])
    _check_texts(fields)
    if about != UNRECORDED:
        _check_declared(signals.get(fields["name"]), about, value)
    _check_correction(recorder, about, fields)
    return about, fields


def _check_texts(fields: Mapping[str, Any]) -> None:
    for name in ("comment", "reason", "by", "key", "supersedes", "retracts"):
        if name in fields and not isinstance(fields[name], str):
            raise InvalidInput(f"{name} is {fields[name]!r}: it is a string")
        if fields.get(name) == "" and name not in ("comment", "reason"):
            raise InvalidInput(f"{name} is empty: leave it out, or say which")


def _check_declared(signal: Signal | None, target: str, value: Any) -> None:
    if signal is None:
        return
    if value is not None and not signal.fits(value):
        raise InvalidInput(f"the value of {signal.name!r} is {value!r}: it is declared as {signal.allowed}")
    level = level_of(target)
    if signal.level is not None and level is not None and level != signal.level:
        raise InvalidInput(f"{signal.name!r} is said of a {level} ({target!r}): it is declared for a {signal.level}")


def _check_correction(recorder: Recorder | None, target: str, fields: dict[str, Any]) -> None:
    status = fields.get("correction_status")
    if "correction" not in fields:
        if status is not None:
            raise InvalidInput(f"correction_status is {status!r} without a correction: give both, or neither")
        return
    _one_of("correction_status", status or "proposed", _STATUSES)
    fields["correction_status"] = status or ("accepted" if fields.get("source") == "reviewer" else "proposed")
    whole, part = split_target(target)
    schema = None if recorder is None or part is not None else recorder.schemas.find(whole)
    if schema is not None and status != "rejected":
        reason = why_not(fields["correction"], schema)
        if reason is not None:
            raise InvalidInput(f"the correction breaks the JSON schema that its call asked for, at {reason}")


def _name(name: str | None, value: Any, fields: dict[str, Any]) -> str:
    if name is not None:
        if not isinstance(name, str) or not name.strip():
            raise InvalidInput(f"the signal's name is {name!r}: give a non-empty string, such as 'helpful'")
        said = value is not None or any(
            fields.get(key) for key in ("correction", "preferred_over", "ranking", "comment", "retracts")
        )
        if not said and "correction" not in fields:
            raise InvalidInput(f"feedback {name!r} says nothing: give a value, a correction or a comment")
        return name
    for key, implied in (
        ("correction", "correction"),
        ("preferred_over", "preference"),
        ("ranking", "ranking"),
    ):
        if key in fields and fields[key] not in (None, ()):
            return implied
    raise InvalidInput("feedback() has nothing to say: give a name and a value, or correction=, or preferred_over=")


def _value(name: str, value: Any) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if _is_number(value) and -sys.float_info.max <= value <= sys.float_info.max:  # so neither infinite nor NaN
        return float(value)
    raise InvalidInput(f"the value of {name!r} is {value!r}: give a bool, a finite number or a string")


def _json_value(name: str, value: Any) -> Any:
    """The value as plain JSON, now: what can't be written would otherwise be found out when nobody can help it."""
    if isinstance(value, Message):
        value = dataclasses.asdict(value)
    elif hasattr(value.__class__, "model_dump"):
        value = value.model_dump(mode="json", exclude_none=True)
    try:
        text = _strict_json(value)
        plain = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(
            f"the {name} can't be written as JSON ({error}): give text, numbers, lists and dicts"
        ) from error
    if text.count("[") + text.count("{") > _DEEPEST and _is_deeper(plain, _DEEPEST):
        raise InvalidInput(f"the {name} has more than {_DEEPEST} lists and dicts in each other: give it flatter")
    return plain


def _is_deeper(value: Any, than: int) -> bool:
    """Not every reader of JSON takes any depth."""
    level, depth = [value], 0
    while level and depth <= than:
        level = [one for each in level for one in (*mapping(each).values(), *sequence(each))]
        depth += 1
    return bool(level)


_DEEPEST = 64


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _one_of(what: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InvalidInput(f"{what} is {value!r}: choose one of {', '.join(allowed)}")


def _nanoseconds(at: Any) -> int:
    if isinstance(at, datetime) and 1970 <= at.year < 2262:
        return int(at.timestamp() * 1_000_000) * 1000
    if isinstance(at, int) and not isinstance(at, bool) and 0 <= at < 2**63:
        return at
    raise InvalidInput(f"at is {at!r}: give a datetime, or nanoseconds since the epoch")
