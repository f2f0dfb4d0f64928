"""Our OTLP bytes: read back as they were, by the official library too, and in pieces that concatenate."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

from loopkit.types import Message, ModelCall, Part, Span, SpanError, Usage
from loopkit.wire import names
from loopkit.wire.decode import decode_request, decode_span
from loopkit.wire.encode import encode_request, encode_resource, encode_span, spans_in
from loopkit.wire.protobuf import any_value

words = st.text(st.characters(codec="utf-8"), max_size=12)
numbers = st.integers(-(2**63), 2**63 - 1)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
parts = st.builds(Part, type=st.just("text"), content=words) | st.builds(
    Part, type=st.just("tool_call"), id=words, name=words, arguments=json_values
)
usages = st.builds(
    Usage,
    input_tokens=st.none() | st.integers(0, 10**9),
    output_tokens=st.none() | st.integers(0, 10**9),
    cache_read_tokens=st.none() | st.integers(0, 99),
)
calls = st.builds(
    ModelCall,
    provider=words,
    operation=words,
    model=st.none() | words,
    response_id=st.none() | words,
    input=st.lists(st.builds(Message, role=words, parts=st.lists(parts, max_size=2).map(tuple)), max_size=2).map(tuple),
    output=st.lists(
        st.builds(Message, role=words, parts=st.lists(parts, max_size=2).map(tuple), finish_reason=st.just("stop")),
        max_size=2,
    ).map(tuple),
    parameters=st.fixed_dictionaries({}, optional={"temperature": st.floats(0, 2), "extra": json_values.filter(bool)}),
    usage=usages,
    finish_reasons=st.lists(words, max_size=2).map(tuple),
    time_to_first_token=st.none() | st.floats(0, 9),
    stream=st.booleans(),
    native_request=st.none() | words,
)


@st.composite
def spans(draw: st.DrawFn) -> Span:
    kind: Any = draw(st.sampled_from(["task", "tool", "llm", "retrieval", "guardrail", "route"]))
    status: Any = draw(st.sampled_from(["ok", "error", "cancelled"]))
    message = draw(words) if status == "error" else ""
    variant = draw(st.none() | words.filter(bool))
    head, tail = draw(st.sampled_from([(1.0, 1.0), (0.25, 1.0), (0.5, 0.5), (1.0, 0.1), (0.5, 0.0)]))
    probability = head * tail
    return Span(
        trace_id=f"{draw(st.integers(1, 2**128 - 1)):032x}",
        span_id=f"{draw(st.integers(1, 2**64 - 1)):016x}",
        parent_id=draw(st.none() | st.integers(1, 2**64 - 1).map(lambda n: f"{n:016x}")),
        name=draw(words),
        kind=kind,
        started_at=draw(st.integers(0, 2**63 - 1)),
        ended_at=draw(st.integers(0, 2**63 - 1)),
        status=status,
        error=SpanError(type=draw(words.filter(lambda w: w != "cancelled")), message=message)
        if status == "error"
        else None,
        input=draw(st.none() | json_values),
        output=draw(st.none() | json_values),
        model_call=draw(calls) if kind == "llm" else None,
        service="svc",
        task=draw(st.none() | words),
        variant=variant,
        propensity=None if variant is None else draw(st.none() | st.floats(0, 1)),
        prompt_version=None if variant is None else draw(st.none() | st.just("0a1b2c3d")),
        user_id=draw(st.none() | words),
        session_id=draw(st.none() | words),
        tags=tuple(draw(st.lists(words, max_size=3))),
        metadata=draw(st.dictionaries(words, json_values, max_size=3)),
        sampling_probability=probability,
        inclusion_probability=probability,
        head_probability=head,
        tail_probability=tail,
        rescue_seconds=0.0 if tail == 1.0 else draw(st.sampled_from([0.0, 60.0])),
        kept_for=None if tail == 1.0 else draw(st.sampled_from([None, "error", "slow"])),
    )


@settings(max_examples=200, deadline=None)
@given(spans())
def test_a_span_reads_back_as_it_was(span: Span) -> None:
    encoded = encode_span(span)
    assert decode_span(encoded.stored(), "svc") == span


@given(json_values)
def test_values_are_what_the_official_library_reads(value: Any) -> None:
    def plain(read: AnyValue) -> Any:
        which = read.WhichOneof("value")
        if which == "array_value":
            return [plain(item) for item in read.array_value.values]
        if which == "kvlist_value":
            return {item.key: plain(item.value) for item in read.kvlist_value.values}
        return None if which is None else getattr(read, which)

    def without_none(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: without_none(v) for k, v in value.items() if v is not None}
        return [without_none(v) for v in value] if isinstance(value, list) else value

    if value is not None and "None" not in repr(value):
        assert plain(AnyValue.FromString(any_value(value))) == without_none(value)


SPAN = Span(
    trace_id="0af7651916cd43dd8448eb211c80319c",
    span_id="b7ad6b7169203331",
    name="chat gpt-4.1",
    kind="llm",
    started_at=1,
    ended_at=2,
    session_id="s-1",
    model_call=ModelCall(
        provider="openai",
        operation="chat",
        model="gpt-4.1",
        input=(Message(role="user", parts=(Part(type="text", content="hi"),)),),
        output=(Message(role="assistant", parts=(Part(type="text", content="hello"),)),),
        native_request='{"model":"gpt-4.1"}',
    ),
)


def test_the_pieces_hold_what_their_destination_may_have() -> None:
    encoded = encode_span(SPAN)
    wire = {item.key for item in OtlpSpan.FromString(encoded.exported(content=False)).attributes}
    assert names.INPUT_MESSAGES not in wire
    assert names.NATIVE_REQUEST not in wire
    assert {names.PROVIDER, names.OI_KIND, names.SESSION_ID, names.CONVERSATION_ID} <= wire
    exported = {item.key for item in OtlpSpan.FromString(encoded.exported(content=True)).attributes}
    assert exported - wire == {names.INPUT_MESSAGES, names.OUTPUT_MESSAGES}


def test_output_messages_keep_a_finish_reason_even_when_it_is_unknown() -> None:
    assert b'"finish_reason":""' in encode_span(SPAN).exported(content=True)


def test_a_whole_request_reads_back() -> None:
    data = encode_request(
        encode_resource({"service.name": "svc", "process.pid": 7}), "loopkit", "1", [encode_span(SPAN).core]
    )
    request = ExportTraceServiceRequest.FromString(data)
    assert request.resource_spans[0].scope_spans[0].scope.name == "loopkit"
    ((span, body),) = decode_request(data)
    assert (span.id, span.service) == (SPAN.id, "svc")
    assert decode_span(body, "svc") == span


def test_a_lone_surrogate_does_not_break_the_batch() -> None:
    span = Span(trace_id="1" * 32, span_id="2" * 16, name="half \ud83c", started_at=1, ended_at=2, input="a\ud83cb")
    assert decode_span(encode_span(span).stored()).input == "a?b"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("metadata", "hello"), ("metadata", "[1]"), ("tag.tags", 5), ("tag.tags", [1]), ("loopkit.task", 7),
        ("gen_ai.input.messages", "hi"), ("gen_ai.output.messages", "[1]"), ("loopkit.request.parameters", "hi"),
        ("gen_ai.response.finish_reasons", 5), ("gen_ai.tool.definitions", "{}"), ("gen_ai.usage.input_tokens", "7"),
    ],
)  # fmt: skip
def test_an_attribute_of_somebody_elses_that_bears_our_name_stays_one(name: str, value: Any) -> None:
    call = ModelCall(provider="p", operation="chat")
    given = Span(
        trace_id="0" * 31 + "1", span_id="0" * 15 + "1", name="chat m", kind="llm", started_at=1, ended_at=2,
        model_call=call, attributes={name: value},
    )  # fmt: skip
    read = decode_span(encode_span(given).stored())
    assert read.attributes == {name: value}
    assert read.model_call == call


@settings(max_examples=50, deadline=None)
@given(st.lists(spans(), max_size=5))
def test_spans_are_counted_without_reading_them(given: list[Span]) -> None:
    encoded = [encode_span(span).stored() for span in given]
    assert spans_in(encode_request(encode_resource({"a": "b" * 300}), "loopkit", "1", encoded)) == len(given)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_request_hold_no_spans(data: bytes) -> None:
    assert spans_in(data) >= 0
