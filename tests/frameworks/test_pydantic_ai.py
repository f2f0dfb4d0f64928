"""Pydantic AI, which tells OpenTelemetry of its agents: through the span processor, each model call once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import httpx2
import openai
import pytest
from opentelemetry.sdk.trace import TracerProvider
from pydantic_ai import Agent
from pydantic_ai.models.instrumented import InstrumentationSettings
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.providers.openai import OpenAIProvider

import loopkit
from loopkit import frameworks
from loopkit.testing import MemorySink, chat_completion
from loopkit.types import Span


@pytest.fixture(autouse=True)
def instrumented() -> Iterator[None]:
    provider = TracerProvider()
    provider.add_span_processor(frameworks.span_processor())
    Agent.instrument_all(InstrumentationSettings(tracer_provider=provider))
    yield
    Agent.instrument_all(False)


def named(spans: list[Span], kind: str) -> list[Span]:
    return [span for span in spans if span.kind == kind]


def test_an_agent_with_a_tool_is_a_tree(recorded: MemorySink) -> None:
    agent = Agent(TestModel(), system_prompt="Be brief.", name="helper")

    @agent.tool_plain
    def look_up(word: str) -> str:
        """Look a word up."""
        return f"about {word}"

    async def run() -> str:
        with loopkit.span("outer"):
            return (await agent.run("What is a card?")).output

    said = asyncio.run(run())
    spans = recorded.spans()
    (outer,), (above,), (tool,), (first, second) = (named(spans, kind) for kind in ("task", "agent", "tool", "llm"))
    assert above.parent_id == outer.span_id
    assert {tool.parent_id, first.parent_id, second.parent_id} == {above.span_id}
    assert (tool.input, tool.output) == ({"word": "a"}, "about a")
    assert above.output == json.loads(said)
    assert first.model_call is not None
    assert [message.role for message in first.model_call.input] == ["system", "user"]
    assert first.model_call.output[0].parts[0].name == "look_up"
    assert (first.model_call.usage.input_tokens or 0) > 0
    assert second.model_call is not None
    assert second.model_call.input[-1].parts[0].content == "about a"


def test_a_call_that_both_see_is_there_once(recorded: MemorySink) -> None:
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=chat_completion("fine")))
    client = openai.AsyncOpenAI(api_key="test", http_client=httpx2.AsyncClient(transport=transport))
    model = OpenAIChatModel("gpt-4.1", provider=OpenAIProvider(openai_client=loopkit.wrap(client)))

    async def run() -> str:
        return (await Agent(model, name="helper").run("How are you?")).output

    assert asyncio.run(run()) == "fine"
    spans = recorded.spans()
    (call,) = named(spans, "llm")
    assert call.model_call is not None
    assert call.model_call.output[0].text == "fine"
    assert call.model_call.usage.input_tokens == 12
    (agent,) = named(spans, "agent")
    assert agent.input is not None
