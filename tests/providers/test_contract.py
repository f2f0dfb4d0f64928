"""Every way of making a model call is recorded exactly once, and the application gets what it would have got."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from typing import Any

import pytest
from opentelemetry import trace as otel_trace

import loopkit
from loopkit.testing import MemorySink
from loopkit.types import Span
from tests.providers.contract import QUESTION, ROWS, Entered, Row, collect, value

pytestmark = [
    pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name),
    pytest.mark.parametrize("colour", ["sync", "async"]),
]


def only(recorded: MemorySink) -> Span:
    spans = recorded.spans()
    assert [span.kind for span in spans] == ["llm"]
    return spans[0]


def said(span: Span) -> str:
    assert span.model_call is not None
    return "".join(message.text for message in span.model_call.output)


def test_bodies_are_what_the_sdk_expects(row: Row, colour: str) -> None:
    row.response_model.model_validate(row.recorded["body"])


def test_a_call_is_recorded_with_everything(row: Row, colour: str, recorded: MemorySink) -> None:
    async def run() -> None:
        client = loopkit.wrap(row.make(colour, row.answer))
        response = await value(row.endpoint(client).create(**row.arguments))
        assert response.id == row.recorded["body"]["id"]

    asyncio.run(run())
    span = only(recorded)
    call = span.model_call
    assert call is not None
    assert span.status == "ok"
    assert (call.provider, call.operation, call.model) == (row.provider, "chat", row.arguments["model"])
    assert call.response_id == row.recorded["body"]["id"]
    assert call.response_model == row.recorded["body"]["model"]
    assert [message.role for message in call.input] == ["system", "user"]
    assert call.input[-1].text == QUESTION
    assert said(span) == "Hello there!"
    assert call.finish_reasons == ("stop",)
    assert (call.usage.input_tokens, call.usage.output_tokens) == (19, 10)
    assert call.usage.cache_read_tokens == 4
    assert call.native_request is not None
    assert json.loads(call.native_request)["model"] == row.arguments["model"]


def test_a_stream_is_recorded_when_it_ends(row: Row, colour: str, recorded: MemorySink) -> None:
    async def run() -> None:
        client = loopkit.wrap(row.make(colour, row.answer))
        plain = row.make(colour, row.answer)
        expected = await value(row.endpoint(plain).create(stream=True, **row.arguments))
        stream = await value(row.endpoint(client).create(stream=True, **row.arguments))
        assert type(stream) is type(expected)
        assert recorded.spans() == []
        assert await collect(stream) == await collect(expected)

    asyncio.run(run())
    span = only(recorded)
    assert span.model_call is not None
    assert said(span) == "Hello there!"
    assert span.status == "ok"
    assert span.model_call.stream is True
    assert span.model_call.time_to_first_token is not None
    assert span.model_call.usage.output_tokens == 10
    assert span.model_call.finish_reasons == ("stop",)


def test_a_stream_closed_early_keeps_what_came(row: Row, colour: str, recorded: MemorySink) -> None:
    async def run() -> None:
        client = loopkit.wrap(row.make(colour, row.answer))
        stream = await value(row.endpoint(client).create(stream=True, **row.arguments))
        async with Entered(stream):
            await collect(stream, most=4)

    asyncio.run(run())
    span = only(recorded)
    assert span.status == "cancelled"
    assert said(span).startswith("Hello")


def test_a_dropped_stream_ends_too(row: Row, colour: str, recorded: MemorySink) -> None:
    async def run() -> None:
        client = loopkit.wrap(row.make(colour, row.answer))
        stream = await value(row.endpoint(client).create(stream=True, **row.arguments))
        await collect(stream, most=2)
        del stream
        gc.collect()

    asyncio.run(run())
    gc.collect()
    assert only(recorded).status == "cancelled"


def test_a_stream_that_breaks_is_an_error_with_what_came(row: Row, colour: str, recorded: MemorySink) -> None:
    async def run() -> None:
        broken = row.events(row.recorded["stream"][:-2], broken=True)
        client = loopkit.wrap(row.make(colour, lambda request: broken))
        stream = await value(row.endpoint(client).create(stream=True, **row.arguments))
        with pytest.raises(Exception, match=r"onnection|reset"):
            await collect(stream)

    asyncio.run(run())
    span = only(recorded)
    assert span.status == "error"
    assert said(span) == "Hello there!"


def test_the_providers_error_passes_untouched(row: Row, colour: str, recorded: MemorySink) -> None:
    async def run() -> None:
        refusal = row.library.Response(400, json={"error": {"message": "no such model", "type": "invalid_request"}})
        client = loopkit.wrap(row.make(colour, lambda request: refusal))
        with pytest.raises(row.error_class, match="no such model"):
            await value(row.endpoint(client).create(**row.arguments))

    asyncio.run(run())
    span = only(recorded)
    assert span.status == "error"
    assert span.error is not None
    assert span.error.type == "BadRequestError"
    assert "no such model" in span.error.message


def test_retries_inside_the_client_are_one_span(row: Row, colour: str, recorded: MemorySink) -> None:
    tries: list[Any] = []

    def flaky(request: Any) -> Any:
        tries.append(request)
        if len(tries) == 1:
            return row.library.Response(503, headers={"retry-after-ms": "1"}, json={})
        return row.answer(request)

    async def run() -> None:
        client = loopkit.wrap(row.make(colour, flaky, max_retries=2))
        await value(row.endpoint(client).create(**row.arguments))

    asyncio.run(run())
    assert len(tries) == 2
    assert said(only(recorded)) == "Hello there!"


def test_a_raw_response_is_recorded(row: Row, colour: str, recorded: MemorySink) -> None:
    async def run() -> None:
        client = loopkit.wrap(row.make(colour, row.answer))
        raw = await value(row.endpoint(client).with_raw_response.create(**row.arguments))
        parsed = await value(raw.parse())
        assert parsed.id == row.recorded["body"]["id"]

    asyncio.run(run())
    assert said(only(recorded)) == "Hello there!"


def test_a_raw_stream_is_recorded(row: Row, colour: str, recorded: MemorySink) -> None:
    async def run() -> None:
        client = loopkit.wrap(row.make(colour, row.answer))
        raw = await value(row.endpoint(client).with_raw_response.create(stream=True, **row.arguments))
        await collect(await value(raw.parse()))

    asyncio.run(run())
    span = only(recorded)
    assert (span.status, said(span)) == ("ok", "Hello there!")


def test_a_streaming_response_read_in_pieces_is_whole(row: Row, colour: str, recorded: MemorySink) -> None:
    async def run() -> None:
        client = loopkit.wrap(row.make(colour, row.answer))
        async with Entered(row.endpoint(client).with_streaming_response.create(**row.arguments)) as response:
            assert await collect(response.iter_lines())

    asyncio.run(run())
    span = only(recorded)
    assert (span.status, said(span)) == ("ok", "Hello there!")


def test_a_streaming_response_is_recorded_when_read(row: Row, colour: str, recorded: MemorySink) -> None:
    async def run() -> None:
        client = loopkit.wrap(row.make(colour, row.answer))
        async with Entered(row.endpoint(client).with_streaming_response.create(**row.arguments)) as response:
            parsed = await value(response.parse())
            assert parsed.id == row.recorded["body"]["id"]

    asyncio.run(run())
    span = only(recorded)
    assert span.status == "ok"
    assert said(span) == "Hello there!"


def test_a_streaming_response_that_nobody_reads_is_cancelled(row: Row, colour: str, recorded: MemorySink) -> None:
    async def run() -> None:
        client = loopkit.wrap(row.make(colour, row.answer))
        async with Entered(row.endpoint(client).with_streaming_response.create(**row.arguments)):
            pass

    asyncio.run(run())
    assert only(recorded).status == "cancelled"


def test_the_stream_helper_is_recorded_once(row: Row, colour: str, recorded: MemorySink) -> None:
    if row.helper is None:
        pytest.skip(f"{row.name} has no stream helper")

    async def run() -> None:
        assert row.helper is not None
        async with Entered(row.helper(loopkit.wrap(row.make(colour, row.answer)))) as stream:
            await collect(stream)

    asyncio.run(run())
    span = only(recorded)
    assert span.status == "ok"
    assert said(span) == "Hello there!"


def test_leaving_the_stream_helper_early_is_cancelled_at_once(row: Row, colour: str, recorded: MemorySink) -> None:
    if row.helper is None:
        pytest.skip(f"{row.name} has no stream helper")

    async def run() -> None:
        assert row.helper is not None
        async with Entered(row.helper(loopkit.wrap(row.make(colour, row.answer)))) as stream:
            await collect(stream, most=1)
        assert only(recorded).status == "cancelled"

    asyncio.run(run())


def test_copies_of_the_client_are_recorded_too(row: Row, colour: str, recorded: MemorySink) -> None:
    async def run() -> None:
        client = loopkit.wrap(row.make(colour, row.answer))
        copy = client.with_options(timeout=7)
        assert isinstance(copy, (row.client, row.async_client))
        assert type(copy).__qualname__ == type(row.make(colour, row.answer)).__qualname__
        await value(row.endpoint(copy).create(**row.arguments))

    asyncio.run(run())
    only(recorded)


def test_wrapping_twice_records_once_and_unwrap_gives_the_class_back(
    row: Row, colour: str, recorded: MemorySink
) -> None:
    async def run() -> None:
        client = row.make(colour, row.answer)
        own = type(client)
        assert loopkit.wrap(loopkit.wrap(client)) is client
        await value(row.endpoint(client).create(**row.arguments))
        only(recorded)
        assert type(loopkit.unwrap(client)) is own
        await value(row.endpoint(client).create(**row.arguments))
        only(recorded)

    asyncio.run(run())


def test_a_stream_being_read_is_not_the_current_span(row: Row, colour: str, recorded: MemorySink) -> None:
    async def run() -> None:
        client = loopkit.wrap(row.make(colour, row.answer))
        with loopkit.span("outer") as outer:
            stream = await value(row.endpoint(client).create(stream=True, **row.arguments))
            assert loopkit.current_span().id == outer.id
            await collect(stream)

    asyncio.run(run())
    names = {span.name: span for span in recorded.spans()}
    assert names["outer"].span_id in {span.parent_id for span in recorded.spans()}


def test_a_stream_closed_from_another_task_logs_nothing(
    row: Row, colour: str, recorded: MemorySink, caplog: pytest.LogCaptureFixture
) -> None:
    if colour == "sync":
        pytest.skip("tasks are async")

    async def run() -> None:
        client = loopkit.wrap(row.make(colour, row.answer))
        stream = await row.endpoint(client).create(stream=True, **row.arguments)
        await collect(stream, most=1)
        await asyncio.create_task(stream.close())

    with caplog.at_level(logging.DEBUG, logger="opentelemetry"):
        asyncio.run(run())
    assert [record.getMessage() for record in caplog.records if "etach" in record.getMessage()] == []
    assert only(recorded).status == "cancelled"


def test_a_cancelled_call_is_cancelled(row: Row, colour: str, recorded: MemorySink) -> None:
    if colour == "sync":
        pytest.skip("cancelling is async")

    async def hang(request: Any) -> Any:
        await asyncio.sleep(60)

    async def run() -> None:
        client = loopkit.wrap(row.make(colour, hang))
        task = asyncio.create_task(row.endpoint(client).create(**row.arguments))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    span = only(recorded)
    assert span.status == "cancelled"
    assert span.error is not None
    assert span.error.type == "CancelledError"


def test_feedback_finds_the_call_by_response_and_by_id(row: Row, colour: str, stored: MemorySink) -> None:
    async def run() -> tuple[Any, Any]:
        client = loopkit.wrap(row.make(colour, row.answer))
        response = await value(row.endpoint(client).create(**row.arguments))
        return loopkit.feedback(response, "helpful", True), loopkit.feedback(response.id, "clear", False)

    by_object, by_id = asyncio.run(run())
    (span,) = stored.spans()
    assert by_object.target == span.id
    assert loopkit.open_store().resolve(by_id) == span.id


def test_before_init_a_wrapped_client_is_a_plain_one(row: Row, colour: str) -> None:
    async def run() -> None:
        client = loopkit.wrap(row.make(colour, row.answer))
        response = await value(row.endpoint(client).create(**row.arguments))
        assert response.id == row.recorded["body"]["id"]
        assert otel_trace.get_current_span() is otel_trace.INVALID_SPAN

    asyncio.run(run())
