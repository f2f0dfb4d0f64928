"""A span as OTLP bytes, in pieces that concatenate.

Repeated protobuf fields may be split and put together again, so a span is encoded once, in pieces: `core` (what every
span has), `facts` (of a model call: which model, how many tokens), `content` (what went in and came out) and `local`
(facts and content as the local store keeps them). Each destination puts together the pieces it may have.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from loopkit.types import Kind, ModelCall, Span
from loopkit.wire import names
from loopkit.wire.messages import dumps, encode_messages
from loopkit.wire.protobuf import attributes, delimited, fields, fixed64, text, text_attribute, varint

_ATTRIBUTE = b"\x4a"  # Span.attributes = 9
STANDARD_PARAMETERS = frozenset(
    ("temperature", "top_p", "top_k", "max_tokens", "seed", "frequency_penalty", "presence_penalty",
     "stop_sequences", "choice.count", "encoding_formats",
     "reasoning.level", "previous_response.id")
)  # fmt: skip


Piece = bytes | Callable[[], bytes]
"""A piece, or how to make it when somebody asks: what is to be read from a provider's response is dear."""


_NOTHING: Mapping[str, bytes] = {}


class EncodedSpan:
    """One span's bytes, as pieces of one OTLP `Span` message."""

    __slots__ = ("_content", "_facts", "core", "crowded", "local", "media", "sampled")

    def __init__(
        self,
        core: bytes,
        facts: Piece,
        content: Piece,
        local: bytes,
        *,
        sampled: bool = True,
        crowded: bool = False,
        media: Mapping[str, bytes] = _NOTHING,
    ) -> None:
        self.core = core
        self._facts = facts
        self._content = content
        self.local = local
        self.sampled = sampled
        """Whether the application's own OpenTelemetry samples the trace: what its processors get."""
        self.crowded = crowded
        """Whether it may have more attributes than are to be exported."""
        self.media = media
        """Pictures and the like that it refers to, by their hashes, for the local store."""

    @property
    def whole(self) -> bool:
        """Whether all facts are in the core."""
        return self._facts == b""

    @property
    def facts(self) -> bytes:
        """Made when first asked for."""
        if not isinstance(self._facts, bytes):
            self._facts = self._facts()
        return self._facts

    @property
    def content(self) -> bytes:
        """Made when first asked for."""
        if not isinstance(self._content, bytes):
            self._content = self._content()
        return self._content

    def exported(self, *, content: bool) -> bytes:
        """For others."""
        return self.core + self.facts + self.content if content else self.core + self.facts

    def stored(self) -> bytes:
        """For the local store."""
        return self.core + self.local


class Surroundings:
    """User, session, tags and metadata, which many spans share: encoded once."""

    def __init__(
        self, user_id: str | None, session_id: str | None, tags: tuple[str, ...], metadata: Mapping[str, Any]
    ) -> None:
        self.values: dict[str, Any] = {names.SESSION_ID: session_id, names.USER_ID: user_id}
        if tags:
            self.values[names.OI_TAGS] = tags
        if metadata:
            self.values[names.OI_METADATA] = dumps(metadata)
        self.encoded = attributes(_ATTRIBUTE, self.values)
        self.conversation = {names.CONVERSATION_ID: session_id}
        self.encoded_conversation = attributes(_ATTRIBUTE, self.conversation)


def encode_span(span: Span) -> EncodedSpan:
    """The finished span's pieces."""
    call = span.model_call
    core = encode_core(
        span,
        ids=encode_ids(
            int(span.trace_id, 16), int(span.span_id, 16), None if span.parent_id is None else int(span.parent_id, 16)
        ),
        name=span.name,
        surroundings=Surroundings(span.user_id, span.session_id, span.tags, span.metadata),
        has_call=call is not None,
        error_type=None if span.error is None else span.error.type,
        content_status=span.content_status,
        own=span.attributes,
        call=call,
    )
    said = "" if span.error is None or span.status != "error" else span.error.message
    texts = (None if value is None else dumps(value) for value in (span.input, span.output))
    content = encode_error(said) + encode_values(*texts)
    if call is None:
        return EncodedSpan(core, b"", content + encode_particulars(span.kind, span.input, span.output), content)
    content += encode_content(call)
    facts = b"" if span.attributes else encode_facts(call)
    native = encode_native(call.native_format, call.native_request, call.native_response)
    return EncodedSpan(core, facts, content, facts + content + native)


def encode_foreign(span: Any, values: Mapping[str, Any]) -> bytes:
    """A span of the OpenTelemetry SDK's, with these attributes in the place of its own."""
    failed = span.status.status_code.value == 2
    message = (span.status.description or "") if failed else ""
    parent = None if span.parent is None else span.parent.span_id
    status = delimited(b"\x7a", delimited(b"\x12", text(message)) + b"\x18\x02") if failed else b""
    times = fixed64(b"\x39", span.start_time or 0) + fixed64(b"\x41", span.end_time or 0)
    ids = encode_ids(span.context.trace_id, span.context.span_id, parent)
    return ids + delimited(b"\x2a", text(span.name)) + times + status + attributes(_ATTRIBUTE, values)


def encode_core(
    span: Any,
    *,
    ids: bytes,
    name: str,
    surroundings: Surroundings,
    has_call: bool,
    error_type: str | None = None,
    content_status: str = "kept",
    own: Mapping[str, Any] | None = None,
    call: ModelCall | None = None,
) -> bytes:
    """What every span has. `span` is a live or a finished one: they call these things alike.

    `own` are attributes that somebody else set. They go before our constant ones, and since no name may be there twice,
    the facts of the `call` are then in this piece too.
    """
    head = _head(span.kind, name, span.status == "error") + ids
    times = fixed64(b"\x39", span.started_at) + fixed64(b"\x41", span.ended_at)
    named = None if has_call else name
    rare: dict[str, Any] = {}
    if span.status != "ok":
        unnamed = "cancelled" if span.status == "cancelled" else names.OTHER_ERROR
        rare[names.ERROR_TYPE] = unnamed if error_type is None else error_type
        rare[names.CANCELLED] = True if span.status == "cancelled" else None
    if content_status != "kept":
        rare[names.CONTENT_STATUS] = content_status
    if own:
        values = _constant_values(span.kind, named, span.task)
        for key in (names.OPERATION, names.NAME_KEYS.get(span.kind, "")):
            if key in values:
                values[key] = own.get(key, values[key])
        if call is not None:
            values |= _standing_values(*_standing(call)) | _passing_values(call) | surroundings.conversation
        values |= _choice_values(span.task, span.variant, span.propensity, span.prompt_version)
        values |= _odds_values(*_odds_of(span)) | surroundings.values | rare
        values |= {key: value for key, value in own.items() if values.get(key) is None}
        return head + times + attributes(_ATTRIBUTE, values)
    parts = [head, times, _constant(span.kind, named, span.task), surroundings.encoded]
    if has_call:
        parts.append(surroundings.encoded_conversation)
    if span.variant is not None or span.prompt_version is not None:
        parts.append(_choice(span.task, span.variant, span.propensity, span.prompt_version))
    if span.sampling_probability != 1.0:
        parts.append(_odds(*_odds_of(span)))
    if rare:
        parts.append(attributes(_ATTRIBUTE, rare))
    return b"".join(parts)


def encode_ids(trace_id: int, span_id: int, parent_id: int | None) -> bytes:
    """Who the span is."""
    ids = b"\x0a\x10" + trace_id.to_bytes(16, "big") + b"\x12\x08" + span_id.to_bytes(8, "big")
    return ids if parent_id is None else ids + b"\x22\x08" + parent_id.to_bytes(8, "big")


def encode_error(message: str) -> bytes:
    """A second piece of the Status message, since what is said there may quote content: protobuf merges the two."""
    return delimited(b"\x7a", delimited(b"\x12", text(message))) if message else b""


def encode_values(input: str | None, output: str | None) -> bytes:
    """What went in and came out, from their JSON texts: a text as it is, everything else as JSON."""
    return _value(names.OI_INPUT, names.OI_INPUT_TYPE, input) + _value(names.OI_OUTPUT, names.OI_OUTPUT_TYPE, output)


def encode_particulars(kind: Kind, input: Any, output: Any) -> bytes:
    """What went in and came out once more, by the names that the conventions have for it in tools and retrieval."""
    values: dict[str, Any] = {}
    if kind == "tool":
        values = {names.TOOL_ARGUMENTS: _as_text(input), names.TOOL_RESULT: _as_text(output)}
    elif kind == "retrieval":
        given: Any = input  # isinstance makes it a dict of unknown types; this stays Any
        found: Any = output
        asked = given.get("query") if isinstance(input, dict) else given
        values[names.RETRIEVAL_QUERY] = asked if isinstance(asked, str) else None
        documents = [_document(item) for item in found] if isinstance(output, list) else []
        values[names.RETRIEVAL_DOCUMENTS] = dumps(documents) if documents else None
    return attributes(_ATTRIBUTE, values)


def _as_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else dumps(value)


def _document(item: Any) -> Any:
    """A document as the conventions have it, its text besides, which they allow."""
    given: Any = item  # isinstance makes it a dict of unknown types; this stays Any
    if not isinstance(item, dict):
        return {"content": given}
    return {name: given[name] for name in ("id", "score", "content", "metadata") if name in given} or given


def encode_content(call: ModelCall) -> bytes:
    """Messages, tools, and the parameters that have no standard name: they may hold words (schemas, user names)."""
    values: dict[str, Any] = {}
    if call.input:
        values[names.INPUT_MESSAGES] = encode_messages(call.input, output=False)
    if call.output:
        values[names.OUTPUT_MESSAGES] = encode_messages(call.output, output=True)
    other = {name: value for name, value in call.parameters.items() if name not in STANDARD_PARAMETERS}
    if other:
        values[names.PARAMETERS] = dumps(other)
    if call.tools:
        values[names.TOOL_DEFINITIONS] = dumps(call.tools)
    return attributes(_ATTRIBUTE, values)


def encode_own(values: Mapping[str, Any]) -> bytes:
    """Attributes as they are."""
    return attributes(_ATTRIBUTE, values)


def encode_facts(call: ModelCall) -> bytes:
    """All about a model call but what was said in it."""
    standing = _standing(call)
    try:
        encoded = _standing_encoded(*standing)
    except TypeError:  # a parameter that is a list
        encoded = attributes(_ATTRIBUTE, _standing_values(*standing))
    return encoded + attributes(_ATTRIBUTE, _passing_values(call))


def encode_native(format: str | None, request: str | None, response: str | None) -> bytes:
    """The provider's own request and response, from which facts and messages can be read at any time."""
    return b"".join(
        text_attribute(_ATTRIBUTE, name, value)
        for name, value in (
            (names.NATIVE_FORMAT, format),
            (names.NATIVE_REQUEST, request),
            (names.NATIVE_RESPONSE, response),
        )
        if value is not None
    )


@functools.lru_cache(maxsize=256)
@functools.lru_cache(maxsize=256)
def encode_provider(provider: str, server: str | None, port: int | None) -> bytes:
    """Who was called, and where."""
    return attributes(_ATTRIBUTE, {names.PROVIDER: provider, names.SERVER_ADDRESS: server, names.SERVER_PORT: port})


def encode_time_to_first_token(seconds: float) -> bytes:
    """For streams."""
    return attributes(_ATTRIBUTE, {names.TIME_TO_FIRST_CHUNK: seconds})


def encode_resource(values: Mapping[str, Any]) -> bytes:
    """A `Resource` message: what is true of every span of the process."""
    return attributes(b"\x0a", values)


def encode_request(resource: bytes, scope: str, version: str, spans: Iterable[bytes]) -> bytes:
    """An `ExportTraceServiceRequest` with one resource and one scope: what a collector's /v1/traces takes."""
    instrumentation = delimited(b"\x0a", scope.encode()) + delimited(b"\x12", version.encode())
    parts = [delimited(b"\x0a", instrumentation)]
    for span in spans:
        parts += (b"\x12", varint(len(span)), span)
    scope_spans = b"".join(parts)
    return delimited(b"\x0a", delimited(b"\x0a", resource) + delimited(b"\x12", scope_spans))


def spans_in(request: bytes) -> int:
    """How many spans such a request holds, without reading them; 0 for bytes that aren't one."""
    try:
        scopes = [at for _, *resource in fields(request) for at in fields(request, *resource) if at[0] == 2]
        return sum(field[0] == 2 for _, *scope in scopes for field in fields(request, *scope))
    except ValueError:
        return 0


@functools.lru_cache(maxsize=1024)
def _head(kind: Kind, name: str, failed: bool) -> bytes:
    otel_kind = 3 if kind in ("llm", "embedding", "retrieval") else 1  # CLIENT, INTERNAL
    status = b"\x7a\x02\x18\x02" if failed else b""  # Status.code = ERROR
    return delimited(b"\x2a", text(name)) + b"\x30" + varint(otel_kind) + status


@functools.lru_cache(maxsize=1024)
def _constant(kind: Kind, name: str | None, task: str | None) -> bytes:
    return attributes(_ATTRIBUTE, _constant_values(kind, name, task))


def _constant_values(kind: Kind, name: str | None, task: str | None) -> dict[str, Any]:
    """What is the same for all spans of a kind, and of a name where that says what kind of thing it is."""
    values: dict[str, Any] = {names.KIND: kind, names.OI_KIND: names.OI_KINDS[kind], names.TASK: task}
    if name is not None:
        values[names.OPERATION] = names.OPERATIONS.get(kind)
        if kind in names.NAME_KEYS:
            values[names.NAME_KEYS[kind]] = name
    return values


@functools.lru_cache(maxsize=1024)
def _choice(task: str | None, variant: str | None, propensity: float | None, prompt_version: str | None) -> bytes:
    return attributes(_ATTRIBUTE, _choice_values(task, variant, propensity, prompt_version))


def _choice_values(
    task: str | None, variant: str | None, propensity: float | None, prompt_version: str | None
) -> dict[str, Any]:
    """What a router chose for the task."""
    values: dict[str, Any] = {}
    if variant is not None:
        values[names.VARIANT] = values[names.FLAG_VARIANT] = variant
        values[names.FLAG_KEY] = task
        values[names.PROPENSITY] = propensity
    if prompt_version is not None:
        values[names.PROMPT_NAME] = task
        values[names.PROMPT_VERSION] = prompt_version
    return values


def _odds_of(span: Any) -> tuple[Any, ...]:
    return (
        span.sampling_probability, span.head_probability, span.tail_probability, span.rescue_seconds, span.kept_for,
    )  # fmt: skip


@functools.lru_cache(maxsize=256)
def _odds(sampling: float, head: float, tail: float, rescue: float, kept_for: str | None) -> bytes:
    return attributes(_ATTRIBUTE, _odds_values(sampling, head, tail, rescue, kept_for))


def _odds_values(sampling: float, head: float, tail: float, rescue: float, kept_for: str | None) -> dict[str, Any]:
    """How likely it was to be here. Whole where it was certain."""
    values: dict[str, Any] = {}
    if sampling != 1.0:
        values[names.SAMPLING_PROBABILITY] = sampling
    if tail != 1.0:
        values[names.SAMPLING_TAIL], values[names.SAMPLING_RESCUE] = tail, rescue or None
        values[names.SAMPLING_HEAD] = None if head == 1.0 else head
    values[names.SAMPLING_REASON] = kept_for
    return values


def _standing(call: ModelCall) -> tuple[Any, ...]:
    """What repeats from call to call. 1, 1.0 and True are equal, but not the same on the wire."""
    parameters = tuple((k, v, v.__class__) for k, v in call.parameters.items() if k in STANDARD_PARAMETERS)
    return (
        call.operation, call.provider, call.server_address, call.server_port, call.model, call.response_model,
        call.finish_reasons, call.stream, call.system_fingerprint, call.output_type, call.dimensions, parameters,
    )  # fmt: skip


@functools.lru_cache(maxsize=1024)
def _standing_encoded(*standing: Any) -> bytes:
    return attributes(_ATTRIBUTE, _standing_values(*standing))


def _standing_values(
    operation: str, provider: str, server: str | None, port: int | None, model: str | None,
    response_model: str | None, finish_reasons: tuple[str, ...], stream: bool, fingerprint: str | None,
    output_type: str | None, dimensions: int | None, parameters: tuple[tuple[str, Any, type[Any]], ...],
) -> dict[str, Any]:  # fmt: skip
    return {
        names.OPERATION: operation,
        names.PROVIDER: provider,
        names.SERVER_ADDRESS: server,
        names.SERVER_PORT: port,
        names.REQUEST_MODEL: model,
        names.RESPONSE_MODEL: response_model,
        names.FINISH_REASONS: finish_reasons or None,
        names.REQUEST_STREAM: stream or None,
        names.SYSTEM_FINGERPRINT: fingerprint,
        names.OUTPUT_TYPE: output_type,
        names.DIMENSIONS: dimensions,
        **{names.REQUEST_PREFIX + name: value for name, value, _ in parameters},
    }


def _passing_values(call: ModelCall) -> dict[str, Any]:
    """What every call has of its own."""
    usage = call.usage
    return {
        names.RESPONSE_ID: call.response_id,
        names.TIME_TO_FIRST_CHUNK: call.time_to_first_token,
        names.INPUT_TOKENS: usage.input_tokens,
        names.OUTPUT_TOKENS: usage.output_tokens,
        names.CACHE_READ_TOKENS: usage.cache_read_tokens,
        names.CACHE_WRITE_TOKENS: usage.cache_write_tokens,
        names.REASONING_TOKENS: usage.reasoning_tokens,
        names.AUDIO_INPUT_TOKENS: usage.audio_input_tokens,
        names.AUDIO_OUTPUT_TOKENS: usage.audio_output_tokens,
        names.IMAGE_INPUT_TOKENS: usage.image_input_tokens,
        names.IMAGE_OUTPUT_TOKENS: usage.image_output_tokens,
        names.COST: call.cost,
    }


_MIME_TYPES = {
    (key, mime): attributes(_ATTRIBUTE, {key: mime})
    for key in (names.OI_INPUT_TYPE, names.OI_OUTPUT_TYPE)
    for mime in ("application/json", "text/plain")
}


def _value(key: str, type_key: str, json_text: str | None) -> bytes:
    if json_text is None or json_text == "null":
        return b""
    if json_text[0] == '"':
        words = json.loads(json_text) if "\\" in json_text else json_text[1:-1]
        return text_attribute(_ATTRIBUTE, key, words) + _MIME_TYPES[type_key, "text/plain"]
    return text_attribute(_ATTRIBUTE, key, json_text) + _MIME_TYPES[type_key, "application/json"]
