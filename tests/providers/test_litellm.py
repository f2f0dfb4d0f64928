"""litellm: one span for a call, whatever SDK it goes through below. It needs an environment of its own: openai 2."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from typing import Any

import pytest

import loopkit
from loopkit.testing import MemorySink
from tests.colours import collect, value

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # it would look on the network otherwise
litellm = pytest.importorskip("litellm", reason="litellm is not installed: make test-litellm")

pytestmark = pytest.mark.filterwarnings("ignore")  # litellm's models make pydantic warn

_ASKED: dict[str, Any] = {"model": "openai/gpt-4.1", "messages": [{"role": "user", "content": "How are you?"}]}


@pytest.fixture(autouse=True)
def instrumented() -> Any:
    loopkit.instrument("litellm", "openai")
    yield
    loopkit.uninstrument()


def _client(colour: str) -> Any:
    import httpx
    import openai

    body = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4.1-2025",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello there!"}}],
        "usage": {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29},
    }  # fmt: skip
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=body))
    if colour == "sync":
        return openai.OpenAI(api_key="test", http_client=httpx.Client(transport=transport))
    return openai.AsyncOpenAI(api_key="test", http_client=httpx.AsyncClient(transport=transport))


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_call_is_one_span(colour: str, recorded: MemorySink) -> None:
    async def run() -> Any:
        call = litellm.completion if colour == "sync" else litellm.acompletion
        return await value(call(**_ASKED, client=_client(colour), temperature=0.5))

    answer = asyncio.run(run())
    (span,) = recorded.spans()
    call = span.model_call
    assert call is not None
    assert (call.provider, call.model, call.response_id) == ("openai", "gpt-4.1", answer.id)
    assert (call.usage.input_tokens, call.usage.output_tokens) == (19, 10)
    assert (call.input[0].text, call.output[0].text) == ("How are you?", "Hello there!")
    assert call.parameters == {"temperature": 0.5}
    event = loopkit.feedback(answer, "helpful", True)
    assert event is not None
    assert event.target == span.id


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_stream_is_one_span(colour: str, recorded: MemorySink) -> None:
    async def run() -> int:
        call = litellm.completion if colour == "sync" else litellm.acompletion
        stream = await value(call(**_ASKED, stream=True, mock_response="Hello there!"))
        assert isinstance(stream, litellm.CustomStreamWrapper)
        return len(await collect(stream))

    assert asyncio.run(run()) > 1
    (span,) = recorded.spans()
    assert span.model_call is not None
    assert (span.status, span.model_call.output[0].text) == ("ok", "Hello there!")


def test_a_dropped_stream_ends_too(recorded: MemorySink) -> None:
    stream = litellm.completion(**_ASKED, stream=True, mock_response="Hello there!")
    next(iter(stream))
    del stream
    deadline = time.monotonic() + 10
    while not recorded.spans() and time.monotonic() < deadline:  # litellm's own threads may hold it for a while
        gc.collect()
        time.sleep(0.05)
    (span,) = recorded.spans()
    assert span.status == "cancelled"


def test_embeddings_and_errors(recorded: MemorySink) -> None:
    litellm.embedding(model="openai/text-embedding-3-small", input=["a", "b"], mock_response=[0.5, 0.25])
    with pytest.raises(litellm.InternalServerError):
        litellm.completion(**_ASKED, mock_response=litellm.InternalServerError("no", "openai", "gpt-4.1"))
    embedding, failed = recorded.spans()
    assert (embedding.kind, failed.status) == ("embedding", "error")


def test_an_earlier_import_is_recorded_too(recorded: MemorySink) -> None:
    from litellm import completion

    completion(**_ASKED, mock_response="ok")
    (span,) = recorded.spans()
    assert span.kind == "llm"
