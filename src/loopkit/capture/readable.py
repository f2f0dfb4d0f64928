"""A request that interceptors can read whole, whatever kind of sequence its parts came in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_PLAIN = (str, bytes, bytearray, int, float, type(None))


class CallersError(Exception):
    """Carries what an iterable of the caller's raised: it is the caller's to see."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


def listed(value: Iterable[Any]) -> list[Any]:
    """What it gives, read once. Raises `CallersError`."""
    try:
        return list(value)
    except Exception as error:
        raise CallersError(error) from error


def once(value: Any) -> Any:
    """What can be gone through once as the list that is sent in its place; everything else as it is."""
    given: Any = value  # isinstance makes `value` an iterator of an unknown type; this stays Any
    return listed(given) if isinstance(value, Iterator) else given


def readable(value: Any) -> Any:
    """The value with every sequence, set, view and generator in it as a list, and every model as plain data.

    The very same object where nothing had to be changed: what was changed is to be sent in its place.
    """
    given: Any = value  # isinstance makes `value` a container of unknown types; this stays Any
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Mapping):
        fields = {name: readable(item) for name, item in given.items()}
        is_same = isinstance(value, dict) and all(fields[name] is item for name, item in given.items())
        return given if is_same else fields
    if hasattr(value.__class__, "model_dump"):
        return given.model_dump(mode="json", by_alias=True, exclude_none=True)
    if isinstance(value, memoryview):
        return bytes(given)
    if not isinstance(value, Iterable) or hasattr(given, "read"):
        return given
    items = given if isinstance(value, (list, tuple)) else listed(given)
    read = [readable(item) for item in items]
    return given if items is given and all(new is old for new, old in zip(read, items, strict=True)) else read
