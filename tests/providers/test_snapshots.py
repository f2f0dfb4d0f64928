"""A whole span for each provider and operation, as it goes over OTLP with its content, compared with one read by eye.

`LOOPKIT_SNAPSHOTS=write pytest tests/providers/test_snapshots.py` writes them anew: read what changed, then commit.
The table in docs/capture is made from these files.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import httpx2
import pytest

import loopkit
from loopkit.testing import CountingIds, TickingClock, recording
from loopkit.wire.decode import attributes_of
from tests.providers.contract import ROWS, Row
from tests.providers.test_endpoints import ENDPOINTS, Endpoint, _answer, _client

SNAPSHOTS = Path(__file__).parent / "snapshots"
_PICTURE = "iVBORw0KGgo="
_SCHEMA: dict[str, Any] = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
_TOOL = {"type": "function", "function": {"name": "look_up", "description": "Look a word up.", "parameters": _SCHEMA}}
_ASKED = "What is this?"


def _with_tools(call: str | dict[str, Any]) -> list[dict[str, Any]]:
    """A conversation in OpenAI's shape: a picture, a tool that was called, its result."""
    function = {"name": "look_up", "arguments": call}
    return [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [
            {"type": "text", "text": _ASKED},
            {"type": "image_url", "image_url": {"url": "https://example.org/ship.png"}}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "c1", "content": "a vessel"},
    ]  # fmt: skip


_COMPLETION = {
    "id": "chatcmpl-2", "object": "chat.completion", "created": 1, "model": "gpt-4.1-2025", "service_tier": "default",
    "system_fingerprint": "fp_1",
    "choices": [{"index": 0, "finish_reason": "tool_calls", "logprobs": None, "message": {
        "role": "assistant", "content": "Let me see.", "tool_calls": [
            {"id": "c2", "type": "function", "function": {"name": "look_up", "arguments": '{"word": "mast"}'}}]}}],
    "usage": {"prompt_tokens": 90, "completion_tokens": 30, "total_tokens": 120,
              "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 0},
              "completion_tokens_details": {"reasoning_tokens": 12, "audio_tokens": 0}},
}  # fmt: skip

RICH: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "openai chat": (
        {"model": "gpt-4.1", "messages": _with_tools('{"word": "ship"}'), "tools": [_TOOL], "seed": 7,
         "max_completion_tokens": 99, "top_p": 0.9, "stop": ["END"], "reasoning_effort": "low",
         "response_format": {"type": "json_object"}, "user": "u-1"},
        _COMPLETION,
    ),
    "openai responses": (
        {"model": "gpt-4.1", "instructions": "Be brief.", "previous_response_id": "resp_0", "max_output_tokens": 99,
         "tools": [{"type": "function", "name": "look_up", "parameters": _SCHEMA, "strict": True}],
         "input": [
             {"role": "user", "content": [
                 {"type": "input_text", "text": _ASKED},
                 {"type": "input_image", "image_url": "https://example.org/ship.png", "detail": "auto"}]},
             {"type": "function_call", "call_id": "c1", "name": "look_up", "arguments": '{"word": "ship"}'},
             {"type": "function_call_output", "call_id": "c1", "output": "a vessel"}]},
        {"id": "resp_1", "object": "response", "created_at": 1, "model": "gpt-4.1-2025", "status": "completed",
         "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "temperature": 1.0, "top_p": 1.0,
         "instructions": None, "metadata": {}, "error": None, "incomplete_details": None,
         "output": [
             {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "A ship has masts."}]},
             {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [
                 {"type": "output_text", "text": "Let me see.", "annotations": []}]},
             {"type": "function_call", "id": "fc", "call_id": "c2", "name": "look_up", "status": "completed",
              "arguments": '{"word": "mast"}'}],
         "usage": {"input_tokens": 90, "input_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 0},
                   "output_tokens": 30, "output_tokens_details": {"reasoning_tokens": 12}, "total_tokens": 120}},
    ),
    "anthropic messages": (
        {"model": "claude-test-1", "max_tokens": 99, "system": "Be brief.", "stop_sequences": ["END"],
         "tools": [{"name": "look_up", "description": "Look a word up.", "input_schema": _SCHEMA}],
         "messages": [
             {"role": "user", "content": [
                 {"type": "text", "text": _ASKED},
                 {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": _PICTURE}}]},
             {"role": "assistant", "content": [
                 {"type": "tool_use", "id": "c1", "name": "look_up", "input": {"word": "ship"}}]},
             {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "a vessel"}]}]},
        {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-test-1-2025",
         "stop_reason": "tool_use", "stop_sequence": None,
         "content": [
             {"type": "thinking", "thinking": "A ship has masts.", "signature": "s"},
             {"type": "text", "text": "Let me see."},
             {"type": "tool_use", "id": "c2", "name": "look_up", "input": {"word": "mast"}}],
         "usage": {"input_tokens": 20, "output_tokens": 30, "cache_creation_input_tokens": 6,
                   "cache_read_input_tokens": 64}},
    ),
    "google gemini": (
        {"model": "gemini-test-1",
         "contents": [
             {"role": "user", "parts": [
                 {"text": _ASKED}, {"inline_data": {"mime_type": "image/png", "data": _PICTURE}}]},
             {"role": "model", "parts": [
                 {"function_call": {"id": "c1", "name": "look_up", "args": {"word": "ship"}}}]},
             {"role": "user", "parts": [
                 {"function_response": {"id": "c1", "name": "look_up", "response": {"result": "a vessel"}}}]}],
         "config": {"system_instruction": "Be brief.", "max_output_tokens": 99, "top_p": 0.9, "top_k": 40, "seed": 7,
                    "stop_sequences": ["END"], "response_mime_type": "application/json",
                    "tools": [{"function_declarations": [{"name": "look_up", "parameters_json_schema": _SCHEMA}]}]}},
        {"modelVersion": "gemini-test-1-001", "responseId": "resp-g2",
         "candidates": [{"index": 0, "finishReason": "STOP", "content": {"role": "model", "parts": [
             {"text": "A ship has masts.", "thought": True}, {"text": "Let me see."},
             {"functionCall": {"id": "c2", "name": "look_up", "args": {"word": "mast"}}}]}}],
         "usageMetadata": {"promptTokenCount": 90, "candidatesTokenCount": 18, "thoughtsTokenCount": 12,
                           "cachedContentTokenCount": 64, "totalTokenCount": 120, "promptTokensDetails": [
                               {"modality": "TEXT", "tokenCount": 32}, {"modality": "IMAGE", "tokenCount": 58}]}},
    ),
    "mistral chat": (
        {"model": "mistral-test-1", "messages": _with_tools('{"word": "ship"}'), "tools": [_TOOL], "random_seed": 7,
         "max_tokens": 99, "top_p": 0.9, "stop": ["END"]},
        {**_COMPLETION, "id": "cmpl-m2", "model": "mistral-test-1"},
    ),
    "ollama chat": (
        {"model": "llama3.2", "tools": [_TOOL], "format": "json",
         "options": {"num_predict": 99, "top_p": 0.9, "top_k": 40, "seed": 7, "stop": ["END"]},
         "messages": [
             {"role": "system", "content": "Be brief."},
             {"role": "user", "content": _ASKED, "images": [_PICTURE]},
             {"role": "assistant", "content": "", "tool_calls": [
                 {"function": {"name": "look_up", "arguments": {"word": "ship"}}}]},
             {"role": "tool", "tool_name": "look_up", "content": "a vessel"}]},
        {"model": "llama3.2", "created_at": "2025-10-17T23:14:07Z", "done": True, "done_reason": "stop",
         "prompt_eval_count": 90, "eval_count": 30, "message": {
             "role": "assistant", "content": "Let me see.", "thinking": "A ship has masts.",
             "tool_calls": [{"function": {"name": "look_up", "arguments": {"word": "mast"}}}]}},
    ),
    "cohere chat": (
        {"model": "command-a-03-2025", "tools": [_TOOL], "max_tokens": 99, "p": 0.9, "k": 40, "seed": 7,
         "stop_sequences": ["END"], "response_format": {"type": "json_object"},
         "documents": [{"id": "d-1", "data": {"text": "about ships"}}],
         "messages": [
             {"role": "system", "content": "Be brief."},
             {"role": "user", "content": [
                 {"type": "text", "text": _ASKED},
                 {"type": "image_url", "image_url": {"url": "https://example.org/ship.png"}}]},
             {"role": "assistant", "tool_plan": "I look it up.", "tool_calls": [
                 {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"word": "ship"}'}}]},
             {"role": "tool", "tool_call_id": "c1", "content": "a vessel"}]},
        {"id": "c-2", "finish_reason": "TOOL_CALL", "message": {
            "role": "assistant", "tool_plan": "A ship has masts.", "content": [{"type": "text", "text": "Let me see."}],
            "tool_calls": [
                {"id": "c2", "type": "function", "function": {"name": "look_up", "arguments": '{"word": "mast"}'}}]},
         "usage": {"billed_units": {"input_tokens": 20.0, "output_tokens": 30.0}, "cached_tokens": 64.0,
                   "tokens": {"input_tokens": 90.0, "output_tokens": 30.0}}},
    ),
    "bedrock converse": (
        {"modelId": "amazon.nova-lite-v1:0", "system": [{"text": "Be brief."}],
         "inferenceConfig": {"maxTokens": 99, "topP": 0.9, "stopSequences": ["END"]},
         "additionalModelRequestFields": {"top_k": 40},
         "toolConfig": {"tools": [{"toolSpec": {"name": "look_up", "inputSchema": {"json": _SCHEMA}}}]},
         "messages": [
             {"role": "user", "content": [
                 {"text": _ASKED}, {"image": {"format": "png", "source": {"bytes": b"\x89PNG"}}}]},
             {"role": "assistant", "content": [
                 {"toolUse": {"toolUseId": "c1", "name": "look_up", "input": {"word": "ship"}}}]},
             {"role": "user", "content": [
                 {"toolResult": {"toolUseId": "c1", "content": [{"text": "a vessel"}]}}]}]},
        {"output": {"message": {"role": "assistant", "content": [
            {"reasoningContent": {"reasoningText": {"text": "A ship has masts.", "signature": "s"}}},
            {"text": "Let me see."},
            {"toolUse": {"toolUseId": "c2", "name": "look_up", "input": {"word": "mast"}}}]}},
         "stopReason": "tool_use", "metrics": {"latencyMs": 7},
         "usage": {"inputTokens": 20, "outputTokens": 30, "totalTokens": 120, "cacheReadInputTokens": 64,
                   "cacheWriteInputTokens": 6}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", [row for row in ROWS if row.name in RICH], ids=lambda row: row.name)
def test_a_conversation_with_everything(row: Row) -> None:
    arguments, body = RICH[row.name]
    given = dataclasses.replace(row, arguments=arguments)
    client = loopkit.wrap(given.make("sync", _answering(given, body)))
    _compare(row.name, lambda: given.call(client))


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_an_endpoint(endpoint: Endpoint) -> None:
    client = loopkit.wrap(_client("sync", _answer(endpoint)))
    _compare(f"openai {endpoint.name}", lambda: endpoint.call(client))


_BY_NAME = {row.name: row for row in ROWS}
_TEXTS = ["a ship", "at sea"]
_CLAUDE = {
    "id": "msg_b", "type": "message", "role": "assistant", "model": "claude-3", "stop_reason": "end_turn",
    "content": [{"type": "text", "text": "A ship."}], "usage": {"input_tokens": 9, "output_tokens": 3},
}  # fmt: skip
_COUNTED = {"prompt_tokens": 5, "completion_tokens": 0, "total_tokens": 5}
_VECTORS = [{"object": "embedding", "index": n, "embedding": [0.25, 0.5, 0.75]} for n in range(2)]


def _invoke(client: Any, body: dict[str, Any], model: str) -> Any:
    return client.invoke_model(modelId=model, body=json.dumps(body))["body"].read()


OTHERS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "google embeddings": (
        "google gemini",
        lambda c: c.models.embed_content(model="embed-test-1", contents=_TEXTS),
        {"embeddings": [{"values": [0.25, 0.5, 0.75]}] * 2},
    ),
    "mistral embeddings": (
        "mistral chat",
        lambda c: c.embeddings.create(model="mistral-embed", inputs=_TEXTS),
        {"id": "emb-1", "object": "list", "model": "mistral-embed", "data": _VECTORS, "usage": _COUNTED},
    ),
    "mistral fill in the middle": (
        "mistral chat",
        lambda c: c.fim.complete(model="codestral", prompt="def ship(", suffix="return mast", max_tokens=9),
        {**_COMPLETION, "choices": [{"index": 0, "finish_reason": "stop",
                                     "message": {"role": "assistant", "content": "mast):"}}]},
    ),
    "bedrock invoke": (
        "bedrock converse",
        lambda c: _invoke(
            c,
            {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9, "system": "Be brief.",
             "messages": [{"role": "user", "content": _ASKED}]},
            "anthropic.claude-3-haiku-20240307-v1:0",
        ),
        _CLAUDE,
    ),
    "bedrock invoke embedding": (
        "bedrock converse",
        lambda c: _invoke(c, {"inputText": "a ship at sea", "dimensions": 3}, "amazon.titan-embed-text-v2:0"),
        {"embedding": [0.25, 0.5, 0.75], "inputTextTokenCount": 5},
    ),
    "ollama generate": (
        "ollama chat",
        lambda c: c.generate("llama3.2", _ASKED, suffix=" it is", system="Be brief.", options={"num_predict": 9}),
        {"model": "llama3.2", "response": "A ship.", "thinking": "Masts.", "context": [1, 2], "done": True,
         "done_reason": "length", "prompt_eval_count": 9, "eval_count": 3},
    ),
    "ollama embed": (
        "ollama chat",
        lambda c: c.embed("nomic-embed-text", _TEXTS, truncate=True),
        {"model": "nomic-embed-text", "embeddings": [[0.25, 0.5, 0.75]] * 2, "prompt_eval_count": 5},
    ),
    "cohere embed": (
        "cohere chat",
        lambda c: c.embed(model="embed-v4.0", texts=_TEXTS, input_type="search_query", embedding_types=["float"]),
        {"id": "e-1", "embeddings": {"float": [[0.25, 0.5, 0.75]] * 2}, "texts": _TEXTS,
         "meta": {"billed_units": {"input_tokens": 5.0}}},
    ),
    "cohere rerank": (
        "cohere chat",
        lambda c: c.rerank(model="rerank-v3.5", query=_ASKED, documents=_TEXTS, top_n=1),
        {"id": "k-1", "results": [{"index": 1, "relevance_score": 0.9}], "meta": {"billed_units": {"search_units": 1}}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_what_providers_have_beside_a_conversation(name: str) -> None:
    of, call, body = OTHERS[name]
    row = _BY_NAME[of]
    client = loopkit.wrap(row.make("sync", _answering(row, body)))
    _compare(name, lambda: call(client))


def _answering(row: Row, body: dict[str, Any]) -> Any:
    if row.library is None:
        return lambda request: (200, {"content-type": "application/json"}, json.dumps(body).encode())
    library = row.library or httpx2
    return lambda request: library.Response(200, json=body)


def _compare(name: str, call: Any) -> None:
    with recording(clock=TickingClock(), ids=CountingIds(), content="export") as recorded:
        call()
        (span,) = recorded.spans()
        (encoded,) = [span for batch in recorded.batches for span in batch.spans]
    found = {"name": span.name, "status": span.status, "attributes": _attributes(encoded.exported(content=True))}
    file = SNAPSHOTS / f"{name.replace(' ', '_')}.json"
    if os.environ.get("LOOPKIT_SNAPSHOTS") == "write":
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    assert found == json.loads(file.read_text())


def _attributes(data: bytes) -> dict[str, Any]:
    """What an attribute says; JSON in it spelled out, so that people can read it."""
    from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

    found: dict[str, Any] = {}
    for key, value in attributes_of(OtlpSpan.FromString(data)):
        assert key not in found, f"{key} is there twice"
        try:
            found[key] = json.loads(value) if isinstance(value, str) and value[:1] in "[{" else value
        except ValueError:
            found[key] = value
    return dict(sorted(found.items()))
