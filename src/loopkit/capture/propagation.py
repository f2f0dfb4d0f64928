"""Traces across services: W3C traceparent in and out, and what holds for a call as baggage, where that is allowed.

User and session ids go to hosts that were named, and never to a provider of models.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from opentelemetry import context as otel_context
from opentelemetry import trace as otel_trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from loopkit import _host
from loopkit._json import utf8
from loopkit.capture.ambient import Ambient, ambient, holding
from loopkit.capture.providers import provider_at

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]

_W3C = TraceContextTextMapPropagator()
_USER, _SESSION = "loopkit.user_id", "loopkit.session_id"
_LONGEST = 8192
"""Bytes of a baggage header that are read: W3C asks for no more to be carried."""
_shield = _host.Shielded("reading a request's trace")
_outgoing = _host.Shielded("telling another service of the trace")


def outgoing_headers(url: str, *, baggage_to: Iterable[str] = ()) -> dict[str, str]:
    """The headers that let another service go on with this trace: traceparent, and tracestate where there is one.

    User and session id go along as W3C baggage to hosts in `baggage_to` ("api.internal", or ".internal" for all below
    it), never to a known provider of models. Empty where no span runs.

        httpx.get(url, headers=web.outgoing_headers(url, baggage_to=[".internal"]))
    """
    headers: dict[str, str] = {}
    with _outgoing:
        _W3C.inject(headers)
        address = str(url)
        host = (urlsplit(address).hostname or "").lower().rstrip(".")
        if host and any(_is_at(host, each) for each in baggage_to) and provider_at(address) is None:
            here = ambient()
            said = {_USER: here.user_id, _SESSION: here.session_id}
            items = [f"{name}={quote(utf8(value), safe='')}" for name, value in said.items() if value is not None]
            if items:
                headers["baggage"] = ",".join(items)
    return headers


def _is_at(host: str, allowed: str) -> bool:
    name = allowed.lstrip(".").lower()
    return bool(name) and (host == name or (allowed.startswith(".") and host.endswith(f".{name}")))


@contextmanager
def incoming(headers: Mapping[str, str], *, trust_baggage: bool = False) -> Generator[None]:
    """Go on with the trace that a request's headers (in lower case) name; where a span runs already, that one goes on.

    With `trust_baggage` user and session id are taken from the baggage: only where all who can send it are your own.
    """
    token = None
    with _shield:
        here = otel_context.get_current()
        found = here
        if not otel_trace.get_current_span(here).get_span_context().is_valid:
            found = _W3C.extract(dict(headers), here)
        if trust_baggage:
            found = holding(_said(headers.get("baggage", "")), found)
        token = otel_context.attach(found)
    try:
        yield
    finally:
        if token is not None:
            otel_context.detach(token)


class TraceMiddleware:
    """ASGI middleware: a request's spans go on with the trace that its traceparent names.

    app.add_middleware(web.TraceMiddleware)
    """

    def __init__(self, app: App, *, trust_baggage: bool = False) -> None:
        self.app = app
        self.trust_baggage = trust_baggage

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """See the ASGI specification."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers: dict[str, str] = {}
        with _shield:
            headers = {_latin(name).lower(): _latin(value) for name, value in scope.get("headers") or ()}
        with incoming(headers, trust_baggage=self.trust_baggage):
            await self.app(scope, receive, send)


def _latin(text: bytes | str) -> str:
    """Headers are bytes, and some servers give strings."""
    return text if isinstance(text, str) else text.decode("latin-1")


class WsgiTraceMiddleware:
    """The same for WSGI: `app.wsgi_app = web.WsgiTraceMiddleware(app.wsgi_app)`.

    A body that is made while it is sent is made within the trace too.
    """

    def __init__(self, app: Callable[..., Iterable[bytes]], *, trust_baggage: bool = False) -> None:
        self.app = app
        self.trust_baggage = trust_baggage

    def __call__(self, environ: Mapping[str, Any], start_response: Any) -> Iterable[bytes]:
        """See PEP 3333."""
        headers = {
            key[5:].replace("_", "-").lower(): value for key, value in environ.items() if key.startswith("HTTP_")
        }
        with incoming(headers, trust_baggage=self.trust_baggage):
            here = otel_context.get_current()
            body = self.app(environ, start_response)
        return body if isinstance(body, (list, tuple)) else _Body(body, here)


class _Body:
    """A body in pieces, each made in the request's context; nothing stays attached between them."""

    def __init__(self, body: Iterable[bytes], context: otel_context.Context) -> None:
        self._body = body
        self._iterator: Iterator[bytes] | None = None
        self._context = context

    def __iter__(self) -> _Body:
        return self

    def __next__(self) -> bytes:
        token = otel_context.attach(self._context)
        try:
            if self._iterator is None:
                self._iterator = iter(self._body)
            return next(self._iterator)
        finally:
            otel_context.detach(token)

    def close(self) -> None:
        close = getattr(self._body, "close", None)
        if close is not None:
            close()


def _said(header: str) -> Ambient | None:
    """What the baggage says of user and session, added to what holds here."""
    items = (item.partition(";")[0].partition("=") for item in header[:_LONGEST].split(","))
    found = {name.strip(): unquote(value.strip()) for name, equals, value in items if equals}
    user, session = found.get(_USER), found.get(_SESSION)
    if not user and not session:
        return None
    here = ambient()
    return Ambient(
        user_id=user or here.user_id,
        session_id=session or here.session_id,
        tags=here.tags,
        metadata=here.metadata,
        content=here.content,
    )
