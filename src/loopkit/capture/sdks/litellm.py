"""litellm: completion, embedding and their twins pass one dispatcher; other SDKs below it then say nothing."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from loopkit.capture import slot
from loopkit.capture.dialects._protocol import Dialect
from loopkit.capture.dialects.known import CHAT, EMBEDDINGS, RESPONSES
from loopkit.capture.hooked import HookedCall
from loopkit.capture.hooked import begin as begin_call
from loopkit.capture.providers import provider_known_as
from loopkit.capture.sdks._protocol import Begun, Undo, replace_methods
from loopkit.capture.stream import RecordedIterator, watch_garbage

_ROUTES: Mapping[str, tuple[Dialect, tuple[str, ...]]] = {
    "chat_completions": (CHAT, ("model", "messages")),
    "embeddings": (EMBEDDINGS, ("model", "input")),
    "responses": (RESPONSES, ("input", "model")),
}
"""By the dispatcher's route: what speaks there, and the names of its positional arguments."""
_NOT_BODY = frozenset(
    ("api_key", "api_base", "base_url", "api_version", "client", "timeout", "extra_headers", "headers", "metadata",
     "custom_llm_provider", "mock_response", "num_retries", "max_retries", "fallbacks", "caching", "cache",
     "litellm_logging_obj", "litellm_call_id", "shared_session", "deployment_id", "model_list", "callbacks")
)  # fmt: skip


class LiteLLM:
    """See `Instrumented`. It has no client to wrap."""

    name = "litellm"
    module = "litellm"
    extra = "litellm"

    def patch(self, module: Any) -> Undo:
        """See `Instrumented.patch`."""
        dispatch = import_module("litellm.rust_bridge.dispatch").PublicDispatch
        return replace_methods(dispatch, {"run": _begin, "arun": _begin})


def _begin(route: Any, given: tuple[Any, ...], named: Mapping[str, Any]) -> Begun | None:
    known = _ROUTES.get(str(getattr(route.route, "value", route.route)))
    if known is None or slot.recorder is None:
        return None
    dialect, positional = known
    args, kwargs = (*given, named.get("args"), named.get("kwargs"))[:2]
    asked: dict[str, Any] = {**dict(zip(positional, args or (), strict=False)), **(kwargs or {})}
    body = {name: value for name, value in asked.items() if name not in _NOT_BODY and value is not None}
    provider, model = _resolved(asked)
    hooked = begin_call(dialect, provider, {**body, "model": model}, stream=bool(asked.get("stream")))
    return Begun(hooked, lambda _: (given, named), _received(hooked))


def _resolved(given: Mapping[str, Any]) -> tuple[str, str]:
    """Provider and model of a name such as "mistral/mistral-small": by the name, without litellm's own look-up, which
    prints and raises for names that it doesn't know."""
    prefix, slash, rest = str(given.get("model") or "").partition("/")
    named = given.get("custom_llm_provider")
    provider = str(named) if named else prefix if slash else "openai"
    model = rest if slash and provider == prefix else str(given.get("model") or "")
    return provider_known_as(provider), model


def _received(hooked: HookedCall) -> Callable[[Any], Any]:
    def received(result: Any) -> Any:
        if not hasattr(result, "completion_stream"):
            return hooked.received(result)
        cls: Any = result.__class__
        result._loopkit = RecordedIterator(_Inside(result, cls), hooked.recording, hooked.filters(), lambda: None)
        result.__class__ = _watched(cls)
        hooked.recording.remember(result)
        watch_garbage(result, hooked.recording)
        return result

    return received


@functools.cache
def _watched(cls: type[Any]) -> type[Any]:
    body = {"__next__": _next, "__anext__": _anext, "__iter__": _itself, "__aiter__": _itself}
    return type(cls.__name__, (cls,), body)


class _Inside:
    """litellm's own iteration over one of its streams, held weakly: the stream holds us."""

    def __init__(self, stream: Any, cls: Any) -> None:
        self._stream = weakref.ref(stream)
        self._cls = cls

    def __next__(self) -> Any:
        return self._cls.__next__(self._stream())

    async def __anext__(self) -> Any:
        return await self._cls.__anext__(self._stream())


def _next(stream: Any) -> Any:
    return next(stream._loopkit)


async def _anext(stream: Any) -> Any:
    return await stream._loopkit.__anext__()


def _itself(stream: Any) -> Any:
    return stream
