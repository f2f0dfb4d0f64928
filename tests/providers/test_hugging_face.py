"""huggingface_hub's inference clients: whole and streamed, in both colours, checked by guards, whoever serves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub
import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient

import loopkit
from loopkit import checks
from loopkit.testing import MemorySink
from loopkit.types import Span
from tests.colours import collect, value

RECORDED = json.loads((Path(__file__).parent / "openai" / "chat.json").read_text())
ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How are you?"}]


class Server:
    """What the clients' HTTP sessions reach."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.body: Any = RECORDED["body"]
        self.status = 200

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":  # the package asks its hub about itself
            return httpx2.Response(200, json={})
        self.seen.append(json.loads(request.content))
        if self.seen[-1].get("stream"):
            lines = "".join(f"data: {json.dumps(each)}\n\n" for each in RECORDED["stream"])
            return httpx2.Response(200, text=lines + "data: [DONE]\n\n", headers={"content-type": "text/event-stream"})
        return httpx2.Response(self.status, json=self.body)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    transport = httpx2.MockTransport(made.answer)
    huggingface_hub.set_client_factory(lambda: httpx2.Client(transport=transport))
    huggingface_hub.set_async_client_factory(lambda: httpx2.AsyncClient(transport=transport))
    yield made
    huggingface_hub.set_client_factory(httpx2.Client)
    huggingface_hub.set_async_client_factory(httpx2.AsyncClient)


def client(colour: str) -> Any:
    cls = InferenceClient if colour == "sync" else AsyncInferenceClient
    return cls(base_url="http://gpu.internal:8080/v1", api_key="test")


def check(span: Span) -> None:
    call = span.model_call
    assert call is not None
    assert (span.status, call.provider, call.model) == ("ok", "hugging_face", "gpt-4.1")
    assert (call.server_address, call.server_port) == ("gpu.internal", 8080)
    assert [message.role for message in call.input] == ["system", "user"]
    assert call.output[0].text == "Hello there!"
    assert (call.usage.input_tokens, call.usage.output_tokens) == (19, 10)
    assert call.finish_reasons == ("stop",)
    assert call.parameters["temperature"] == 0.5


@pytest.mark.parametrize("colour", ["sync", "async"])
@pytest.mark.parametrize("way", ["wrapped", "instrumented"])
def test_a_call_and_a_stream(way: str, colour: str, server: Server, recorded: MemorySink) -> None:
    async def run() -> None:
        made = client(colour)
        if way == "wrapped":
            loopkit.wrap(made)
        else:
            loopkit.instrument("huggingface")
        answer = await value(made.chat_completion(ASKED, model="gpt-4.1", temperature=0.5))
        assert answer.choices[0].message.content == "Hello there!"
        stream = await value(made.chat.completions.create(ASKED, model="gpt-4.1", temperature=0.5, stream=True))
        assert await collect(stream)
        event = loopkit.feedback(answer, "helpful", True)
        assert event is not None

    try:
        asyncio.run(run())
    finally:
        loopkit.uninstrument()
    whole, streamed = recorded.spans()
    check(whole)
    check(streamed)
    assert streamed.model_call is not None
    assert streamed.model_call.stream
    assert recorded.events()[0].target == whole.id


def test_a_stream_left_early_is_cancelled(server: Server, recorded: MemorySink) -> None:
    stream = loopkit.wrap(client("sync")).chat_completion(ASKED, model="m", stream=True)
    next(stream)
    next(stream)
    stream.close()
    (span,) = recorded.spans()
    assert span.status == "cancelled"


def test_a_guard_sees_both_sides(server: Server, recorded: MemorySink) -> None:
    message = {"role": "assistant", "content": "write to ben@example.org"}
    server.body = {**RECORDED["body"], "choices": [{"index": 0, "finish_reason": "stop", "message": message}]}
    guard = loopkit.Guard(input=[checks.pii()], output=[checks.pii()])
    made = loopkit.wrap(client("sync"), guard=guard)
    answer = made.chat_completion([{"role": "user", "content": "I am ana@example.org"}], model="m")
    assert server.seen[0]["messages"][0]["content"] == "I am [EMAIL]"
    assert answer.choices[0].message.content == "write to [EMAIL]"
    assert answer["choices"][0]["message"]["content"] == "write to [EMAIL]"


def test_the_clients_error_passes_untouched(server: Server, recorded: MemorySink) -> None:
    server.status, server.body = 400, {"error": "no such model"}
    with pytest.raises(huggingface_hub.errors.HfHubHTTPError) as plain:
        client("sync").chat_completion(ASKED, model="m")
    with pytest.raises(type(plain.value)):
        loopkit.wrap(client("sync")).chat_completion(ASKED, model="m")
    (span,) = recorded.spans()
    assert span.status == "error"
    assert span.error is not None
    assert span.error.type == type(plain.value).__name__
