"""Hugging Face's chat: OpenAI's shapes, in dataclasses that are dicts too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from loopkit.capture.dialects._content import mapping
from loopkit.capture.dialects._loose import loose, plain
from loopkit.capture.dialects._protocol import Fold
from loopkit.capture.dialects._streams import Place, PlainStream, finished, in_choices
from loopkit.capture.dialects.openai_chat import Chat, ChatFold


class HuggingFaceChat(PlainStream, Chat):
    """Chat."""

    name = "hugging_face.chat"

    def fold(self) -> Fold:
        """See `Dialect.fold`."""
        return HuggingFaceFold()

    def hear(self, response: Any, change: Callable[[str], str]) -> None:
        """See `Dialect.hear`."""
        self._changed(loose(mapping(response)), change)

    def with_output(self, response: Any, change: Callable[[str], str]) -> Any:
        """See `Dialect.with_output`."""
        cls: Any = response.__class__
        return cls.parse_obj_as_instance(plain(self._changed(loose(mapping(response)), change)))

    def opened(self, chunk: Any) -> Any:
        """See `PlainStream.opened`."""
        return plain(loose(mapping(chunk)))

    def closed(self, chunk: Any, plain: Any) -> Any:
        """See `PlainStream.closed`."""
        return chunk.__class__.parse_obj_as_instance(plain)

    def places(self, plain: Any) -> Iterator[Place]:
        """See `PlainStream.places`."""
        return in_choices(plain.get("choices"))

    def ended(self, chunk: Any) -> list[Any]:
        """See `Streaming.ended`."""
        return finished(self.opened(chunk).get("choices"))

    def send(self, client: Any, arguments: Mapping[str, Any]) -> Any:
        """See `Conversation.send`."""
        return client.chat_completion(**arguments)


class HuggingFaceFold:
    """Chunks, to be read as OpenAI's."""

    def __init__(self) -> None:
        self._fold = ChatFold()

    def feed(self, chunk: Any) -> None:
        """See `Fold.feed`."""
        self._fold.feed(loose(mapping(chunk)))

    def result(self) -> dict[str, Any]:
        """See `Fold.result`."""
        return self._fold.result()
