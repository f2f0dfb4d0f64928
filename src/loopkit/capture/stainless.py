"""Clients made by Stainless (openai, anthropic, groq, together, …): one `request` method under every endpoint.

The client's class is swapped for a subclass with that one method. An instance patch would be lost by
`with_options()` and `copy()`, which build the copy from the client's class. `isinstance` still holds and the
class keeps its name; `type(client) is OpenAI` becomes False.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from loopkit import _host
from loopkit.capture import slot
from loopkit.capture.chain import Call, Interceptor
from loopkit.capture.dialects._protocol import Dialect
from loopkit.capture.dialects.known import CHAT, MESSAGES, RESPONSES
from loopkit.capture.exchange import Exchange
from loopkit.capture.recording import Recording, arun, run, stream_filters
from loopkit.capture.stream import watch_raw, watch_stream
from loopkit.errors import InvalidInput

_OPENAI_LIKE: Mapping[str, Dialect] = {"/chat/completions": CHAT, "/responses": RESPONSES}

ENDPOINTS: Mapping[str, Mapping[str, Dialect]] = {
    "openai": _OPENAI_LIKE,
    "groq": {"/openai/v1/chat/completions": CHAT},
    "anthropic": {"/v1/messages": MESSAGES},
}
"""By SDK package and path: which dialect speaks there."""

DEFAULT_DIALECTS: Mapping[str, Dialect] = {"openai": CHAT, "groq": CHAT, "anthropic": MESSAGES}
"""By SDK package: how a router calls a client."""

_HOSTS = {
    "api.openai.com": "openai",
    "api.groq.com": "groq",
    "api.anthropic.com": "anthropic",
    "api.together.xyz": "together",
    "api.fireworks.ai": "fireworks",
    "api.deepseek.com": "deepseek",
    "api.mistral.ai": "mistral_ai",
    "api.x.ai": "x_ai",
    "api.perplexity.ai": "perplexity",
}
"""By host: OpenTelemetry's provider names where it has one."""

_starting = _host.Shielded("starting a call")
_receiving = _host.Shielded("recording a response")
_RAW = "x-stainless-raw-response"
_BASES = ("SyncAPIClient", "AsyncAPIClient")


def package_of(client: Any) -> str | None:
    """The SDK package of a client that we can wrap, or None."""
    for cls in type(client).__mro__:
        package = cls.__module__.partition(".")[0]
        if package in ENDPOINTS and any(base.__name__ in _BASES for base in cls.__mro__):
            return package
    return None


def is_wrapped(client: Any) -> bool:
    """Whether `wrap` has been here."""
    return "_loopkit_hook" in type(client).__dict__


def hook(client: Any, package: str, interceptors: tuple[Interceptor, ...]) -> None:
    """Swap the client's class for the recording subclass."""
    cls: Any = client.__class__
    is_async = any(base.__name__ == "AsyncAPIClient" for base in cls.__mro__)
    body = {
        "request": _async_request if is_async else _sync_request,
        "_loopkit_hook": Hook(cls.request, package, interceptors),
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
    }
    client.__class__ = type(cls.__name__, (cls,), body)


def unhook(client: Any) -> None:
    """Give the client its own class back."""
    client.__class__ = type(client).__mro__[1]


class Hook:
    """What one wrap knows: the SDK's own request method, which paths are model calls, the interceptors."""

    def __init__(self, original: Any, package: str, interceptors: tuple[Interceptor, ...]) -> None:
        self.original = original
        self.package = package
        self.interceptors = interceptors
        self._last_provider: tuple[Any, str] = (None, package)

    def begin(self, client: Any, options: Any, stream: bool) -> _Request | None:
        """The call about to be made, recorded; None where it is no model call or nothing wants to see it."""
        recorder = slot.recorder
        if recorder is None and not self.interceptors:
            return None
        dialect = ENDPOINTS[self.package].get(options.url.partition("?")[0])
        if dialect is None or options.method.lower() != "post":
            return None
        body: Any = options.json_data  # isinstance makes the original a mapping of unknown types; this stays Any
        if not isinstance(options.json_data, Mapping):
            return None
        request: dict[str, Any] = {**body, **options.extra_json} if options.extra_json else body
        if self.interceptors:
            self._refuse_unseen(options)
        live = exchange = None
        with _starting:
            if recorder is not None:
                live = recorder.start(f"{dialect.operation} {request.get('model')}", "llm")
            if live is not None:
                exchange = Exchange(dialect, self._provider(client.base_url), bare=live.bare)
                exchange.ask(request)
        recording = Recording(recorder, live, exchange)
        task = None if live is None else live.task
        call = Call(task=task, request=request, dialect=dialect, stream=stream)
        return _Request(self, options, call, recording)

    def _provider(self, base_url: Any) -> str:
        """By the client's base URL. Kept for the same object: to read it costs more than all else here."""
        known, provider = self._last_provider
        if known is not base_url:
            host = urlsplit(str(base_url)).hostname or ""
            azure = host.endswith(".openai.azure.com")
            provider = "azure.ai.openai" if azure else _HOSTS.get(host, self.package)
            self._last_provider = base_url, provider
        return provider

    def _refuse_unseen(self, options: Any) -> None:
        """A raw response passes as bytes: what checks outputs would not see it. Said before anything is sent."""
        asked_raw = any(str(name).lower() == _RAW for name in (options.headers or ()))
        if asked_raw and any(getattr(each, "output", None) for each in self.interceptors):
            raise InvalidInput(
                "with_raw_response and with_streaming_response can't be used with a guard that checks outputs: "
                "call create(), or wrap a client of its own without output checks"
            )


class _Request:
    """One call through a hook."""

    def __init__(self, hook: Hook, options: Any, call: Call, recording: Recording) -> None:
        self.hook = hook
        self.options = options
        self.call = call
        self.recording = recording

    def options_for(self, call: Call) -> Any:
        """The SDK's options, with the request as the interceptors left it."""
        if call.request is self.call.request:
            return self.options
        options = self.options.model_copy()
        options.json_data, options.extra_json = dict(call.request), None  # the request holds both
        if self.recording.exchange is not None:
            self.recording.exchange.ask(call.request)
        return options

    def received(self, result: Any) -> Any:
        """Record the result, or watch it until it has been read."""
        if self.recording.live is None and not self.hook.interceptors:
            return result
        with _receiving:
            # A whole answer is by far the most frequent, and asking it for what it lacks is dear: pydantic looks long.
            if hasattr(result.__class__, "model_dump_json"):
                self.recording.returned(result)
                return result
            filters = stream_filters(self.hook.interceptors, self.call)
            if hasattr(result, "_iterator") and hasattr(result, "response"):
                return watch_stream(result, self.recording, filters)
            if hasattr(result, "http_response") and hasattr(result, "parse"):
                return self._raw(result, filters)
            self.recording.returned(result)
        return result

    def _raw(self, raw: Any, filters: Any) -> Any:
        response = raw.http_response
        if not response.is_closed:
            return watch_raw(raw, self.recording, filters)
        self.recording.remember(raw)
        self.recording.answered(response.text)
        return raw


def _sync_request(self: Any, cast_to: Any, options: Any, **kwargs: Any) -> Any:
    hook: Hook = self._loopkit_hook
    request = hook.begin(self, options, bool(kwargs.get("stream")))
    if request is None:
        return hook.original(self, cast_to, options, **kwargs)

    def send(call: Call) -> Any:
        return hook.original(self, cast_to, request.options_for(call), **kwargs)

    return run(request.recording, request.call, hook.interceptors, send, request.received)


async def _async_request(self: Any, cast_to: Any, options: Any, **kwargs: Any) -> Any:
    hook: Hook = self._loopkit_hook
    request = hook.begin(self, options, bool(kwargs.get("stream")))
    if request is None:
        return await hook.original(self, cast_to, options, **kwargs)

    async def send(call: Call) -> Any:
        return await hook.original(self, cast_to, request.options_for(call), **kwargs)

    return await arun(request.recording, request.call, hook.interceptors, send, request.received)
