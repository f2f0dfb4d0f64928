"""OTLP bytes back into `Span`s: the inverse of `encode`, and tolerant of other senders' spans."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from loopkit.types import Kind, ModelCall, Span, SpanError, Usage
from loopkit.wire import names
from loopkit.wire.messages import decode_messages

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan


def decode_request(data: bytes) -> Iterator[tuple[Span, bytes]]:
    """Each span in an `ExportTraceServiceRequest`, with its own bytes."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest.FromString(data)
    for resource_spans in request.resource_spans:
        resource = {item.key: _value(item.value) for item in resource_spans.resource.attributes}
        service = resource.get("service.name")
        for scope_spans in resource_spans.scope_spans:
            for message in scope_spans.spans:
                yield _span(message, service), message.SerializeToString()


def decode_span(data: bytes, service: str | None = None) -> Span:
    """The span in one OTLP `Span` message."""
    from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

    return _span(OtlpSpan.FromString(data), service)


def _span(message: OtlpSpan, service: str | None) -> Span:
    found = {item.key: _value(item.value) for item in message.attributes}
    take = found.pop
    kind = cast("Kind", take(names.KIND, "task"))
    for derived in (names.OI_KIND, names.CONVERSATION_ID, names.FLAG_KEY, names.FLAG_VARIANT, names.PROMPT_NAME):
        take(derived, None)
    call = _model_call(found) if kind in ("llm", "embedding") and names.PROVIDER in found else None
    if call is None:
        _drop_defaults(found, kind, message.name)
    status, error = _status(found, message)
    return Span(
        trace_id=message.trace_id.hex(),
        span_id=message.span_id.hex(),
        parent_id=message.parent_span_id.hex() or None,
        name=message.name,
        kind=kind,
        started_at=message.start_time_unix_nano,
        ended_at=message.end_time_unix_nano,
        status=status,
        error=error,
        input=_content(take(names.OI_INPUT, None), take(names.OI_INPUT_TYPE, None)),
        output=_content(take(names.OI_OUTPUT, None), take(names.OI_OUTPUT_TYPE, None)),
        model_call=call,
        service=service,
        task=take(names.TASK, None),
        variant=take(names.VARIANT, None),
        propensity=take(names.PROPENSITY, None),
        prompt_version=take(names.PROMPT_VERSION, None),
        user_id=take(names.USER_ID, None),
        session_id=take(names.SESSION_ID, None),
        tags=tuple(take(names.OI_TAGS, ())),
        metadata=json.loads(take(names.OI_METADATA, "{}")),
        sampling_probability=take(names.SAMPLING_PROBABILITY, 1.0),
        content_status=take(names.CONTENT_STATUS, "kept"),
        attributes=found,
    )


def _status(found: dict[str, Any], message: OtlpSpan) -> tuple[Any, SpanError | None]:
    cancelled = found.pop(names.CANCELLED, False)
    error_type = found.pop(names.ERROR_TYPE, None)
    if message.status.code != 2 and not cancelled:
        return "ok", None
    error = None if error_type in (None, "cancelled") else SpanError(type=error_type, message=message.status.message)
    return ("cancelled" if cancelled else "error"), error


def _model_call(found: dict[str, Any]) -> ModelCall:
    take = found.pop
    parameters = json.loads(take(names.PARAMETERS, "{}"))
    call = ModelCall(
        provider=take(names.PROVIDER),
        operation=take(names.OPERATION, "chat"),
        model=take(names.REQUEST_MODEL, None),
        response_model=take(names.RESPONSE_MODEL, None),
        response_id=take(names.RESPONSE_ID, None),
        input=decode_messages(take(names.INPUT_MESSAGES, "[]")),
        output=decode_messages(take(names.OUTPUT_MESSAGES, "[]")),
        tools=tuple(json.loads(take(names.TOOL_DEFINITIONS, "[]"))),
        usage=Usage(
            input_tokens=take(names.INPUT_TOKENS, None),
            output_tokens=take(names.OUTPUT_TOKENS, None),
            cache_read_tokens=take(names.CACHE_READ_TOKENS, None),
            cache_write_tokens=take(names.CACHE_WRITE_TOKENS, None),
            reasoning_tokens=take(names.REASONING_TOKENS, None),
        ),
        cost=take(names.COST, None),
        finish_reasons=tuple(take(names.FINISH_REASONS, ())),
        time_to_first_token=take(names.TIME_TO_FIRST_CHUNK, None),
        system_fingerprint=take(names.SYSTEM_FINGERPRINT, None),
        stream=take(names.REQUEST_STREAM, False),
        native_request=take(names.NATIVE_REQUEST, None),
        parameters=parameters,
    )
    prefix = names.REQUEST_PREFIX
    for key in [key for key in found if key.startswith(prefix)]:
        parameters[key[len(prefix) :]] = take(key)
    return call


def _drop_defaults(found: dict[str, Any], kind: Kind, name: str) -> None:
    """Remove what `encode` adds by itself, so that a span reads back as it was."""
    if found.get(names.OPERATION) == names.OPERATIONS.get(kind):
        found.pop(names.OPERATION, None)
    key = names.NAME_KEYS.get(kind)
    if key is not None and found.get(key) == name:
        del found[key]


def _content(value: Any, mime_type: str | None) -> Any:
    if mime_type != "application/json" or not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _value(value: AnyValue) -> Any:
    which = value.WhichOneof("value")
    if which is None:
        return None
    if which == "array_value":
        return [_value(item) for item in value.array_value.values]
    if which == "kvlist_value":
        return {item.key: _value(item.value) for item in value.kvlist_value.values}
    return getattr(value, which)
