"""An event of a stream that came as JSON, to be read as the SDKs' own objects are: by attribute, None where absent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any


class Loose:
    """Fields by name."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.__dict__.update({name: loose(value) for name, value in fields.items()})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return None

    def model_dump(self, **_: Any) -> dict[str, Any]:
        """The fields as plain data again."""
        return {name: plain(value) for name, value in self.__dict__.items()}


def loose(value: Any) -> Any:
    """A JSON value, with its objects readable by attribute."""
    whole: Any = value  # isinstance makes `value` a dict of unknown types; this stays Any
    if isinstance(value, Mapping):
        return Loose(whole)
    return [loose(item) for item in whole] if isinstance(value, list) else whole


def plain(value: Any) -> Any:
    """The inverse of `loose`."""
    whole: Any = value
    if isinstance(value, Loose):
        return value.model_dump()
    return [plain(item) for item in whole] if isinstance(value, list) else whole


def server_sent(text: str) -> Iterator[Any]:
    """The JSON objects of a server-sent stream, or of one with an object a line; others are passed over.

    Each has the event's name as `type` where it says none itself.
    """
    event = ""
    for line in text.splitlines():
        if line.startswith("event:"):
            event = line[6:].strip()
            continue
        try:
            value = json.loads(line[5:] if line.startswith("data:") else line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield loose({"type": event, **value} if event else value)
        event = ""
