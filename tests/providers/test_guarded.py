"""Guards see what every provider's clients send and get, whatever its shape; hooks go as they came."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import copy
import dataclasses
import enum
import io
import json
from typing import Any

import cohere
import google.genai
import httpx
import httpx2
import mistralai.client
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
from loopkit.errors import Blocked, Unguarded
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


SEQUENCES: dict[str, Any] = {
    "tuple": tuple,
    "generator": iter,
    "deque": collections.deque,
    "view": lambda items: dict(enumerate(items)).values(),
    "own": lambda items: type("Own", (), {"__iter__": lambda _: iter(items), "__len__": lambda _: len(items)})(),
}


def sends(sdk: str, given: Any, **wrapped: Any) -> list[bytes]:
    """What goes out where the SDK is given this sequence, wherever it takes one."""
    sent: list[bytes] = []

    def answer(request: Any) -> Any:
        sent.append(request.content)
        return {"cohere": httpx, "mistral": httpx, "openai": httpx2}[sdk].Response(400, json={})

    made: Any
    if sdk == "cohere":
        made = cohere.ClientV2(api_key="t", httpx_client=httpx.Client(transport=httpx.MockTransport(answer)))
        call = loopkit.wrap(made, **wrapped).embed
        arguments = {"model": "m", "texts": given, "input_type": "search_query", "embedding_types": ["float"]}
    elif sdk == "mistral":
        made = mistralai.client.Mistral(api_key="t", client=httpx.Client(transport=httpx.MockTransport(answer)))
        call, arguments = loopkit.wrap(made, **wrapped).embeddings.create, {"model": "m", "inputs": given}
    else:
        http = httpx2.Client(transport=httpx2.MockTransport(answer))
        made = openai.OpenAI(api_key="t", http_client=http, max_retries=0)
        call, arguments = (
            loopkit.wrap(made, **wrapped).post,
            {
                "path": "./chat/completions",
                "cast_to": openai.types.chat.ChatCompletion,
                "body": {"model": "m", "messages": [{"role": "user", "content": given}]},
            },
        )
    with contextlib.suppress(Exception):
        call(**arguments)
    return sent


@pytest.mark.parametrize("kind", SEQUENCES)
@pytest.mark.parametrize("sdk", ["cohere", "mistral", "openai"])
def test_whatever_a_sequence_is_its_texts_are_guarded(sdk: str, kind: str) -> None:
    item: Any = {"type": "text", "text": "ana@example.org"} if sdk == "openai" else "ana@example.org"
    sent = sends(sdk, SEQUENCES[kind]([item]), guard=MAIL)
    assert sent
    assert all(b"ana@" not in body and b"[EMAIL]" in body for body in sent)


def test_files_and_foreign_encodings_of_a_body_are_guarded() -> None:
    said = json.dumps({"anthropic_version": "x", "messages": [{"role": "user", "content": "ana@example.org"}]})
    for body in (
        io.BytesIO(said.encode()),
        memoryview(said.encode()),
        said.encode("utf-16"),
        b"\xef\xbb\xbf" + said.encode(),
    ):
        seen: list[Any] = []
        loopkit.wrap(bedrock(CLAUDE, seen), guard=MAIL).invoke_model(modelId="anthropic.claude-3", body=body)
        assert seen[0]["messages"][0]["content"] == "[EMAIL]"


def test_a_body_of_bytes_is_not_sent_past_a_guard() -> None:
    http = httpx2.Client(transport=httpx2.MockTransport(lambda _: pytest.fail("sent")))
    made = loopkit.wrap(openai.OpenAI(api_key="t", http_client=http, max_retries=0), guard=MAIL)
    with pytest.raises(Unguarded, match="give it as json"):
        made.post("/chat/completions", content=b'{"messages": []}', cast_to=object)


@pytest.mark.parametrize("wrapped", [{}, {"guard": MAIL}, {"include_usage": True}])
@pytest.mark.parametrize("sdk", ["cohere", "mistral"])
def test_what_the_applications_own_generator_raises_is_its_own(sdk: str, wrapped: Any, recorded: MemorySink) -> None:
    class Mine(Exception):
        pass

    def messages() -> Any:
        yield {"role": "user", "content": "one"}
        raise Mine

    transport = httpx.Client(transport=httpx.MockTransport(lambda _: pytest.fail("sent")))
    made: Any = (
        loopkit.wrap(cohere.ClientV2(api_key="t", httpx_client=transport), **wrapped).chat
        if sdk == "cohere"
        else loopkit.wrap(mistralai.client.Mistral(api_key="t", client=transport), **wrapped).chat.complete
    )
    with pytest.raises(Mine):
        made(model="m", messages=messages())


def test_a_wrong_argument_is_the_sdks_to_refuse_where_no_guard_is_to_see_it() -> None:
    circle: list[Any] = []
    circle.append(circle)
    client = loopkit.wrap(mistralai.client.Mistral(api_key="t"), include_usage=True)
    with pytest.raises(RecursionError):  # as without us
        client.chat.complete(model="m", messages=circle)


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


MAIL_IN = loopkit.Guard(input=[checks.pii()])
ADDRESS = "mail ana@example.org"


def sent_by(call: Any, row: Row, answer: Any = None) -> Any:
    """What a guarded client of this row sends for a call."""
    seen: list[Any] = []

    def handle(request: Any) -> Any:
        seen.append(json.loads(request.content))
        return httpx2.Response(200, json=row.recorded["body"] if answer is None else answer)

    call(loopkit.wrap(row.make("sync", handle), guard=MAIL_IN))
    return seen[-1]


CHAT_ROW, RESPONSES_ROW, CLAUDE_ROW = (
    BY_NAME[name] for name in ("openai chat", "openai responses", "anthropic messages")
)
INPUTS: dict[str, tuple[Row, Any]] = {
    "a function's answer": (
        CHAT_ROW,
        lambda c: c.chat.completions.create(
            model="m", messages=[{"role": "function", "name": "f", "content": ADDRESS}]
        ),
    ),
    "beside what is no message": (
        CHAT_ROW,
        lambda c: c.chat.completions.create(model="m", messages=["hi", {"role": "user", "content": ADDRESS}]),
    ),
    "posted by hand": (
        CHAT_ROW,
        lambda c: c.post(
            "chat/completions", body={"model": "m", "messages": [{"role": "user", "content": ADDRESS}]}, cast_to=dict
        ),
    ),
    "posted to a whole address": (
        CHAT_ROW,
        lambda c: c.post(
            "https://api.example.com/v1/chat/completions",
            body={"model": "m", "messages": [{"role": "user", "content": ADDRESS}]},
            cast_to=dict,
        ),
    ),
    "a custom tool's answer": (
        RESPONSES_ROW,
        lambda c: c.responses.create(
            model="m", input=[{"type": "custom_tool_call_output", "call_id": "c", "output": ADDRESS}]
        ),
    ),
    "a prompt's variables": (
        RESPONSES_ROW,
        lambda c: c.responses.create(model="m", prompt={"id": "p", "variables": {"name": ADDRESS}}),
    ),
    "a search result": (
        CLAUDE_ROW,
        lambda c: c.messages.create(
            model="m",
            max_tokens=3,
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "search_result", "source": "s", "title": ADDRESS,
                         "content": [{"type": "text", "text": ADDRESS}]}
                    ],
                }
            ],
        ),
    ),
    "a document's context": (
        CLAUDE_ROW,
        lambda c: c.messages.create(
            model="m",
            max_tokens=3,
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "document", "context": ADDRESS,
                         "source": {"type": "text", "media_type": "text/plain", "data": "ana@example.org"}}
                    ],
                }
            ],
        ),
    ),
    "turns from a generator": (
        CLAUDE_ROW,
        lambda c: c.messages.create(
            model="m", max_tokens=3, messages=({"role": "user", "content": text} for text in [ADDRESS])
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", INPUTS)
def test_whatever_the_model_is_to_read_is_checked(name: str, recorded: MemorySink) -> None:
    row, call = INPUTS[name]
    sent = json.dumps(sent_by(call, row))
    assert "[EMAIL]" in sent
    assert "ana@example.org" not in sent
    assert "ana@example.org" not in str(recorded.spans())


OUTPUTS: dict[str, tuple[Row, dict[str, Any]]] = {
    "mcp call": (
        RESPONSES_ROW,
        {"type": "mcp_call", "id": "1", "name": "f", "arguments": ADDRESS, "server_label": "s"},
    ),
    "code": (RESPONSES_ROW, {"type": "code_interpreter_call", "id": "1", "code": ADDRESS, "status": "completed"}),
    "shell": (
        RESPONSES_ROW,
        {"type": "local_shell_call", "id": "1", "call_id": "c", "status": "completed",
         "action": {"type": "exec", "command": ["echo", ADDRESS], "env": {}}},
    ),
    "server tool": (CLAUDE_ROW, {"type": "server_tool_use", "id": "1", "name": "web", "input": {"query": ADDRESS}}),
    "thinking": (CLAUDE_ROW, {"type": "thinking", "thinking": ADDRESS, "signature": "s"}),
}  # fmt: skip


@pytest.mark.parametrize("name", OUTPUTS)
def test_whatever_the_model_says_is_checked(name: str, recorded: MemorySink) -> None:
    row, item = OUTPUTS[name]
    field = "output" if row is RESPONSES_ROW else "content"
    body = {**row.recorded["body"], field: [item]}
    client = loopkit.wrap(row.make("sync", lambda _: httpx2.Response(200, json=body)), guard=MAIL)
    given = row.endpoint(client).create(**row.arguments)
    assert "[EMAIL]" in str(getattr(given, field))
    assert "ana@example.org" not in str(getattr(given, field))


@pytest.mark.parametrize(
    "delta",
    [
        {"tool_calls": [{"index": 0, "id": "1", "type": "custom", "custom": {"name": "f", "input": ADDRESS}}]},
        {"function_call": {"name": "f", "arguments": json.dumps({"a": ADDRESS})}},
    ],
    ids=["custom", "function_call"],
)
def test_streamed_calls_of_every_kind_are_checked_and_recorded(delta: Any, recorded: MemorySink) -> None:
    chunk = {
        "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
    }  # fmt: skip
    text = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
    events = httpx2.Response(200, text=text, headers={"content-type": "text/event-stream"})
    asked: Any = {"model": "m", "messages": [{"role": "user", "content": "?"}], "stream": True}
    client = loopkit.wrap(_client("sync", lambda _: events), guard=loopkit.Guard(output=[checks.pii(action="block")]))
    with pytest.raises(Blocked):
        list(client.chat.completions.create(**asked))
    call = next(span.model_call for span in recorded.spans() if span.kind == "llm")
    assert call is not None
    (part,) = call.output[0].parts
    assert (part.type, part.name) == ("tool_call", "f")
    assert "[EMAIL]" in str(part.arguments)


@pytest.mark.parametrize("body", [None, [], "x", {"choices": [None]}, {"output": [None]}, {"content": ["x"]}])
def test_answers_of_no_shape_reach_the_host_as_without_a_guard(body: Any, recorded: MemorySink) -> None:
    for row in (CHAT_ROW, RESPONSES_ROW, CLAUDE_ROW):

        def answer(_: Any) -> Any:
            return httpx2.Response(200, content=json.dumps(body).encode(), headers={"content-type": "application/json"})

        plain = row.call(row.make("sync", answer))
        guarded = row.call(loopkit.wrap(row.make("sync", answer), guard=MAIL))
        assert guarded == plain
    assert [span.status for span in recorded.spans()] == ["ok"] * 3


@pytest.mark.parametrize("asked", [None, {"include_obfuscation": False}])
def test_usage_is_asked_for_beside_other_options(asked: Any, recorded: MemorySink) -> None:
    seen: list[Any] = []

    def handle(request: Any) -> Any:
        seen.append(json.loads(request.content))
        return CHAT_ROW.events(CHAT_ROW.recorded["stream"])

    client = loopkit.wrap(CHAT_ROW.make("sync", handle), include_usage=True)
    list(client.chat.completions.create(**CHAT_ROW.arguments, stream=True, stream_options=asked))
    assert seen[-1]["stream_options"] == {**(asked or {}), "include_usage": True}


def test_an_embedding_is_told_by_the_body_and_not_by_a_name(recorded: MemorySink) -> None:
    seen: list[Any] = []
    client = loopkit.wrap(bedrock(CLAUDE | {"content": [{"type": "text", "text": "fine"}]}, seen), guard=MAIL_IN)
    body = {"anthropic_version": "x", "messages": [{"role": "user", "content": ADDRESS}]}
    invoke(client, body, "arn:aws:bedrock:us-east-1:1:application-inference-profile/embedded-assistant")
    assert seen[-1]["messages"][0]["content"] == "mail [EMAIL]"
    call = next(span for span in recorded.spans() if span.kind == "llm").model_call
    assert call is not None
    assert call.output[0].text == "fine"


@pytest.mark.parametrize(
    "read",
    [
        lambda body: body.read(100_000),
        lambda body: body.read(-1),
        lambda body: [body.read(10) for _ in range(100)],
        lambda body: list(body.iter_chunks(7)),
    ],
    ids=["all at once", "to the end", "in pieces", "chunks"],
)
def test_a_body_read_to_its_end_is_an_answer(read: Any, recorded: MemorySink) -> None:
    client = loopkit.wrap(bedrock(CLAUDE))
    answer = client.invoke_model(modelId="anthropic.claude-3", body=json.dumps({"anthropic_version": "x"}))
    read(answer["body"])
    (span,) = recorded.spans()
    assert span.status == "ok"
    assert span.model_call is not None
    assert span.model_call.output[0].text == "a SECRET"


def test_a_body_closed_early_is_cancelled_and_keeps_what_was_read(recorded: MemorySink) -> None:
    client = loopkit.wrap(bedrock(CLAUDE))
    body = client.invoke_model(modelId="anthropic.claude-3", body=json.dumps({"anthropic_version": "x"}))["body"]
    body.read(20)
    body.close()
    (span,) = recorded.spans()
    assert span.status == "cancelled"
    assert span.model_call is not None
    assert "content" in (span.model_call.native_response or "")


def test_an_interceptors_own_answer_ends_the_call(recorded: MemorySink) -> None:
    class Instead:
        def around(self, call: Any) -> Any:
            return "mine"
            yield call

    client = loopkit.wrap(bedrock(CLAUDE), interceptors=[Instead()])
    assert client.converse(modelId="m", messages=[]) == "mine"
    assert [span.status for span in recorded.spans()] == ["ok"]


def test_a_client_that_somebody_else_has_changed_since_can_be_unwrapped(recorded: MemorySink) -> None:
    client = loopkit.wrap(CHAT_ROW.make("sync", lambda _: httpx2.Response(200, json=CHAT_ROW.recorded["body"])))
    client.__class__ = type("Theirs", (client.__class__,), {})
    loopkit.unwrap(client)
    CHAT_ROW.call(client)
    assert recorded.spans() == []
    loopkit.wrap(client)
    CHAT_ROW.call(client)
    assert len(recorded.spans()) == 1


def test_a_model_name_is_a_text_and_nothing_is_asked_of_what_isnt(recorded: MemorySink) -> None:
    class Hanging:
        def __repr__(self) -> str:
            raise AssertionError("nobody may ask")

    class Name(str, enum.Enum):  # as applications write it
        GPT = "gpt-4.1"

    client = loopkit.wrap(CHAT_ROW.make("sync", lambda _: httpx2.Response(200, json=CHAT_ROW.recorded["body"])))
    client.chat.completions.create(model=Name.GPT, messages=[])
    with pytest.raises(TypeError):
        client.chat.completions.create(model=Hanging(), messages=[])
    assert [span.name for span in recorded.spans()] == ["chat gpt-4.1", "chat"]


def test_below_a_tools_arguments_every_name_is_the_tools_own(recorded: MemorySink) -> None:
    given = {"name": ADDRESS, "id": ADDRESS, "url": ADDRESS, "type": ADDRESS, "data": "ana@example.org"}
    content = [{"toolUse": {"toolUseId": "t", "name": "f", "input": given}}]
    usage = {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2}
    said = {"message": {"role": "assistant", "content": content}}
    answer = {"output": said, "stopReason": "tool_use", "usage": usage, "metrics": {"latencyMs": 1}}
    seen: list[Any] = []
    client = loopkit.wrap(bedrock(answer, seen), guard=MAIL)
    result = [{"toolResult": {"toolUseId": "t", "content": [{"json": given}]}}]
    got = client.converse(modelId="m", messages=[{"role": "user", "content": result}])
    assert "ana@example.org" not in json.dumps(got["output"])
    assert "ana@example.org" not in json.dumps(seen)


def test_thoughts_of_openai_shaped_servers_are_checked(recorded: MemorySink) -> None:
    message = {"role": "assistant", "content": "fine", "reasoning_content": ADDRESS, "reasoning": ADDRESS}
    body = {**CHAT_ROW.recorded["body"], "choices": [{"index": 0, "finish_reason": "stop", "message": message}]}
    client = loopkit.wrap(CHAT_ROW.make("sync", lambda _: httpx2.Response(200, json=body)), guard=MAIL)
    assert "ana@example.org" not in CHAT_ROW.call(client).model_dump_json()


@pytest.mark.parametrize(
    "read",
    [lambda body: list(body), lambda body: [body.readline()], lambda body: [body.read1(), body.read1()]],
    ids=["iterated", "a line", "as it comes"],
)
def test_a_body_entered_can_be_read_as_without_us(read: Any, recorded: MemorySink) -> None:
    asked = {"modelId": "anthropic.claude-3", "body": json.dumps({"anthropic_version": "x"})}
    with bedrock(CLAUDE).invoke_model(**asked)["body"] as plain:
        expected = read(plain)
    with loopkit.wrap(bedrock(CLAUDE)).invoke_model(**asked)["body"] as body:
        assert read(body) == expected
    (span,) = recorded.spans()
    assert span.model_call is not None
    assert "a SECRET" in (span.model_call.native_response or "")
