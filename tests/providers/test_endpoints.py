"""OpenAI's endpoints beside chat and responses, and the flavours of a client: each call recorded once, with its facts.

Bodies are written by hand from OpenAI's API reference, and validated by the SDK's own response models.
"""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from openai import types
from openai.types.audio import Transcription

import loopkit
from loopkit.testing import MemorySink
from loopkit.types import Message, ModelCall, Span, Usage
from tests.colours import collect, value

_VECTORS = [[0.5, -0.25, 0.125], [1.0, 0.0, 2.0]]


def _base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


@dataclass(frozen=True)
class Endpoint:
    """One endpoint: how it is called, what it answers, what is to be recorded."""

    name: str
    call: Callable[[Any], Any]
    body: Any
    model: Any
    """The SDK's own response model."""
    operation: str
    usage: Usage = field(default_factory=Usage)
    kind: str = "llm"
    asked: str = "a ship at sea"
    said: str = ""
    response_model: str | None = None
    output_type: str | None = None
    stream: Callable[[Any], Any] | None = None
    events: tuple[dict[str, Any], ...] = ()
    raw: Callable[[Any], Any] | None = None


ENDPOINTS = (
    Endpoint(
        name="embeddings",
        call=lambda c: c.embeddings.create(model="text-embedding-3-small", input=["a ship ", "at sea"]),
        body={
            "object": "list",
            "model": "text-embedding-3-small",
            "data": [{"object": "embedding", "index": i, "embedding": _base64(v)} for i, v in enumerate(_VECTORS)],
            "usage": {"prompt_tokens": 5, "total_tokens": 5},
        },
        model=None,
        operation="embeddings",
        kind="embedding",
        usage=Usage(input_tokens=5),
        response_model="text-embedding-3-small",
        raw=lambda c: c.embeddings.with_raw_response.create(model="m", input=["a ship ", "at sea"]),
    ),
    Endpoint(
        name="completions",
        call=lambda c: c.completions.create(model="gpt-3.5-turbo-instruct", prompt="a ship at sea", max_tokens=9),
        body={
            "id": "cmpl-1", "object": "text_completion", "created": 1, "model": "gpt-3.5-turbo-instruct",
            "choices": [{"index": 0, "text": "Ahoy!", "finish_reason": "stop", "logprobs": {
                "tokens": ["Ahoy", "!"], "token_logprobs": [-0.5, -0.25], "top_logprobs": None, "text_offset": [0, 4],
            }}],
            "usage": {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6},
        },
        model=types.Completion,
        operation="text_completion",
        usage=Usage(input_tokens=4, output_tokens=2),
        said="Ahoy!",
        response_model="gpt-3.5-turbo-instruct",
        stream=lambda c: c.completions.create(model="m", prompt="a ship at sea", stream=True),
        events=tuple(
            {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "gpt-3.5-turbo-instruct",
             "choices": [{"index": 0, "text": text, "finish_reason": reason, "logprobs": None}]}
            for text, reason in (("Ah", None), ("oy", None), ("!", "stop"))
        ),
    ),
    Endpoint(
        name="images",
        call=lambda c: c.images.generate(model="gpt-image-1", prompt="a ship at sea"),
        body={
            "created": 1, "output_format": "png",
            "data": [{"b64_json": base64.b64encode(b"\x89PNG" * 300).decode()}],
            "usage": {"input_tokens": 6, "output_tokens": 272, "total_tokens": 278,
                      "input_tokens_details": {"image_tokens": 0, "text_tokens": 6}},
        },
        model=types.ImagesResponse,
        operation="generate_content",
        usage=Usage(input_tokens=6, output_tokens=272, image_input_tokens=0),
        output_type="image",
        stream=lambda c: c.images.generate(model="gpt-image-1", prompt="a ship at sea", stream=True, partial_images=1),
        events=(
            {"type": "image_generation.partial_image", "b64_json": "aWk=", "created_at": 1, "size": "1024x1024",
             "quality": "low", "background": "opaque", "output_format": "png", "partial_image_index": 0},
            {"type": "image_generation.completed", "b64_json": "aWlp", "created_at": 1, "size": "1024x1024",
             "quality": "low", "background": "opaque", "output_format": "png",
             "usage": {"input_tokens": 6, "output_tokens": 272, "total_tokens": 278,
                       "input_tokens_details": {"image_tokens": 0, "text_tokens": 6}}},
        ),
    ),
    Endpoint(
        name="edited images",
        call=lambda c: c.images.edit(model="gpt-image-1", prompt="a ship at sea", image=b"\x89PNG"),
        body={"created": 1, "data": [{"url": "https://images.example/1.png"}]},
        model=types.ImagesResponse,
        operation="generate_content",
        output_type="image",
    ),
    Endpoint(
        name="speech",
        call=lambda c: c.audio.speech.create(model="tts-1", voice="alloy", input="a ship at sea"),
        body=b"ID3" * 100,
        model=None,
        operation="generate_content",
        output_type="speech",
    ),
    Endpoint(
        name="transcriptions",
        call=lambda c: c.audio.transcriptions.create(model="gpt-4o-transcribe", file=("sea.wav", b"RIFF" * 9)),
        body={
            "text": "a ship at sea",
            "usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 5, "total_tokens": 19,
                      "input_token_details": {"text_tokens": 0, "audio_tokens": 14}},
        },
        model=Transcription,
        operation="generate_content",
        usage=Usage(input_tokens=14, output_tokens=5, audio_input_tokens=14),
        asked="",
        said="a ship at sea",
        output_type="text",
    ),
    Endpoint(
        name="transcriptions as text",
        call=lambda c: c.audio.transcriptions.create(
            model="whisper-1", file=("sea.wav", b"RIFF" * 9), response_format="text"
        ),
        body="a ship at sea",
        model=None,
        operation="generate_content",
        asked="",
        said="a ship at sea",
        output_type="text",
    ),
    Endpoint(
        name="moderations",
        call=lambda c: c.moderations.create(model="omni-moderation-latest", input="a ship at sea"),
        body={"id": "modr-1", "model": "omni-moderation-latest", "results": [{
            "flagged": False, "categories": {"violence": False}, "category_scores": {"violence": 0.01},
            "category_applied_input_types": {"violence": ["text"]}}]},
        model=None,
        operation="moderation",
        output_type="json",
        response_model="omni-moderation-latest",
    ),
    Endpoint(
        name="batches",
        call=lambda c: c.batches.create(
            input_file_id="file-1", endpoint="/v1/chat/completions", completion_window="24h"
        ),
        body={"id": "batch_1", "object": "batch", "endpoint": "/v1/chat/completions", "input_file_id": "file-1",
              "completion_window": "24h", "status": "validating", "created_at": 1},
        model=types.Batch,
        operation="batch",
        asked="",
    ),
)  # fmt: skip


def _client(colour: str, answer: Callable[[httpx2.Request], httpx2.Response]) -> Any:
    transport = httpx2.MockTransport(answer)
    if colour == "sync":
        return openai.OpenAI(api_key="test", http_client=httpx2.Client(transport=transport))
    return openai.AsyncOpenAI(api_key="test", http_client=httpx2.AsyncClient(transport=transport))


def _answer(endpoint: Endpoint, *, events: bool = False) -> Callable[[httpx2.Request], httpx2.Response]:
    def answer(_: httpx2.Request) -> httpx2.Response:
        if events:
            lines = "".join(f"data: {json.dumps(event)}\n\n" for event in endpoint.events)
            return httpx2.Response(200, headers={"content-type": "text/event-stream"}, text=f"{lines}data: [DONE]\n\n")
        if isinstance(endpoint.body, bytes):
            return httpx2.Response(200, headers={"content-type": "audio/mpeg"}, content=endpoint.body)
        if isinstance(endpoint.body, str):
            return httpx2.Response(200, text=endpoint.body)
        return httpx2.Response(200, json=endpoint.body)

    return answer


def _only(recorded: MemorySink) -> tuple[Span, ModelCall]:
    (span,) = recorded.spans()
    assert span.model_call is not None
    return span, span.model_call


def _text(messages: tuple[Message, ...]) -> str:
    return "".join(message.text for message in messages)


every_endpoint = pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
every_colour = pytest.mark.parametrize("colour", ["sync", "async"])


@every_endpoint
def test_bodies_are_what_the_sdk_expects(endpoint: Endpoint) -> None:
    if endpoint.model is not None:
        endpoint.model.model_validate(endpoint.body)


@every_colour
@every_endpoint
def test_a_call_is_recorded_with_its_facts(endpoint: Endpoint, colour: str, recorded: MemorySink) -> None:
    client = loopkit.wrap(_client(colour, _answer(endpoint)))
    plain = _client(colour, _answer(endpoint))

    async def run() -> tuple[Any, Any]:
        return await value(endpoint.call(client)), await value(endpoint.call(plain))

    got, expected = asyncio.run(run())
    assert type(got) is type(expected)
    span, call = _only(recorded)
    assert (span.kind, call.operation, call.provider) == (endpoint.kind, endpoint.operation, "openai")
    assert span.status == "ok"
    assert call.usage == endpoint.usage
    assert (_text(call.input), _text(call.output)) == (endpoint.asked, endpoint.said)
    assert (call.response_model, call.output_type) == (endpoint.response_model, endpoint.output_type)


@every_colour
@pytest.mark.parametrize("endpoint", [e for e in ENDPOINTS if e.stream], ids=lambda endpoint: endpoint.name)
def test_a_stream_is_recorded_when_it_ends(endpoint: Endpoint, colour: str, recorded: MemorySink) -> None:
    client = loopkit.wrap(_client(colour, _answer(endpoint, events=True)))

    async def run() -> int:
        assert endpoint.stream is not None
        return len(await collect(await value(endpoint.stream(client))))

    assert asyncio.run(run()) == len(endpoint.events)
    span, call = _only(recorded)
    assert (span.status, call.operation, call.stream) == ("ok", endpoint.operation, True)
    assert _text(call.output) == endpoint.said


def test_vectors_are_counted_and_not_kept(recorded: MemorySink) -> None:
    endpoint = ENDPOINTS[0]
    client = loopkit.wrap(_client("sync", _answer(endpoint)))
    answer = endpoint.call(client)
    assert [item.embedding for item in answer.data] == _VECTORS
    assert endpoint.raw is not None
    endpoint.raw(client).parse()
    for span in recorded.spans():
        assert span.model_call is not None
        assert span.model_call.dimensions == 3
        assert '"embedding":' not in (span.model_call.native_response or "").replace('"object":"embedding"', "")
        assert span.model_call.parameters == {"encoding_formats": ["base64"]}


def test_pictures_and_sound_are_parts_of_messages(recorded: MemorySink) -> None:
    by_name = {endpoint.name: endpoint for endpoint in ENDPOINTS}
    for name in ("images", "edited images", "speech", "transcriptions"):
        by_name[name].call(loopkit.wrap(_client("sync", _answer(by_name[name]))))
    images, edited, speech, written = (span.model_call for span in recorded.spans())
    assert images is not None
    assert (images.output[0].parts[0].type, images.output[0].parts[0].mime_type) == ("uri", "image/png")
    assert edited is not None
    assert edited.output[0].parts[0].uri == "https://images.example/1.png"
    assert len(base64.b64decode(edited.input[0].parts[1].content)) == 4
    assert speech is not None
    assert len(base64.b64decode(speech.output[0].parts[0].content)) == 300
    assert speech.output[0].parts[0].mime_type == "audio/mpeg"
    assert written is not None
    assert written.input[0].parts[0].name == "sea.wav"
    assert len(base64.b64decode(written.input[0].parts[0].content)) == 36


def test_logprobs_are_kept_where_they_were_asked_for(recorded: MemorySink) -> None:
    by_name = {endpoint.name: endpoint for endpoint in ENDPOINTS}
    by_name["completions"].call(loopkit.wrap(_client("sync", _answer(by_name["completions"]))))
    _, call = _only(recorded)
    assert call.output[0].logprobs == (-0.5, -0.25)


@pytest.mark.parametrize(
    ("base_url", "provider"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://api.together.xyz/v1", "together"),
        ("https://api.fireworks.ai/inference/v1", "fireworks"),
        ("https://mine.openai.azure.com/openai/v1", "azure.ai.openai"),
        ("http://127.0.0.1:11434/v1", "ollama"),
        ("http://127.0.0.1:9/v1", "openai"),
    ],
)
def test_the_provider_is_told_by_the_base_url(base_url: str, provider: str, recorded: MemorySink) -> None:
    client = loopkit.wrap(_client("sync", _answer(ENDPOINTS[1])).with_options(base_url=base_url))
    ENDPOINTS[1].call(client)
    assert _only(recorded)[1].provider == provider


def test_the_provider_can_be_named(recorded: MemorySink) -> None:
    client = loopkit.wrap(_client("sync", _answer(ENDPOINTS[1])), provider="vllm")
    ENDPOINTS[1].call(client)
    assert _only(recorded)[1].provider == "vllm"


def test_azure_is_azure_and_its_deployment_the_model(recorded: MemorySink) -> None:
    seen: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.url.path)
        return httpx2.Response(200, json=ENDPOINTS[1].body)

    client = loopkit.wrap(
        openai.AzureOpenAI(
            api_key="test", api_version="2024-10-21", azure_endpoint="https://proxy.example",
            http_client=httpx2.Client(transport=httpx2.MockTransport(answer)),
        )
    )  # fmt: skip
    client.completions.create(model="my-deployment", prompt="a ship at sea")
    _, call = _only(recorded)
    assert seen == ["/openai/deployments/my-deployment/completions"]
    assert (call.provider, call.model, call.response_model) == (
        "azure.ai.openai", "my-deployment", "gpt-3.5-turbo-instruct",
    )  # fmt: skip


_MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-test-1", "stop_reason": "end_turn",
    "stop_sequence": None, "content": [{"type": "text", "text": "Ahoy!"}],
    "usage": {"input_tokens": 3, "output_tokens": 2, "cache_creation_input_tokens": 5, "cache_read_input_tokens": 7},
}  # fmt: skip


def _flavours(transport: Any) -> dict[str, tuple[Any, str]]:
    client = httpx2.Client(transport=transport)
    return {
        "beta": (anthropic.Anthropic(api_key="test", http_client=client), "anthropic"),
        "bedrock": (
            anthropic.AnthropicBedrock(
                aws_access_key="a", aws_secret_key="b", aws_region="eu-west-1", http_client=client
            ),
            "aws.bedrock",
        ),
        "vertex": (
            anthropic.AnthropicVertex(project_id="p", region="eu-west1", access_token="t", http_client=client),
            "gcp.vertex_ai",
        ),
    }


@pytest.mark.parametrize("flavour", ["beta", "bedrock", "vertex"])
def test_the_flavours_of_anthropic(flavour: str, recorded: MemorySink) -> None:
    if flavour == "bedrock":
        pytest.importorskip("botocore")
    if flavour == "vertex":
        pytest.importorskip("google.auth")
    client, provider = _flavours(httpx2.MockTransport(lambda request: httpx2.Response(200, json=_MESSAGE)))[flavour]
    loopkit.wrap(client)
    message = (client.beta if flavour == "beta" else client).messages.create(
        model="claude-test-1", max_tokens=9, messages=[{"role": "user", "content": "a ship at sea"}]
    )
    assert message.content[0].text == "Ahoy!"
    _, call = _only(recorded)
    assert (call.provider, call.model, _text(call.input), _text(call.output)) == (
        provider, "claude-test-1", "a ship at sea", "Ahoy!",
    )  # fmt: skip
    assert call.usage == Usage(input_tokens=15, output_tokens=2, cache_read_tokens=7, cache_write_tokens=5)
    assert "Omit" not in (call.native_request or "")
    assert call.parameters == {"max_tokens": 9}


@every_colour
def test_usage_of_streams_is_asked_for_where_that_was_wanted(colour: str, recorded: MemorySink) -> None:
    seen: list[Any] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(json.loads(request.content))
        return _answer(ENDPOINTS[1], events=True)(request)

    async def run() -> None:
        client = loopkit.wrap(_client(colour, answer), include_usage=True)
        await collect(await value(client.completions.create(model="m", prompt="x", stream=True)))
        asked: Any = {"include_usage": False}
        await collect(await value(client.completions.create(model="m", prompt="x", stream=True, stream_options=asked)))

    asyncio.run(run())
    assert [body["stream_options"]["include_usage"] for body in seen] == [True, False]
    first, second = recorded.spans()
    assert first.model_call is not None
    assert "include_usage" in (first.model_call.native_request or "")
    assert second.status == "ok"
