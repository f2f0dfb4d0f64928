"""Mistral's chat and fill-in-the-middle: OpenAI's shapes but for a few.

Shapes: https://docs.mistral.ai/api
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from loopkit.capture.dialects._content import changed_texts, mapping, objects
from loopkit.capture.dialects._protocol import Fold
from loopkit.capture.dialects._streams import Place, PlainStream, in_choices
from loopkit.capture.dialects.openai_chat import Chat, ChatFold
from loopkit.capture.dialects.openai_endpoints import Embeddings
from loopkit.types import Message, ModelCall, Part

Request = Mapping[str, Any]


class MistralChat(PlainStream, Chat):
    """Chat, and agents, which have an id in the place of a model."""

    name = "mistral.chat"

    def facts(self, provider: str, request: Request, response: Mapping[str, Any]) -> ModelCall:
        """See `Dialect.facts`."""
        renamed = {("seed" if name == "random_seed" else name): value for name, value in request.items()}
        return super().facts(provider, {**renamed, "model": request.get("model") or request.get("agent_id")}, response)

    def asked(self, request: Request) -> tuple[Message, ...]:
        """See `Dialect.asked`."""
        return super().asked({"messages": [_with_thoughts(item) for item in objects(request.get("messages"))]})

    def answered(self, response: Mapping[str, Any]) -> tuple[Message, ...]:
        """See `Dialect.answered`."""
        choices = [
            {**choice, "message": _with_thoughts(mapping(choice.get("message")))}
            for choice in objects(response.get("choices"))
        ]
        return super().answered({**response, "choices": choices})

    def fold(self) -> Fold:
        """See `Dialect.fold`."""
        return MistralFold()

    def hear(self, response: Any, change: Callable[[str], str]) -> None:
        """See `Dialect.hear`."""
        self.with_output(response, change)

    def with_output(self, response: Any, change: Callable[[str], str]) -> Any:
        """See `Dialect.with_output`."""
        copy = response.model_copy(deep=True)
        for choice in copy.choices or ():
            message = choice.message
            content: Any = message.content  # isinstance makes it a list of unknown types; this stays Any
            if isinstance(message.content, str):
                message.content = change(content)
            for piece in content if isinstance(message.content, list) else ():
                if getattr(piece, "type", None) == "text":
                    piece.text = change(piece.text)
            for call in message.tool_calls or ():
                call.function.arguments = changed_texts(call.function.arguments, change)
        return copy

    def places(self, plain: Any) -> Iterator[Place]:
        """See `PlainStream.places`."""
        return in_choices(mapping(plain.get("data")).get("choices"))

    def ended(self, chunk: Any) -> list[Any]:
        """See `Streaming.ended`."""
        return [choice.index for choice in chunk.data.choices if choice.finish_reason]

    def text(self, response: Any) -> str:
        """See `Conversation.text`."""
        contents = [choice.message.content for choice in response.choices or () if choice.message]
        return "".join(content for content in contents if isinstance(content, str))

    def send(self, client: Any, arguments: Mapping[str, Any]) -> Any:
        """See `Conversation.send`."""
        return client.chat.complete(**arguments)


class MistralFill(MistralChat):
    """Fill in the middle: a prompt, and perhaps what comes after it."""

    name = "mistral.fim"
    operation = "text_completion"
    words: Mapping[str, Any] = {"prompt": True, "suffix": True, **Chat.words}

    def facts(self, provider: str, request: Request, response: Mapping[str, Any]) -> ModelCall:
        """See `Dialect.facts`."""
        rest = {name: value for name, value in request.items() if name not in ("prompt", "suffix")}
        return super().facts(provider, rest, response)

    def asked(self, request: Request) -> tuple[Message, ...]:
        """See `Dialect.asked`."""
        texts = [request.get(name) for name in ("prompt", "suffix")]
        parts = tuple(Part(type="text", content=text) for text in texts if isinstance(text, str))
        return (Message(role="user", parts=parts),) if parts else ()

    def with_input(self, request: Request, change: Callable[[str], str]) -> dict[str, Any]:
        """See `Dialect.with_input`."""
        said = {name: change(request[name]) for name in ("prompt", "suffix") if isinstance(request.get(name), str)}
        return {**request, **said}


class MistralEmbeddings(Embeddings):
    """Embeddings, whose texts are called inputs."""

    name = "mistral.embeddings"
    asks = ("inputs",)
    words: Mapping[str, Any] = {"inputs": True}


class MistralFold:
    """Events with a chunk in each."""

    def __init__(self) -> None:
        self._fold = ChatFold()

    def feed(self, chunk: Any) -> None:
        """See `Fold.feed`."""
        self._fold.feed(chunk.data)

    def result(self) -> dict[str, Any]:
        """See `Fold.result`."""
        return self._fold.result()


def _with_thoughts(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Thoughts stand among the pieces of the content here."""
    pieces = objects(message.get("content"))
    thoughts = [
        text.get("text") or ""
        for piece in pieces
        if piece.get("type") == "thinking"
        for text in objects(piece.get("thinking"))
    ]
    if not thoughts:
        return message
    rest = [piece for piece in pieces if piece.get("type") != "thinking"]
    return {**message, "reasoning_content": "".join(thoughts), "content": rest}
