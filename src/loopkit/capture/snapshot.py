"""Values as JSON text, at the moment of the call: what the application changes later must not show.

Never raises and never calls a foreign `__repr__`, which could hang or leak: what has no JSON form is written as
its type's name.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import json
from collections.abc import Mapping
from typing import Any

from loopkit._json import compact_encoder
from loopkit.wire.media import may_hold_media

LIMIT = 1_000_000
"""Characters of JSON kept for one input or output, media aside; beyond it the text is cut and marked."""
_MOST = 32_000_000
"""Characters with their media, which are taken out by the worker."""

TRUNCATED = "loopkit_truncated"
CUT_WHOLE = '{"' + TRUNCATED
"""How a text begins that could not keep its shape."""
_DEPTH = 6
_LONGEST_INT = 4096
"""Bits. CPython refuses to write integers of more than 4,300 digits."""
_AS_TEXT = frozenset(
    (
        ("datetime", "date"),
        ("datetime", "time"),
        ("datetime", "timedelta"),
        ("decimal", "Decimal"),
        ("uuid", "UUID"),
        ("pathlib", "PurePath"),
        ("builtins", "complex"),
    )
)
"""Whose own text says all. By name: importing all of these would take longer than the rest of `init()`."""


def snapshot(value: Any, *, with_bytes: bool = False) -> str:
    """The JSON text of `value`. What is over the limit keeps its shape, with its long texts cut and marked.

    Not where it has media: they are the worker's to take out, and to cut what is left. Bytes are only counted, unless
    asked for: then they are base64.
    """
    encode = _encode_bytes if with_bytes else _encode
    try:
        text = encode(value)
    except Exception:  # noqa: BLE001  # circular, odd keys, too deep, changed meanwhile; a model_dump may raise anything
        text = _without_what_fails(value)
    return text if fits(text) else bounded(text)


def fits(text: str) -> bool:
    """Whether a JSON text need not be cut, or not yet."""
    size = len(text)
    return size <= LIMIT or (size <= _MOST and may_hold_media(text))


def bounded(text: str) -> str:
    """The JSON text within the limit."""
    size = len(text)
    if size > LIMIT:
        text = _encode(cut(json.loads(text)))
    if len(text) > LIMIT:
        return _encode({TRUNCATED: size, "start": _fitting(json.loads(text), [LIMIT // 4])})
    return text


def _without_what_fails(value: Any) -> str:
    try:
        return _encode(_without_cycles(value, depth=_DEPTH))
    except Exception:  # noqa: BLE001  # a foreign container's own methods may raise anything
        return _encode(f"<{type(value).__module__}.{type(value).__qualname__}>")


def plain_copy(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as JSON values of their own, so that later changes don't show."""
    copied: dict[str, Any] = json.loads(bounded(snapshot(dict(metadata))))
    return copied


def cut(value: Any) -> Any:
    """A JSON value whose long texts are cut, and marked."""
    longest = LIMIT // 20
    if isinstance(value, str) and len(value) > longest:
        return f"{value[:longest]}… [{TRUNCATED}: {len(value)} characters]"
    inside: Any = value  # isinstance makes `value` a dict of unknown types; this stays Any
    if isinstance(value, dict):
        return {key: cut(item) for key, item in inside.items()}
    if isinstance(value, list):
        return [cut(item) for item in inside]
    return value


def _fitting(value: Any, room: list[int]) -> Any:
    """The beginning of a JSON value, as long as there is room: a value still, in which secrets can be found."""
    inside: Any = value
    if isinstance(value, dict):
        return {key: _fitting(item, room) for key, item in inside.items() if _takes(room, len(key))}
    if isinstance(value, list):
        return [_fitting(item, room) for item in inside if _takes(room, 1)]
    if isinstance(value, str) and not _takes(room, len(value)):
        return "…"
    return inside


def _takes(room: list[int], size: int) -> bool:
    has_room = room[0] > 0
    room[0] -= size + 4
    return has_room


def plain(value: Any) -> Any:
    """A JSON value for what `json` doesn't know."""
    given: Any = value  # isinstance makes `value` a container of unknown types; this stays Any
    if isinstance(value, enum.Enum):
        return value.value
    if _says_all(given):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return list(given)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"bytes": len(given)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value) if field.repr}
    return _foreign(given)


def _says_all(value: Any) -> bool:
    return any((base.__module__.partition(".")[0], base.__name__) in _AS_TEXT for base in value.__class__.__mro__)


def _foreign(value: object) -> Any:
    dump = getattr(type(value), "model_dump", None)
    if callable(dump):
        return dump(value, mode="json", warnings=False)
    return f"<{type(value).__module__}.{type(value).__qualname__}>"


def _key(key: Any) -> str:
    given: Any = key  # isinstance makes `key` a tuple of unknown types; this stays Any
    parts: list[Any] = list(given) if isinstance(key, tuple) else [given]
    is_plain = all(part is None or isinstance(part, (str, int, float)) or _says_all(part) for part in parts)
    return str(given) if is_plain else f"<{type(given).__qualname__}>"


def _with_bytes(value: Any) -> Any:
    """`plain`, but for bytes."""
    given: Any = value  # isinstance makes `value` a view of unknown types; this stays Any
    if isinstance(value, (bytes, bytearray, memoryview)) and len(given) <= _MOST // 2:
        return base64.b64encode(given).decode()
    return plain(given)


_encode = compact_encoder(plain)
_encode_bytes = compact_encoder(_with_bytes)


def _without_cycles(value: Any, depth: int) -> Any:
    given: Any = value
    if isinstance(value, int) and value.bit_length() > _LONGEST_INT:
        return f"<an integer of {value.bit_length()} bits>"
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if depth == 0:
        return "…"
    if isinstance(value, dict):
        return {_key(key): _without_cycles(item, depth - 1) for key, item in list(given.items())}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_without_cycles(item, depth - 1) for item in list(given)]
    try:
        return _without_cycles(plain(value), depth - 1)
    except Exception:  # noqa: BLE001  # a foreign model_dump may raise anything
        return f"<{type(value).__module__}.{type(value).__qualname__}>"
