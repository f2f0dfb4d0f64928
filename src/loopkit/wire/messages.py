"""Messages as the GenAI conventions' JSON, both ways.

`finish_reason` is kept in every output message although the newest conventions deprecate it there: Phoenix drops
the whole list of a sender that leaves it out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from loopkit._json import compact_encoder
from loopkit.types import Message, Part

dumps = compact_encoder(str)
"""Compact JSON text, with what JSON can't say as its string."""


def encode_messages(messages: Iterable[Message], *, output: bool) -> str:
    """The JSON text for `gen_ai.input.messages` or `gen_ai.output.messages`."""
    return dumps([encode_message(message, output=output) for message in messages])


def decode_messages(text: str) -> tuple[Message, ...]:
    """The messages in such a JSON text."""
    return tuple(decode_message(item) for item in json.loads(text))


def encode_message(message: Message, *, output: bool) -> dict[str, Any]:
    """One message as JSON values; one that a model has said with its finish reason."""
    encoded: dict[str, Any] = {"role": message.role, "parts": [_encode_part(p) for p in message.parts]}
    if message.name is not None:
        encoded["name"] = message.name
    if output:
        encoded["finish_reason"] = message.finish_reason or ""
    return encoded


def _encode_part(part: Part) -> dict[str, Any]:
    encoded: dict[str, Any] = {"type": part.type}
    if part.content is not None:
        encoded["response" if part.type == "tool_call_response" else "content"] = part.content
    for name in ("id", "name", "arguments", "uri", "mime_type"):
        value = getattr(part, name)
        if value is not None:
            encoded[name] = value
    return encoded


def decode_message(item: Mapping[str, Any]) -> Message:
    """The message in such values."""
    return Message(
        role=item["role"] if isinstance(item.get("role"), str) else "user",
        parts=tuple(_decode_part(part) for part in map(_object, item.get("parts") or ()) if part),
        name=item.get("name"),
        finish_reason=item.get("finish_reason") or None,
    )


def _object(value: Any) -> Mapping[str, Any]:
    whole: Any = value  # isinstance makes it a dict of unknown types; this stays Any
    return whole if isinstance(value, dict) else {}


def _decode_part(item: Mapping[str, Any]) -> Part:
    kind = str(item.get("type"))
    return Part(
        type=kind,
        content=item.get("response", item.get("result")) if kind == "tool_call_response" else item.get("content"),
        id=item.get("id"),
        name=item.get("name"),
        arguments=item.get("arguments"),
        uri=item.get("uri"),
        mime_type=item.get("mime_type"),
    )
