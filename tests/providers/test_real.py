"""A real model behind a real server: llama.cpp with the embedded model, called through genuine clients on a socket."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import openai
import pytest

import loopkit
from loopkit.cli.demo.machinery import model_path
from loopkit.errors import MissingExtra
from loopkit.testing import MemorySink
from loopkit.types import ModelCall

ASKED: Any = {
    "model": "smollm2",
    "messages": [{"role": "user", "content": "Say yes."}],
    "max_tokens": 4,
    "temperature": 0,
    "seed": 1,
}


def call_of(recorded: MemorySink) -> ModelCall:
    (span,) = recorded.spans()
    assert span.status == "ok"
    assert span.model_call is not None
    return span.model_call


def check(call: ModelCall, said: str) -> None:
    assert call.output[0].text == said
    assert call.usage.output_tokens is not None
    assert 0 < call.usage.output_tokens <= 4
    assert (call.usage.input_tokens or 0) > 4
    assert (call.server_address, call.provider) == ("127.0.0.1", "openai")
    assert call.parameters["max_tokens"] == 4
    assert call.response_id


def test_a_chat(model_url: str, recorded: MemorySink) -> None:
    client = loopkit.wrap(openai.OpenAI(api_key="none", base_url=model_url))
    response = client.chat.completions.create(**ASKED, logprobs=True)
    call = call_of(recorded)
    check(call, response.choices[0].message.content or "")
    assert call.finish_reasons == (response.choices[0].finish_reason,)
    assert len(call.output[0].logprobs) == call.usage.output_tokens
    assert all(logprob <= 0 for logprob in call.output[0].logprobs)


@pytest.mark.parametrize("include_usage", [True, False])
def test_a_stream(include_usage: bool, model_url: str, recorded: MemorySink) -> None:
    client = loopkit.wrap(openai.OpenAI(api_key="none", base_url=model_url), include_usage=include_usage)
    said = "".join(
        chunk.choices[0].delta.content or ""
        for chunk in client.chat.completions.create(**ASKED, stream=True)
        if chunk.choices
    )
    call = call_of(recorded)
    assert call.output[0].text == said
    assert (call.time_to_first_token or 0) > 0
    if include_usage:
        check(call, said)


def test_a_stream_left_early(model_url: str, recorded: MemorySink) -> None:
    client = loopkit.wrap(openai.OpenAI(api_key="none", base_url=model_url))
    more: Any = {**ASKED, "max_tokens": 40, "messages": [{"role": "user", "content": "Tell me a long story."}]}
    with client.chat.completions.create(**more, stream=True) as stream:
        for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                break
    (span,) = recorded.spans()
    assert span.status == "cancelled"
    assert span.model_call is not None
    assert span.model_call.output[0].text


def test_async_clients_and_responses(model_url: str, recorded: MemorySink) -> None:
    async def run() -> tuple[str, str]:
        async with loopkit.wrap(openai.AsyncOpenAI(api_key="none", base_url=model_url)) as client:
            chat = await client.chat.completions.create(**ASKED)
            response = await client.responses.create(model="smollm2", input="Say yes.", max_output_tokens=4)
            return chat.choices[0].message.content or "", response.output_text

    said = asyncio.run(run())
    calls = [span.model_call for span in recorded.spans()]
    assert [call.output[0].text for call in calls if call is not None] == list(said)
    assert all(call is not None and call.usage.output_tokens for call in calls)


def test_an_http_client(model_url: str, recorded: MemorySink) -> None:
    client = loopkit.wrap(httpx.Client(), provider="llama.cpp")
    answer = client.post(f"{model_url}/chat/completions", json=ASKED, timeout=60).json()
    call = call_of(recorded)
    assert (call.provider, call.output[0].text) == ("llama.cpp", answer["choices"][0]["message"]["content"])
    assert call.usage.output_tokens == answer["usage"]["completion_tokens"]


def test_a_refusal_of_the_server_is_the_clients_exception(model_url: str, recorded: MemorySink) -> None:
    client = loopkit.wrap(openai.OpenAI(api_key="none", base_url=model_url, max_retries=0))
    with pytest.raises(openai.APIStatusError) as refused:
        client.embeddings.create(model="smollm2", input="a text")  # the server was not started for them
    (span,) = recorded.spans()
    assert (span.kind, span.status) == ("embedding", "error")
    assert span.error is not None
    assert span.error.type == type(refused.value).__name__


def test_embeddings_of_a_server_started_for_them(recorded: MemorySink) -> None:
    xllamacpp = pytest.importorskip("xllamacpp", reason="llama.cpp is not installed: make setup")
    try:
        path = model_path()
    except MissingExtra as missing:
        pytest.skip(str(missing))
    settings = xllamacpp.CommonParams()
    settings.model.path = str(path)
    settings.n_parallel, settings.n_ctx, settings.port, settings.verbosity = 1, 512, 0, 0
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    settings.hostnames, settings.warmup, settings.embedding = ["127.0.0.1"], False, True
    settings.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    server = xllamacpp.Server(settings)
    client = loopkit.wrap(openai.OpenAI(api_key="none", base_url=f"{server.listening_address}/v1"))
    response = client.embeddings.create(model="smollm2", input=["a text", "another"])
    call = call_of(recorded)
    assert [part.content for part in call.input[0].parts] == ["a text", "another"]
    assert call.usage.input_tokens == response.usage.prompt_tokens
    assert call.dimensions == len(response.data[0].embedding) == 576
    assert "embedding" not in (call.native_response or "").replace('"object":"embedding"', "")
    del server  # its only way to stop
