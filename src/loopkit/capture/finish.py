"""A finished live span into what goes out: content redacted, translated and encoded, on the worker's thread.

A redactor that raises costs that span its content and nothing else: it fails closed.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

from loopkit import _host
from loopkit._json import from_json, to_json
from loopkit.capture.ambient import NOTHING, Ambient
from loopkit.capture.dialects.known import facts, translated, with_messages
from loopkit.capture.exchange import Exchange
from loopkit.capture.live import LiveSpan, StatusError
from loopkit.capture.providers import server_at
from loopkit.capture.redact import known_name, redact_value, redacted, redactor
from loopkit.capture.sampling import reason_to_keep
from loopkit.capture.snapshot import CUT_WHOLE, LIMIT, TRUNCATED, bounded, cut, snapshot
from loopkit.config import Settings
from loopkit.detect.patterns import may_hold
from loopkit.detect.patterns import redact as redact_patterns
from loopkit.types import Feedback, ModelCall, Span
from loopkit.wire.decode import decode_span
from loopkit.wire.encode import (
    EncodedSpan,
    Piece,
    Surroundings,
    encode_content,
    encode_core,
    encode_error,
    encode_facts,
    encode_ids,
    encode_native,
    encode_own,
    encode_particulars,
    encode_provider,
    encode_span,
    encode_time_to_first_token,
    encode_values,
)
from loopkit.wire.media import lifted, with_references
from loopkit.wire.messages import dumps
from loopkit.wire.names import (
    INPUT_MESSAGES,
    OI_INPUT,
    OI_INPUT_TYPE,
    OI_OUTPUT,
    OI_OUTPUT_TYPE,
    OI_TAGS,
    OTHER_ERROR,
    OUTPUT_MESSAGES,
    PARAMETERS,
    TOOL_DEFINITIONS,
    is_content,
)

_LONG = LIMIT // 40
"""What was cut is longer than this."""
OURS = 48
"""Attributes that a span without any of the application's own may have, at most."""
_LIGHT = 1024
"""Characters: what is shorter has no media worth a place of its own."""
Media = dict[str, bytes | None]
"""Of one span, by their hashes; None for what is too large to be kept."""
_LARGE = ("input", "output", "model_call", "attributes", "metadata")
_WORDS = ("value", "correction", "comment", "reason", "metadata")


class Finisher:
    """What the worker does to spans and feedback before any sink sees them."""

    def __init__(self, settings: Settings) -> None:
        self._keep = settings.content != "off"
        self._redact = redactor(settings)
        self._sampling = settings.sampling
        self._own_attributes = max(settings.limits.attributes - OURS, 0)
        self._media_bytes = 0 if settings.store is None else settings.limits.media_bytes
        self.redacted = 0
        """Texts in which something was redacted: a span has up to two, a model call two more."""
        self.without_content = 0
        """Spans whose content was left out, for a fault or for the budget."""
        self._name = known_name if settings.redact is None else self._redact
        self._surroundings = functools.lru_cache(maxsize=256)(self._surroundings_of)

    def span(self, live: LiveSpan) -> EncodedSpan:
        """The redacted span on its way to the sinks; without its content where a redactor fails."""
        if live.tail_probability != 1.0:
            live.kept_for = reason_to_keep(live, self._sampling)
        try:
            return self._encoded(live)
        except Exception as error:  # noqa: BLE001  # a redactor may raise anything; its span loses its content
            self._keep_if_large(live)
            _host.warn_once("redaction", f"a span's content was dropped, since it could not be redacted: {error!r}")
            return self._without_content(live)

    def read(self, span: Span) -> EncodedSpan:
        """A span that another instrumentation made, redacted. The application's own OpenTelemetry has it already.

        Its content status says how far its content may go.
        """
        ids = {name: getattr(span, name) for name in ("trace_id", "span_id", "parent_id")}
        media: Media = {}
        bare = replace(span, input=None, output=None, model_call=_bare(span.model_call), error=None)
        if not self._keep or span.content_status == "off":
            made = replace(bare, content_status="off")
        else:
            try:
                text, found = lifted(to_json(span), self._media_bytes)
                media.update(found)
                made = replace(_within_limit(redacted(text, self._redact)), **ids)
                if None in media.values() and made.content_status == "kept":
                    made = replace(made, content_status="truncated")
            except Exception as error:  # noqa: BLE001  # a redactor may raise anything; its span loses its content
                _host.warn_once("redaction", f"a span's content was dropped, since it could not be redacted: {error!r}")
                made = replace(bare, name=span.kind, content_status="failed", attributes={}, metadata={}, tags=())
        said = {name: value for name, value in made.attributes.items() if not name.startswith(_HARMLESS)}
        rest = {name: value for name, value in made.attributes.items() if name not in said}
        encoded = encode_span(replace(made, attributes=rest))
        has_content = made.content_status in ("kept", "local", "truncated")
        more = encode_own(said) if has_content else b""
        away = b"" if made.content_status == "local" else encoded.content + more
        return EncodedSpan(
            encoded.core, encoded.facts, away, encoded.local + more, sampled=False, crowded=True,
            media=_kept(media) if has_content else {},
        )  # fmt: skip

    def keys(self, live: LiveSpan) -> set[str]:
        """What feedback on the span may name, redacted as it is in the span itself."""
        keys = {f"trace:{live.trace_id:032x}"}
        around = live.ambient or NOTHING
        if around.session_id is not None:
            keys.add(f"session:{around.session_id}")
        with contextlib.suppress(Exception):  # a redactor that failed has been told of
            keys.update(self._surroundings(around).values.get(OI_TAGS, ()))
            if live.exchange is not None and live.exchange.response_id is not None:
                keys.add(self._redact(live.exchange.response_id))
        return keys

    def feedback(self, event: Feedback) -> Feedback:
        """The event with its words redacted; without them where that fails. Targets are names, not words.

        Ids of documents may be words: they are redacted in the spans that found them, too.
        """
        said = {name: getattr(event, name) for name in _WORDS}
        try:
            if event.part is not None:
                event = replace(event, target=f"{event.whole}#{self._redact(event.part)}")
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
        media: Media = {}
        texts = self._cleaned(live.input, live.output, media) if keep else (None, None)
        told = None if live.exchange is None else self._told(live.exchange, media)
        if live.tail_probability != 1.0 and live.kept_for is None and self._is_large(told):
            live.kept_for = "tokens"
        is_told = not self._keep or live.content == "off"
        status: str = "off" if is_told else "shed" if live.bare else live.content or "kept"
        self.without_content += status == "shed"
        said_all = texts if told is None else (*texts, told.request, told.response)
        if keep and (None in media.values() or _was_cut(said_all)):
            status = status if status == "local" else "truncated"
        values = encode_error(said) + encode_values(*texts)
        own: dict[str, Any] = {}
        if live.attributes:
            own = json.loads(redacted(bounded(snapshot(live.attributes)), self._redact))
            values += _own_content(own, texts, told is not None, keep=keep)
        core = encode_core(
            live,
            ids=encode_ids(live.trace_id, live.span_id, live.parent_id),
            name=self._name(live.name),
            surroundings=self._surroundings(live.ambient or NOTHING),
            has_call=told is not None,
            error_type=error_type,
            content_status=status,
            own=own,
            call=told.call if own and told is not None else None,
        )
        encoded = partial(
            EncodedSpan,
            core,
            sampled=live.sampled and not live.is_known_to_host,
            crowded=len(own) > self._own_attributes,
            media=_kept(media) if keep else {},
        )
        if told is None:
            away: Piece = b"" if live.content == "local" else values + _particulars(live, texts)
            return encoded(b"", away, values)
        known: Piece = b"" if own else told.facts
        if not keep:
            local = known if isinstance(known, bytes) else known()
            return encoded(known, b"", local)
        local = values + told.native(known=bool(own))
        away = b"" if live.content == "local" else partial(told.content, values)
        return encoded(known, away, local)

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
        known = b"" if exchange is None else encode_facts(exchange.dialect.facts(exchange.provider, {}, {}))
        return EncodedSpan(core, known, b"", known, sampled=live.sampled and not live.is_known_to_host)

    def _keep_if_large(self, live: LiveSpan) -> None:
        """Of a span that loses its words: its tokens are known all the same."""
        exchange = live.exchange
        if live.tail_probability == 1.0 or live.kept_for is not None or exchange is None:
            return
        if self._is_large(_Told(exchange, exchange.request, exchange.response)):
            live.kept_for = "tokens"

    def _is_large(self, told: _Told | None) -> bool:
        """Whether it is a model call of so many tokens; not read where nobody asked for a limit."""
        if told is None or self._sampling.tokens is None:
            return False
        usage = told.call.usage
        return (usage.input_tokens or 0) + (usage.output_tokens or 0) >= self._sampling.tokens

    def _told(self, exchange: Exchange, media: Media) -> _Told:
        return _Told(exchange, *self._cleaned(exchange.request, exchange.response, media))

    def _lighter(self, text: str | None, media: Media) -> str | None:
        """A text whose media are where they are kept by themselves, and that is within the limit then."""
        if text is None or len(text) < _LIGHT:
            return text
        lighter, found = lifted(text, self._media_bytes)
        media.update(found)
        return bounded(lighter)

    def _cleaned(self, first: str | None, second: str | None, media: Media) -> tuple[str | None, str | None]:
        """Two texts redacted. The prefilter is asked once for both, which costs half."""
        first, second = self._lighter(first, media), self._lighter(second, media)
        if self._redact is redact_patterns and not may_hold(f"{first or ''} {second or ''}"):
            return first, second
        cleaned = tuple(None if text is None else redacted(text, self._redact) for text in (first, second))
        self.redacted += (cleaned[0] != first) + (cleaned[1] != second)
        return cleaned[0], cleaned[1]

    def _surroundings_of(self, around: Ambient) -> Surroundings:
        metadata: Mapping[str, Any] = around.metadata
        if metadata:
            metadata = json.loads(redacted(snapshot(metadata), self._redact))
        return Surroundings(around.user_id, around.session_id, tuple(map(self._redact, around.tags)), metadata)


def revived(core: bytes, local: bytes, *, sampled: bool, whole: bool, media: Mapping[str, bytes]) -> EncodedSpan:
    """A span as it was before it was kept as the local store keeps it; `whole` where its facts are in the core."""

    @functools.cache  # facts and content are asked for one after the other
    def spelled_out() -> Span:
        return with_messages(decode_span(core + local))

    def known() -> bytes:
        call = spelled_out().model_call
        return b"" if whole or call is None else encode_facts(call)

    def content() -> bytes:
        found = spelled_out()
        if found.content_status == "local":
            return b""
        own = {name: value for name, value in found.attributes.items() if is_content(name)}
        return encode_span(replace(found, attributes={})).content + encode_own(own)

    return EncodedSpan(core, b"" if whole else known, content, local, sampled=sampled, crowded=True, media=media)


def _own_content(own: dict[str, Any], texts: tuple[str | None, str | None], has_call: bool, *, keep: bool) -> bytes:
    """What the application's own attributes say of content, taken out of them: it goes where content may go.

    What we have recorded ourselves goes before it.
    """
    ours = {name for names, text in zip(_VALUES, texts, strict=True) if text is not None for name in names}
    if has_call:
        ours |= _MESSAGES
    said = {name: own.pop(name) for name in [name for name in own if is_content(name)]}
    return encode_own({name: value for name, value in said.items() if name not in ours}) if keep else b""


def _within_limit(text: str) -> Span:
    """The span in a JSON text, without what makes it too large: first the ends of its long texts, then its content."""
    span = from_json(Span, text)
    if len(text) > LIMIT:
        fields = json.loads(text)
        for name in _LARGE:
            fields[name] = cut(fields.get(name))
        span = from_json(Span, dumps({name: value for name, value in fields.items() if value is not None}))
        span = replace(span, content_status=span.content_status if span.content_status == "local" else "truncated")
        if len(to_json(span)) > LIMIT:
            span = replace(span, input=None, output=None, model_call=_bare(span.model_call), attributes={})
    call = span.model_call
    if call is None:
        return span
    return replace(
        span, model_call=replace(call, input=with_references(call.input), output=with_references(call.output))
    )


def _kept(media: Media) -> Mapping[str, bytes]:
    return {name: data for name, data in media.items() if data is not None}


def _bare(call: ModelCall | None) -> ModelCall | None:
    return None if call is None else replace(call, input=(), output=(), tools=())


_HARMLESS = ("server.", "http.", "url.scheme", "network.", "gen_ai.usage.", "gen_ai.response.", "openai.", "langgraph.")
"""What of another instrumentation's own attributes says nothing of what was said; the rest may."""
_VALUES = ((OI_INPUT, OI_INPUT_TYPE), (OI_OUTPUT, OI_OUTPUT_TYPE))
_MESSAGES = {INPUT_MESSAGES, OUTPUT_MESSAGES, TOOL_DEFINITIONS, PARAMETERS}


class _Told:
    """What was told to a provider and by it, redacted; translated when somebody asks."""

    def __init__(self, exchange: Exchange, request: str | None, response: str | None) -> None:
        self._exchange = exchange
        self.request = request
        self.response = response

    @cached_property
    def call(self) -> ModelCall:
        """The noun without messages; the provider and nothing else where the rest can't be read."""
        call = facts(self._exchange.dialect, self._exchange.provider, self.request, self.response)
        exchange = self._exchange
        address, port = server_at(exchange.server)
        first = exchange.time_to_first_token
        return replace(call, time_to_first_token=first, server_address=address, server_port=port)

    def facts(self) -> bytes:
        """See `EncodedSpan`."""
        return encode_facts(self.call)

    def content(self, values: bytes) -> bytes:
        """See `EncodedSpan`."""
        name = self._exchange.dialect.name
        native = replace(self.call, native_format=name, native_request=self.request, native_response=self.response)
        return values + encode_content(translated(native))

    def native(self, *, known: bool) -> bytes:
        """What the local store keeps instead of both; with `known` the facts are there already."""
        exchange = self._exchange
        native = encode_native(exchange.dialect.name, self.request, self.response)
        if known:
            return native
        first = exchange.time_to_first_token
        native += encode_provider(exchange.provider, *server_at(exchange.server))
        return native if first is None else native + encode_time_to_first_token(first)


def _particulars(live: LiveSpan, texts: tuple[str | None, str | None]) -> bytes:
    """See `encode_particulars`; the application's own word for it goes before."""
    if live.kind not in ("tool", "retrieval") or any(map(is_content, live.attributes)):
        return b""
    return encode_particulars(live.kind, *(None if text is None else json.loads(text) for text in texts))


def _was_cut(texts: tuple[str | None, ...]) -> bool:
    for text in texts:
        if text is not None and (text.startswith(CUT_WHOLE) or (len(text) > _LONG and TRUNCATED in text)):
            return True
    return False


def _error_type(error: BaseException) -> str:
    return OTHER_ERROR if isinstance(error, StatusError) else type(error).__name__


def _error_text(error: BaseException) -> str:
    try:
        return str(error)[:LIMIT]
    except Exception:  # noqa: BLE001  # a foreign __str__ may raise anything
        return ""
