"""Chunks of streams as plain data: what they say is found by its place, and can be changed there."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from loopkit.capture.dialects._content import (
    NOT_SAID,
    Listener,
    Said,
    Whose,
    changed,
    changed_arguments,
    for_tool,
    heard,
    mapping,
    objects,
    sequence,
)
from loopkit.capture.dialects._endpoint import as_dict
from loopkit.capture.dialects._protocol import Piece


class Place(NamedTuple):
    """Where a chunk says something."""

    holder: Any
    """What can be written into; None where a tool is announced that nothing is said to yet."""
    key: Any
    channel: tuple[Any, ...] | None
    """See `Piece`; None for what comes as a whole, whatever its shape."""
    of: Whose = "words"
    tool: str | None = None


class PlainStream:
    """See `Streaming`. One has `places`."""

    says_twice = False

    def places(self, plain: Any) -> Iterator[Place]:
        """Where it says something, in order."""
        raise NotImplementedError

    def opened(self, chunk: Any) -> Any:
        """The chunk as plain data, a copy."""
        return copy.deepcopy(chunk) if chunk.__class__ is dict else as_dict(chunk)

    def closed(self, chunk: Any, plain: Any) -> Any:
        """A chunk like this one that says what the data say."""
        return plain if chunk.__class__ is dict else chunk.__class__.model_validate(plain)

    def ended(self, chunk: Any) -> list[Any]:
        """See `Streaming.ended`."""
        return []

    def _speaking(self, plain: Any) -> Iterator[Place]:
        """Those that aren't empty; a tool that is announced is to be known."""
        return (each for each in self.places(plain) if each.of == "tool_call" or each.holder[each.key])

    def pieces(self, chunk: Any) -> list[Piece]:
        """See `Streaming.pieces`."""
        found: list[Piece] = []
        for place in self._speaking(self.opened(chunk)):
            if place.channel is None:
                whole = heard(partial(_changed, place))
                found += [Piece((), each.text, each.of, each.tool, is_whole=True) for each in whole]
            else:
                text = "" if place.holder is None else place.holder[place.key]
                found.append(Piece(place.channel, text, place.of, place.tool))
        return found

    def with_pieces(self, chunk: Any, texts: Sequence[str]) -> Any:
        """See `Streaming.with_pieces`."""
        plain, left = self.opened(chunk), iter(texts)

        def put(_: Said) -> str:
            return next(left)

        for place in self._speaking(plain):
            if place.channel is None:
                place.holder[place.key] = _changed(place, Listener(put))
            elif place.holder is None:
                next(left)
            else:
                place.holder[place.key] = next(left)
        return self.closed(chunk, plain)


def _changed(place: Place, change: Callable[[str], str]) -> Any:
    value = place.holder[place.key]
    if place.of == "tool_call":
        return changed_arguments(value, for_tool(change, place.of, place.tool))
    return changed(value, change)


_STREAMED = {"content", "reasoning_content", "reasoning", "refusal", "tool_calls"}


def in_choices(choices: Any) -> Iterator[Place]:
    """In those of a chunk of OpenAI's shape. What is known of single tokens is taken away."""
    for choice in objects(choices):
        index, delta = choice.get("index") or 0, mapping(choice.get("delta"))
        if isinstance(choice, dict):
            choice.pop("logprobs", None)
        for name in ("content", "reasoning_content", "reasoning", "refusal"):
            said = delta.get(name)
            if isinstance(said, str):
                yield Place(delta, name, (index, name))
            for item in objects(said):
                yield from _in_part(index, item)
        for name in delta.keys() - _STREAMED - NOT_SAID:
            if delta[name] is not None:
                yield Place(delta, name, None)
        for number, call in enumerate(objects(delta.get("tool_calls"))):
            function = mapping(call.get("function"))
            arguments, tool = function.get("arguments"), function.get("name") or None
            if isinstance(arguments, str):
                yield Place(function, "arguments", (index, "call", call.get("index", number)), "tool_call", tool)
            elif arguments is not None:
                yield Place(function, "arguments", None, "tool_call", tool)


def _in_part(index: int, part: Mapping[str, Any]) -> Iterator[Place]:
    """Of a content that is a list: texts, and thoughts, which are lists of texts again."""
    if isinstance(part.get("text"), str):
        yield Place(part, "text", (index, "content"))
        return
    for thought in sequence(part.get("thinking")):
        if isinstance(mapping(thought).get("text"), str):
            yield Place(thought, "text", (index, "thinking"))


def finished(choices: Any) -> list[Any]:
    """Which of them are over."""
    return [choice.get("index") or 0 for choice in objects(choices) if choice.get("finish_reason")]
