"""Ollama's own API: chat, a prompt completed, embeddings.

Shapes: https://docs.ollama.com/api
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from loopkit.capture.dialects._content import (
    change_within,
    changed,
    count,
    mapping,
    objects,
    sequence,
)
from loopkit.capture.dialects._endpoint import as_dict
from loopkit.capture.dialects._protocol import Fold
from loopkit.capture.dialects._streams import Place, PlainStream
from loopkit.capture.dialects.openai_chat import Chat, change_text, message_of
from loopkit.types import Kind, Message, ModelCall, Part, Usage

Request = Mapping[str, Any]

_PARAMETERS = {"num_predict": "max_tokens", "stop": "stop_sequences"}
_NOT_PARAMETERS = frozenset(
    ("model", "messages", "tools", "stream", "options", "prompt", "suffix", "system", "images", "input", "context")
)


class OllamaChat(PlainStream, Chat):
    """Chat."""

    name = "ollama.chat"
    operation = "chat"
    kind: Kind = "llm"
    id_field = "id"  # there is none
    words: Mapping[str, Any] = {"messages": True, "tools": True, "format": True, "message": True, "logprobs": True}

    def facts(self, provider: str, request: Request, response: Mapping[str, Any]) -> ModelCall:
        """See `Dialect.facts`."""
        options = {_PARAMETERS.get(k, k): v for k, v in mapping(request.get("options")).items() if v is not None}
        if isinstance(options.get("stop_sequences"), str):
            options["stop_sequences"] = [options["stop_sequences"]]
        rest = {k: v for k, v in request.items() if v is not None and k not in _NOT_PARAMETERS}
        reason = _reason(response)
        return ModelCall(
            provider=provider,
            operation=self.operation,
            model=request.get("model"),
            response_model=response.get("model"),
            parameters={**options, **rest},
            usage=_usage(response),
            finish_reasons=(reason,) if reason else (),
            stream=bool(request.get("stream")),
            output_type="json" if request.get("format") else None,
        )

    def asked(self, request: Request) -> tuple[Message, ...]:
        """See `Dialect.asked`."""
        return tuple(_message(item) for item in objects(request.get("messages")))

    def answered(self, response: Mapping[str, Any]) -> tuple[Message, ...]:
        """See `Dialect.answered`."""
        message = mapping(response.get("message"))
        return (_finished(_message({"role": "assistant", **message}), response),) if message else ()

    def fold(self) -> Fold:
        """See `Dialect.fold`."""
        return OllamaFold()

    def text(self, response: Any) -> str:
        """See `Conversation.text`."""
        return response.message.content or ""

    def _changed(self, response: Any, change: Callable[[str], str]) -> Any:
        if getattr(response, "message", None) is not None:
            change_within(response.message, change)
        return response

    def places(self, plain: Any) -> Iterator[Place]:
        """See `PlainStream.places`."""
        plain.pop("logprobs", None)
        message = mapping(plain.get("message"))
        for holder, name in ((message, "content"), (message, "thinking"), (plain, "response"), (plain, "thinking")):
            if isinstance(holder.get(name), str):
                yield Place(holder, name, (name,))
        for call in objects(message.get("tool_calls")):
            function = mapping(call.get("function"))
            yield Place(function, "arguments", None, "tool_call", function.get("name"))

    def ended(self, chunk: Any) -> list[Any]:
        """See `Streaming.ended`."""
        return ["content", "thinking", "response"] if as_dict(chunk).get("done") else []

    def send(self, client: Any, arguments: Mapping[str, Any]) -> Any:
        """See `Conversation.send`."""
        return client.chat(**arguments)


class OllamaFold:
    """Pieces of a chat or of a completed prompt; the last one counts the tokens."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._calls: list[Any] = []
        self._last: dict[str, Any] = {}
        self._is_chat = False

    def feed(self, chunk: Any) -> None:
        """See `Fold.feed`."""
        piece = as_dict(chunk)
        message = mapping(piece.pop("message", None))
        self._is_chat = self._is_chat or bool(message)
        for name in ("content", "thinking", "response"):
            if text := message.get(name) or piece.pop(name, None):
                self._texts.setdefault(name, []).append(str(text))
        self._calls += objects(message.get("tool_calls"))
        self._last.update(piece)

    def result(self) -> dict[str, Any]:
        """See `Fold.result`."""
        said: dict[str, Any] = {name: "".join(pieces) for name, pieces in self._texts.items()}
        if not self._is_chat:
            return {**self._last, **said}
        calls = {"tool_calls": self._calls} if self._calls else {}
        return {**self._last, "message": {"role": "assistant", "content": "", **said, **calls}}


class OllamaGenerate(OllamaChat):
    """A prompt, completed."""

    name = "ollama.generate"
    operation = "text_completion"
    words: Mapping[str, Any] = {
        "prompt": True, "suffix": True, "system": True, "images": True, "response": True, "thinking": True,
        "context": True,
    }  # fmt: skip

    def asked(self, request: Request) -> tuple[Message, ...]:
        """See `Dialect.asked`."""
        told = [_message({"role": "system", "content": request["system"]})] if request.get("system") else []
        prompt = _message({"role": "user", "content": request.get("prompt"), "images": request.get("images")})
        suffix = request.get("suffix")
        more = (Part(type="text", content=suffix),) if suffix else ()
        return (*told, replace(prompt, parts=prompt.parts + more))

    def answered(self, response: Mapping[str, Any]) -> tuple[Message, ...]:
        """See `Dialect.answered`."""
        said = {"role": "assistant", "content": response.get("response"), "thinking": response.get("thinking")}
        message = _message(said)
        if response.get("image"):
            picture = Part(type="blob", content=response["image"], mime_type="image/*")
            message = replace(message, parts=(*message.parts, picture))
        return (_finished(message, response),) if message.parts else ()

    def with_input(self, request: Request, change: Callable[[str], str]) -> dict[str, Any]:
        """See `Dialect.with_input`."""
        said = {name: change(request[name]) for name in ("prompt", "suffix") if isinstance(request.get(name), str)}
        return {**request, **said}

    def _changed(self, response: Any, change: Callable[[str], str]) -> Any:
        for name in ("response", "thinking"):
            change_text(response, name, None, change)
        return response

    def text(self, response: Any) -> str:
        """See `Conversation.text`."""
        return response.response or ""


class OllamaEmbed(OllamaChat):
    """Embeddings. The vectors are not kept."""

    name = "ollama.embed"
    operation = "embeddings"
    kind: Kind = "embedding"
    words: Mapping[str, Any] = {"input": True, "prompt": True}

    def facts(self, provider: str, request: Request, response: Mapping[str, Any]) -> ModelCall:
        """See `Dialect.facts`."""
        return replace(super().facts(provider, request, response), dimensions=response.get("dimensions"))

    def asked(self, request: Request) -> tuple[Message, ...]:
        """See `Dialect.asked`."""
        given = request.get("input", request.get("prompt"))
        texts = [given] if isinstance(given, str) else sequence(given)
        parts = tuple(Part(type="text", content=text) for text in texts)
        return (Message(role="user", parts=parts),) if parts else ()

    def answered(self, response: Mapping[str, Any]) -> tuple[Message, ...]:
        """See `Dialect.answered`."""
        return ()

    def kept(self, response: Any) -> Any:
        """See `Dialect.kept`."""
        plain = as_dict(response)
        vectors = sequence(plain.pop("embeddings", None)) or [plain.pop("embedding", None)]
        return {**plain, "count": len(vectors), "dimensions": len(sequence(vectors[0])) or None}

    def with_input(self, request: Request, change: Callable[[str], str]) -> dict[str, Any]:
        """See `Dialect.with_input`."""
        return {**request, **{n: changed(request[n], change) for n in ("input", "prompt") if n in request}}

    def hear(self, response: Any, change: Callable[[str], str]) -> None:
        """See `Dialect.hear`."""


def _message(item: Mapping[str, Any]) -> Message:
    """As OpenAI's, but for thoughts and pictures."""
    message = message_of({**item, "reasoning_content": item.get("thinking"), "tool_call_id": item.get("tool_name")})
    pictures = tuple(Part(type="blob", content=data, mime_type="image/*") for data in sequence(item.get("images")))
    return replace(message, parts=message.parts + pictures) if pictures else message


def _finished(message: Message, response: Mapping[str, Any]) -> Message:
    logprobs = tuple(token["logprob"] for token in objects(response.get("logprobs")))
    return replace(message, finish_reason=_reason(response), logprobs=logprobs)


def _reason(response: Mapping[str, Any]) -> str | None:
    """A call of a tool ends with stop here: the message tells."""
    reason = response.get("done_reason")
    if mapping(response.get("message")).get("tool_calls"):
        return "tool_call"
    return reason if isinstance(reason, str) else None


def _usage(response: Mapping[str, Any]) -> Usage:
    return Usage(input_tokens=count(response.get("prompt_eval_count")), output_tokens=count(response.get("eval_count")))
