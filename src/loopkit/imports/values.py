"""What exports have in common, in our shapes: ids, times, numbers, messages."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from loopkit.capture.ambient import tags_of
from loopkit.capture.dialects._content import mapping, sequence
from loopkit.capture.dialects.neutral import told_messages
from loopkit.types import Message, SpanError
from loopkit.wire.messages import decode_message, dumps

_TRACE = re.compile(r"[0-9a-f]{32}")
_SPAN = re.compile(r"[0-9a-f]{16}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LAST_YEAR = 2262
"""Whose nanoseconds still fit into 64 bits with a sign."""
_ERROR = re.compile(r"([A-Za-z_][\w.]*)\(")


def hashed(source: str, id: Any) -> str:
    """32 hex digits that are always the same for the same thing."""
    return hashlib.sha256(f"{source}:{id}".encode("utf-8", "replace")).hexdigest()[:32]


def trace_of(source: str, id: Any) -> str:
    """A trace id: the same where it is OpenTelemetry's, a UUID without its dashes, else a hash."""
    text = str(id).lower()
    if _TRACE.fullmatch(text):
        return text
    return text.replace("-", "") if _UUID.fullmatch(text) else hashed(source, id)


def span_of(source: str, id: Any) -> str:
    """A span id: the same where it is OpenTelemetry's, else a hash, since half a UUID may be another's half too."""
    text = str(id).lower()
    return text if _SPAN.fullmatch(text) else hashed(source, id)[:16]


def nanoseconds(value: Any, *, local: bool = False) -> int | None:
    """A time since the epoch: of ISO text (without a zone it is UTC, or this machine's), a datetime, or a number.

    Numbers are seconds, milliseconds, microseconds or nanoseconds, by their size.
    """
    if isinstance(value, bool) or value is None or value == "":
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(_readable(value))
        except ValueError:
            value = number(value)
    if isinstance(value, datetime):
        if not 1970 <= value.year < _LAST_YEAR:
            return None
        aware = value if value.tzinfo else (value.astimezone() if local else value.replace(tzinfo=timezone.utc))
        return max(round(aware.timestamp() * 1_000_000) * 1000, 0)
    if not isinstance(value, (int, float)) or not 0 <= value < 2**63:
        return None
    scale = next((10**power for power, least in ((0, 1e17), (3, 1e14), (6, 1e11)) if value >= least), 10**9)
    found = round(value * scale) if isinstance(value, int) else round(value * scale / 1000) * 1000
    return found if found < 2**63 else None


def _readable(text: str) -> str:
    """ISO times as Python 3.10 reads them: an offset for the Z, three or six digits of a second."""
    text = text.strip().replace("Z", "+00:00").replace("z", "+00:00")
    return re.sub(r"\.(\d+)", lambda match: "." + match[1][:6].ljust(6, "0"), text)


def number(value: Any) -> float | None:
    """A number, also where it is written as text."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def whole(value: Any) -> int | None:
    """A count."""
    found = number(value)
    return None if found is None or found < 0 else int(found)


def parsed(value: Any) -> Any:
    """What a text says where it is JSON of an object, a list or a text; else the value as it is."""
    if not isinstance(value, str) or value[:1] not in ("{", "[", '"'):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def text(value: Any) -> str | None:
    """A name or an id as text; None where there is none."""
    return None if value is None or value == "" else str(value)


def texts(value: Any) -> tuple[str, ...]:
    """A list of strings, also where it is JSON."""
    return tuple(str(item) for item in sequence(parsed(value)) if item is not None and item != "")


def messages(value: Any, role: str) -> tuple[Message, ...]:
    """Messages of a text, of one message, of a list of them, or of an object that has them; else its JSON as a text."""
    given = parsed(value)
    if given is None or given in ("", [], {}):
        return ()
    inside = mapping(given)
    if inside and not {"role", "content", "parts"} & inside.keys():
        given = inside.get("messages") or dumps(inside)
    if isinstance(given, (int, float)):
        given = str(given)
    try:
        return tuple(decode_message(item) for item in told_messages(given, role))
    except TypeError:
        return tuple(decode_message(item) for item in told_messages(dumps(given), role))


def error_of(text: Any) -> SpanError | None:
    """An error by what was written of it: its class where that stands first, as in a traceback's last line."""
    if not text:
        return None
    said = str(text)
    match = _ERROR.match(said)
    return SpanError(type=match[1] if match else "_OTHER", message=said[:10_000])


def tags(given: Any, metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Tags, and those that simple metadata make."""
    simple = {name: value for name, value in metadata.items() if value is None or isinstance(value, (str, int, float))}
    return tuple(dict.fromkeys((*texts(given), *tags_of(simple))))


def snake(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with its names in snake case: an API's are in camel case, the same product's files are not."""
    return {re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower(): value for name, value in row.items()}
