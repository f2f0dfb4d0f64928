"""cohere beyond a chat: tools, documents, thoughts, embeddings, reranking, guards."""

from __future__ import annotations

import json
import operator
from typing import Any

import cohere
import httpx
import pytest

import loopkit
from loopkit import checks
from loopkit.errors import Unguarded
from loopkit.testing import MemorySink
from loopkit.types import ModelCall

USAGE = {"billed_units": {"input_tokens": 5.0}, "tokens": {"input_tokens": 19.0, "output_tokens": 10.0}}


def client(body: Any, seen: list[Any] | None = None, **given: Any) -> cohere.ClientV2:
    def answer(request: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen.append(json.loads(request.content))
        return httpx.Response(200, json=body)

    http = httpx.Client(transport=httpx.MockTransport(answer))
    return loopkit.wrap(cohere.ClientV2(api_key="test", httpx_client=http), **given)


def only_call(recorded: MemorySink) -> ModelCall:
    (span,) = recorded.spans()
    assert span.status == "ok"
    assert span.model_call is not None
    assert span.model_call.server_address == "api.cohere.com"
    return span.model_call


def test_tools_documents_and_thoughts(recorded: MemorySink) -> None:
    called = {"id": "c-1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    message = {"role": "assistant", "tool_plan": "I look it up.", "tool_calls": [called]}
    body = {"id": "r-1", "finish_reason": "TOOL_CALL", "message": message, "usage": USAGE}
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    client(body).chat(
        model="command-a",
        messages=[cohere.UserChatMessageV2(content="Rome?")],
        documents=[{"data": {"text": "It is sunny."}}, "and warm"],
        tools=[tool],
        k=3,
        p=0.5,
    )
    call = only_call(recorded)
    assert [(message.role, message.text) for message in call.input] == [
        ("system", "It is sunny.and warm"),
        ("user", "Rome?"),
    ]
    assert [(part.type, part.content or part.arguments) for part in call.output[0].parts] == [
        ("reasoning", "I look it up."),
        ("tool_call", {"city": "Rome"}),
    ]
    assert call.finish_reasons == ("tool_call",)
    assert (call.parameters["top_k"], call.parameters["top_p"]) == (3, 0.5)
    assert [each["name"] for each in call.tools] == ["weather"]
    assert (call.usage.input_tokens, call.usage.output_tokens) == (19, 10)


def test_vectors_are_counted_and_not_kept(recorded: MemorySink) -> None:
    body = {"id": "e-1", "embeddings": {"float": [[0.25, 0.5, 0.75]] * 2}, "texts": ["one", "two"],
            "meta": {"billed_units": {"input_tokens": 4.0}}}  # fmt: skip
    made = client(body)
    made.embed(model="embed-v4.0", texts=["one", "two"], input_type="search_query", embedding_types=["float"])
    (span,) = recorded.spans()
    call = only_call(recorded)
    assert (span.kind, call.operation, call.dimensions) == ("embedding", "embeddings", 3)
    assert [part.content for part in call.input[0].parts] == ["one", "two"]
    assert call.usage.input_tokens == 4
    assert call.parameters["encoding_formats"] == ["float"]
    assert "0.25" not in (call.native_response or "")


def test_reranking(recorded: MemorySink) -> None:
    body = {"id": "k-1", "results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]}
    client(body).rerank(model="rerank-v3.5", query="cards?", documents=["loans", "cards"], top_n=2)
    call = only_call(recorded)
    assert call.operation == "rerank"
    assert [part.content for part in call.input[0].parts] == ["cards?", "loans", "cards"]
    assert [part.content["index"] for part in call.output[0].parts] == [1, 0]
    assert call.parameters == {"top_n": 2}


def test_a_guard_sees_both_sides(recorded: MemorySink) -> None:
    seen: list[Any] = []
    content = [{"type": "text", "text": "write to ben@example.org"}]
    body = {"id": "r-1", "finish_reason": "COMPLETE", "message": {"role": "assistant", "content": content}}
    made = client(body, seen, guard=loopkit.Guard(input=[checks.pii()], output=[checks.pii()]))
    messages = [cohere.UserChatMessageV2(content="I am ana@example.org")]
    answer = made.chat(model="m", messages=messages, documents=["by ana@example.org"])
    assert seen[0]["messages"][0]["content"] == "I am [EMAIL]"
    assert seen[0]["documents"] == ["by [EMAIL]"]
    assert answer.message.content is not None
    assert "[EMAIL]" in str(answer.message.content[0])


def test_a_call_that_a_guard_cannot_read_is_not_made(recorded: MemorySink) -> None:
    seen: list[Any] = []
    made = client({}, seen, guard=loopkit.Guard(input=[checks.pii()]))
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(Unguarded, match="could not be read, so its guards could not check it"):
        made.chat(model="m", messages=circle)
    assert seen == []


@pytest.mark.parametrize("way", ["chat", "with_raw_response.chat", "v2.chat", "v2.with_raw_response.chat"])
def test_every_way_to_its_chat_is_recorded_once_and_guarded(way: str, recorded: MemorySink) -> None:
    seen: list[Any] = []
    content = [{"type": "text", "text": "write to ben@example.org"}]
    body = {"id": "r-1", "finish_reason": "COMPLETE", "message": {"role": "assistant", "content": content}}
    made = client(body, seen, guard=loopkit.Guard(input=[checks.pii()], output=[checks.pii()]))
    answer = operator.attrgetter(way)(made)(model="m", messages=[{"role": "user", "content": "I am ana@example.org"}])
    assert seen[0]["messages"][0]["content"] == "I am [EMAIL]"
    assert "ben@" not in str(answer.data if "raw" in way else answer)
    event = loopkit.feedback(answer, "helpful", True)
    (span,) = [span for span in recorded.spans() if span.kind == "llm"]
    assert event is not None
    assert event.target == span.id


def test_clients_made_before_are_recorded_by_instrument(recorded: MemorySink) -> None:
    body = {"id": "r-1", "finish_reason": "COMPLETE", "message": {"role": "assistant", "content": []}}
    made = loopkit.unwrap(client(body))
    loopkit.instrument("cohere")
    made.chat(model="m", messages=[{"role": "user", "content": "hi"}])
    loopkit.uninstrument("cohere")
    made.chat(model="m", messages=[{"role": "user", "content": "hi"}])
    assert [span.name for span in recorded.spans()] == ["chat m"]
