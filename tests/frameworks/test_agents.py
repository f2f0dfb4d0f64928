"""The OpenAI Agents SDK: a tree of spans, and each model call in it once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest

agents = pytest.importorskip("agents")

from agents import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, RunConfig, Runner, function_tool  # noqa: E402

import loopkit  # noqa: E402  # after the check that it is there
from loopkit.testing import MemorySink  # noqa: E402


@pytest.fixture(autouse=True)
def instrumented() -> Iterator[None]:
    agents.set_trace_processors([])  # the SDK's own one sends traces over the network
    loopkit.instrument("agents", "openai")
    yield
    loopkit.uninstrument()


def answer(request: httpx2.Request) -> httpx2.Response:
    body = json.loads(request.content)
    return httpx2.Response(200, json=_response(body) if "input" in body else _completion(body))


def _response(body: dict[str, Any]) -> dict[str, Any]:
    used = any(isinstance(item, dict) and item.get("type") == "function_call_output" for item in body["input"])
    text = {"type": "output_text", "text": "It is 3.", "annotations": []}
    message = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [text]}
    call = {"type": "function_call", "id": "fc", "call_id": "c1", "name": "add", "arguments": '{"a":1,"b":2}',
            "status": "completed"}  # fmt: skip
    return {
        "id": "resp_2" if used else "resp_1", "object": "response", "created_at": 1, "status": "completed",
        "model": "gpt-4.1-2025", "output": [message if used else call], "parallel_tool_calls": True,
        "tool_choice": "auto", "tools": [], "temperature": 1.0, "top_p": 1.0, "instructions": None, "metadata": {},
        "error": None, "incomplete_details": None,
        "usage": {"input_tokens": 11, "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
                  "output_tokens": 7, "output_tokens_details": {"reasoning_tokens": 2}, "total_tokens": 18},
    }  # fmt: skip


def _completion(body: dict[str, Any]) -> dict[str, Any]:
    used = body["messages"][-1]["role"] == "tool"
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1,"b":2}'}}
    said: dict[str, Any] = {"content": "It is 3."} if used else {"content": None, "tool_calls": [call]}
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **said}}
    return {
        "id": "resp_2" if used else "resp_1", "object": "chat.completion", "created": 1, "model": "gpt-4.1-2025",
        "choices": [choice], "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }  # fmt: skip


@function_tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    with loopkit.span("inside the tool"):
        return a + b


def adder(made: type[Any]) -> Any:
    client = openai.AsyncOpenAI(api_key="test", http_client=httpx2.AsyncClient(transport=httpx2.MockTransport(answer)))
    return Agent(name="calculator", model=made("gpt-4.1", openai_client=client), tools=[add])


@pytest.mark.parametrize("made", [OpenAIResponsesModel, OpenAIChatCompletionsModel])
def test_a_run_is_a_tree_with_each_model_call_once(made: type[Any], recorded: MemorySink) -> None:
    config = RunConfig(workflow_name="sums", group_id="s-1")
    result = Runner.run_sync(adder(made), "1 + 2?", run_config=config)
    assert result.final_output == "It is 3."
    spans = recorded.spans()
    by_id = {span.span_id: span for span in spans}
    (root,) = [span for span in spans if span.parent_id is None]
    (agent,) = [span for span in spans if span.kind == "agent"]
    (tool,) = [span for span in spans if span.kind == "tool"]
    first, second = [span for span in spans if span.kind == "llm"]
    assert (root.name, agent.name, agent.parent_id) == ("sums", "calculator", root.span_id)
    for call in (first, second):
        assert call.parent_id == agent.span_id
        assert call.model_call is not None
        assert call.model_call.native_format in ("openai.responses", "openai.chat")
        assert (call.model_call.usage.input_tokens, call.model_call.usage.output_tokens) == (11, 7)
    assert second.model_call is not None
    assert (second.model_call.response_id, second.model_call.output[0].text) == ("resp_2", "It is 3.")
    assert (tool.name, tool.input, tool.parent_id) == ("add", {"a": 1, "b": 2}, agent.span_id)
    (inside,) = recorded.spans(name="inside the tool")
    assert by_id[inside.parent_id or ""] is tool
    assert {span.session_id for span in spans} == {"s-1"}


@pytest.mark.parametrize("made", [OpenAIResponsesModel, OpenAIChatCompletionsModel])
def test_without_a_hook_below_the_sdk_tells_what_it_knows(made: type[Any], recorded: MemorySink) -> None:
    loopkit.uninstrument("openai")
    Runner.run_sync(adder(made), "1 + 2?")
    first, second = [span for span in recorded.spans() if span.kind == "llm"]
    assert first.model_call is not None
    assert second.model_call is not None
    assert first.model_call.output[0].parts[0].name == "add"
    assert second.model_call.output[0].text == "It is 3."
    assert (second.model_call.usage.input_tokens, second.model_call.usage.output_tokens) == (11, 7)


def test_what_is_not_to_be_traced_is_not(recorded: MemorySink) -> None:
    Runner.run_sync(
        adder(OpenAIResponsesModel), "the secret sum", run_config=RunConfig(trace_include_sensitive_data=False)
    )
    spans = recorded.spans()
    assert "secret" not in str(spans)
    call = next(span.model_call for span in spans if span.kind == "llm")
    assert call is not None
    assert (call.usage.input_tokens, call.input, call.output) == (11, (), ())


def test_runs_at_once_are_not_mixed_up(recorded: MemorySink) -> None:
    async def run() -> None:
        await asyncio.gather(*(Runner.run(adder(OpenAIResponsesModel), f"n{number}") for number in range(4)))

    asyncio.run(run())
    spans = recorded.spans()
    assert len({span.trace_id for span in spans}) == 4
    for trace_id in {span.trace_id for span in spans}:
        assert sorted(span.kind for span in spans if span.trace_id == trace_id) == [
            "agent", "llm", "llm", "task", "task", "tool",
        ]  # fmt: skip


def test_a_refusal_ends_everything(recorded: MemorySink) -> None:
    def refuse(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(400, json={"error": {"message": "no such model"}})

    transport = httpx2.AsyncClient(transport=httpx2.MockTransport(refuse))
    client = openai.AsyncOpenAI(api_key="test", http_client=transport, max_retries=0)
    agent = Agent(name="calculator", model=OpenAIResponsesModel("gpt-4.1", openai_client=client))
    with pytest.raises(openai.BadRequestError):
        Runner.run_sync(agent, "1 + 2?")
    spans = {span.kind: span for span in recorded.spans()}
    assert spans["llm"].status == "error"
    assert set(spans) == {"llm", "agent", "task"}
