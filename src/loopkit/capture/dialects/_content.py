"""What the dialects share: parts of messages that are JSON text, of a provider's own type, or to be rewritten."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from loopkit.types import Part


def json_or_text(text: Any) -> Any:
    """A tool call's arguments are JSON text, which a model may have left unfinished."""
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def other_part(piece: Mapping[str, Any]) -> Part:
    """A piece of a type that we have no field for, kept as it is."""
    return Part(type=str(piece.get("type")), content={key: value for key, value in piece.items() if key != "type"})


def changed(content: Any, change: Callable[[str], str]) -> Any:
    """Content, a text or a list of parts, with its texts changed."""
    if isinstance(content, str):
        return change(content)
    if not isinstance(content, (list, tuple)):
        return content
    return [
        {**piece, "text": change(piece["text"])}
        if isinstance(piece, Mapping) and piece.get("type") == "text"
        else piece
        for piece in content
    ]
