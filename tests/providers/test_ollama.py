"""Ollama's own client beyond a chat: prompts, embeddings, tools, pictures, and the package's functions."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import ollama
import pytest

import loopkit
from loopkit import checks
from loopkit.testing import MemorySink
from loopkit.types import ModelCall

PICTURE = b"\x89PNG" + bytes(range(256)) * 8
COUNTS = {"done": True, "done_reason": "stop", "prompt_eval_count": 5, "eval_count": 2}


def client(*lines: Any, seen: list[Any] | None = None, **given: Any) -> ollama.Client:
    def answer(request: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen.append(json.loads(request.content))
        return httpx.Response(200, text="\n".join(json.dumps(line) for line in lines))

    return loopkit.wrap(ollama.Client(host="http://gpu.internal:11434", transport=httpx.MockTransport(answer)), **given)


def only_call(recorded: MemorySink) -> ModelCall:
    (span,) = recorded.spans()
    assert span.status == "ok"
    assert span.model_call is not None
    return span.model_call


def test_a_prompt_is_completed(recorded: MemorySink) -> None:
    body = {"model": "m", "response": "blue", "thinking": "The sky.", "context": [1, 2], **COUNTS}
    client(body).generate("m", "Why?", system="Be brief.", images=[PICTURE], options={"num_predict": 4, "stop": ["."]})
    call = only_call(recorded)
    assert (call.operation, call.model, call.server_address, call.server_port) == (
        "text_completion", "m", "gpu.internal", 11434,
    )  # fmt: skip
    assert [message.role for message in call.input] == ["system", "user"]
    assert call.input[1].text == "Why?"
    assert call.input[1].parts[1].mime_type == "image/*"
    assert [(part.type, part.content) for part in call.output[0].parts] == [
        ("reasoning", "The sky."),
        ("text", "blue"),
    ]
    assert call.parameters["max_tokens"] == 4
    assert call.parameters["stop_sequences"] == ["."]
    assert (call.usage.input_tokens, call.usage.output_tokens) == (5, 2)


def test_a_streamed_prompt_is_put_together(recorded: MemorySink) -> None:
    pieces = [{"model": "m", "response": text, "done": False} for text in ("bl", "ue")]
    last = {"model": "m", "response": "", **COUNTS}
    assert len(list(client(*pieces, last).generate("m", "Why?", stream=True))) == 3
    call = only_call(recorded)
    assert (call.output[0].text, call.finish_reasons, call.usage.output_tokens) == ("blue", ("stop",), 2)


@pytest.mark.parametrize("way", ["embed", "embeddings"])
def test_vectors_are_counted_and_not_kept(way: str, recorded: MemorySink) -> None:
    if way == "embed":
        body = {"model": "m", "embeddings": [[0.25, 0.5, 0.75]] * 2, "prompt_eval_count": 5}
        client(body).embed("m", ["one", "two"])
    else:
        client({"embedding": [0.25, 0.5, 0.75]}).embeddings("m", "one")
    (span,) = recorded.spans()
    call = span.model_call
    assert call is not None
    assert (span.kind, call.operation, call.dimensions) == ("embedding", "embeddings", 3)
    assert call.input[0].parts[0].content == "one"
    assert "0.25" not in (call.native_response or "")


def test_tools_are_called(recorded: MemorySink) -> None:
    called = {"function": {"name": "weather", "arguments": {"city": "Rome"}}}
    body = {"model": "m", "message": {"role": "assistant", "content": "", "tool_calls": [called]}, **COUNTS}

    def weather(city: str) -> str:
        """Tell the weather.

        Args:
          city: The city.
        """
        return "fine"

    client(body).chat("m", [{"role": "user", "content": "Rome?"}], tools=[weather])
    call = only_call(recorded)
    (part,) = call.output[0].parts
    assert (part.type, part.name, part.arguments) == ("tool_call", "weather", {"city": "Rome"})
    assert call.output[0].finish_reason == "tool_call"
    assert [tool["name"] for tool in call.tools] == ["weather"]


def test_a_guard_sees_both_sides(recorded: MemorySink) -> None:
    seen: list[Any] = []
    body = {"model": "m", "message": {"role": "assistant", "content": "write to ben@example.org"}, **COUNTS}
    guard = loopkit.Guard(input=[checks.pii()], output=[checks.pii()])
    made = client(body, seen=seen, guard=guard)
    answer = made.chat("m", [{"role": "user", "content": "I am ana@example.org"}])
    assert seen[0]["messages"][0]["content"] == "I am [EMAIL]"
    assert answer.message.content == "write to [EMAIL]"


@pytest.fixture
def instrumented() -> Iterator[None]:
    loopkit.instrument("ollama")
    yield
    loopkit.uninstrument("ollama")


def test_the_packages_functions_are_recorded(
    instrumented: None, recorded: MemorySink, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"model": "m", "message": {"role": "assistant", "content": "hi"}, **COUNTS}
    http = httpx.Client(
        base_url="http://127.0.0.1:11434", transport=httpx.MockTransport(lambda _: httpx.Response(200, json=body))
    )
    own: Any = ollama.chat
    monkeypatch.setattr(own.__self__, "_client", http)
    assert ollama.chat("m", [{"role": "user", "content": "hello"}]).message.content == "hi"
    assert only_call(recorded).output[0].text == "hi"


def test_a_picture_lies_outside_the_row(stored: MemorySink) -> None:
    body = {"model": "m", "message": {"role": "assistant", "content": "a cat"}, **COUNTS}
    client(body).chat("m", [{"role": "user", "content": "?", "images": [PICTURE]}])
    call = only_call(stored)
    part = call.input[0].parts[1]
    assert part.uri is not None
    assert loopkit.open_store().media(part.uri) == PICTURE
    assert base64.b64encode(PICTURE).decode()[:50] not in (call.native_request or "")
