"""What a statement is about, as one string that can be passed around and resolved anywhere, tomorrow."""

from __future__ import annotations

from typing import Any

from loopkit._ids import is_span_id
from loopkit.capture import slot
from loopkit.capture.dialects._content import mapping
from loopkit.capture.live import UNRECORDED, Handle
from loopkit.config import Level
from loopkit.errors import InvalidInput
from loopkit.types import split_target


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


def part_of(target: str, document: str | int | None, range: tuple[int, int] | None) -> str:
    """The target with the part of it that is meant: a document by its id or position, a range of the output."""
    if document is None and range is None:
        return target
    whole, part = split_target(target)
    if part is not None or (document is not None and range is not None):
        raise InvalidInput(f"{target!r} with document={document!r} and range={range!r} are two parts: give one")
    if document is not None:
        is_position = isinstance(document, int) and not isinstance(document, bool) and document >= 0
        if not is_position and not (isinstance(document, str) and document):
            raise InvalidInput(f"document is {document!r}: give its id, or its position, the first being 0")
        return f"{whole}#{'position' if is_position else 'document'}={document}"
    if not _is_range(range):
        raise InvalidInput(f"range is {range!r}: give (start, end) in characters of the output, the end not included")
    start, end = range or (0, 0)
    return f"{whole}#range={start}-{end}"


def _is_range(given: Any) -> bool:
    pair: list[Any] = list(given) if isinstance(given, (tuple, list)) else []  # pyright: ignore[reportUnknownArgumentType]
    return len(pair) == 2 and all(type(each) is int for each in pair) and 0 <= pair[0] < pair[1]


def level_of(target: str) -> Level | None:
    """What kind of thing a target is; None for a join key or a response's id, which may stand for any."""
    whole, part = split_target(target)
    if part is not None:
        return "range" if part.startswith("range=") else "document"
    if whole.startswith("trace:"):
        return "trace"
    if whole.startswith("session:"):
        return "session"
    return "span" if is_span_id(whole) else None


def _response_id(response: Any) -> str | None:
    """Where providers put it: OpenAI and most, Google, AWS."""
    found: Any = getattr(response, "id", None) or getattr(response, "response_id", None)
    if isinstance(response, dict):
        whole = mapping(response)
        found = whole.get("id") or mapping(whole.get("ResponseMetadata")).get("RequestId")
    return found if isinstance(found, str) and found else None
