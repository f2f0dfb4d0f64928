"""The rows of the contract: each provider's genuine SDK client over a fake transport, in both colours.

A new provider adds one row: how to make its client, how to call it, and the bodies it answers with.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anthropic
import boto3
import cohere
import google.genai
import groq
import httpx
import httpx2
import ollama
import openai
import together
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator
from groq.types.chat import ChatCompletion as GroqChatCompletion
from mistralai.client import Mistral
from mistralai.client.errors import SDKError
from mistralai.client.models import ChatCompletionResponse
from together.types.chat import ChatCompletion as TogetherChatCompletion

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
    also: Mapping[str, Any] = field(default_factory=dict)
    """What else the SDK's model wants in the body."""
    operation: str = "chat"
    colours: tuple[str, ...] = ("sync", "async")
    has_ids: bool = True
    """Whether the provider gives its answers ids."""
    cached: int | None = 4
    """Tokens read from the provider's cache."""
    reaches_older: bool = True
    """Whether `instrument` reaches clients that are there already."""
    is_stainless: bool = True
    """Whether it has copies, raw responses and retries of its own."""

    @property
    def package(self) -> str:
        """As `instrument` is told it."""
        return self.name.partition(" ")[0]

    @property
    def model(self) -> str:
        """Asked for."""
        return str(self.arguments["model"])

    @property
    def answering_model(self) -> str | None:
        """What answers."""
        return str(self.recorded["body"]["model"])

    @property
    def response_id(self) -> str:
        """Of the answer."""
        return str(self.recorded["body"]["id"])

    def id_of(self, response: Any) -> str:
        """As the application finds it in the SDK's response object."""
        return str(response.id)

    def validate(self) -> None:
        """Raises where the SDK's own model doesn't take the body."""
        self.response_model.model_validate({**self.also, **self.recorded["body"]})

    def call(self, client: Any) -> Any:
        """A call answered as a whole; awaitable with an async client."""
        return self.endpoint(client).create(**self.arguments)

    def stream(self, client: Any) -> Any:
        """The same, streamed."""
        return self.endpoint(client).create(stream=True, **self.arguments)

    def refusing(self, colour: str) -> Any:
        """A client of a server that refuses."""
        refusal = self.library.Response(400, json={"error": {"message": "no such model", "type": "invalid_request"}})
        return self.make(colour, lambda request: refusal)

    def breaking(self, colour: str) -> Any:
        """A client whose stream breaks before its end."""
        broken = self.events(self.recorded["stream"][:-2], broken=True)
        return self.make(colour, lambda request: broken)

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
        if "google" not in self.name and "anthropic" not in self.name and not broken:
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


@dataclass(frozen=True)
class GoogleRow(Row):
    """google-genai: the body says less of itself, and streams have an address of their own."""

    is_stainless: bool = False
    operation: str = "generate_content"
    vertex: bool = False

    @property
    def answering_model(self) -> str | None:
        return str(self.recorded["body"]["modelVersion"])

    @property
    def response_id(self) -> str:
        return str(self.recorded["body"]["responseId"])

    @property
    def package(self) -> str:
        return "google-genai"

    def id_of(self, response: Any) -> str:
        return str(response.response_id)

    def make(self, colour: str, handler: Callable[[Any], Any], **options: Any) -> Any:
        transport = self.library.MockTransport(handler)
        http = google.genai.types.HttpOptions(
            client_args={"transport": transport}, async_client_args={"transport": transport}
        )
        key: dict[str, Any] = {"vertexai": True, "api_key": "test"} if self.vertex else {"api_key": "test"}
        client = google.genai.Client(http_options=http, **key)
        return client if colour == "sync" else _Aio(client)

    def call(self, client: Any) -> Any:
        return self._models(client).generate_content(**self.arguments)

    def stream(self, client: Any) -> Any:
        return self._models(client).generate_content_stream(**self.arguments)

    def answer(self, request: Any) -> Any:
        if "streamGenerateContent" in str(request.url):
            return self.events(self.recorded["stream"])
        return self.library.Response(200, json=self.recorded["body"])

    @staticmethod
    def _models(client: Any) -> Any:
        return client.aio.models if isinstance(client, _Aio) else client.models


class _Aio(google.genai.Client):
    """A client whose asynchronous side is used."""

    def __init__(self, client: google.genai.Client) -> None:
        self.__dict__.update(client.__dict__)
        self._kept = client  # a client that is dropped closes its connections

    __module__ = google.genai.Client.__module__


@dataclass(frozen=True)
class MistralRow(Row):
    """mistralai: methods of its own names."""

    is_stainless: bool = False

    @property
    def package(self) -> str:
        return "mistralai"

    def make(self, colour: str, handler: Callable[[Any], Any], **options: Any) -> Any:
        transport = self.library.MockTransport(handler)
        client = Mistral(
            api_key="test",
            client=self.library.Client(transport=transport),
            async_client=self.library.AsyncClient(transport=transport),
        )
        client.__dict__["colour"] = colour
        return client

    def call(self, client: Any) -> Any:
        complete = client.chat.complete if client.colour == "sync" else client.chat.complete_async
        return complete(**self.arguments)

    def stream(self, client: Any) -> Any:
        stream = client.chat.stream if client.colour == "sync" else client.chat.stream_async
        return stream(**self.arguments)

    def refusing(self, colour: str) -> Any:
        refusal = {"object": "error", "message": "no such model", "type": "invalid_request_error", "code": 1500}
        return self.make(colour, lambda request: self.library.Response(400, json=refusal))


@dataclass(frozen=True)
class BedrockRow(Row):
    """boto3, whose clients know one colour and whose streams have frames of their own."""

    is_stainless: bool = False
    colours: tuple[str, ...] = ("sync",)

    @property
    def package(self) -> str:
        return "boto3"

    @property
    def model(self) -> str:
        return str(self.arguments["modelId"])

    @property
    def answering_model(self) -> str | None:
        return None

    @property
    def response_id(self) -> str:
        return "4c6d-1"

    def id_of(self, response: Any) -> str:
        return str(response["ResponseMetadata"]["RequestId"])

    def validate(self) -> None:
        shape = self.make("sync", self.answer).meta.service_model.operation_model("Converse").output_shape
        report = ParamValidator().validate(self.recorded["body"], shape)
        assert not report.has_errors(), report.generate_report()

    def make(self, colour: str, handler: Callable[[Any], Any], **options: Any) -> Any:
        client = boto3.client(
            "bedrock-runtime", region_name="eu-west-1", aws_access_key_id="a", aws_secret_access_key="b"
        )

        def respond(request: Any, **_: Any) -> Any:
            status, headers, body = handler(request)
            return AWSResponse(request.url, status, {"x-amzn-RequestId": self.response_id, **headers}, AwsBody(body))

        client.meta.events.register("before-send.bedrock-runtime.*", respond)
        return client

    def call(self, client: Any) -> Any:
        return client.converse(**self.arguments)

    def stream(self, client: Any) -> Any:
        return client.converse_stream(**self.arguments)["stream"]

    def answer(self, request: Any) -> Any:
        if request.url.endswith("converse-stream"):
            return 200, _EVENTS, b"".join(aws_event(*each) for each in self.recorded["stream"])
        return 200, _JSON, json.dumps(self.recorded["body"]).encode()

    def refusing(self, colour: str) -> Any:
        refusal = b'{"message": "no such model"}'
        return self.make(colour, lambda request: (400, {**_JSON, "x-amzn-errortype": "ValidationException"}, refusal))

    def breaking(self, colour: str) -> Any:
        frames = [aws_event(*each) for each in self.recorded["stream"][:-3]]
        broken = aws_frame(
            {":exception-type": "throttlingException", ":message-type": "exception"}, {"message": "slow"}
        )
        return self.make(colour, lambda request: (200, _EVENTS, b"".join((*frames, broken))))


@dataclass(frozen=True)
class CohereRow(Row):
    """cohere: a method of its own for streams; a client keeps its methods from when it is made."""

    is_stainless: bool = False
    reaches_older: bool = False

    @property
    def package(self) -> str:
        return "cohere"

    @property
    def answering_model(self) -> str | None:
        return None

    def id_of(self, response: Any) -> str:
        return str(response.id)

    def make(self, colour: str, handler: Callable[[Any], Any], **options: Any) -> Any:
        transport = self.library.MockTransport(handler)
        if colour == "sync":
            return self.client(api_key="test", max_retries=0, httpx_client=self.library.Client(transport=transport))
        http = self.library.AsyncClient(transport=transport)
        return self.async_client(api_key="test", max_retries=0, httpx_client=http)

    def call(self, client: Any) -> Any:
        return client.chat(**self.arguments)

    def stream(self, client: Any) -> Any:
        return client.chat_stream(**self.arguments)

    def refusing(self, colour: str) -> Any:
        return self.make(colour, lambda request: self.library.Response(400, json={"message": "no such model"}))


@dataclass(frozen=True)
class OllamaRow(Row):
    """ollama: lines of JSON, and no ids."""

    is_stainless: bool = False
    has_ids: bool = False
    cached: int | None = None

    @property
    def package(self) -> str:
        return "ollama"

    @property
    def response_id(self) -> Any:
        return None

    def id_of(self, response: Any) -> Any:
        return None

    def make(self, colour: str, handler: Callable[[Any], Any], **options: Any) -> Any:
        cls = self.client if colour == "sync" else self.async_client
        return cls(transport=self.library.MockTransport(handler))

    def call(self, client: Any) -> Any:
        return client.chat(**self.arguments)

    def stream(self, client: Any) -> Any:
        return client.chat(stream=True, **self.arguments)

    def refusing(self, colour: str) -> Any:
        return self.make(colour, lambda request: self.library.Response(400, json={"error": "no such model"}))

    def events(self, events: list[Any], *, broken: bool = False) -> Any:
        lines = [json.dumps(event).encode() + b"\n" for event in events]
        headers = {"content-type": "application/x-ndjson"}
        return self.library.Response(200, headers=headers, stream=_Body(lines, self.library, broken))

    def breaking(self, colour: str) -> Any:
        broken = self.events(self.recorded["stream"][:-1], broken=True)
        return self.make(colour, lambda request: broken)


_JSON = {"content-type": "application/json"}
_EVENTS = {"content-type": "application/vnd.amazon.eventstream"}


class AwsBody(io.BytesIO):
    """What botocore reads a response's body from."""

    def stream(self, *_: Any, **__: Any) -> Any:
        while piece := self.read(17):
            yield piece


def aws_event(kind: str, payload: Any) -> bytes:
    """One event of an AWS event stream."""
    return aws_frame({":event-type": kind, ":message-type": "event"}, payload)


def aws_frame(headers: dict[str, str], payload: Any) -> bytes:
    """One frame: https://docs.aws.amazon.com/lexv2/latest/dg/event-stream-encoding.html"""
    body = json.dumps(payload).encode()
    head = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in {**headers, ":content-type": "application/json"}.items()
    )
    start = struct.pack(">II", 16 + len(head) + len(body), len(head))
    start += struct.pack(">I", zlib.crc32(start))
    return start + head + body + struct.pack(">I", zlib.crc32(start + head + body))


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
            "extra_body": {"temperature": 0.5},
            "system": "Be brief.",
            "messages": [{"role": "user", "content": QUESTION}],
        },
        error_class=anthropic.BadRequestError,
        response_model=anthropic.types.Message,
        helper=lambda client: client.messages.stream(
            model="claude-test-1", max_tokens=100, messages=[{"role": "user", "content": QUESTION}]
        ),
    ),
    Row(
        name="together chat",
        provider="together",
        client=together.Together,
        async_client=together.AsyncTogether,
        library=httpx,
        bodies="openai/chat.json",
        endpoint=lambda client: client.chat.completions,
        arguments={"model": "gpt-4.1", "messages": _MESSAGES, "temperature": 0.5},
        error_class=together.BadRequestError,
        response_model=TogetherChatCompletion,
        also={"prompt": []},
    ),
    *(
        GoogleRow(
            name=f"google {'vertex' if vertex else 'gemini'}",
            provider="gcp.vertex_ai" if vertex else "gcp.gemini",
            client=google.genai.Client,
            async_client=google.genai.Client,
            library=httpx2,
            bodies="google/generate_content.json",
            endpoint=lambda client: client.models,
            arguments={
                "model": "gemini-test-1",
                "contents": QUESTION,
                "config": {"system_instruction": "Be brief.", "temperature": 0.5},
            },
            error_class=google.genai.errors.ClientError,
            response_model=google.genai.types.GenerateContentResponse,
            vertex=vertex,
        )
        for vertex in (False, True)
    ),
    MistralRow(
        name="mistral chat",
        provider="mistral_ai",
        client=Mistral,
        async_client=Mistral,
        library=httpx2,
        bodies="openai/chat.json",
        endpoint=lambda client: client.chat,
        arguments={"model": "gpt-4.1", "messages": _MESSAGES, "temperature": 0.5},
        error_class=SDKError,
        response_model=ChatCompletionResponse,
    ),
    CohereRow(
        name="cohere chat",
        provider="cohere",
        client=cohere.ClientV2,
        async_client=cohere.AsyncClientV2,
        library=httpx,
        bodies="cohere/chat.json",
        endpoint=lambda client: client,
        arguments={"model": "command-a-03-2025", "messages": _MESSAGES, "temperature": 0.5},
        error_class=cohere.BadRequestError,
        response_model=cohere.V2ChatResponse,
    ),
    OllamaRow(
        name="ollama chat",
        provider="ollama",
        client=ollama.Client,
        async_client=ollama.AsyncClient,
        library=httpx,
        bodies="ollama/chat.json",
        endpoint=lambda client: client,
        arguments={"model": "llama3.2", "messages": _MESSAGES, "options": {"temperature": 0.5}},
        error_class=ollama.ResponseError,
        response_model=ollama.ChatResponse,
    ),
    BedrockRow(
        name="bedrock converse",
        provider="aws.bedrock",
        client=boto3.client,
        async_client=boto3.client,
        library=None,
        bodies="bedrock/converse.json",
        endpoint=lambda client: client,
        arguments={
            "modelId": "amazon.nova-lite-v1:0",
            "system": [{"text": "Be brief."}],
            "messages": [{"role": "user", "content": [{"text": QUESTION}]}],
            "inferenceConfig": {"temperature": 0.5},
        },
        error_class=ClientError,
        response_model=None,
    ),
)
