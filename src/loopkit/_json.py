"""Nouns as JSON and back, by pydantic: for what is kept as documents (feedback, examples, variants)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from json import encoder
from typing import Any, TypeVar

Noun = TypeVar("Noun")

_adapters: dict[type[Any], Any] = {}
"""Validators by class: making one costs milliseconds."""


def to_dict(noun: Any) -> dict[str, Any]:
    """A noun as plain JSON values; fields that have their default are left out, so that hashes outlive new ones."""
    return {
        field.name: _plain(value)
        for field in dataclasses.fields(noun)
        if (value := getattr(noun, field.name)) != _default(field)
    }


def to_json(noun: Any) -> str:
    """The same as compact text with sorted keys: equal nouns give equal texts."""
    return canonical(to_dict(noun))


def compact_encoder(default: Callable[[Any], Any]) -> Callable[[Any], str]:
    """`json.dumps` with compact separators and characters as they are, without making an encoder for every call.

    A circle ends in ValueError.
    """
    plain = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=default)
    quote = encoder.encode_basestring
    make: Any = getattr(encoder, "c_make_encoder", None)  # absent without CPython's accelerator
    if make is None:
        return plain.encode

    def encode(value: Any) -> str:
        if isinstance(value, str):
            return quote(value)
        return "".join(make({}, default, quote, None, ":", ",", False, False, True)(value, 0))

    return encode


def canonical(value: Any) -> str:
    """JSON text with sorted keys, fit for UTF-8: a lone surrogate becomes a question mark."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True, default=str)
    return utf8(text)


def as_text(value: Any) -> str:
    """A text as it is, everything else as JSON."""
    return value if isinstance(value, str) else canonical(value)


def utf8(text: str) -> str:
    """The text with what UTF-8 can't say replaced."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def from_dict(cls: type[Noun], data: Any) -> Noun:
    """The noun, validated. Raises pydantic's ValidationError for what doesn't fit."""
    noun: Noun = _adapter(cls).validate_python(data)
    return noun


def from_json(cls: type[Noun], text: str | bytes) -> Noun:
    """The noun in a JSON text, validated."""
    noun: Noun = _adapter(cls).validate_json(text)
    return noun


def _adapter(cls: type[Any]) -> Any:
    from pydantic import TypeAdapter

    if cls not in _adapters:
        _adapters[cls] = TypeAdapter(cls)
    return _adapters[cls]


def _plain(value: Any) -> Any:
    given: Any = value  # isinstance makes `value` a container of unknown types; this stays Any
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in given]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in given.items()}
    return value


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
