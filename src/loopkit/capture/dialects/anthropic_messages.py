"""Anthropic's messages.

Shapes: https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from loopkit.capture.dialects._content import (
    as_tool_turn,
    change_within,
    changed,
    changed_arguments,
    for_tool,
    json_or_text,
    mapping,
    objects,
    other_part,
    sequence,
    since_the_model_spoke,
    some,
    total,
)
from loopkit.capture.dialects._protocol import Piece, whole_pieces
from loopkit.types import Kind, Message, ModelCall, Part, Usage, Variant

Request = Mapping[str, Any]

_NOT_PARAMETERS = frozenset(("messages", "system", "model", "tools", "stream"))
_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_call",
    "refusal": "content_filter",
}
_DEFAULT_MAX_TOKENS = 1024


class Messages:
    """Messages."""

    name = "anthropic.messages"
    operation = "chat"
    kind: Kind = "llm"
    id_field = "id"
    words: Mapping[str, Any] = {"messages": True, "system": True, "tools": True, "content": True}

    def facts(self, provider: str, request: Request, response: Mapping[str, Any]) -> ModelCall:
        """See `Dialect.facts`."""
        reason = _finish(response)
        return ModelCall(
            provider=provider,
            operation=self.operation,
            model=request.get("model"),
            response_model=response.get("model"),
            response_id=response.get("id") or None,
            parameters={k: v for k, v in request.items() if v is not None and k not in _NOT_PARAMETERS},
            usage=_usage(mapping(response.get("usage"))),
            finish_reasons=(reason,) if reason else (),
            stream=bool(request.get("stream")),
        )

    def asked(self, request: Request) -> tuple[Message, ...]:
        """See `Dialect.asked`."""
        return _input(request)

    def answered(self, response: Mapping[str, Any]) -> tuple[Message, ...]:
        """See `Dialect.answered`."""
        content = tuple(_block(block) for block in objects(response.get("content")))
        return (Message(role="assistant", parts=content, finish_reason=_finish(response)),) if content else ()

    def kept(self, response: Any) -> Any:
        """See `Dialect.kept`."""
        return response

    def fold(self) -> MessagesFold:
        """See `Dialect.fold`."""
        return MessagesFold()

    def with_input(self, request: Request, change: Callable[[str], str]) -> dict[str, Any]:
        """See `Dialect.with_input`."""
        messages = list(sequence(request.get("messages")))
        for index in since_the_model_spoke(messages, change):
            messages[index] = {
                **messages[index],
                "content": changed(messages[index].get("content"), change),
            }
        return {**request, "messages": messages}

    def with_turns(self, request: Request, turns: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """See `Dialect.with_turns`."""
        more = [{"role": role, "content": text} for role, text in turns]
        return {**request, "messages": [*sequence(request.get("messages")), *more]}

    def text(self, response: Any) -> str:
        """See `Dialect.text`."""
        return "".join(block.text for block in some(response, "content") if getattr(block, "type", None) == "text")

    def hear(self, response: Any, change: Callable[[str], str]) -> None:
        """See `Dialect.hear`."""
        self._changed(response, change)

    def with_output(self, response: Any, change: Callable[[str], str]) -> Any:
        """See `Dialect.with_output`."""
        return self._changed(response.model_copy(deep=True), change)

    def _changed(self, response: Any, change: Callable[[str], str]) -> Any:
        for block in some(response, "content"):
            if getattr(block, "type", None) == "tool_use":
                called = for_tool(change, "tool_call", block.name)
                block.input = changed_arguments(block.input, called)
            else:
                change_within(block, change)
        return response

    says_twice = False

    def pieces(self, chunk: Any) -> list[Piece]:
        """See `Streaming.pieces`."""
        found = _piece(chunk)
        if found is not None:
            return [found[0]]
        return whole_pieces(partial(_visit, chunk))

    def ended(self, chunk: Any) -> list[Any]:
        """See `Streaming.ended`."""
        return [chunk.index] if chunk.type == "content_block_stop" else []

    def with_pieces(self, chunk: Any, texts: Sequence[str]) -> Any:
        """See `Streaming.with_pieces`."""
        copy, rest = chunk.model_copy(deep=True), list(texts)
        found = _piece(copy)
        if found is not None:
            _, delta, name = found
            setattr(delta, name, rest.pop(0))
        else:
            _visit(copy, lambda _: rest.pop(0))
        return copy

    def render(self, variant: Variant, messages: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """See `Dialect.render`."""
        system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
        rest = [dict(m) for m in messages if m["role"] != "system"]
        arguments: dict[str, Any] = {
            "model": variant.model,
            "messages": rest,
            "max_tokens": _DEFAULT_MAX_TOKENS,
        }
        if system:
            arguments["system"] = system
        return {**arguments, **variant.parameters}

    def send(self, client: Any, arguments: Mapping[str, Any]) -> Any:
        """See `Dialect.send`."""
        return client.messages.create(**arguments)


def _visit(event: Any, change: Callable[[str], str]) -> None:
    """Change the texts that an event says as a whole: tools' results, citations, and what may come."""
    for name in ("content_block", "delta"):
        if (thing := getattr(event, name, None)) is not None and event.type.startswith("content_block"):
            change_within(thing, change)


def _piece(chunk: Any) -> tuple[Piece, Any, str] | None:
    """What an event says, and where it says so."""
    if chunk.type == "content_block_start":
        block = chunk.content_block
        name = "thinking" if block.type == "thinking" else "text"
        if block.type in ("tool_use", "server_tool_use") and not block.input:
            return Piece((chunk.index,), "", "tool_call", block.name), block, "text"
        said = getattr(block, name, None)
        return (Piece((chunk.index,), said), block, name) if isinstance(said, str) else None
    if chunk.type == "content_block_delta":
        for name in ("text", "partial_json", "thinking"):
            if isinstance(said := getattr(chunk.delta, name, None), str):
                return (
                    Piece((chunk.index,), said, "tool_call" if name == "partial_json" else "words"),
                    chunk.delta,
                    name,
                )
    return None


class MessagesFold:
    """Events of a message's stream."""

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._pieces: dict[int, list[str]] = {}
        self._usage: dict[str, Any] = {}
        self._stop_reason: str | None = None

    def feed(self, chunk: Any) -> None:
        """See `Fold.feed`."""
        kind = chunk.type
        if kind == "content_block_delta":
            self._delta(chunk.index, chunk.delta)
        elif kind == "content_block_start":
            self._blocks[chunk.index] = chunk.content_block.model_dump(mode="json")
        elif kind == "message_start":
            self._head = {"id": chunk.message.id, "model": chunk.message.model}
            self._usage.update(chunk.message.usage.model_dump(mode="json", exclude_none=True))
        elif kind == "message_delta":
            self._stop_reason = chunk.delta.stop_reason
            self._usage.update(chunk.usage.model_dump(mode="json", exclude_none=True))

    def result(self) -> dict[str, Any]:
        """See `Fold.result`."""
        content = [self._block(index) for index in sorted(self._blocks)]
        return {**self._head, "content": content, "usage": self._usage, "stop_reason": self._stop_reason}

    def _delta(self, index: int, delta: Any) -> None:
        text = getattr(delta, "text", None) or getattr(delta, "partial_json", None) or getattr(delta, "thinking", None)
        if text:
            self._pieces.setdefault(index, []).append(text)

    def _block(self, index: int) -> dict[str, Any]:
        block = dict(self._blocks[index])
        text = "".join(self._pieces.get(index, ()))
        if not text:
            return block
        if block["type"] in ("tool_use", "server_tool_use"):
            block["input"] = json_or_text(text)
        else:
            block["thinking" if block["type"] == "thinking" else "text"] = text
        return block


def _input(request: Request) -> tuple[Message, ...]:
    messages: list[Message] = []
    if system := request.get("system"):
        messages.append(Message(role="system", parts=tuple(_blocks(system))))
    for item in objects(request.get("messages")):
        parts = tuple(_blocks(item.get("content")))
        messages.append(as_tool_turn(Message(role=item.get("role") or "user", parts=parts)))
    return tuple(messages)


def _blocks(content: Any) -> list[Part]:
    if isinstance(content, str):
        return [Part(type="text", content=content)]
    return [_block(block) for block in objects(content)]


def _block(block: Mapping[str, Any]) -> Part:
    kind = block.get("type")
    if kind == "text":
        return Part(type="text", content=block.get("text"))
    if kind == "thinking":
        return Part(type="reasoning", content=block.get("thinking"))
    if kind == "tool_use":
        return Part(type="tool_call", id=block.get("id"), name=block.get("name"), arguments=block.get("input"))
    if kind == "tool_result":
        return Part(type="tool_call_response", id=block.get("tool_use_id"), content=block.get("content"))
    source = mapping(block.get("source"))
    if kind in ("image", "document") and source.get("type") in ("base64", "url", "file"):
        mime = source.get("media_type") or ("image/*" if kind == "image" else "application/*")
        kinds = {"base64": "blob", "url": "uri", "file": "file"}
        return Part(
            type=kinds[source["type"]], content=source.get("data"), uri=source.get("url"), id=source.get("file_id"),
            name=block.get("title"), mime_type=mime,
        )  # fmt: skip
    return other_part(block)


def _usage(usage: Mapping[str, Any]) -> Usage:
    """Anthropic counts cached tokens apart; the conventions' input tokens are all of them."""
    read, written = usage.get("cache_read_input_tokens"), usage.get("cache_creation_input_tokens")
    return Usage(
        input_tokens=total(usage.get("input_tokens"), read, written),
        output_tokens=usage.get("output_tokens"),
        cache_read_tokens=read,
        cache_write_tokens=written,
    )


def _finish(response: Mapping[str, Any]) -> str | None:
    reason = response.get("stop_reason")
    return _FINISH.get(reason, reason) if isinstance(reason, str) and reason else None
