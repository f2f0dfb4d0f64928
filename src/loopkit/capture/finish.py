"""A finished live span into what goes out: content redacted, translated and encoded, on the worker's thread.

A redactor that raises costs that span its content and nothing else: it fails closed.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from loopkit import _host
from loopkit.capture.ambient import NOTHING
from loopkit.capture.live import LiveSpan, StatusError
from loopkit.capture.snapshot import LIMIT, TRUNCATED, snapshot
from loopkit.config import Redactor, Settings
from loopkit.detect.patterns import may_hold
from loopkit.detect.patterns import redact as redact_patterns
from loopkit.types import Feedback, ModelCall, Span, SpanError
from loopkit.wire.encode import STANDARD_PARAMETERS, EncodedSpan, encode_span
from loopkit.wire.messages import dumps
from loopkit.wire.names import OTHER_ERROR


def finished(live: LiveSpan, settings: Settings) -> EncodedSpan:
    """The redacted span on its way to the sinks.

    Its input and output stay the JSON texts that they became at the call, unless something in them was redacted.
    """
    around = live.ambient or NOTHING
    content = _Content(live, settings)
    span = Span(
        trace_id=f"{live.trace_id:032x}",
        span_id=f"{live.span_id:016x}",
        parent_id=None if live.parent_id is None else f"{live.parent_id:016x}",
        name=content.name,
        kind=live.kind,
        started_at=live.started_at,
        ended_at=live.ended_at,
        status=live.status,
        error=content.error,
        model_call=content.model_call,
        service=settings.service,
        task=live.task,
        variant=live.variant,
        propensity=live.propensity,
        prompt_version=live.prompt_version,
        user_id=around.user_id,
        session_id=around.session_id,
        tags=content.tags,
        metadata=content.metadata,
        attributes=content.attributes,
        sampling_probability=live.sampling_probability,
        content_status=content.status,
    )
    return encode_span(span, sampled=live.sampled, input=content.input, output=content.output)


def redacted_feedback(event: Feedback, settings: Settings) -> Feedback:
    """The event with its words redacted; without them where the redactor fails. Targets are names, not words."""
    redact = redactor(settings)
    words = ("value", "correction", "comment", "reason", "metadata")
    said = {name: getattr(event, name) for name in words}
    try:
        return replace(event, **{name: redact_value(value, redact) for name, value in said.items()})
    except Exception as error:  # noqa: BLE001  # a redactor may raise anything
        _host.warn_once("redaction", f"feedback lost its words, since they could not be redacted: {error!r}")
        value = None if isinstance(event.value, str) else event.value
        return replace(event, value=value, correction=None, comment=None, reason=None, metadata={})


_LONG = LIMIT // 40
"""What was cut is longer than this."""


def redactor(settings: Settings) -> Redactor:
    """The user's, else the built-in patterns. What the user's gives back must be a text."""
    own = settings.redact
    if own is None:
        return redact_patterns

    def checked(text: str) -> str:
        cleaned = own(text)
        if not isinstance(cleaned, str):
            raise TypeError(f"the redactor gave back {type(cleaned).__name__}, not a text")
        return cleaned

    return checked


class _Content:
    """The parts of a span that may hold somebody's words."""

    def __init__(self, live: LiveSpan, settings: Settings) -> None:
        self.status: Any = "kept"
        self.input: str | None = None
        self.output: str | None = None
        self.model_call: ModelCall | None = None
        self.metadata: Mapping[str, Any] = (live.ambient or NOTHING).metadata
        self.tags = (live.ambient or NOTHING).tags
        self.name = live.name
        self.attributes: Mapping[str, Any] = live.attributes
        self.error = None if live.error is None else SpanError(type=_error_type(live.error))
        keep = settings.content != "off"
        try:
            self._fill(live, redactor(settings), keep)
            if not keep:
                self.status = "off"
        except Exception as error:  # noqa: BLE001  # a redactor may raise anything; its span loses its content
            _host.warn_once("redaction", f"a span's content was dropped, since it could not be redacted: {error!r}")
            self.status = "failed"
            self.input = self.output = None
            self.metadata, self.tags, self.attributes, self.name = {}, (), {}, live.kind
            self.model_call = live.exchange.model_call(None, None) if live.exchange else None

    def _fill(self, live: LiveSpan, redact: Redactor, keep: bool) -> None:
        self.name = _known(live.name) if redact is redact_patterns else redact(live.name)
        if self.metadata:
            self.metadata = json.loads(_redacted(snapshot(self.metadata), redact))
        if self.tags:
            self.tags = tuple(map(redact, self.tags))
        if self.attributes:
            self.attributes = json.loads(_redacted(snapshot(self.attributes), redact))
        if keep:
            self.input = None if live.input is None else _redacted(live.input, redact)
            self.output = None if live.output is None else _redacted(live.output, redact)
        texts = [self.input, self.output]
        if live.exchange is not None:
            request, response = live.exchange.request, live.exchange.response
            request = _redacted(request, redact)
            response = None if response is None else _redacted(response, redact)
            texts += [request, response]
            self.model_call = live.exchange.model_call(request, response)
            if not keep:
                self.model_call = _without_content(self.model_call)
        if live.error is not None and live.status == "error":
            message = redact(_error_text(live.error)) if keep else ""
            self.error = SpanError(type=_error_type(live.error), message=message)
        if any(text is not None and len(text) > _LONG and TRUNCATED in text for text in texts):
            self.status = "truncated"


def redact_value(value: Any, redact: Redactor) -> Any:
    """A JSON value with every text in it redacted, keys and long numbers too.

    A text that is JSON itself (a tool call's arguments) is redacted inside, where no escape stands in the way.
    """
    if isinstance(value, str):
        return _redact_text(value, redact)
    inside: Any = value  # isinstance makes `value` a dict of unknown types; this stays Any
    if isinstance(value, dict):
        return {redact(str(key)): redact_value(item, redact) for key, item in inside.items()}
    if isinstance(value, (list, tuple)):
        return [redact_value(item, redact) for item in inside]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**12:
        cleaned = redact(str(value))
        return value if cleaned == str(value) else cleaned
    return value


def _redact_text(text: str, redact: Redactor) -> str:
    if text[:1] in ("{", "["):
        try:
            inner = json.loads(text)
        except ValueError:
            return redact(text)
        cleaned = redact_value(inner, redact)
        # where nothing was found inside, the text itself may still hold something: a key that is there twice
        return redact(text) if cleaned == inner else dumps(cleaned)
    return redact(text)


def _redacted(text: str, redact: Redactor) -> str:
    """A JSON text with every value in it redacted.

    Where the built-in patterns' prefilter says that nothing can be in it, nothing needs walking. A user's own redactor
    sees every text by itself.
    """
    if redact is redact_patterns and not may_hold(text):
        return text
    return dumps(redact_value(json.loads(text), redact))


@functools.lru_cache(maxsize=1024)
def _known(name: str) -> str:
    """Names repeat."""
    return redact_patterns(name)


def _error_type(error: BaseException) -> str:
    return OTHER_ERROR if isinstance(error, StatusError) else type(error).__name__


def _error_text(error: BaseException) -> str:
    try:
        return str(error)[:LIMIT]
    except Exception:  # noqa: BLE001  # a foreign __str__ may raise anything
        return ""


def _without_content(call: ModelCall) -> ModelCall:
    known = {name: value for name, value in call.parameters.items() if name in STANDARD_PARAMETERS}
    return replace(call, input=(), output=(), tools=(), native_request=None, parameters=known)
