"""The rows of the contract: each provider's genuine SDK client over a fake transport, in both colours.

A new provider adds one row: how to make its client, how to call it, and the bodies it answers with.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import groq
import httpx
import httpx2
import openai
from groq.types.chat import ChatCompletion as GroqChatCompletion

_HERE = Path(__file__).parent
QUESTION = "How are you?"


@dataclass(frozen=True)
class Row:
    """One operation of one SDK."""

    name: str
    provider: str
    client: Callable[..., Any]
    async_client: Callable[..., Any]
    library: Any
    """httpx or httpx2, whichever the SDK runs on."""
    bodies: str
    endpoint: Callable[[Any], Any]
    """The resource whose `create` is called."""
    arguments: dict[str, Any]
    error_class: type[Exception]
    response_model: Any
    helper: Callable[[Any], Any] | None = None
    """The SDK's own stream helper, a context manager."""

    @property
    def recorded(self) -> dict[str, Any]:
        """The bodies."""
        return json.loads((_HERE / self.bodies).read_text())

    def make(self, colour: str, handler: Callable[[Any], Any], **options: Any) -> Any:
        """A client of this colour whose transport is `handler`."""
        transport = self.library.MockTransport(handler)
        options = {"api_key": "test", "max_retries": 0, **options}
        if colour == "sync":
            return self.client(http_client=self.library.Client(transport=transport), **options)
        return self.async_client(http_client=self.library.AsyncClient(transport=transport), **options)

    def answer(self, request: Any) -> Any:
        """The recorded answer to a request: whole, or as server-sent events."""
        if json.loads(request.content).get("stream"):
            return self.events(self.recorded["stream"])
        body = json.dumps(self.recorded["body"]).encode()
        headers = {"content-type": "application/json"}
        return self.library.Response(200, headers=headers, stream=_Body([body], self.library, broken=False))

    def events(self, events: list[Any], *, broken: bool = False) -> Any:
        """A stream of server-sent events; a broken one ends in a transport error."""
        lines = []
        for event in events:
            named = f"event: {event['type']}\n" if "type" in event else ""
            lines.append(f"{named}data: {json.dumps(event)}\n\n".encode())
        if "openai" in self.name and not broken:
            lines.append(b"data: [DONE]\n\n")
        return self.library.Response(
            200, headers={"content-type": "text/event-stream"}, stream=_Body(lines, self.library, broken)
        )


class _Body(httpx2.SyncByteStream, httpx2.AsyncByteStream, httpx.SyncByteStream, httpx.AsyncByteStream):
    """A response's body in pieces, for both colours and both libraries."""

    def __init__(self, pieces: list[bytes], library: Any, broken: bool) -> None:
        self._pieces = pieces
        self._library = library
        self._broken = broken

    def __iter__(self) -> Any:
        yield from self._pieces
        if self._broken:
            raise self._library.ReadError("the connection was reset")

    async def __aiter__(self) -> Any:
        for piece in self:
            yield piece

    def close(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


_MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]

ROWS = (
    Row(
        name="openai chat",
        provider="openai",
        client=openai.OpenAI,
        async_client=openai.AsyncOpenAI,
        library=httpx2,
        bodies="openai/chat.json",
        endpoint=lambda client: client.chat.completions,
        arguments={"model": "gpt-4.1", "messages": _MESSAGES, "temperature": 0.5},
        error_class=openai.BadRequestError,
        response_model=openai.types.chat.ChatCompletion,
        helper=lambda client: client.chat.completions.stream(
            model="gpt-4.1", messages=_MESSAGES, stream_options={"include_usage": True}
        ),
    ),
    Row(
        name="openai responses",
        provider="openai",
        client=openai.OpenAI,
        async_client=openai.AsyncOpenAI,
        library=httpx2,
        bodies="openai/responses.json",
        endpoint=lambda client: client.responses,
        arguments={"model": "gpt-4.1", "input": QUESTION, "instructions": "Be brief.", "temperature": 0.5},
        error_class=openai.BadRequestError,
        response_model=openai.types.responses.Response,
        helper=lambda client: client.responses.stream(model="gpt-4.1", input=QUESTION),
    ),
    Row(
        name="groq chat",
        provider="groq",
        client=groq.Groq,
        async_client=groq.AsyncGroq,
        library=httpx,
        bodies="openai/chat.json",
        endpoint=lambda client: client.chat.completions,
        arguments={"model": "gpt-4.1", "messages": _MESSAGES, "temperature": 0.5},
        error_class=groq.BadRequestError,
        response_model=GroqChatCompletion,
    ),
    Row(
        name="anthropic messages",
        provider="anthropic",
        client=anthropic.Anthropic,
        async_client=anthropic.AsyncAnthropic,
        library=httpx2,
        bodies="anthropic/messages.json",
        endpoint=lambda client: client.messages,
        arguments={
            "model": "claude-test-1",
            "max_tokens": 100,
            "system": "Be brief.",
            "messages": [{"role": "user", "content": QUESTION}],
        },
        error_class=anthropic.BadRequestError,
        response_model=anthropic.types.Message,
        helper=lambda client: client.messages.stream(
            model="claude-test-1", max_tokens=100, messages=[{"role": "user", "content": QUESTION}]
        ),
    ),
)


async def value(thing: Any) -> Any:
    """The thing, awaited where it is awaitable: one test for both colours."""
    return await thing if inspect.isawaitable(thing) else thing


async def collect(stream: Any, most: int | None = None) -> list[Any]:
    """The stream's chunks, at most so many."""
    chunks: list[Any] = []
    if hasattr(stream, "__aiter__"):
        async for chunk in stream:
            chunks.append(chunk)
            if len(chunks) == most:
                break
    else:
        for chunk in stream:
            chunks.append(chunk)
            if len(chunks) == most:
                break
    return chunks


class Entered:
    """`async with` over a context manager of either colour."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    async def __aenter__(self) -> Any:
        if hasattr(self._manager, "__aenter__"):
            return await self._manager.__aenter__()
        return self._manager.__enter__()

    async def __aexit__(self, *error: Any) -> Any:
        if hasattr(self._manager, "__aexit__"):
            return await self._manager.__aexit__(*error)
        return self._manager.__exit__(*error)
