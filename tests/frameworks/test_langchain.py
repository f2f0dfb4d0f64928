"""LangChain and LangGraph: a tree of spans, and each model call in it once, whoever saw it first."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from typing import Any, TypedDict

import httpx2
import pytest

langchain = pytest.importorskip("langchain_core")

from langchain_core.callbacks import CallbackManagerForRetrieverRun  # noqa: E402  # after the check that it is there
from langchain_core.documents import Document  # noqa: E402
from langchain_core.language_models import BaseChatModel  # noqa: E402
from langchain_core.language_models.fake_chat_models import FakeListChatModel  # noqa: E402
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage  # noqa: E402
from langchain_core.prompts import ChatPromptTemplate  # noqa: E402
from langchain_core.retrievers import BaseRetriever  # noqa: E402
from langchain_core.runnables import RunnableLambda  # noqa: E402
from langchain_core.tools import tool  # noqa: E402
from langchain_openai import ChatOpenAI  # noqa: E402
from langgraph.graph import END, START, StateGraph  # noqa: E402

import loopkit  # noqa: E402
from loopkit import frameworks  # noqa: E402
from loopkit.testing import MemorySink  # noqa: E402
from loopkit.types import Span  # noqa: E402


@pytest.fixture(autouse=True)
def instrumented() -> Iterator[None]:
    loopkit.instrument("langchain", "openai")
    yield
    loopkit.uninstrument()


def answer(request: httpx2.Request) -> httpx2.Response:
    body = json.loads(request.content)
    message: dict[str, Any] = {"role": "assistant", "content": "Hello there!"}
    if body.get("tools") and body["messages"][-1]["role"] == "user":
        call = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"word": "ship"}'}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
    head = {"id": "chatcmpl-1", "created": 1, "model": "gpt-4.1-2025"}
    if body.get("stream"):
        chunks: list[dict[str, Any]] = [{"role": "assistant", "content": piece} for piece in ("Hello", " there", "!")]
        lines = [
            {**head, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": d, "finish_reason": None}]}
            for d in chunks
        ]
        lines.append({**head, "object": "chat.completion.chunk", "choices": [], "usage": _USAGE})
        text = "".join(f"data: {json.dumps(line)}\n\n" for line in lines) + "data: [DONE]\n\n"
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, text=text)
    choices = [{"index": 0, "finish_reason": "stop", "message": message}]
    return httpx2.Response(200, json={**head, "object": "chat.completion", "choices": choices, "usage": _USAGE})


_USAGE = {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29}


def model(handler: Any = answer) -> ChatOpenAI:
    transport = httpx2.MockTransport(handler)
    return ChatOpenAI(
        model="gpt-4.1", api_key="test", temperature=0.5, max_retries=0,
        http_client=httpx2.Client(transport=transport), http_async_client=httpx2.AsyncClient(transport=transport),
    )  # fmt: skip  # type: ignore[arg-type]


def calls(spans: list[Span]) -> list[Span]:
    return [span for span in spans if span.kind == "llm"]


def check(call: Span) -> None:
    assert call.model_call is not None
    assert (call.model_call.provider, call.model_call.model) == ("openai", "gpt-4.1")
    assert call.model_call.response_id == "chatcmpl-1"
    assert (call.model_call.usage.input_tokens, call.model_call.usage.output_tokens) == (19, 10)
    assert "".join(message.text for message in call.model_call.output) == "Hello there!"
    assert call.model_call.native_format == "openai.chat"  # filled in by the hook below


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream", "batch"])
def test_a_chain_is_a_tree_with_each_model_call_once(way: str, recorded: MemorySink) -> None:
    chain = ChatPromptTemplate.from_messages([("system", "Be brief."), ("user", "{question}")]) | model()
    given = {"question": "How are you?"}

    async def run() -> None:
        if way == "invoke":
            chain.invoke(given)
        elif way == "ainvoke":
            await chain.ainvoke(given)
        elif way == "stream":
            list(chain.stream(given))
        elif way == "astream":
            _ = [chunk async for chunk in chain.astream(given)]
        else:
            chain.batch([given, given])

    asyncio.run(run())
    spans = recorded.spans()
    by_id = {span.span_id: span for span in spans}
    found = calls(spans)
    assert len(found) == (2 if way == "batch" else 1)
    for call in found:
        check(call)
        assert call.parent_id is not None
        assert by_id[call.parent_id].name == "RunnableSequence"
        assert call.status == "ok"
    assert {span.kind for span in spans} == {"task", "llm"}


def test_without_a_hook_below_langchain_tells_what_it_knows(recorded: MemorySink) -> None:
    loopkit.uninstrument("openai")
    reply = (
        model().bind(stop=["x"]).invoke([HumanMessage("How are you?"), AIMessage("Well."), HumanMessage("And now?")])
    )
    (call,) = recorded.spans()
    made = call.model_call
    assert made is not None
    assert (made.provider, made.model, made.response_model) == ("openai", "gpt-4.1", "gpt-4.1-2025")
    assert [message.role for message in made.input] == ["user", "assistant", "user"]
    assert made.output[0].text == "Hello there!"
    assert (made.usage.input_tokens, made.usage.output_tokens, made.finish_reasons) == (19, 10, ("stop",))
    assert made.parameters["temperature"] == 0.5
    event = loopkit.feedback(reply, "helpful", True)
    assert event is not None
    assert event.target == call.id


def test_models_that_run_here_are_recorded_too(recorded: MemorySink) -> None:
    FakeListChatModel(responses=["Hello there!"]).invoke("How are you?")
    (call,) = recorded.spans()
    assert call.model_call is not None
    assert call.model_call.output[0].text == "Hello there!"


@tool
def look_up(word: str) -> str:
    """Look a word up."""
    with loopkit.span("inside the tool"):
        return f"{word}: a vessel"


class State(TypedDict):
    messages: list[Any]


def graph() -> Any:
    bound = model().bind_tools([look_up])

    def ask(state: State) -> State:
        return {"messages": [*state["messages"], bound.invoke(state["messages"])]}

    def use(state: State) -> State:
        last = state["messages"][-1]
        done = [look_up.invoke(call) for call in last.tool_calls]
        return {"messages": [*state["messages"], *done]}

    def next_step(state: State) -> str:
        return "use" if state["messages"][-1].tool_calls else END

    builder = StateGraph(State)
    builder.add_node("ask", ask)
    builder.add_node("use", use)
    builder.add_edge(START, "ask")
    builder.add_conditional_edges("ask", next_step, ["use", END])
    builder.add_edge("use", "ask")
    return builder.compile(name="sailor")


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_an_agent_of_langgraph(colour: str, recorded: MemorySink) -> None:
    given = {"messages": [HumanMessage("What is a ship?")]}
    config: Any = {"configurable": {"thread_id": "s-1"}}

    async def run() -> Any:
        return graph().invoke(given, config) if colour == "sync" else await graph().ainvoke(given, config)

    result = asyncio.run(run())
    assert isinstance(result["messages"][2], ToolMessage)
    spans = recorded.spans()
    by_id = {span.span_id: span for span in spans}
    (agent,) = [span for span in spans if span.kind == "agent"]
    assert agent.name == "sailor"
    first, second = calls(spans)
    assert first.model_call is not None
    part = first.model_call.output[0].parts[0]
    assert (part.type, part.name, part.arguments) == ("tool_call", "look_up", {"word": "ship"})
    check(second)
    (used,) = [span for span in spans if span.kind == "tool"]
    assert (used.name, used.input, used.output) == ("look_up", {"word": "ship"}, "ship: a vessel")
    assert used.attributes["gen_ai.tool.call.id"] == "c1"
    (inside,) = recorded.spans(name="inside the tool")
    assert inside.parent_id == used.span_id
    assert {span.session_id for span in spans} == {"s-1"}
    for span in spans:
        while span.parent_id is not None:
            span = by_id[span.parent_id]
        assert span is agent


class Library(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return [Document("a vessel", id="d1", metadata={"score": 0.75, "page": 3})]


def test_a_retriever_gives_its_documents(recorded: MemorySink) -> None:
    Library().invoke("ship")
    (span,) = recorded.spans()
    assert (span.kind, span.input) == ("retrieval", {"query": "ship"})
    assert span.output == [{"id": "d1", "content": "a vessel", "score": 0.75, "metadata": {"page": 3}}]


def test_errors_and_cancellation_end_everything(recorded: MemorySink) -> None:
    def refuse(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(400, json={"error": {"message": "no such model"}})

    with pytest.raises(Exception, match="no such model"):
        (RunnableLambda(lambda x: x) | model(refuse)).invoke("x")
    assert {span.status for span in recorded.spans() if span.name != "RunnableLambda"} == {"error"}
    recorded.batches.clear()

    async def hang(_: httpx2.Request) -> httpx2.Response:
        await asyncio.sleep(60)
        raise AssertionError

    async def run() -> None:
        task = asyncio.create_task(model(hang).ainvoke("x"))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert [span.status for span in recorded.spans()] == ["cancelled"]
    recorded.batches.clear()
    stream = model().stream("x")
    next(stream)
    stream.close()
    assert [span.status for span in recorded.spans()] == ["cancelled"]


def test_calls_at_once_are_not_mixed_up(recorded: MemorySink) -> None:
    def echo(request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content)
        said = {"role": "assistant", "content": body["messages"][-1]["content"]}
        choice = {"index": 0, "finish_reason": "stop", "message": said}
        made = {"id": said["content"], "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        return httpx2.Response(200, json=made)

    async def run() -> None:
        await asyncio.gather(*(model(echo).ainvoke(f"n{number}") for number in range(8)))
        await model(echo).agenerate([[HumanMessage(f"m{number}")] for number in range(4)])

    asyncio.run(run())
    spans = recorded.spans()
    assert len(spans) == 12
    for span in spans:
        assert span.model_call is not None
        assert span.model_call.input[-1].text == span.model_call.output[0].text == span.model_call.response_id


def test_nothing_stays_current_afterwards(recorded: MemorySink) -> None:
    async def run() -> None:
        await model().ainvoke("x")
        assert loopkit.current_span().id == "unrecorded"

    asyncio.run(run())
    model().invoke("x")
    assert loopkit.current_span().id == "unrecorded"


def test_the_handler_can_be_passed_by_hand(recorded: MemorySink) -> None:
    loopkit.uninstrument()
    FakeListChatModel(responses=["a"]).invoke("x", config={"callbacks": [frameworks.langchain_handler()]})
    FakeListChatModel(responses=["a"]).invoke("x")
    assert len(recorded.spans()) == 1


def test_what_is_said_within_content_off_is_nowhere(recorded: MemorySink) -> None:
    loopkit.instrument("langchain")
    model = FakeListChatModel(responses=["SECRET ANSWER"] * 2)

    def node(question: str) -> str:
        with loopkit.context(content="off", user_id="u-9"):
            model.invoke("SECRET QUESTION")
        with loopkit.span("private", content="off"):
            model.invoke("SECRET QUESTION")
        return "done"

    RunnableLambda(node).invoke("hello")
    spans = recorded.spans()
    assert "SECRET" not in str(spans)
    first, second = [span for span in spans if span.kind == "llm"]
    (private,) = [span for span in spans if span.name == "private"]
    assert (first.content_status, first.user_id) == ("off", "u-9")
    assert (second.content_status, second.parent_id) == ("off", private.span_id)


def test_a_task_that_outlives_its_node_ends_by_itself(recorded: MemorySink) -> None:
    loopkit.instrument("langchain")
    done: list[str] = []

    async def slow(text: str) -> str:
        await asyncio.sleep(0.05)
        return f"late {text}"

    async def node(text: str) -> str:
        async def background() -> None:
            done.append(await RunnableLambda(slow).ainvoke(text))

        tasks.append(asyncio.create_task(background()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return "now"

    tasks: list[Any] = []

    async def main() -> None:
        assert await RunnableLambda(node).ainvoke("hello") == "now"
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert done == ["late hello"]
    by_name = {span.name: span for span in recorded.spans()}
    assert (by_name["slow"].status, by_name["slow"].output) == ("ok", "late hello")


def test_a_tool_that_runs_out_of_time_ends_with_its_node(recorded: MemorySink) -> None:
    loopkit.instrument("langchain")

    async def hangs(text: str) -> str:
        await asyncio.sleep(60)
        return text

    async def node(text: str) -> str:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(RunnableLambda(hangs).ainvoke(text), 0.02)
        return "went on"

    assert asyncio.run(RunnableLambda(node).ainvoke("hello")) == "went on"
    by_name = {span.name: span for span in recorded.spans()}
    assert by_name["hangs"].status == "cancelled"
    assert by_name["node"].status == "ok"


def test_patches_come_off_in_any_order(recorded: MemorySink) -> None:
    loopkit.instrument("langchain")
    ours = BaseChatModel._generate_with_cache

    def theirs(self: Any, *args: Any, **kwargs: Any) -> Any:
        return ours(self, *args, **kwargs)

    BaseChatModel._generate_with_cache = theirs  # type: ignore[method-assign]
    loopkit.uninstrument("langchain")
    try:
        assert BaseChatModel._generate_with_cache is theirs
        FakeListChatModel(responses=["fine"]).invoke("hello")
        assert recorded.spans() == []
    finally:
        del BaseChatModel._generate_with_cache
        BaseChatModel._generate_with_cache = ours.__wrapped__  # type: ignore[attr-defined,method-assign]
