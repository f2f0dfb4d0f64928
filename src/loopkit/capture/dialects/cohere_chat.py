"""Cohere's second API: chat, embed, rerank.

Shapes: https://docs.cohere.com/reference/chat
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

from loopkit.capture.dialects._content import (
    change_within,
    changed,
    mapping,
    objects,
    sequence,
)
from loopkit.capture.dialects._endpoint import Endpoint, as_dict
from loopkit.capture.dialects._protocol import Fold
from loopkit.capture.dialects._streams import Place, PlainStream
from loopkit.capture.dialects.openai_chat import Chat, message_of
from loopkit.types import Kind, Message, ModelCall, Part, Usage

Request = Mapping[str, Any]

_PARAMETERS = {"k": "top_k", "p": "top_p"}
_NOT_PARAMETERS = frozenset(("model", "messages", "tools", "stream", "documents", "texts", "images", "inputs", "query"))
_FINISH = {
    "COMPLETE": "stop", "STOP_SEQUENCE": "stop", "MAX_TOKENS": "length", "TOOL_CALL": "tool_call", "ERROR": "error",
    "TIMEOUT": "error",
}  # fmt: skip


class CohereChat(PlainStream, Chat):
    """Chat."""

    name = "cohere.chat"
    operation = "chat"
    kind: Kind = "llm"
    id_field = "id"
    words: Mapping[str, Any] = {"messages": True, "tools": True, "documents": True, "message": True, "logprobs": True}

    def facts(self, provider: str, request: Request, response: Mapping[str, Any]) -> ModelCall:
        """See `Dialect.facts`."""
        reason = _finish(response)
        return ModelCall(
            provider=provider,
            operation=self.operation,
            model=request.get("model"),
            response_id=response.get("id") or None,
            parameters=_parameters(request),
            usage=_usage(mapping(response.get("usage"))),
            finish_reasons=(reason,) if reason else (),
            stream=bool(request.get("stream")),
            output_type=_output_type(mapping(request.get("response_format"))),
        )

    def asked(self, request: Request) -> tuple[Message, ...]:
        """See `Dialect.asked`."""
        documents = [_document(each) for each in sequence(request.get("documents"))]
        told = (Message(role="system", parts=tuple(documents)),) if documents else ()
        return told + tuple(_message(item) for item in objects(request.get("messages")))

    def answered(self, response: Mapping[str, Any]) -> tuple[Message, ...]:
        """See `Dialect.answered`."""
        message = mapping(response.get("message"))
        return (replace(_message(message), finish_reason=_finish(response)),) if message else ()

    def fold(self) -> Fold:
        """See `Dialect.fold`."""
        return CohereFold()

    def with_input(self, request: Request, change: Callable[[str], str]) -> dict[str, Any]:
        """See `Dialect.with_input`: documents too, which the model reads anew each time."""
        documents = {"documents": changed(request["documents"], change)} if "documents" in request else {}
        return {**super().with_input(request, change), **documents}

    def text(self, response: Any) -> str:
        """See `Conversation.text`."""
        return "".join(message.text for message in self.answered(as_dict(response)))

    def _changed(self, response: Any, change: Callable[[str], str]) -> Any:
        if getattr(response, "message", None) is not None:
            change_within(response.message, change)
        return response

    def places(self, plain: Any) -> Iterator[Place]:
        """See `PlainStream.places`."""
        index, message = plain.get("index") or 0, mapping(mapping(plain.get("delta")).get("message"))
        content = mapping(message.get("content"))
        for name in ("text", "thinking"):
            if isinstance(content.get(name), str):
                yield Place(content, name, (f"content {index}", name))
        if isinstance(message.get("tool_plan"), str):
            yield Place(message, "tool_plan", ("plan",))
        if message.get("citations"):
            yield Place(message, "citations", None)
        function = mapping(mapping(message.get("tool_calls")).get("function"))
        if isinstance(function.get("arguments"), str):
            yield Place(function, "arguments", (f"call {index}",), "tool_call", function.get("name"))

    def ended(self, chunk: Any) -> list[Any]:
        """See `Streaming.ended`."""
        ends = {"content-end": "content", "tool-call-end": "call"}
        event = as_dict(chunk)
        kind = ends.get(str(event.get("type")))
        return [] if kind is None else [f"{kind} {event.get('index') or 0}"]

    def send(self, client: Any, arguments: Mapping[str, Any]) -> Any:
        """See `Conversation.send`."""
        return client.chat(**arguments)


class CohereFold:
    """Events of a chat's stream; usage comes with the last one."""

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, str]] = {}
        self._plan: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._end: dict[str, Any] = {}

    def feed(self, chunk: Any) -> None:
        """See `Fold.feed`."""
        event = as_dict(chunk)
        kind, index = event.get("type"), event.get("index") or 0
        delta = mapping(event.get("delta"))
        message = mapping(delta.get("message"))
        if kind == "message-start":
            self._head = {"id": event.get("id")}
        elif kind in ("content-start", "content-delta"):
            block = self._blocks.setdefault(index, {"type": "text"})
            for name, piece in mapping(message.get("content")).items():
                block[name] = piece if name == "type" else block.get(name, "") + str(piece or "")
        elif kind == "tool-plan-delta":
            self._plan.append(str(message.get("tool_plan") or ""))
        elif kind in ("tool-call-start", "tool-call-delta"):
            self._call(index, mapping(message.get("tool_calls")))
        elif kind == "message-end":
            self._end = dict(delta)

    def result(self) -> dict[str, Any]:
        """See `Fold.result`."""
        message: dict[str, Any] = {"role": "assistant", "content": [b for _, b in sorted(self._blocks.items())]}
        if self._plan:
            message["tool_plan"] = "".join(self._plan)
        if self._calls:
            message["tool_calls"] = [call for _, call in sorted(self._calls.items())]
        return {**self._head, "message": message, **self._end}

    def _call(self, index: int, piece: Mapping[str, Any]) -> None:
        call = self._calls.setdefault(index, {"type": "function", "function": {"name": "", "arguments": ""}})
        if piece.get("id"):
            call["id"] = piece["id"]
        for name, text in mapping(piece.get("function")).items():
            call["function"][name] = call["function"].get(name, "") + str(text or "")


class CohereEmbed(Endpoint):
    """Embeddings. The vectors are not kept."""

    name = "cohere.embed"
    operation = "embeddings"
    kind: Kind = "embedding"
    asks = ("texts", "inputs")
    words: Mapping[str, Any] = {"texts": True, "images": True, "inputs": True}

    def facts(self, provider: str, request: Request, response: Mapping[str, Any]) -> ModelCall:
        """See `Dialect.facts`."""
        call = super().facts(provider, request, response)
        formats = call.parameters.get("embedding_types")
        rest = {name: value for name, value in call.parameters.items() if name not in ("embedding_types", "images")}
        return replace(
            call,
            usage=_billed(response),
            dimensions=response.get("dimensions"),
            parameters={**rest, "encoding_formats": list(formats)} if formats else rest,
        )

    def asked(self, request: Request) -> tuple[Message, ...]:
        """See `Dialect.asked`."""
        pictures = tuple(Part(type="uri", uri=url, mime_type="image/*") for url in sequence(request.get("images")))
        said = [part for message in super().asked(request) for part in message.parts]
        return (Message(role="user", parts=(*said, *pictures)),) if said or pictures else ()

    def kept(self, response: Any) -> Any:
        """See `Dialect.kept`."""
        plain = as_dict(response)
        kinds = mapping(plain.pop("embeddings", None))
        vectors = next((sequence(value) for value in kinds.values() if sequence(value)), ())
        plain.pop("texts", None)
        return {**plain, "count": len(vectors), "dimensions": len(sequence(vectors[0])) if vectors else None}


class CohereRerank(Endpoint):
    """Documents in order of how well they answer a query."""

    name = "cohere.rerank"
    operation = "rerank"
    asks = ("query", "documents")
    words: Mapping[str, Any] = {"query": True, "documents": True}

    def facts(self, provider: str, request: Request, response: Mapping[str, Any]) -> ModelCall:
        """See `Dialect.facts`."""
        return replace(super().facts(provider, request, response), usage=_billed(response))

    def answered(self, response: Mapping[str, Any]) -> tuple[Message, ...]:
        """See `Dialect.answered`."""
        parts = tuple(Part(type="ranking", content=dict(each)) for each in objects(response.get("results")))
        return (Message(role="assistant", parts=parts),) if parts else ()


def _message(item: Mapping[str, Any]) -> Message:
    """As OpenAI's, but that thoughts stand among the pieces, and a plan beside them."""
    pieces = objects(item.get("content"))
    thoughts = "".join(str(piece.get("thinking") or "") for piece in pieces if piece.get("type") == "thinking")
    thoughts = thoughts or str(item.get("tool_plan") or "")
    rest = [piece for piece in pieces if piece.get("type") != "thinking"]
    content = rest if pieces else item.get("content")
    if item.get("role") == "tool":
        content = item.get("content")
    return message_of({**item, "reasoning_content": thoughts, "content": content})


def _document(given: Any) -> Part:
    fields = mapping(given)
    content = fields.get("data", given)
    text = content if isinstance(content, str) else mapping(content).get("text")
    return Part(type="text", content=text) if isinstance(text, str) else Part(type="document", content=content)


def _parameters(request: Request) -> dict[str, Any]:
    return {_PARAMETERS.get(k, k): v for k, v in request.items() if v is not None and k not in _NOT_PARAMETERS}


def _output_type(format: Mapping[str, Any]) -> Literal["json"] | None:
    return "json" if format.get("type") == "json_object" else None


def _finish(response: Mapping[str, Any]) -> str | None:
    reason = response.get("finish_reason")
    return _FINISH.get(reason, reason.lower()) if isinstance(reason, str) else None


def _usage(usage: Mapping[str, Any]) -> Usage:
    """What went through the model; what is billed is less, since Cohere's own additions aren't."""
    tokens = mapping(usage.get("tokens"))
    return Usage(
        input_tokens=_whole(tokens.get("input_tokens")),
        output_tokens=_whole(tokens.get("output_tokens")),
        cache_read_tokens=_whole(usage.get("cached_tokens")),
    )


def _billed(response: Mapping[str, Any]) -> Usage:
    billed = mapping(mapping(response.get("meta")).get("billed_units"))
    return Usage(input_tokens=_whole(billed.get("input_tokens")), image_input_tokens=_whole(billed.get("image_tokens")))


def _whole(count: Any) -> int | None:
    """Cohere counts in floats."""
    return int(count) if isinstance(count, (int, float)) and not isinstance(count, bool) else None
