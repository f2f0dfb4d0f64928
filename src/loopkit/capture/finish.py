"""A finished live span into what goes out: content redacted, translated and encoded, on the worker's thread.

A redactor that raises costs that span its content and nothing else: it fails closed.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, partial
from itertools import islice
from typing import Any

from loopkit import _host
from loopkit.capture.ambient import NOTHING, Ambient
from loopkit.capture.dialects._content import json_object
from loopkit.capture.dialects.known import translated, with_messages
from loopkit.capture.exchange import Exchange
from loopkit.capture.live import LiveSpan, StatusError
from loopkit.capture.sampling import reason_to_keep
from loopkit.capture.snapshot import LIMIT, TRUNCATED, snapshot
from loopkit.config import Redactor, Settings
from loopkit.detect.patterns import may_hold
from loopkit.detect.patterns import redact as redact_patterns
from loopkit.types import Feedback, ModelCall
from loopkit.wire.decode import decode_span
from loopkit.wire.encode import (
    EncodedSpan,
    Surroundings,
    encode_content,
    encode_core,
    encode_error,
    encode_facts,
    encode_ids,
    encode_native,
    encode_provider,
    encode_span,
    encode_time_to_first_token,
    encode_values,
)
from loopkit.wire.messages import dumps
from loopkit.wire.names import OTHER_ERROR

_LONG = LIMIT // 40
"""What was cut is longer than this."""
OURS = 48
"""Attributes that a span without any of the application's own may have."""
_WORDS = ("value", "correction", "comment", "reason", "metadata")


class Finisher:
    """What the worker does to spans and feedback before any sink sees them."""

    def __init__(self, settings: Settings) -> None:
        self._keep = settings.content != "off"
        self._redact = redactor(settings)
        self._sampling = settings.sampling
        self._own_attributes = max(settings.limits.attributes - OURS, 0)
        self.redacted = 0
        """Texts in which something was redacted: a span has up to two, a model call two more."""
        self.without_content = 0
        """Spans whose content was left out, for a fault or for the budget."""
        self._name = _known_name if settings.redact is None else self._redact
        self._surroundings = functools.lru_cache(maxsize=256)(self._surroundings_of)

    def span(self, live: LiveSpan) -> EncodedSpan:
        """The redacted span on its way to the sinks; without its content where a redactor fails."""
        try:
            return self._encoded(live)
        except Exception as error:  # noqa: BLE001  # a redactor may raise anything; its span loses its content
            _host.warn_once("redaction", f"a span's content was dropped, since it could not be redacted: {error!r}")
            return self._without_content(live)

    def feedback(self, event: Feedback) -> Feedback:
        """The event with its words redacted; without them where that fails. Targets are names, not words."""
        said = {name: getattr(event, name) for name in _WORDS}
        try:
            return replace(event, **{name: redact_value(value, self._redact) for name, value in said.items()})
        except Exception as error:  # noqa: BLE001  # a redactor may raise anything
            _host.warn_once("redaction", f"feedback lost its words, since they could not be redacted: {error!r}")
            value = None if isinstance(event.value, str) else event.value
            return replace(event, value=value, correction=None, comment=None, reason=None, metadata={})

    def _encoded(self, live: LiveSpan) -> EncodedSpan:
        keep = self._keep and not live.bare
        error_type, said = None, ""
        if live.error is not None:
            error_type = _error_type(live.error)
            if live.status == "error" and keep:
                said = self._redact(_error_text(live.error))
        texts = self._cleaned(live.input, live.output) if keep else (None, None)
        told = None if live.exchange is None else self._told(live.exchange)
        if live.tail_probability != 1.0:
            live.kept_for = reason_to_keep(live, self._sampling, self._tokens(told))
        status = "kept" if keep else "shed" if live.bare else "off"
        self.without_content += live.bare
        if keep and (_was_cut(texts) or (told is not None and _was_cut((told.request, told.response)))):
            status = "truncated"
        own, dropped = self._own(live) if live.attributes else (None, 0)
        core = encode_core(
            live,
            ids=encode_ids(live.trace_id, live.span_id, live.parent_id),
            name=self._name(live.name),
            surroundings=self._surroundings(live.ambient or NOTHING),
            has_call=told is not None,
            error_type=error_type,
            content_status=status,
            own=own,
            dropped=dropped,
            call=told.call if own and told is not None else None,
        )
        values = encode_error(said) + encode_values(*texts)
        if told is None:
            return EncodedSpan(core, b"", values, values, sampled=live.sampled)
        facts = b"" if own else told.facts
        if not keep:
            return EncodedSpan(core, facts, b"", facts if isinstance(facts, bytes) else facts(), sampled=live.sampled)
        return EncodedSpan(core, facts, partial(told.content, values), values + told.native(), sampled=live.sampled)

    def _without_content(self, live: LiveSpan) -> EncodedSpan:
        self.without_content += 1
        around, exchange = live.ambient or NOTHING, live.exchange
        core = encode_core(
            live,
            ids=encode_ids(live.trace_id, live.span_id, live.parent_id),
            name=live.kind,
            surroundings=Surroundings(around.user_id, around.session_id, (), {}),
            has_call=exchange is not None,
            error_type=None if live.error is None else _error_type(live.error),
            content_status="failed",
        )
        facts = b"" if exchange is None else encode_facts(exchange.dialect.facts(exchange.provider, {}, {}))
        return EncodedSpan(core, facts, b"", facts, sampled=live.sampled)

    def _own(self, live: LiveSpan) -> tuple[dict[str, Any], int]:
        """The attributes that the application set, the first ones where there are too many, and how many went."""
        kept = dict(islice(live.attributes.items(), self._own_attributes))
        return json.loads(_redacted(snapshot(kept), self._redact)), len(live.attributes) - len(kept)

    def _tokens(self, told: _Told | None) -> int:
        """Of a model call, in and out; not read where nobody asked for a limit."""
        if told is None or self._sampling.tokens is None:
            return 0
        usage = told.call.usage
        return (usage.input_tokens or 0) + (usage.output_tokens or 0)

    def _told(self, exchange: Exchange) -> _Told:
        return _Told(exchange, *self._cleaned(exchange.request, exchange.response))

    def _cleaned(self, first: str | None, second: str | None) -> tuple[str | None, str | None]:
        """Two texts redacted. The prefilter is asked once for both, which costs half."""
        if self._redact is redact_patterns and not may_hold(f"{first or ''} {second or ''}"):
            return first, second
        cleaned = tuple(None if text is None else _redacted(text, self._redact) for text in (first, second))
        self.redacted += (cleaned[0] != first) + (cleaned[1] != second)
        return cleaned[0], cleaned[1]

    def _surroundings_of(self, around: Ambient) -> Surroundings:
        metadata: Mapping[str, Any] = around.metadata
        if metadata:
            metadata = json.loads(_redacted(snapshot(metadata), self._redact))
        return Surroundings(around.user_id, around.session_id, tuple(map(self._redact, around.tags)), metadata)


def revived(core: bytes, local: bytes, *, sampled: bool) -> EncodedSpan:
    """A span as it was before it was kept as the local store keeps it."""

    def spelled_out() -> EncodedSpan:
        return encode_span(with_messages(decode_span(core + local)))

    return EncodedSpan(core, lambda: spelled_out().facts, lambda: spelled_out().content, local, sampled=sampled)


class _Told:
    """What was told to a provider and by it, redacted; translated when somebody asks."""

    def __init__(self, exchange: Exchange, request: str | None, response: str | None) -> None:
        self._exchange = exchange
        self.request = request
        self.response = response

    @cached_property
    def call(self) -> ModelCall:
        """The noun without messages; the provider and nothing else where the rest can't be read."""
        dialect, provider = self._exchange.dialect, self._exchange.provider
        call = dialect.facts(provider, {}, {})
        with _reading:
            call = dialect.facts(provider, json_object(self.request), json_object(self.response))
        return replace(call, time_to_first_token=self._exchange.time_to_first_token)

    def facts(self) -> bytes:
        """See `EncodedSpan`."""
        return encode_facts(self.call)

    def content(self, values: bytes) -> bytes:
        """See `EncodedSpan`."""
        name = self._exchange.dialect.name
        native = replace(self.call, native_format=name, native_request=self.request, native_response=self.response)
        return values + encode_content(translated(native))

    def native(self) -> bytes:
        """What the local store keeps instead of both."""
        exchange = self._exchange
        known = encode_provider(exchange.provider) + encode_native(exchange.dialect.name, self.request, self.response)
        first = exchange.time_to_first_token
        return known if first is None else known + encode_time_to_first_token(first)


_reading = _host.Shielded("reading a response")


def _was_cut(texts: tuple[str | None, str | None]) -> bool:
    first, second = texts
    return (first is not None and len(first) > _LONG and TRUNCATED in first) or (
        second is not None and len(second) > _LONG and TRUNCATED in second
    )


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
def _known_name(name: str) -> str:
    """Names repeat."""
    return redact_patterns(name)


def _error_type(error: BaseException) -> str:
    return OTHER_ERROR if isinstance(error, StatusError) else type(error).__name__


def _error_text(error: BaseException) -> str:
    try:
        return str(error)[:LIMIT]
    except Exception:  # noqa: BLE001  # a foreign __str__ may raise anything
        return ""
