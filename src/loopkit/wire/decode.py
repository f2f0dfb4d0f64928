"""OTLP bytes back into `Span`s: the inverse of `encode`, and tolerant of other senders' spans.

An attribute that bears one of our names without being of its shape is somebody else's: it stays an attribute.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
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


def attributes_of(message: OtlpSpan) -> Iterator[tuple[str, Any]]:
    """The attributes of an OTLP `Span` message, as plain values."""
    for item in message.attributes:
        yield item.key, _value(item.value)


def _span(message: OtlpSpan, service: str | None) -> Span:
    found = _Attributes(attributes_of(message))
    kind = cast("Kind", found.take(names.KIND, "task"))
    for derived in (names.OI_KIND, names.CONVERSATION_ID, names.FLAG_KEY, names.FLAG_VARIANT, names.PROMPT_NAME):
        found.pop(derived, None)
    call = _model_call(found) if kind in ("llm", "embedding") and names.PROVIDER in found else None
    if call is None:
        _drop_defaults(found, kind, message.name)
    status, error = _status(found, message)
    sampling = float(found.take(names.SAMPLING_PROBABILITY, 1.0, (int, float)))
    tail = float(found.take(names.SAMPLING_TAIL, 1.0, (int, float)))
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
        input=_content(found.pop(names.OI_INPUT, None), found.pop(names.OI_INPUT_TYPE, None)),
        output=_content(found.pop(names.OI_OUTPUT, None), found.pop(names.OI_OUTPUT_TYPE, None)),
        model_call=call,
        service=service,
        task=found.take(names.TASK, None, str),
        variant=found.take(names.VARIANT, None, str),
        propensity=found.take(names.PROPENSITY, None, (int, float)),
        prompt_version=found.take(names.PROMPT_VERSION, None, str),
        user_id=found.take(names.USER_ID, None, str),
        session_id=found.take(names.SESSION_ID, None, str),
        tags=found.texts(names.OI_TAGS),
        metadata=found.parsed(names.OI_METADATA, {}),
        sampling_probability=sampling,
        inclusion_probability=sampling,
        head_probability=float(found.take(names.SAMPLING_HEAD, sampling if tail == 1.0 else 1.0, (int, float))),
        tail_probability=tail,
        rescue_seconds=float(found.take(names.SAMPLING_RESCUE, 0.0, (int, float))),
        kept_for=found.take(names.SAMPLING_REASON, None, str),
        content_status=found.take(names.CONTENT_STATUS, "kept"),
        attributes=dict(found),
    )


class _Attributes(dict[str, Any]):
    """A span's attributes; what is taken out goes into the span's own fields."""

    def take(self, key: str, default: Any, shape: Any = None) -> Any:
        """The value, where it has the shape (that of the default, where none is given)."""
        value = self.get(key)
        if not isinstance(value, shape or type(default)):
            return default
        return self.pop(key)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings."""
        value = self.get(key)
        if not isinstance(value, list) or not all(map(_is_text, self[key])):
            return ()
        return tuple(self.pop(key))

    def parsed(self, key: str, default: Any, parse: Callable[[str], Any] = json.loads) -> Any:
        """What is written there as JSON."""
        try:
            value = parse(self[key])
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
            return default
        if not isinstance(value, type(default)):
            return default
        del self[key]
        return value


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _status(found: _Attributes, message: OtlpSpan) -> tuple[Any, SpanError | None]:
    cancelled = found.take(names.CANCELLED, False)
    error_type = found.take(names.ERROR_TYPE, None, str)
    if message.status.code != 2 and not cancelled:
        return "ok", None
    error = None if error_type in (None, "cancelled") else SpanError(type=error_type, message=message.status.message)
    return ("cancelled" if cancelled else "error"), error


def _model_call(found: _Attributes) -> ModelCall:
    take = found.take
    parameters = found.parsed(names.PARAMETERS, {})
    call = ModelCall(
        provider=str(found.pop(names.PROVIDER)),
        operation=take(names.OPERATION, "chat"),
        server_address=take(names.SERVER_ADDRESS, None, str),
        server_port=take(names.SERVER_PORT, None, int),
        model=take(names.REQUEST_MODEL, None, str),
        response_model=take(names.RESPONSE_MODEL, None, str),
        response_id=take(names.RESPONSE_ID, None, str),
        input=found.parsed(names.INPUT_MESSAGES, (), decode_messages),
        output=found.parsed(names.OUTPUT_MESSAGES, (), decode_messages),
        tools=tuple(found.parsed(names.TOOL_DEFINITIONS, [])),
        usage=Usage(
            input_tokens=take(names.INPUT_TOKENS, None, int),
            output_tokens=take(names.OUTPUT_TOKENS, None, int),
            cache_read_tokens=take(names.CACHE_READ_TOKENS, None, int),
            cache_write_tokens=take(names.CACHE_WRITE_TOKENS, None, int),
            reasoning_tokens=take(names.REASONING_TOKENS, None, int),
            audio_input_tokens=take(names.AUDIO_INPUT_TOKENS, None, int),
            audio_output_tokens=take(names.AUDIO_OUTPUT_TOKENS, None, int),
            image_input_tokens=take(names.IMAGE_INPUT_TOKENS, None, int),
            image_output_tokens=take(names.IMAGE_OUTPUT_TOKENS, None, int),
        ),
        cost=take(names.COST, None, (int, float)),
        finish_reasons=found.texts(names.FINISH_REASONS),
        time_to_first_token=take(names.TIME_TO_FIRST_CHUNK, None, (int, float)),
        system_fingerprint=take(names.SYSTEM_FINGERPRINT, None, str),
        stream=take(names.REQUEST_STREAM, False),
        output_type=take(names.OUTPUT_TYPE, None, str),
        dimensions=take(names.DIMENSIONS, None, int),
        native_format=take(names.NATIVE_FORMAT, None, str),
        native_request=take(names.NATIVE_REQUEST, None, str),
        native_response=take(names.NATIVE_RESPONSE, None, str),
        parameters=parameters,
    )
    prefix = names.REQUEST_PREFIX
    for key in [key for key in found if key.startswith(prefix)]:
        parameters[key[len(prefix) :]] = found.pop(key)
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
    except (ValueError, RecursionError):
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
