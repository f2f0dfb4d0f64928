"""Clients made by Stainless (openai, anthropic, groq, together, …): one `request` method under every endpoint.

The client's class is swapped for a subclass with that one method. An instance patch would be lost by
`with_options()` and `copy()`, which build the copy from the client's class. `isinstance` still holds and the
class keeps its name; `type(client) is OpenAI` becomes False. `instrument()` puts the same method into the SDK's own
class.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from loopkit.capture import slot
from loopkit.capture.chain import Call, Interceptor
from loopkit.capture.dialects._protocol import Conversation, Dialect
from loopkit.capture.dialects.known import CHAT, MESSAGES, OPENAI_PATHS
from loopkit.capture.hooked import HookedCall, begin
from loopkit.capture.providers import provider_of
from loopkit.capture.recording import arun, run
from loopkit.errors import InvalidInput

ENDPOINTS: Mapping[str, Mapping[str, Dialect]] = {
    "openai": OPENAI_PATHS,
    "groq": {f"/openai/v1{path}": dialect for path, dialect in OPENAI_PATHS.items()},
    "together": OPENAI_PATHS,
    "anthropic": {"/v1/messages": MESSAGES},
}
"""By SDK package and path: which dialect speaks there."""

DEFAULT_DIALECTS: Mapping[str, Conversation] = {"openai": CHAT, "groq": CHAT, "together": CHAT, "anthropic": MESSAGES}
"""By SDK package: how a router calls a client."""

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


def hook(client: Any, package: str, interceptors: tuple[Interceptor, ...], provider: str | None = None) -> None:
    """Swap the client's class for the recording subclass."""
    cls: Any = client.__class__
    is_async = any(base.__name__ == "AsyncAPIClient" for base in cls.__mro__)
    hook = Hook(cls.request, package, interceptors, provider)
    body = {
        "request": hook.method(is_async=is_async),
        "_loopkit_hook": hook,
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
    }
    client.__class__ = type(cls.__name__, (cls,), body)


def unhook(client: Any) -> None:
    """Give the client its own class back."""
    client.__class__ = type(client).__mro__[1]


def patch(module: Any) -> Callable[[], None]:
    """Record every client of a package, whose `_base_client` module this is; gives back what undoes it."""
    package = module.__name__.partition(".")[0]
    bases = [(getattr(module, name), name == _BASES[1]) for name in _BASES]
    originals = [base.__dict__["request"] for base, _ in bases]
    for (base, is_async), original in zip(bases, originals, strict=True):
        base.request = functools.wraps(original)(Hook(original, package, (), None).method(is_async=is_async))

    def undo() -> None:
        for (base, _), original in zip(bases, originals, strict=True):
            base.request = original

    return undo


class Hook:
    """What one wrap knows: the SDK's own request method, which paths are model calls, the interceptors."""

    def __init__(
        self, original: Any, package: str, interceptors: tuple[Interceptor, ...], provider: str | None
    ) -> None:
        self.original = original
        self.package = package
        self.interceptors = interceptors
        self._provider = provider
        self._last_provider: tuple[Any, str] = (None, package)

    def method(self, *, is_async: bool) -> Callable[..., Any]:
        """What stands in the place of the SDK's own `request`."""
        return self._async_request() if is_async else self._sync_request()

    def _sync_request(self) -> Callable[..., Any]:
        def request(client: Any, cast_to: Any, options: Any, **kwargs: Any) -> Any:
            hooked = self.begin(client, options, bool(kwargs.get("stream")))
            if hooked is None:
                return self.original(client, cast_to, options, **kwargs)

            def send(call: Call) -> Any:
                return self.original(client, cast_to, _options_for(options, hooked, call), **kwargs)

            return run(hooked.recording, hooked.call, self.interceptors, hooked.sent(send), hooked.received)

        return request

    def _async_request(self) -> Callable[..., Any]:
        async def request(client: Any, cast_to: Any, options: Any, **kwargs: Any) -> Any:
            hooked = self.begin(client, options, bool(kwargs.get("stream")))
            if hooked is None:
                return await self.original(client, cast_to, options, **kwargs)

            async def send(call: Call) -> Any:
                return await self.original(client, cast_to, _options_for(options, hooked, call), **kwargs)

            return await arun(hooked.recording, hooked.call, self.interceptors, hooked.asent(send), hooked.received)

        return request

    def begin(self, client: Any, options: Any, stream: bool) -> HookedCall | None:
        """The call about to be made, recorded; None where it is no model call or nothing wants to see it."""
        if slot.recorder is None and not self.interceptors:
            return None
        dialect = ENDPOINTS[self.package].get(options.url.partition("?")[0])
        if dialect is None or options.method.lower() != "post":
            return None
        body: Any = options.json_data  # isinstance makes the original a mapping of unknown types; this stays Any
        if not isinstance(options.json_data, Mapping):
            return None
        request: dict[str, Any] = {**body, **options.extra_json} if options.extra_json else body
        if self.package == "anthropic":  # it marks what was left out, and takes the marks away further below
            request = {name: value for name, value in request.items() if type(value).__name__ not in _LEFT_OUT}
        if self.interceptors:
            self._refuse_unseen(options)
        files = _files(options.files) if options.files else None
        provider = self._provider or self._provider_of(client)
        return begin(dialect, provider, request, stream=stream, interceptors=self.interceptors, extra=files)

    def _provider_of(self, client: Any) -> str:
        """By the client's class and base URL. Kept for the same object: to read it costs more than all else here."""
        known, provider = self._last_provider
        base_url = client.base_url
        if known is not base_url:
            provider = provider_of(client.__class__, str(base_url), self.package)
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


_LEFT_OUT = ("Omit", "NotGiven")


def _files(files: Any) -> dict[str, Any]:
    """What is uploaded: names and sizes."""
    given: Any = files  # isinstance makes `files` a mapping of unknown types; this stays Any
    found: dict[str, Any] = {}
    for name, file in given.items() if isinstance(files, Mapping) else given:
        told = _file(file)
        key = str(name).removesuffix("[]")
        found[key] = [*found[key], told] if key in found else [told]
    return {name: many[0] if len(many) == 1 else many for name, many in found.items()}


def _file(file: Any) -> dict[str, Any]:
    given: Any = file  # isinstance makes `file` a tuple of unknown types; this stays Any
    name, content = (given[0], given[1]) if isinstance(file, tuple) else (getattr(given, "name", None), given)
    size = len(content) if isinstance(content, (bytes, bytearray)) else None
    return {"name": name if isinstance(name, str) else None, "bytes": size}


def _options_for(options: Any, hooked: HookedCall, call: Call) -> Any:
    """The SDK's options, with the request as the interceptors left it."""
    if call.request is hooked.call.request:
        return options
    changed = options.model_copy()
    changed.json_data, changed.extra_json = dict(call.request), None  # the request holds both
    return changed
