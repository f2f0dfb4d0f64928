"""Clients made by Stainless (openai, anthropic, groq, together, …): one `request` method under every endpoint.

The client's class is swapped for a subclass with that one method. An instance patch would be lost by
`with_options()` and `copy()`, which build the copy from the client's class. `isinstance` still holds and the
class keeps its name; `type(client) is OpenAI` becomes False. `instrument()` puts the same method into the SDK's own
class.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from posixpath import normpath
from typing import Any
from urllib.parse import unquote, urlsplit

from loopkit.capture import slot
from loopkit.capture.chain import Call, Interceptor, must_see
from loopkit.capture.dialects._content import mapping
from loopkit.capture.dialects._protocol import Conversation, Dialect, Streaming
from loopkit.capture.dialects.known import CHAT, MESSAGES, OPENAI_PATHS
from loopkit.capture.hooked import HookedCall, begin
from loopkit.capture.providers import provider_of
from loopkit.capture.readable import listed
from loopkit.capture.sdks._protocol import Begun, Undo, all_undone, hooked_method, replace_methods, with_argument
from loopkit.errors import InvalidInput, Unguarded

_RAW = "x-stainless-raw-response"
_BASES = ("SyncAPIClient", "AsyncAPIClient")
_MARK = "_loopkit_wrapped"
_ARGUMENTS = ("cast_to", "options")


class Stainless:
    """See `Sdk`. One of the packages."""

    def __init__(
        self,
        name: str,
        paths: Mapping[str, Dialect],
        conversation: Conversation,
        is_left_out: Callable[[Any], bool] | None = None,
    ) -> None:
        self.name = self.extra = name
        self.module = f"{name}._base_client"
        self._paths = paths
        self.is_left_out = is_left_out
        """Whether the SDK marks an argument with this as left out, and takes it away further below."""
        self.conversation: Conversation | None = conversation

    def knows(self, client: Any) -> bool:
        """See `Sdk.knows`."""
        mro = type(client).__mro__
        return any(cls.__module__.partition(".")[0] == self.name for cls in mro) and any(
            cls.__name__ in _BASES for cls in mro
        )

    def is_wrapped(self, client: Any) -> bool:
        """See `Sdk.is_wrapped`."""
        return any(hook.is_on for hook in _hooks(client).values())

    def dialect_at(self, url: str) -> Dialect | None:
        """What speaks at a path, however it was written: the SDKs' resources say "/chat/completions"."""
        known = self._paths.get(url)
        if known is not None:
            return known
        is_whole = url.startswith("http")
        written = urlsplit(url).path if is_whole else url.partition("?")[0]
        path = normpath("/" + unquote(written).strip("/"))
        found = (each for at, each in self._paths.items() if path == at or (is_whole and path.endswith(at)))
        return next(found, None)

    def wrap(self, client: Any, interceptors: tuple[Interceptor, ...], provider: str | None) -> None:
        """Swap the client's class for the recording subclass."""
        cls: Any = client.__class__
        is_async = any(base.__name__ == _BASES[1] for base in cls.__mro__)
        hook = Hook(self, interceptors, provider)
        is_guarded = must_see(interceptors)
        body = {
            "request": hooked_method(_request_of(cls), hook.begin, is_async=is_async, is_guarded=is_guarded),
            _MARK: hook,
            "__module__": cls.__module__,
            "__qualname__": cls.__qualname__,
            "__doc__": cls.__doc__,
        }
        client.__class__ = type(cls.__name__, (cls,), body)

    def unwrap(self, client: Any) -> None:
        """Give the client its own class back; where somebody has put another over ours, ours lets everything pass."""
        for cls, hook in _hooks(client).items():
            if cls is type(client):
                client.__class__ = cls.__mro__[1]
            else:
                hook.is_on = False

    def patch(self, module: Any) -> Undo:
        """See `Sdk.patch`. Another's patch may have given a class below a `request` of its own."""
        begin = Hook(self).begin
        return all_undone(
            replace_methods(cls, {"request": begin}) for name in _BASES for cls in _owners(getattr(module, name))
        )


def _hooks(client: Any) -> dict[type[Any], Hook]:
    """The recording classes of a client, and what they know."""
    return {cls: cls.__dict__[_MARK] for cls in type(client).__mro__ if _MARK in cls.__dict__}


def _request_of(cls: type[Any]) -> Callable[..., Any]:
    """The class's own method, as it is at the call: others patch it too."""

    def request(client: Any, *args: Any, **kwargs: Any) -> Any:
        made: Any = cls
        return made.request(client, *args, **kwargs)

    return request


def _owners(cls: type[Any]) -> list[type[Any]]:
    """The classes that have a `request` method of their own, the recording subclasses aside."""
    found = [cls] if "request" in cls.__dict__ and _MARK not in cls.__dict__ else []
    return found + [owner for below in cls.__subclasses__() for owner in _owners(below)]


_LEFT_OUT = ("Omit", "NotGiven")
PACKAGES = (
    Stainless("openai", OPENAI_PATHS, CHAT),
    Stainless("anthropic", {"/v1/messages": MESSAGES}, MESSAGES, lambda value: type(value).__name__ in _LEFT_OUT),
    Stainless("groq", {f"/openai/v1{path}": dialect for path, dialect in OPENAI_PATHS.items()}, CHAT),
    Stainless("together", {f"/v1{path}": dialect for path, dialect in OPENAI_PATHS.items()}, CHAT),
)


class Hook:
    """What one wrap knows: the SDK's own request method, which paths are model calls, the interceptors."""

    def __init__(self, sdk: Stainless, interceptors: tuple[Interceptor, ...] = (), provider: str | None = None) -> None:
        self.sdk = sdk
        self.interceptors = interceptors
        self.is_on = True
        self._provider = provider
        self._last_served: tuple[Any, str, str] = (None, sdk.name, "")

    def begin(self, client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Begun | None:
        """See `Begin`."""
        options, stream = args[1] if len(args) > 1 else kwargs["options"], bool(kwargs.get("stream"))
        body: Any = options.json_data  # isinstance makes the original a mapping of unknown types; this stays Any
        routed = _routed(options.json_data)
        interceptors = self.interceptors if routed is None else (*self.interceptors, routed)
        if (slot.recorder is None and not interceptors) or not self.is_on:
            return None
        dialect = self.sdk.dialect_at(options.url)
        if dialect is None or options.method.lower() != "post":
            return None
        if not isinstance(options.json_data, Mapping):
            if must_see(self.interceptors):
                raise Unguarded("a body that is no mapping can't be read by guards: give it as json")
            return None
        for name in _TURNS:
            if isinstance(body.get(name), Iterator):
                body[name] = listed(body[name])  # sent as it was read
        request: dict[str, Any] = {**body, **options.extra_json} if options.extra_json else body
        if self.sdk.is_left_out is not None:
            request = {name: value for name, value in request.items() if not self.sdk.is_left_out(value)}
        if self.interceptors:
            self._refuse_unseen(options, dialect, args[0] if args else kwargs.get("cast_to"))
        files = _files(options.files) if options.files else None
        provider, server = self._served(client)
        hooked = begin(
            dialect, self._provider or provider, request, stream=stream, interceptors=interceptors, extra=files,
            server=server,
        )  # fmt: skip
        return Begun(
            hooked,
            lambda call: _arguments(options, hooked, call, args, kwargs),
            hooked.received,
        )

    def _served(self, client: Any) -> tuple[str, str]:
        """Who serves it, by class and base URL, and that. Kept for the same object: to read it costs most of all."""
        known, provider, server = self._last_served
        base_url = client.base_url
        if known is not base_url:
            server = str(base_url)
            provider = provider_of(client.__class__, server, self.sdk.name)
            self._last_served = base_url, provider, server
        return provider, server

    def _refuse_unseen(self, options: Any, dialect: Dialect, kind: Any) -> None:
        """What checks outputs would not see a raw response, or one that is no object. Said before anything is sent."""
        asked_raw = any(str(name).lower() == _RAW for name in (options.headers or ()))
        module = str(getattr(kind, "__module__", ""))
        if isinstance(dialect, Streaming):
            asked_raw = asked_raw or kind in (object, str, bytes, dict, list) or module.startswith("httpx")
        if asked_raw and any(getattr(each, "sees_output", False) for each in self.interceptors):
            raise InvalidInput(
                "with_raw_response, with_streaming_response and cast_to can't be used with a guard that checks outputs"
                " or counts what they use: call create(), or wrap a client of its own without"
            )


_TURNS = ("messages", "input")


def _routed(body: Any) -> Any:
    """The interceptor that a model's name brings along."""
    return getattr(mapping(body).get("model"), "interceptor", None)


def _files(files: Any) -> dict[str, Any]:
    """What is uploaded, as far as it is in memory: what the SDK reads from a file is not read here."""
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
    data = content.getvalue() if isinstance(content, io.BytesIO) else content
    told: dict[str, Any] = {"name": name if isinstance(name, str) else None}
    return {**told, "data": data} if isinstance(data, (bytes, bytearray)) else told


def _arguments(
    options: Any, hooked: HookedCall, call: Call, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    sent = _options_for(options, hooked, call)
    return (args, kwargs) if sent is options else with_argument(_ARGUMENTS, "options", sent, args, kwargs)


def _options_for(options: Any, hooked: HookedCall, call: Call) -> Any:
    """The SDK's options, with the request as the interceptors left it."""
    is_changed = hooked.is_changed(call)
    traces = hooked.recording.live is not None and "span_name" in options.__dict__
    if not is_changed and not traces:
        return options
    changed = options.model_copy()
    if is_changed:
        changed.json_data, changed.extra_json = dict(call.request), None  # the request holds both
    if traces:
        changed.span_name = None  # anthropic tells OpenTelemetry of its calls by itself: this one is told of
    return changed
