"""Guards see what every provider's clients send and get, whatever its shape; hooks go as they came."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import json
from typing import Any

import google.genai
import httpx2
import openai
import pytest
from openinference.instrumentation.openai import OpenAIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel

import loopkit
from loopkit import checks, frameworks
from loopkit.capture.dialects.known import CHAT, CONVERSE, DIALECTS, MESSAGES, translated
from loopkit.errors import Blocked
from loopkit.testing import MemorySink, recording
from loopkit.types import ModelCall
from tests.providers.contract import ROWS, Row
from tests.providers.test_endpoints import _client

BY_NAME = {row.name: row for row in ROWS}
BEDROCK = BY_NAME["bedrock converse"]
SECRET = loopkit.Guard(output=[checks.passes(lambda text: "SECRET" not in text, name="secret")])
MAIL = loopkit.Guard(input=[checks.pii()], output=[checks.pii()])


def bedrock(body: Any, seen: list[Any] | None = None) -> Any:
    def answer(request: Any) -> Any:
        if seen is not None:
            seen.append(json.loads(request.body))
        return 200, {"content-type": "application/json"}, json.dumps(body).encode()

    return BEDROCK.make("sync", answer)


def invoke(client: Any, body: Any, model: str = "anthropic.claude-3") -> Any:
    return json.loads(client.invoke_model(modelId=model, body=json.dumps(body))["body"].read())


CLAUDE = {"content": [{"type": "text", "text": "a SECRET"}], "stop_reason": "end_turn", "usage": {}}


def test_an_invoked_models_answer_is_checked_and_can_be_changed(recorded: MemorySink) -> None:
    with pytest.raises(Blocked):
        invoke(loopkit.wrap(bedrock(CLAUDE), guard=SECRET), {"anthropic_version": "x", "messages": []})
    answer = {**CLAUDE, "content": [{"type": "text", "text": "mail ana@example.org"}]}
    got = invoke(loopkit.wrap(bedrock(answer), guard=MAIL), {"anthropic_version": "x", "messages": []})
    assert got["content"][0]["text"] == "mail [EMAIL]"


@pytest.mark.parametrize("model", ["openai.gpt-oss-20b-1:0", "arn:aws:bedrock:eu:1:application-inference-profile/x"])
def test_what_an_invoked_model_is_asked_is_checked_whatever_its_name(model: str, recorded: MemorySink) -> None:
    seen: list[Any] = []
    completion = {"id": "c", "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}}],
                  "usage": {"prompt_tokens": 4, "completion_tokens": 1}}  # fmt: skip
    client = loopkit.wrap(bedrock(completion, seen), guard=MAIL)
    invoke(client, {"messages": [{"role": "user", "content": "I am ana@example.org"}]}, model)
    assert seen == [{"messages": [{"role": "user", "content": "I am [EMAIL]"}]}]
    call = next(span.model_call for span in recorded.spans() if span.kind == "llm")
    assert call is not None
    assert (call.usage.input_tokens, call.output[0].text) == (4, "Hi")


def test_an_unguarded_body_is_the_applications_own_to_read(recorded: MemorySink) -> None:
    client = loopkit.wrap(bedrock(CLAUDE))
    body = client.invoke_model(modelId="anthropic.claude-3", body="{}")["body"]
    assert recorded.spans() == []
    assert b"".join(body.iter_chunks(7)) == json.dumps(CLAUDE).encode()
    (span,) = recorded.spans()
    assert span.model_call is not None
    assert (span.status, span.model_call.output[0].text) == ("ok", "a SECRET")


def test_every_block_of_a_conversation_is_redacted(recorded: MemorySink) -> None:
    blocks = [{"text": "to ana@example.org"}, {"text": " or bob@example.org"},
              {"toolUse": {"toolUseId": "c", "name": "mail", "input": {"to": "eve@example.org"}}}]  # fmt: skip
    body = {**BEDROCK.recorded["body"], "output": {"message": {"role": "assistant", "content": blocks}}}
    got = loopkit.wrap(bedrock(body), guard=MAIL).converse(**BEDROCK.arguments)
    assert "example.org" not in json.dumps(got["output"])


def test_tool_results_and_calls_of_gemini_are_checked(recorded: MemorySink) -> None:
    row, seen = BY_NAME["google gemini"], []
    call = {"functionCall": {"name": "mail", "args": {"to": "eve@example.org"}}}

    def answer(request: Any) -> Any:
        seen.append(request.content)
        return httpx2.Response(200, json={"candidates": [{"content": {"role": "model", "parts": [call]}}]})

    result = {"function_response": {"name": "f", "response": {"result": "ask ana@example.org"}}}
    contents = [{"role": "user", "parts": [result]}]
    client = loopkit.wrap(row.make("sync", answer), guard=MAIL)
    got = client.models.generate_content(model="gemini-test-1", contents=contents)
    assert b"example.org" not in seen[0]
    assert got.function_calls[0].args == {"to": "[EMAIL]"}


class Where(BaseModel):
    w: str


def test_what_the_sdk_parsed_from_a_changed_text_goes(recorded: MemorySink) -> None:
    text = json.dumps({"w": "ana@example.org"})
    item = {"type": "message", "id": "m", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": text, "annotations": []}]}  # fmt: skip
    body = {**BY_NAME["openai responses"].recorded["body"], "output": [item]}
    client = loopkit.wrap(_client("sync", lambda request: httpx2.Response(200, json=body)), guard=MAIL)
    got = client.responses.parse(model="m", input="x", text_format=Where)
    assert (got.output_text, got.output_parsed) == ('{"w": "[EMAIL]"}', None)


@pytest.mark.parametrize("said", [{"refusal": "SECRET"}, {"function_call": {"name": "f", "arguments": "SECRET"}}])
def test_refusals_and_old_calls_are_checked(said: Any, recorded: MemorySink) -> None:
    body = copy.deepcopy(BY_NAME["openai chat"].recorded["body"])
    body["choices"][0]["message"] = {"role": "assistant", "content": None, **said}
    client = loopkit.wrap(_client("sync", lambda request: httpx2.Response(200, json=body)), guard=SECRET)
    with pytest.raises(Blocked):
        client.chat.completions.create(model="m", messages=[])


def test_a_redacted_request_is_one_that_the_provider_knows(recorded: MemorySink) -> None:
    seen: list[Any] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(json.loads(request.content))
        return httpx2.Response(200, json=BY_NAME["openai responses"].recorded["body"])

    client = loopkit.wrap(_client("sync", answer), guard=MAIL)
    part = {"type": "input_text", "text": "mail ana@example.org"}
    client.responses.create(model="m", input=[{"role": "user", "content": [part]}])
    assert seen[0]["input"][0]["content"] == [{"type": "input_text", "text": "mail [EMAIL]"}]


def test_the_sdks_own_message_models_are_guarded(recorded: MemorySink) -> None:
    from mistralai.client.models import UserMessage

    row, seen = BY_NAME["mistral chat"], []

    def answer(request: Any) -> Any:
        seen.append(json.loads(request.content))
        return row.answer(request)

    client = loopkit.wrap(row.make("sync", answer), guard=MAIL)
    client.chat.complete(model="m", messages=[UserMessage(content="I am ana@example.org")])
    assert seen[0]["messages"][0]["content"] == "I am [EMAIL]"


def test_a_stream_whose_filter_fails_is_not_given_out() -> None:
    class Broken:
        def around(self, call: Any) -> Any:
            return (yield call)

        def filter(self, call: Any) -> Any:
            raise ValueError("broken")

    row = BY_NAME["openai chat"]
    with recording(strict=False):
        client = loopkit.wrap(row.make("sync", row.answer), interceptors=[Broken()])
        with pytest.raises(ValueError, match="broken"):
            row.stream(client)


def test_a_blocked_streams_caller_is_told_by_an_exception(recorded: MemorySink) -> None:
    row = BY_NAME["openai chat"]
    guard = loopkit.Guard(input=[checks.passes(lambda text: False, name="no")], answer="no")
    with pytest.raises(Blocked):
        row.stream(loopkit.wrap(row.make("sync", row.answer), guard=guard))


class Host:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def seen(self) -> int:
        return len(self.exporter.get_finished_spans())


def ask(client: Any = None) -> None:
    body = BY_NAME["openai chat"].recorded["body"]
    client = client or _client("sync", lambda request: httpx2.Response(200, json=body))
    client.chat.completions.create(model="m", messages=[])


def test_patches_come_off_in_any_order(recorded: MemorySink) -> None:
    own, host, others = openai.OpenAI.request, Host(), OpenAIInstrumentor()
    loopkit.instrument("openai")
    others.instrument(tracer_provider=host.provider)
    loopkit.uninstrument()
    ask()
    assert (len(recorded.spans()), host.seen) == (0, 1)
    others.uninstrument()
    ask()
    assert (len(recorded.spans()), host.seen) == (0, 1)
    others.instrument(tracer_provider=host.provider)
    loopkit.instrument("openai")
    loopkit.uninstrument()
    others.uninstrument()
    ask()
    assert (len(recorded.spans()), host.seen) == (0, 1)
    assert openai.OpenAI.request.__qualname__ == own.__qualname__


def test_a_client_wrapped_before_others_came_is_seen_by_them(recorded: MemorySink) -> None:
    body = BY_NAME["openai chat"].recorded["body"]
    client = loopkit.wrap(_client("sync", lambda request: httpx2.Response(200, json=body)))
    host, others = Host(), OpenAIInstrumentor()
    others.instrument(tracer_provider=host.provider)
    try:
        ask(client)
    finally:
        others.uninstrument()
    assert (len(recorded.spans()), host.seen) == (1, 1)


def test_a_span_that_nobody_reads_in_costs_no_call(recorded: MemorySink) -> None:
    read, unread = Host(), Host()
    read.provider.add_span_processor(frameworks.span_processor())
    with read.provider.get_tracer("x").start_as_current_span("unrelated"):
        pass
    body = BY_NAME["openai chat"].recorded["body"]
    client = loopkit.wrap(_client("sync", lambda request: httpx2.Response(200, json=body)))
    with unread.provider.get_tracer("y").start_as_current_span("chat", attributes={"gen_ai.operation.name": "chat"}):
        ask(client)
    assert [span.kind for span in recorded.spans()] == ["llm"]


@pytest.mark.parametrize("name", ["google gemini", "mistral chat"])
def test_copies_and_subclasses(name: str, recorded: MemorySink) -> None:
    row = BY_NAME[name]
    client = loopkit.wrap(row.make("sync", row.answer))
    other = copy.copy(client)
    assert loopkit.wrap(other) is other
    loopkit.unwrap(other)
    loopkit.unwrap(client)
    row.call(client)
    assert recorded.spans() == []

    class Own(google.genai.Client):
        pass

    loopkit.wrap(Own(api_key="test"))


def test_a_span_of_one_kind_is_not_filled_in_by_another(recorded: MemorySink) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        made = {"object": "list", "model": "emb", "data": [], "usage": {"prompt_tokens": 1, "total_tokens": 1}}
        chat = BY_NAME["openai chat"].recorded["body"]
        return httpx2.Response(200, json=made if request.url.path.endswith("embeddings") else chat)

    client = loopkit.wrap(_client("sync", answer))
    with loopkit.span("answer", kind="llm"):
        client.embeddings.create(model="emb", input="x", encoding_format="float")
        ask(client)
    embedding, answered = recorded.spans()
    assert (embedding.kind, answered.name) == ("embedding", "answer")
    assert answered.model_call is not None
    assert answered.model_call.operation == "chat"


@pytest.mark.parametrize("dialect", [CHAT, MESSAGES, CONVERSE], ids=lambda dialect: dialect.name)
def test_one_odd_number_costs_that_number(dialect: Any) -> None:
    usage = {"input_tokens": "12", "prompt_tokens": "12", "inputTokens": "12", "output_tokens": 2, "outputTokens": 2,
             "completion_tokens": 2}  # fmt: skip
    body = {
        "id": "r", "model": "m", "usage": usage, "content": [{"type": "text", "text": "Hi"}],
        "choices": [{"message": {"content": "Hi"}}],
        "output": {"message": {"role": "assistant", "content": [{"text": "Hi"}]}},
    }  # fmt: skip
    call = ModelCall(provider="p", operation="chat", native_format=dialect.name, native_request="{}")
    with recording(strict=False):
        read = translated(dataclasses.replace(call, native_response=json.dumps(body)))
    assert (read.usage.input_tokens, read.usage.output_tokens, read.output[0].text) == (None, 2, "Hi")


_ODD = [None, 7, "x", [], {}, [None], [7], {"x": None}, True, 1e300]


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_no_answer_is_too_odd_to_be_read(name: str) -> None:
    dialect = DIALECTS[name]
    fields = ("id", "model", "choices", "content", "output", "usage", "candidates", "data", "messages", "answer",
              "body", "requests", "system", "input", "tools", "contents", "usageMetadata", "results",
              "text")  # fmt: skip
    with recording(strict=False):
        for field in fields:
            for odd in _ODD:
                text = json.dumps({field: odd})
                call = ModelCall(provider="p", operation="o", native_format=name, native_request=text)
                assert translated(dataclasses.replace(call, native_response=text)).provider == "p"
                dialect.kept({field: odd})


def test_a_cancelled_call_below_a_framework_is_cancelled(recorded: MemorySink) -> None:
    row: Row = BY_NAME["openai chat"]

    async def hang(request: Any) -> Any:
        await asyncio.sleep(60)

    async def run() -> None:
        with loopkit.span("the framework's", kind="llm"):
            task = asyncio.ensure_future(row.call(loopkit.wrap(row.make("async", hang))))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    (span,) = recorded.spans()
    assert span.status == "cancelled"
