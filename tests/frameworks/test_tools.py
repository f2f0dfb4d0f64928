"""Tools and retrieval: as the conventions have them on the wire, and MCP's calls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from mcp import Client
from mcp.server.mcpserver import MCPServer
from opentelemetry import trace as otel_trace
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

import loopkit
from loopkit.testing import MemorySink, recording
from loopkit.wire.decode import attributes_of


def exported(recorded: MemorySink) -> list[dict[str, Any]]:
    loopkit.flush()
    spans = [span for batch in recorded.batches for span in batch.spans]
    return [dict(attributes_of(OtlpSpan.FromString(span.exported(content=True)))) for span in spans]


def test_a_tool_has_its_arguments_and_result_on_the_wire() -> None:
    with recording(content="export") as recorded:

        @loopkit.trace(kind="tool")
        def look_up(word: str) -> dict[str, int]:
            return {"found": 1}

        look_up("ship")
        (sent,) = exported(recorded)
        (span,) = recorded.spans()
    assert json.loads(sent["gen_ai.tool.call.arguments"]) == {"word": "ship"}
    assert json.loads(sent["gen_ai.tool.call.result"]) == {"found": 1}
    assert (sent["openinference.span.kind"], sent["gen_ai.operation.name"]) == ("TOOL", "execute_tool")
    assert (span.input, span.output, span.attributes) == ({"word": "ship"}, {"found": 1}, {})


def test_retrieval_has_its_documents_on_the_wire() -> None:
    with recording(content="export") as recorded:
        with loopkit.span("faq", kind="retrieval", input={"query": "ship"}) as span:
            span.set(output=[{"id": "d1", "score": 0.75, "content": "a vessel"}, "plain"])
        with loopkit.span("own", kind="tool", input="mine"):
            otel_trace.get_current_span().set_attribute("gen_ai.tool.call.arguments", "theirs")
        sent, own = exported(recorded)
    assert sent["gen_ai.retrieval.query.text"] == "ship"
    assert json.loads(sent["gen_ai.retrieval.documents"]) == [
        {"id": "d1", "score": 0.75, "content": "a vessel"}, {"content": "plain"},
    ]  # fmt: skip
    assert own["gen_ai.tool.call.arguments"] == "theirs"


def test_what_a_tool_got_stays_where_content_stays() -> None:
    with recording(content="local") as recorded:
        with loopkit.span("look up", kind="tool", input="SECRET"):
            pass
        loopkit.flush()
        (span,) = [span for batch in recorded.batches for span in batch.spans]
    assert b"SECRET" not in span.exported(content=False)
    assert span.stored().count(b"SECRET") == 1


@pytest.fixture
def instrumented() -> Iterator[None]:
    loopkit.instrument("mcp")
    yield
    loopkit.uninstrument()


def server() -> MCPServer:
    made = MCPServer("demo-server")

    @made.tool()
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @made.tool()
    def fail() -> int:
        """Fail."""
        raise ValueError("broken")

    return made


def test_mcp_calls_are_tool_spans(instrumented: None, recorded: MemorySink) -> None:
    async def run() -> None:
        async with Client(server()) as client:
            with loopkit.span("outer"):
                result = await client.call_tool("add", {"a": 1, "b": 2})
                assert result.structured_content == {"result": 3}
                await client.call_tool("fail", {})
                with loopkit.span("add", kind="tool"):  # as a framework above would
                    await client.call_tool("add", {"a": 1, "b": 2})

    asyncio.run(run())
    add, failed, above, outer = recorded.spans()
    assert (add.kind, add.name, add.input, add.output) == ("tool", "add", {"a": 1, "b": 2}, {"result": 3})
    assert add.attributes["mcp.server.name"] == "demo-server"
    assert add.parent_id == failed.parent_id == outer.span_id
    assert (failed.status, above.attributes["mcp.server.name"]) == ("error", "demo-server")


def test_mcp_is_left_alone_again(recorded: MemorySink) -> None:
    loopkit.instrument("mcp")
    loopkit.uninstrument("mcp")

    async def run() -> None:
        async with Client(server()) as client:
            await client.call_tool("add", {"a": 1, "b": 2})

    asyncio.run(run())
    assert recorded.spans() == []


def test_one_span_tells_of_one_call(instrumented: None, recorded: MemorySink) -> None:
    @loopkit.trace(kind="tool", name="add")
    async def add(a: int, b: int) -> int:
        for more in (1, 2):
            result = await client.call_tool("add", {"a": a, "b": b + more})
            b = result.structured_content["result"]
        return b

    async def run() -> None:
        nonlocal client
        async with Client(server()) as client:
            assert await add(1, 1) == 6

    client: Any = None
    asyncio.run(run())
    first, second, above = recorded.spans()
    assert (first.input, first.output) == ({"a": 1, "b": 2}, {"result": 3})
    assert (second.input, second.output) == ({"a": 1, "b": 5}, {"result": 6})
    assert above.output == 6
