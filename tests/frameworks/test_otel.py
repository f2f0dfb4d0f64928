"""Other OpenTelemetry instrumentations in the same process: read in, and each model call there once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
from openinference.instrumentation.openai import OpenAIInstrumentor as OpenInference
from opentelemetry import trace as otel_trace
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor as Official
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import loopkit
from loopkit import frameworks
from loopkit.testing import recording
from loopkit.types import Message, Part, Span, Usage

BODY = {
    "id": "c1", "object": "chat.completion", "created": 1, "model": "gpt-4.1-2025",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello there!"}}],
    "usage": {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29,
              "prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 2}},
}  # fmt: skip


class Host:
    """An application with OpenTelemetry of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        monkeypatch.setattr(otel_trace, "_TRACER_PROVIDER", self.provider)

    def told(self) -> list[str]:
        """Of which scopes it got spans of model calls."""
        loopkit.flush()
        return [
            str(span.instrumentation_scope.name if span.instrumentation_scope else None)
            for span in self.exporter.get_finished_spans()
            if {"gen_ai.request.model", "llm.model_name"} & set(span.attributes or {})
        ]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "span_only")
    return Host(monkeypatch)


@pytest.fixture(params=[Official, OpenInference], ids=["official", "openinference"])
def instrumentor(request: pytest.FixtureRequest, host: Host) -> Iterator[Any]:
    made = request.param()
    made.instrument(tracer_provider=host.provider)
    yield made
    made.uninstrument()


def client() -> openai.OpenAI:
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, json=BODY))
    return openai.OpenAI(api_key="test", http_client=httpx2.Client(transport=transport))


def ask(made: openai.OpenAI) -> Any:
    messages: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How are you?"}]
    return made.chat.completions.create(model="gpt-4.1", messages=messages, temperature=0.5)


def check(span: Span) -> None:
    call = span.model_call
    assert call is not None
    assert (span.kind, call.provider, call.operation) == ("llm", "openai", "chat")
    assert call.usage == Usage(input_tokens=19, output_tokens=10, cache_read_tokens=4, reasoning_tokens=2)
    assert [message.text for message in call.input] == ["Be brief.", "How are you?"]
    assert [message.text for message in call.output] == ["Hello there!"]
    assert call.parameters["temperature"] == 0.5


def test_their_spans_become_ours(instrumentor: Any, host: Host) -> None:
    host.provider.add_span_processor(frameworks.span_processor())
    with recording() as recorded:
        with loopkit.span("outer") as outer:
            ask(client())
        outermost, inner = sorted(recorded.spans(), key=lambda span: span.kind == "llm")
        check(inner)
        assert inner.parent_id == outermost.span_id
        assert outer.id == outermost.id
        assert len(host.told()) == 1


def test_a_call_that_both_see_is_there_once(instrumentor: Any, host: Host) -> None:
    host.provider.add_span_processor(frameworks.span_processor())
    with recording() as recorded:
        answer = ask(loopkit.wrap(client()))
        (span,) = recorded.spans()
        check(span)
        assert len(host.told()) == 1
        event = loopkit.feedback(answer, "helpful", True)
        assert event is not None
        assert event.target == span.id


def test_without_the_processor_the_store_has_ours_and_the_application_theirs(host: Host) -> None:
    made = Official()
    made.instrument(tracer_provider=host.provider)
    try:
        with recording() as recorded:
            ask(loopkit.wrap(client()))
            (span,) = recorded.spans()
            check(span)
            assert host.told() == ["opentelemetry.instrumentation.genai.openai"]
    finally:
        made.uninstrument()


@pytest.mark.parametrize("content", ["off", "local"])
def test_what_they_say_follows_our_policy(instrumentor: Any, host: Host, content: str) -> None:
    host.provider.add_span_processor(frameworks.span_processor())
    with recording(content=content) as recorded:
        made = client()
        made.chat.completions.create(model="m", messages=[{"role": "user", "content": "I am ana@example.org"}])
        loopkit.flush()
        (encoded,) = [span for batch in recorded.batches for span in batch.spans]
    assert b"ana@example.org" not in encoded.stored()
    assert b"Hello there!" not in encoded.exported(content=False)
    assert (b"Hello there!" in encoded.stored()) == (content == "local")


def test_tools_agents_and_retrieval_of_others(host: Host) -> None:
    host.provider.add_span_processor(frameworks.span_processor())
    tracer = host.provider.get_tracer("openllmetry")
    with recording() as recorded:
        with tracer.start_as_current_span("agent") as agent:
            agent.set_attributes({"gen_ai.operation.name": "invoke_agent", "gen_ai.conversation.id": "s-1"})
            with tracer.start_as_current_span("execute_tool look_up") as tool:
                tool.set_attributes({
                    "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "look_up",
                    "gen_ai.tool.call.arguments": '{"word": "ship"}', "gen_ai.tool.call.result": "a vessel",
                })  # fmt: skip
            with tracer.start_as_current_span("retriever") as retriever:
                retriever.set_attributes({
                    "openinference.span.kind": "RETRIEVER", "input.value": "ship",
                    "retrieval.documents.0.document.id": "d1", "retrieval.documents.0.document.content": "a vessel",
                    "retrieval.documents.0.document.score": 0.75,
                })  # fmt: skip
            with tracer.start_as_current_span("openai.chat") as old:
                old.set_attributes({
                    "gen_ai.system": "OpenAI", "llm.request.type": "chat", "gen_ai.request.model": "gpt-4.1",
                    "gen_ai.prompt.0.role": "user", "gen_ai.prompt.0.content": "How are you?",
                    "gen_ai.completion.0.role": "assistant", "gen_ai.completion.0.content": "Fine.",
                    "gen_ai.completion.0.finish_reason": "stop",
                    "gen_ai.completion.0.tool_calls.0.name": "look_up",
                    "gen_ai.completion.0.tool_calls.0.arguments": json.dumps({"word": "ship"}),
                    "gen_ai.usage.prompt_tokens": 5, "gen_ai.usage.completion_tokens": 1,
                })  # fmt: skip
            with tracer.start_as_current_span("GET /"):
                pass
        agent_span, tool_span, retrieval, old_span = sorted(recorded.spans(), key=lambda span: span.started_at)
    assert (tool_span.kind, tool_span.input, tool_span.output) == ("tool", {"word": "ship"}, "a vessel")
    assert (retrieval.kind, retrieval.output) == ("retrieval", [{"id": "d1", "content": "a vessel", "score": 0.75}])
    assert (agent_span.kind, agent_span.session_id) == ("agent", "s-1")
    call = old_span.model_call
    assert call is not None
    assert (call.provider, call.model, call.usage.input_tokens) == ("openai", "gpt-4.1", 5)
    assert call.input == (Message(role="user", parts=(Part(type="text", content="How are you?"),)),)
    assert call.output[0].parts[1] == Part(type="tool_call", name="look_up", arguments={"word": "ship"})
    assert {span.parent_id for span in (tool_span, retrieval, old_span)} == {agent_span.span_id}


def test_anthropics_own_tracing_does_not_tell_a_call_twice(host: Host) -> None:
    import anthropic

    body = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-test-1", "stop_reason": "end_turn",
        "stop_sequence": None, "content": [{"type": "text", "text": "Ahoy!"}],
        "usage": {"input_tokens": 3, "output_tokens": 2},
    }  # fmt: skip
    http = httpx2.Client(transport=httpx2.MockTransport(lambda request: httpx2.Response(200, json=body)))
    made = anthropic.Anthropic(api_key="test", http_client=http)
    arguments: Any = {"model": "claude-test-1", "max_tokens": 9, "messages": [{"role": "user", "content": "Ahoy?"}]}
    with recording():
        made.messages.create(**arguments)
        assert host.told() == ["com.anthropic.sdk.python"]
        host.exporter.clear()
        loopkit.wrap(made).messages.create(**arguments)
        assert host.told() == ["loopkit"]


def test_a_redactor_that_fails_costs_their_span_its_content(host: Host) -> None:
    def fail(text: str) -> str:
        raise ValueError(text)

    host.provider.add_span_processor(frameworks.span_processor())
    with recording(redact=fail, strict=False) as recorded:
        with host.provider.get_tracer("x").start_as_current_span("chat m") as span:
            span.set_attributes({"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "input.value": "SECRET"})
        (read,) = recorded.spans()
    assert read.content_status == "failed"
    assert "SECRET" not in str(read)


@pytest.mark.parametrize("way", ["span", "context"])
@pytest.mark.parametrize("content", ["off", "local"])
def test_what_others_say_within_a_call_that_is_kept_near_is_kept_near(way: str, content: Any, host: Host) -> None:
    host.provider.add_span_processor(frameworks.span_processor())
    tracer = host.provider.get_tracer("theirs")
    said = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "x",
        "gen_ai.input.messages": '[{"role":"user","parts":[{"type":"text","content":"SECRET"}]}]',
    }
    near = loopkit.span("private", content=content) if way == "span" else loopkit.context(content=content)
    with recording(content="export") as recorded:
        with near, tracer.start_as_current_span("agent"), tracer.start_as_current_span("chat", attributes=said):
            pass
        with tracer.start_as_current_span("chat", attributes=said):
            pass
        named = [span.name for span in recorded.spans()]
        encoded = [span for batch in recorded.batches for span in batch.spans]
        inside, outside = [span for name, span in zip(named, encoded, strict=True) if name == "chat"]
    assert b"SECRET" not in inside.exported(content=True)
    assert (b"SECRET" in inside.stored()) == (content == "local")
    assert b"SECRET" in outside.exported(content=True)


@pytest.mark.parametrize("wrapped", [True, False])
def test_of_several_spans_for_one_call_the_innermost_tells(wrapped: bool, host: Host) -> None:
    """As LlamaIndex's: a prediction around a chat around the SDK's call, and none says what it is before its end."""
    host.provider.add_span_processor(frameworks.span_processor())
    tracer = host.provider.get_tracer("theirs")
    told = {"openinference.span.kind": "LLM", "llm.model_name": "gpt-4.1", "llm.token_count.prompt": 19}
    made = loopkit.wrap(client()) if wrapped else client()
    with recording() as recorded:
        with tracer.start_as_current_span("query") as query:
            with tracer.start_as_current_span("predict") as predict:
                with tracer.start_as_current_span("chat") as chat:
                    ask(made)
                    chat.set_attributes(told)
                predict.set_attributes(told)
            query.set_attribute("openinference.span.kind", "CHAIN")
        spans = recorded.spans()
    models = [span.name for span in spans if span.kind == "llm"]
    assert models == ["chat gpt-4.1"] if wrapped else ["chat"]
    by_name = {span.name: span for span in spans}
    assert by_name["predict"].kind == by_name["query"].kind == "task"
    assert by_name["predict"].model_call is None
    assert by_name["chat"].parent_id == by_name["predict"].span_id


def test_calls_of_two_kinds_are_two_calls(host: Host) -> None:
    host.provider.add_span_processor(frameworks.span_processor())
    tracer = host.provider.get_tracer("theirs")
    chat = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "x", "gen_ai.usage.input_tokens": 7}
    embeds = {"gen_ai.operation.name": "embeddings", "gen_ai.provider.name": "x"}
    body = {"object": "list", "model": "e", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
            "usage": {"prompt_tokens": 1, "total_tokens": 1}}  # fmt: skip
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, json=body))
    made = loopkit.wrap(openai.OpenAI(api_key="test", http_client=httpx2.Client(transport=transport)))
    with recording() as recorded:
        with tracer.start_as_current_span("chat", attributes=chat):
            with tracer.start_as_current_span("embed", attributes=embeds):
                pass
            made.embeddings.create(model="e", input="x")
        kinds = sorted((span.kind, span.name) for span in recorded.spans())
    assert kinds == [("embedding", "embed"), ("embedding", "embeddings e"), ("llm", "chat")]
