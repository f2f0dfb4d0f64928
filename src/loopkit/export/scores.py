"""Feedback as other systems write it: one statement, one row of theirs.

Datawizz's rows (https://docs.datawizz.ai/logs/feedback) lose nothing either way: what they have no field for stands in
their metadata, under "loopkit".
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Final

from loopkit._ids import is_span_id
from loopkit._json import to_dict
from loopkit.capture.dialects._content import sequence
from loopkit.types import Feedback, split_target

OURS: Final = "loopkit"
_FIELDS: Final = (
    "inference_log_id", "score", "weight", "improvement", "qualitative_feedback", "signal_name", "signal_source",
    "signal_type", "metadata",
)  # fmt: skip


def datawizz_row(event: Feedback) -> dict[str, Any]:
    """The statement as Datawizz has it. A yes is 1, a no -1, and what is no number between those 0."""
    row: dict[str, Any] = {
        "inference_log_id": event.target,
        "score": _score(event.value),
        "signal_name": event.name,
        "signal_source": "user" if event.source == "user" else "system",
        "signal_type": "explicit" if event.kind == "explicit" else "implicit",
        "weight": event.weight,
        "improvement": event.correction,
        "qualitative_feedback": event.comment,
    }
    known = _dict(event.metadata.get(OURS))
    came, others = known.get("fields"), known.get("others")
    if known.keys() == {"fields", "others"} and isinstance(others, dict) and event.supersedes is None:  # from there
        row["metadata"] = {name: value for name, value in event.metadata.items() if name != OURS}
        named = sequence(came)
        if named and all(name in _FIELDS for name in named):
            return {**{name: row.get(name) for name in named}, **others}
        del row["metadata"]
    row = {name: value for name, value in row.items() if value is not None}
    return {**row, "metadata": {**event.metadata, OURS: to_dict(event)}}


def of_datawizz(row: Mapping[str, Any]) -> dict[str, Any]:
    """What `feedback()` is to be given, or the fields of the event where it was one of ours."""
    metadata = _dict(row.get("metadata"))
    ours = _dict(metadata.get(OURS))
    if "id" in ours:
        return ours
    # So that it goes back as it came: with what was left out, and what bears a name that isn't known here.
    fields = [name for name in row if name in _FIELDS]
    came = {"fields": fields, "others": {name: value for name, value in row.items() if name not in _FIELDS}}
    said: dict[str, Any] = {
        "target": str(row.get("inference_log_id") or ""),
        "name": str(row.get("signal_name") or "score"),
        "value": row.get("score"),
        "weight": row.get("weight"),
        "correction": row.get("improvement"),
        "comment": row.get("qualitative_feedback"),
        "source": "system" if row.get("signal_source") == "system" else "user",
        "kind": "implicit" if row.get("signal_type") == "implicit" else "explicit",
        "metadata": {**metadata, OURS: came},
    }
    return {name: value for name, value in said.items() if value is not None}


def langfuse_score(event: Feedback, target: str) -> dict[str, Any]:
    """The body of Langfuse's `POST /api/public/scores`. `target` is the event's, resolved. Not for join keys."""
    value: Any = event.value
    kind = "BOOLEAN" if isinstance(value, bool) else "NUMERIC" if isinstance(value, float) else "CATEGORICAL"
    if event.correction is not None:
        kind, value = "CORRECTION", event.correction
    elif value is None:
        kind, value = "TEXT", event.comment or ""
    whole, part = split_target(target)
    place: dict[str, Any] = {"sessionId": whole.removeprefix("session:")}
    if not whole.startswith("session:"):
        trace = whole.removeprefix("trace:")
        place = {"traceId": trace[:32], **({"observationId": whole[33:]} if is_span_id(whole) else {})}
    return {
        "id": event.id, **place, "name": event.name, "value": float(value) if kind == "BOOLEAN" else value,
        "dataType": kind, "comment": event.comment, "timestamp": moment(event.at),
        "metadata": {**event.metadata, **facts_of(event), **({"part": part} if part else {})},
    }  # fmt: skip


def langsmith_feedback(event: Feedback, target: str) -> dict[str, Any]:
    """The body of LangSmith's `POST /api/v1/feedback`. Ids are UUIDs there: of 32 hex digits, a span's filled up."""
    whole, part = split_target(target)
    number = float(event.value) if isinstance(event.value, (bool, float)) else None
    trace = whole.removeprefix("trace:")[:32]
    return {
        "id": _uuid(event.id),
        "trace_id": _uuid(trace),
        "run_id": _uuid((whole[33:] if is_span_id(whole) else trace).rjust(32, "0")),
        "key": event.name,
        "score": number,
        "value": event.value if number is None else None,
        "comment": event.comment,
        "correction": event.correction,
        "created_at": moment(event.at),
        "feedback_source": {
            "type": "model" if event.source == "judge" else "api",
            "metadata": {**event.metadata, **facts_of(event), **({"part": part} if part else {})},
        },
    }


def facts_of(event: Feedback) -> dict[str, Any]:
    """What is known of a statement besides what it says, for systems that have no fields for it."""
    found = {
        "source": event.source, "kind": event.kind, "by": event.by, "weight": event.weight, "reason": event.reason,
        "preferred_over": event.preferred_over, "ranking": list(event.ranking) or None,
        "correction_status": event.correction_status if event.correction is not None else None,
    }  # fmt: skip
    return {f"loopkit.feedback.{name}": value for name, value in found.items() if value is not None}


def moment(nanoseconds: int) -> str:
    """A time as ISO 8601 has it."""
    return datetime.fromtimestamp(nanoseconds / 1e9, timezone.utc).isoformat()


def _uuid(id: str) -> str:
    """Of 32 hex digits those, of anything else always the same."""
    is_hex = len(id) == 32 and not set(id) - set("0123456789abcdef")
    return str(uuid.UUID(hex=id) if is_hex else uuid.uuid5(uuid.NAMESPACE_URL, f"loopkit:{id}"))


def _dict(value: Any) -> dict[str, Any]:
    given: Any = value  # isinstance makes `value` a dict of unknown types; this stays Any
    return given if isinstance(value, dict) else {}


def _score(value: Any) -> float:
    if isinstance(value, bool):
        return 1.0 if value else -1.0
    return value if isinstance(value, float) and -1 <= value <= 1 else 0.0
