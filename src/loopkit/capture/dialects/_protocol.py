"""What a dialect is: one operation of one provider's API."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from loopkit.capture.dialects._content import Change, Whose, heard
from loopkit.types import Kind, Message, ModelCall, Variant

Request = Mapping[str, Any]
"""A provider's request body, as the SDK is about to send it."""


class Fold(Protocol):
    """The chunks of one stream, folded into the response they amount to."""

    def feed(self, chunk: Any) -> None:
        """Take the next chunk, as the SDK gives it."""
        ...

    def result(self) -> dict[str, Any]:
        """The response so far, in the shape of a response that wasn't streamed; may be asked at any time."""
        ...


class Dialect(Protocol):
    """One operation of one provider's SDK."""

    name: str
    """Of the API, such as "openai.chat": what recorded requests and responses are read with, today or in a year."""
    operation: str
    kind: Kind
    """Of the span: "llm" or "embedding"."""
    id_field: str
    """Where a response's id stands, in what is kept of it."""
    words: Mapping[str, Any]
    """The fields of requests and responses that hold what was said, as pydantic's `exclude` names them."""

    def facts(self, provider: str, request: Request, response: Mapping[str, Any]) -> ModelCall:
        """The provider-neutral call without its messages and tools. `response` is empty where there was none."""
        ...

    def asked(self, request: Request) -> tuple[Message, ...]:
        """The messages that went in."""
        ...

    def answered(self, response: Mapping[str, Any]) -> tuple[Message, ...]:
        """The messages that came out, one an answer."""
        ...

    def kept(self, response: Any) -> Any:
        """What is kept of the SDK's response object: all of it, or plain data without vectors and pictures."""
        ...

    def fold(self) -> Fold:
        """A new fold for one stream."""
        ...

    def with_input(self, request: Request, change: Callable[[str], str]) -> dict[str, Any]:
        """A copy of the request with what a guard should see, the turns since the model last spoke, changed."""
        ...

    def hear(self, response: Any, change: Callable[[str], str]) -> None:
        """Have the change see what the model said, in the SDK's response object, which stays as it is."""
        ...

    def with_output(self, response: Any, change: Callable[[str], str]) -> Any:
        """A copy of the response object with those texts changed."""
        ...


class Piece(NamedTuple):
    """What a chunk of a stream says of one text."""

    channel: tuple[Any, ...]
    """Which text of the answer; the first item is what `ended` names."""
    text: str
    of: Whose = "words"
    tool: str | None = None
    """Where it is known: it need not be said again."""
    is_whole: bool = False
    """Whether it is the whole text once more, at its end."""


def whole_pieces(change_all: Callable[[Change], object]) -> list[Piece]:
    """What something would change, as texts that are there as a whole."""
    return [Piece((), said.text, said.of, said.tool, is_whole=True) for said in heard(change_all)]


@runtime_checkable
class Streaming(Protocol):
    """A dialect that knows what each chunk of a stream says, so that it can be changed."""

    says_twice: bool
    """Whether texts that came in pieces come as a whole too."""

    def pieces(self, chunk: Any) -> list[Piece]:
        """What it says, in order."""
        ...

    def ended(self, chunk: Any) -> list[Any]:
        """The texts that are over with it, by the first items of their channels."""
        ...

    def with_pieces(self, chunk: Any, texts: Sequence[str]) -> Any:
        """A copy that says these instead, one for each piece. What is known of single tokens is taken away."""
        ...


class Conversation(Dialect, Protocol):
    """A dialect that a router can serve variants in."""

    def text(self, response: Any) -> str:
        """The answer's text, from the SDK's response object."""
        ...

    def render(self, variant: Variant, messages: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """The SDK call's arguments that serve these messages with this variant."""
        ...

    def send(self, client: Any, arguments: Mapping[str, Any]) -> Any:
        """Make the call; awaitable with an async client."""
        ...
