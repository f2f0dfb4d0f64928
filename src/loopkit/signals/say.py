"""`feedback()`: one statement about something the application did."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any, get_args

from loopkit import _host
from loopkit._pseudonyms import pseudonym
from loopkit.capture import slot
from loopkit.capture.dialects._content import mapping
from loopkit.capture.live import UNRECORDED, Handle
from loopkit.errors import InvalidInput
from loopkit.types import JSON, Feedback, FeedbackKind, Source

_SOURCES = get_args(Source)
_KINDS = get_args(FeedbackKind)


def feedback(
    target: Any,
    name: str | None = None,
    value: bool | float | str | None = None,
    *,
    correction: JSON = None,
    preferred_over: Any = None,
    ranking: Sequence[Any] = (),
    comment: str | None = None,
    source: Source = "user",
    kind: FeedbackKind = "explicit",
    by: str | None = None,
    weight: float | None = None,
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

    Raises `InvalidInput` when there is nothing to say, or a value has a wrong type; nothing is written then.
    """
    event = statement(
        name, value, correction=correction, preferred_over=preferred_over, ranking=ranking, comment=comment,
        source=source, kind=kind, by=by, weight=weight, at=at, key=key, supersedes=supersedes, retracts=retracts,
    )  # fmt: skip
    resolved = target_of(target)
    recorder = slot.recorder
    if recorder is None:
        _host.warn_once("feedback before init", "feedback() has nowhere to go: call loopkit.init() first")
        return None
    if resolved == UNRECORDED:
        return None
    if "by" in event:
        event["by"] = pseudonym(event["by"], recorder.settings.store)
    return recorder.say(resolved, **event)


def retract(event: Feedback | str, *, by: str | None = None) -> Feedback | None:
    """Take an event back. What it said before it counts again, as if the event had never been."""
    given = event.id if isinstance(event, Feedback) else event
    target = event.target if isinstance(event, Feedback) else f"event:{given}"
    return feedback(target, "retraction", retracts=given, by=by, source="system")


def statement(name: str | None, value: Any, **given: Any) -> dict[str, Any]:
    """A statement's fields, checked. Raises `InvalidInput` naming the value and what to do."""
    fields = {key: item for key, item in given.items() if item is not None}
    if given.get("preferred_over") is not None:
        fields["preferred_over"] = target_of(given["preferred_over"])
    if not isinstance(given.get("ranking") or (), (list, tuple)):
        raise InvalidInput(f"ranking is {given['ranking']!r}: give a list of targets, best first")
    fields["ranking"] = tuple(target_of(item) for item in given.get("ranking") or ())
    fields["name"] = _name(name, value, fields)
    fields["value"] = _value(fields["name"], value)
    _one_of("source", fields.get("source", "user"), _SOURCES)
    _one_of("kind", fields.get("kind", "explicit"), _KINDS)
    if "correction" in fields:
        trusted = fields.get("source") == "reviewer"
        fields["correction_status"] = "accepted" if trusted else "proposed"
    if "weight" in fields and not (_is_number(fields["weight"]) and 0 <= fields["weight"] <= 1):
        raise InvalidInput(f"weight is {fields['weight']!r}: it is a number between 0 and 1")
    if "at" in fields:
        fields["at"] = _nanoseconds(fields["at"])
    for name in ("correction", "metadata"):
        if name in fields:
            fields[name] = _json_value(name, fields[name])
    for text in ("comment", "by", "key", "supersedes", "retracts"):
        if text in fields and not isinstance(fields[text], str):
            raise InvalidInput(f"{text} is {fields[text]!r}: it is a string")
    return fields


def target_of(target: Any) -> str:
    """The string that names what is meant. Raises `InvalidInput` for what names nothing."""
    if isinstance(target, str):
        if not target.strip():
            raise InvalidInput("the target is an empty string: give a span id, a response or its id, or a join key")
        return target
    if isinstance(target, Handle):
        return target.id
    recorder = slot.recorder
    found = None if recorder is None else recorder.identities.find(target)
    if found is not None:
        return found
    response_id = _response_id(target)
    if response_id is not None:
        return response_id
    if recorder is None and target is not None:
        return UNRECORDED
    raise InvalidInput(
        f"a {type(target).__name__} is no target: give a response that a wrapped client returned, its id, "
        "current_span().id, 'trace:…', 'session:…' or a join key such as 'order:4432'"
    )


def _response_id(response: Any) -> str | None:
    """Where providers put it: OpenAI and most, Google, AWS."""
    found: Any = getattr(response, "id", None) or getattr(response, "response_id", None)
    if isinstance(response, dict):
        whole = mapping(response)
        found = whole.get("id") or mapping(whole.get("ResponseMetadata")).get("RequestId")
    return found if isinstance(found, str) and found else None


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
    try:
        return json.loads(json.dumps(value, ensure_ascii=False, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(
            f"the {name} can't be written as JSON ({error}): give text, numbers, lists and dicts"
        ) from error


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
