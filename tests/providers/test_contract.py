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
from tests.colours import Entered, closed, collect, value
from tests.providers.contract import QUESTION, ROWS, Row

pytestmark = [
    pytest.mark.parametrize(
        ("row", "colour"),
        [pytest.param(row, colour, id=f"{row.name} {colour}") for row in ROWS for colour in row.colours],
    )
]


def stainless(row: Row) -> None:
    if not row.is_stainless:
        pytest.skip(f"{row.name} has no such way to call it")


def only(recorded: MemorySink) -> Span:
    spans = recorded.spans()
    assert [span.kind for span in spans] == ["llm"]
    return spans[0]


def said(span: Span) -> str:
    assert span.model_call is not None
    return "".join(message.text for message in span.model_call.output)


def test_bodies_are_what_the_sdk_expects(row: Row, colour: str) -> None:
    row.validate()


def test_a_call_is_recorded_with_everything(row: Row, colour: str, recorded: MemorySink) -> None:
    async def run() -> None:
        client = loopkit.wrap(row.make(colour, row.answer))
        response = await value(row.call(client))
        assert row.id_of(response) == row.response_id

    asyncio.run(run())
    span = only(recorded)
    call = span.model_call
    assert call is not None
    assert span.status == "ok"
    assert (call.provider, call.operation, call.model) == (row.provider, row.operation, row.model)
    assert call.response_id == row.response_id
    assert call.response_model == row.answering_model
    assert [message.role for message in call.input] == ["system", "user"]
    assert call.input[-1].text == QUESTION
    assert said(span) == "Hello there!"
    assert call.finish_reasons == ("stop",)
    assert (call.usage.input_tokens, call.usage.output_tokens) == (19, 10)
    assert call.usage.cache_read_tokens == row.cached
    assert call.native_request is not None
    assert row.model in json.loads(call.native_request).values()
    assert call.parameters["temperature"] == 0.5


def test_a_stream_is_recorded_when_it_ends(row: Row, colour: str, recorded: MemorySink) -> None:
    async def run() -> None:
        client = loopkit.wrap(row.make(colour, row.answer))
        plain = row.make(colour, row.answer)
        expected = await value(row.stream(plain))
        stream = await value(row.stream(client))
        assert isinstance(stream, type(expected))
        assert type(stream).__qualname__ == type(expected).__qualname__
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
        stream = await value(row.stream(client))
        await collect(stream, most=4)
        await closed(stream)

    asyncio.run(run())
    span = only(recorded)
    assert span.status == "cancelled"
    assert said(span).startswith("Hello")


def test_a_dropped_stream_ends_too(row: Row, colour: str, recorded: MemorySink) -> None:
    async def run() -> None:
        client = loopkit.wrap(row.make(colour, row.answer))
        stream = await value(row.stream(client))
        await collect(stream, most=2)
        del stream
        gc.collect()

    asyncio.run(run())
    gc.collect()
    assert only(recorded).status == "cancelled"


def test_a_stream_that_breaks_is_an_error_with_what_came(row: Row, colour: str, recorded: MemorySink) -> None:
    async def run() -> None:
        client = loopkit.wrap(row.breaking(colour))
        stream = await value(row.stream(client))
        with pytest.raises(Exception, match=r"onnection|reset|throttl"):
            await collect(stream)

    asyncio.run(run())
    span = only(recorded)
    assert span.status == "error"
    assert said(span) == "Hello there!"


def test_the_providers_error_passes_untouched(row: Row, colour: str, recorded: MemorySink) -> None:
    async def run() -> str:
        client = loopkit.wrap(row.refusing(colour))
        with pytest.raises(row.error_class, match="no such model") as raised:
            await value(row.call(client))
        return raised.type.__name__

    name = asyncio.run(run())
    span = only(recorded)
    assert span.status == "error"
    assert span.error is not None
    assert span.error.type == name
    assert "no such model" in span.error.message


def test_retries_inside_the_client_are_one_span(row: Row, colour: str, recorded: MemorySink) -> None:
    stainless(row)
    tries: list[Any] = []

    def flaky(request: Any) -> Any:
        tries.append(request)
        if len(tries) == 1:
            return row.library.Response(503, headers={"retry-after-ms": "1"}, json={})
        return row.answer(request)

    async def run() -> None:
        client = loopkit.wrap(row.make(colour, flaky, max_retries=2))
        await value(row.call(client))

    asyncio.run(run())
    assert len(tries) == 2
    assert said(only(recorded)) == "Hello there!"


def test_a_raw_response_is_recorded(row: Row, colour: str, recorded: MemorySink) -> None:
    stainless(row)

    async def run() -> None:
        client = loopkit.wrap(row.make(colour, row.answer))
        raw = await value(row.endpoint(client).with_raw_response.create(**row.arguments))
        parsed = await value(raw.parse())
        assert parsed.id == row.recorded["body"]["id"]

    asyncio.run(run())
    assert said(only(recorded)) == "Hello there!"


def test_a_raw_stream_is_recorded(row: Row, colour: str, recorded: MemorySink) -> None:
    stainless(row)

    async def run() -> None:
        client = loopkit.wrap(row.make(colour, row.answer))
        raw = await value(row.endpoint(client).with_raw_response.create(stream=True, **row.arguments))
        await collect(await value(raw.parse()))

    asyncio.run(run())
    span = only(recorded)
    assert (span.status, said(span)) == ("ok", "Hello there!")


def test_a_streaming_response_read_in_pieces_is_whole(row: Row, colour: str, recorded: MemorySink) -> None:
    stainless(row)

    async def run() -> None:
        client = loopkit.wrap(row.make(colour, row.answer))
        async with Entered(row.endpoint(client).with_streaming_response.create(**row.arguments)) as response:
            assert await collect(response.iter_lines())

    asyncio.run(run())
    span = only(recorded)
    assert (span.status, said(span)) == ("ok", "Hello there!")


def test_a_streaming_response_is_recorded_when_read(row: Row, colour: str, recorded: MemorySink) -> None:
    stainless(row)

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
    stainless(row)

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
    stainless(row)

    async def run() -> None:
        client = loopkit.wrap(row.make(colour, row.answer))
        copy = client.with_options(timeout=7)
        assert isinstance(copy, (row.client, row.async_client))  # type: ignore[arg-type]
        assert type(copy).__qualname__ == type(row.make(colour, row.answer)).__qualname__
        await value(row.call(copy))

    asyncio.run(run())
    only(recorded)


def test_wrapping_twice_records_once_and_unwrap_gives_the_class_back(
    row: Row, colour: str, recorded: MemorySink
) -> None:
    async def run() -> None:
        client = row.make(colour, row.answer)
        own = type(client)
        assert loopkit.wrap(loopkit.wrap(client)) is client
        await value(row.call(client))
        only(recorded)
        assert type(loopkit.unwrap(client)) is own
        assert loopkit.unwrap(client) is client
        await value(row.call(client))
        only(recorded)

    asyncio.run(run())


def test_a_stream_being_read_is_not_the_current_span(row: Row, colour: str, recorded: MemorySink) -> None:
    async def run() -> None:
        client = loopkit.wrap(row.make(colour, row.answer))
        with loopkit.span("outer") as outer:
            stream = await value(row.stream(client))
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
        stream = await value(row.stream(client))
        await collect(stream, most=1)
        await asyncio.create_task(closed(stream))

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
        task = asyncio.create_task(row.call(client))
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
    if not row.has_ids:
        pytest.skip(f"{row.name} gives no ids")

    async def run() -> tuple[Any, Any]:
        client = loopkit.wrap(row.make(colour, row.answer))
        response = await value(row.call(client))
        return loopkit.feedback(response, "helpful", True), loopkit.feedback(row.id_of(response), "clear", False)

    by_object, by_id = asyncio.run(run())
    (span,) = stored.spans()
    assert by_object.target in (span.id, row.response_id)
    assert loopkit.open_store().resolve(by_object) == span.id
    assert loopkit.open_store().resolve(by_id) == span.id


def test_before_init_a_wrapped_client_is_a_plain_one(row: Row, colour: str) -> None:
    async def run() -> None:
        client = loopkit.wrap(row.make(colour, row.answer))
        response = await value(row.call(client))
        assert row.id_of(response) == row.response_id
        assert otel_trace.get_current_span() is otel_trace.INVALID_SPAN

    asyncio.run(run())


def test_an_instrumented_sdk_is_recorded_once_wrapped_or_not(row: Row, colour: str, recorded: MemorySink) -> None:
    async def run() -> None:
        await value(row.call(plain))
        only(recorded)
        recorded.batches.clear()
        await value(row.call(loopkit.wrap(row.make(colour, row.answer))))
        only(recorded)
        recorded.batches.clear()
        await collect(await value(row.stream(plain)))
        assert said(only(recorded)) == "Hello there!"
        recorded.batches.clear()

    plain = row.make(colour, row.answer)
    loopkit.instrument(row.package)
    loopkit.instrument(row.package)
    try:
        if not row.reaches_older:
            plain = row.make(colour, row.answer)
        asyncio.run(run())
    finally:
        loopkit.uninstrument(row.package)
    asyncio.run(_call(row, row.make(colour, row.answer)))
    assert recorded.spans() == []


async def _call(row: Row, client: Any) -> None:
    await value(row.call(client))


def test_a_frameworks_span_is_filled_in_not_doubled(row: Row, colour: str, recorded: MemorySink) -> None:
    async def run() -> None:
        client = loopkit.wrap(row.make(colour, row.answer))
        with loopkit.span("the framework's", kind="llm"):
            await value(row.call(client))
            await value(row.call(client))

    asyncio.run(run())
    inner, outer = recorded.spans()
    assert (outer.name, said(outer), said(inner)) == ("the framework's", "Hello there!", "Hello there!")
    assert inner.parent_id == outer.span_id
