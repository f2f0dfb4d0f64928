"""HTTP clients, httpx's and httpx2's: for APIs of OpenAI's or Anthropic's shape that are called without an SDK."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from loopkit.capture import slot
from loopkit.capture.chain import Interceptor
from loopkit.capture.dialects._protocol import Conversation, Dialect
from loopkit.capture.dialects.known import MESSAGES, OPENAI_PATHS
from loopkit.capture.hooked import HookedCall
from loopkit.capture.hooked import begin as begin_call
from loopkit.capture.providers import provider_at
from loopkit.capture.sdks._protocol import Begin, Begun, Patched, replace_methods
from loopkit.capture.stream import watch_body
from loopkit.errors import InvalidInput

_PATHS: Mapping[str, Dialect] = {**OPENAI_PATHS, "/messages": MESSAGES}
_PATH = re.compile(r"(?:/v\d+|/openai/deployments/[^/]+)(/[a-z/_]+)\Z")
"""What comes after the version, or Azure's deployment."""


class Transport(Patched):
    """See `Sdk`. One client at a time: what other requests an application makes is not for us to read."""

    name = "httpx"
    conversation: Conversation | None = None

    def knows(self, client: Any) -> bool:
        """See `Sdk.knows`."""
        mro = type(client).__mro__
        return any(cls.__module__ in ("httpx", "httpx2") and cls.__name__ in ("Client", "AsyncClient") for cls in mro)

    def wrap(self, client: Any, interceptors: tuple[Interceptor, ...], provider: str | None) -> None:
        """See `Sdk.wrap`."""
        if interceptors:
            raise InvalidInput("an HTTP client takes no guard, interceptors or include_usage: wrap an SDK client")
        self.remember(client, replace_methods(client, {"send": _begin_of(provider)}))


def _begin_of(provider: str | None) -> Begin:
    def begin(_: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Begun | None:
        request = args[0] if args else kwargs.get("request")
        if slot.recorder is None or request is None or request.method != "POST":
            return None
        match = _PATH.search(request.url.path)
        dialect = None if match is None else _PATHS.get(match[1])
        asked = None if dialect is None else _json(request)
        if dialect is None or asked is None:
            return None
        served = provider or provider_at(str(request.url)) or dialect.name.partition(".")[0]
        hooked = begin_call(dialect, served, asked, stream=bool(asked.get("stream")), server=str(request.url))
        return Begun(hooked, lambda _: (args, kwargs), _received(hooked))

    return begin


def _json(request: Any) -> dict[str, Any] | None:
    """The request's body, where it is a JSON object that is there already: nothing is read that is to be streamed."""
    if "json" not in request.headers.get("content-type", "") or not hasattr(request, "_content"):
        return None
    try:
        body: Any = json.loads(request.content)
    except ValueError:
        return None
    asked: dict[str, Any] = body
    return asked if isinstance(body, dict) else None


def _received(hooked: HookedCall) -> Callable[[Any], Any]:
    def received(response: Any) -> Any:
        recording = hooked.recording
        recording.remember(response)
        if response.status_code >= 400:
            recording.refused(f"HTTP {response.status_code}")
        elif response.is_closed:
            recording.answered(response.text)
        else:
            watch_body(response, recording)
        return response

    return received
