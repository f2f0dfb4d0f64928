"""A `Span` as OTLP bytes, in pieces that concatenate.

Repeated protobuf fields may be split and put together again, so a span is encoded once, as three pieces: `core`
(everything but content), `content` (what went in and came out) and `local` (for the local store alone). Each
destination puts together the pieces it may have.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from loopkit.types import Kind, ModelCall, Span
from loopkit.wire import names
from loopkit.wire.messages import dumps, encode_messages
from loopkit.wire.protobuf import attributes, delimited, fixed64, text, varint

_ATTRIBUTE = b"\x4a"  # Span.attributes = 9
STANDARD_PARAMETERS = frozenset(
    ("temperature", "top_p", "top_k", "max_tokens", "seed", "frequency_penalty", "presence_penalty",
     "stop_sequences", "choice.count")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class EncodedSpan:
    """One span's bytes, as pieces of one OTLP `Span` message."""

    core: bytes
    content: bytes
    local: bytes
    sampled: bool = True
    """Whether the application's own OpenTelemetry samples the trace: what its processors get."""

    def bytes_with(self, *, content: bool, local: bool) -> bytes:
        """The pieces a destination may have, put together."""
        return self.core + (self.content if content else b"") + (self.local if local else b"")


def encode_span(
    span: Span, *, sampled: bool = True, input: str | None = None, output: str | None = None
) -> EncodedSpan:
    """The span's three pieces. `input` and `output` are their JSON texts, for who has them and not the values."""
    texts = _content_attributes(span)
    _put_value(texts, names.OI_INPUT, names.OI_INPUT_TYPE, span.input, input)
    _put_value(texts, names.OI_OUTPUT, names.OI_OUTPUT_TYPE, span.output, output)
    return EncodedSpan(
        core=_fields(span) + _constant(span) + attributes(_ATTRIBUTE, _core_attributes(span)),
        content=_status_message(span) + attributes(_ATTRIBUTE, texts),
        local=attributes(_ATTRIBUTE, _local_attributes(span)),
        sampled=sampled,
    )


def encode_resource(values: Mapping[str, Any]) -> bytes:
    """A `Resource` message: what is true of every span of the process."""
    return attributes(b"\x0a", values)


def encode_request(resource: bytes, scope: str, version: str, spans: Iterable[bytes]) -> bytes:
    """An `ExportTraceServiceRequest` with one resource and one scope: what a collector's /v1/traces takes."""
    instrumentation = delimited(b"\x0a", scope.encode()) + delimited(b"\x12", version.encode())
    scope_spans = delimited(b"\x0a", instrumentation) + b"".join(delimited(b"\x12", s) for s in spans)
    return delimited(b"\x0a", delimited(b"\x0a", resource) + delimited(b"\x12", scope_spans))


def _fields(span: Span) -> bytes:
    otel_kind = 3 if span.kind in ("llm", "embedding", "retrieval") else 1  # CLIENT, INTERNAL
    parts = [
        b"\x0a\x10" + bytes.fromhex(span.trace_id),
        b"\x12\x08" + bytes.fromhex(span.span_id),
        delimited(b"\x2a", text(span.name)),
        b"\x30" + varint(otel_kind),
        fixed64(b"\x39", span.started_at),
        fixed64(b"\x41", span.ended_at),
    ]
    if span.parent_id is not None:
        parts.append(b"\x22\x08" + bytes.fromhex(span.parent_id))
    if span.status == "error":
        parts.append(b"\x7a\x02\x18\x02")  # Status.code = ERROR; the message may quote content and goes with it
    return b"".join(parts)


def _status_message(span: Span) -> bytes:
    """A second piece of the Status message: protobuf merges the two."""
    if span.status != "error" or span.error is None or not span.error.message:
        return b""
    return delimited(b"\x7a", delimited(b"\x12", text(span.error.message)))


def _constant(span: Span) -> bytes:
    """What is the same for all spans of a kind, and of a name where that says what kind of thing it is."""
    if span.attributes:
        return b""  # which may have been set to something else: see `_core_attributes`
    return _constants(span.kind, span.name if span.model_call is None else None, span.task)


@functools.lru_cache(maxsize=1024)
def _constants(kind: Kind, name: str | None, task: str | None) -> bytes:
    return attributes(_ATTRIBUTE, _constant_attributes(kind, name, task))


def _constant_attributes(kind: Kind, name: str | None, task: str | None) -> dict[str, Any]:
    values: dict[str, Any] = {names.KIND: kind, names.OI_KIND: names.OI_KINDS[kind], names.TASK: task}
    if name is not None:
        values[names.OPERATION] = names.OPERATIONS.get(kind)
        if kind in names.NAME_KEYS:
            values[names.NAME_KEYS[kind]] = name
    return values


def _core_attributes(span: Span) -> dict[str, Any]:
    """The other attributes but content; all of them, where the span has some of its own, which go before ours."""
    call = span.model_call
    values = _constants_with_own(span) if span.attributes else {}
    if call is not None:
        values.update(_model_call_attributes(call))
        values[names.CONVERSATION_ID] = span.session_id
    if span.status != "ok":
        unnamed = "cancelled" if span.status == "cancelled" else names.OTHER_ERROR
        values[names.ERROR_TYPE] = unnamed if span.error is None else span.error.type
        values[names.CANCELLED] = True if span.status == "cancelled" else None
    values[names.SESSION_ID] = span.session_id
    values[names.USER_ID] = span.user_id
    if span.variant is not None or span.prompt_version is not None:
        values.update(_choice_attributes(span))
    if span.tags:
        values[names.OI_TAGS] = span.tags
    if span.metadata:
        values[names.OI_METADATA] = dumps(span.metadata)
    if span.sampling_probability != 1.0:
        values[names.SAMPLING_PROBABILITY] = span.sampling_probability
    if span.content_status != "kept":
        values[names.CONTENT_STATUS] = span.content_status
    for key, value in span.attributes.items():
        if values.get(key) is None:
            values[key] = value
    return values


def _constants_with_own(span: Span) -> dict[str, Any]:
    values = _constant_attributes(span.kind, span.name if span.model_call is None else None, span.task)
    for key in (names.OPERATION, names.NAME_KEYS.get(span.kind, "")):
        if key in values:
            values[key] = span.attributes.get(key, values[key])
    return values


def _choice_attributes(span: Span) -> dict[str, Any]:
    """What a router chose for the task."""
    values: dict[str, Any] = {}
    if span.variant is not None:
        values[names.VARIANT] = values[names.FLAG_VARIANT] = span.variant
        values[names.FLAG_KEY] = span.task
        values[names.PROPENSITY] = span.propensity
    if span.prompt_version is not None:
        values[names.PROMPT_NAME] = span.task
        values[names.PROMPT_VERSION] = span.prompt_version
    return values


def _model_call_attributes(call: ModelCall) -> dict[str, Any]:
    values: dict[str, Any] = {
        names.OPERATION: call.operation,
        names.PROVIDER: call.provider,
        names.REQUEST_MODEL: call.model,
        names.RESPONSE_MODEL: call.response_model,
        names.RESPONSE_ID: call.response_id,
        names.FINISH_REASONS: call.finish_reasons or None,
        names.REQUEST_STREAM: call.stream or None,
        names.TIME_TO_FIRST_CHUNK: call.time_to_first_token,
        names.INPUT_TOKENS: call.usage.input_tokens,
        names.OUTPUT_TOKENS: call.usage.output_tokens,
        names.CACHE_READ_TOKENS: call.usage.cache_read_tokens,
        names.CACHE_WRITE_TOKENS: call.usage.cache_write_tokens,
        names.REASONING_TOKENS: call.usage.reasoning_tokens,
        names.COST: call.cost,
        names.SYSTEM_FINGERPRINT: call.system_fingerprint,
    }
    for name, value in call.parameters.items():
        if name in STANDARD_PARAMETERS:
            values[names.REQUEST_PREFIX + name] = value
    return values


def _content_attributes(span: Span) -> dict[str, Any]:
    call = span.model_call
    values: dict[str, Any] = {}
    if call is not None:
        if call.input:
            values[names.INPUT_MESSAGES] = encode_messages(call.input, output=False)
        if call.output:
            values[names.OUTPUT_MESSAGES] = encode_messages(call.output, output=True)
        # a provider's own parameters may hold words: predictions, schemas, user names
        other = {name: value for name, value in call.parameters.items() if name not in STANDARD_PARAMETERS}
        if other:
            values[names.PARAMETERS] = dumps(other)
        if call.tools:
            values[names.TOOL_DEFINITIONS] = dumps(call.tools)
    return values


def _put_value(values: dict[str, Any], key: str, type_key: str, value: Any, text: str | None) -> None:
    """A text as it is, everything else as JSON; from the value, or from its JSON text."""
    if text is not None:
        if text[0] != '"':
            if text != "null":
                values[key], values[type_key] = text, "application/json"
            return
        value = json.loads(text)
    if value is None:
        return
    is_text = isinstance(value, str)
    values[key] = value if is_text else dumps(value)
    values[type_key] = "text/plain" if is_text else "application/json"


def _local_attributes(span: Span) -> dict[str, Any]:
    if span.model_call is None or span.model_call.native_request is None:
        return {}
    return {names.NATIVE_REQUEST: span.model_call.native_request}
