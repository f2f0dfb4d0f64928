"""Ollama's own client: one method is under every operation, and gives a generator for streams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loopkit.capture import slot
from loopkit.capture.chain import Call, Interceptor, must_see
from loopkit.capture.dialects._protocol import Conversation, Dialect
from loopkit.capture.dialects.known import OLLAMA_CHAT, OLLAMA_EMBED, OLLAMA_GENERATE
from loopkit.capture.hooked import HookedCall
from loopkit.capture.hooked import begin as begin_call
from loopkit.capture.sdks._protocol import Begin, Begun, Patched, Undo, all_undone, replace_methods

_PATHS: Mapping[str, Dialect] = {
    "/api/chat": OLLAMA_CHAT,
    "/api/generate": OLLAMA_GENERATE,
    "/api/embed": OLLAMA_EMBED,
    "/api/embeddings": OLLAMA_EMBED,
}


class Ollama(Patched):
    """See `Sdk`."""

    name = "ollama"
    module = "ollama._client"
    extra = "ollama"
    conversation: Conversation | None = OLLAMA_CHAT

    def knows(self, client: Any) -> bool:
        """See `Sdk.knows`."""
        return any(cls.__module__ == "ollama._client" for cls in type(client).__mro__)

    def wrap(self, client: Any, interceptors: tuple[Interceptor, ...], provider: str | None) -> None:
        """See `Sdk.wrap`."""
        begins = {"_request": _begin_of(interceptors, provider)}
        self.remember(client, replace_methods(client, begins, is_guarded=must_see(interceptors)))

    def patch(self, module: Any) -> Undo:
        """See `Sdk.patch`. The package's own functions are methods of a client."""
        begin = _begin_of((), None)
        return all_undone(replace_methods(cls, {"_request": begin}) for cls in (module.Client, module.AsyncClient))


def _begin_of(interceptors: tuple[Interceptor, ...], provider: str | None) -> Begin:
    def begin(client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Begun | None:
        dialect = _PATHS.get(args[2]) if len(args) > 2 else None
        asked = kwargs.get("json")
        if dialect is None or asked is None or (slot.recorder is None and not interceptors):
            return None
        hooked = begin_call(
            dialect, provider or "ollama", asked, stream=bool(kwargs.get("stream")), interceptors=interceptors,
            server=str(client._client.base_url),
        )  # fmt: skip
        return Begun(hooked, lambda call: (args, {**kwargs, "json": _sent(hooked, call, asked)}), hooked.received)

    return begin


def _sent(hooked: HookedCall, call: Call, asked: Any) -> Any:
    return dict(call.request) if hooked.is_changed(call) else asked
