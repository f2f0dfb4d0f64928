"""mistralai: the methods of its chat, agents, fim and embeddings, which all others of theirs call."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from loopkit.capture import slot
from loopkit.capture.chain import Call, Interceptor, must_see
from loopkit.capture.dialects._protocol import Conversation, Dialect
from loopkit.capture.dialects.known import MISTRAL_CHAT, MISTRAL_EMBEDDINGS, MISTRAL_FILL
from loopkit.capture.hooked import HookedCall
from loopkit.capture.hooked import begin as begin_call
from loopkit.capture.readable import once
from loopkit.capture.sdks._protocol import Begin, Begun, Patched, Undo, all_undone, replace_methods

_RESOURCES: Mapping[str, tuple[str, Dialect, tuple[str, ...]]] = {
    "chat": ("Chat", MISTRAL_CHAT, ("complete", "stream")),
    "agents": ("Agents", MISTRAL_CHAT, ("complete", "stream")),
    "fim": ("Fim", MISTRAL_FILL, ("complete", "stream")),
    "embeddings": ("Embeddings", MISTRAL_EMBEDDINGS, ("create",)),
}
"""By the client's attribute: the class, what speaks there, and its methods; each has an `_async` twin."""
_NOT_BODY = frozenset(("retries", "server_url", "timeout_ms", "http_headers"))


class Mistral(Patched):
    """See `Sdk`."""

    name = "mistralai"
    module = "mistralai.client"
    extra = "mistral"
    conversation: Conversation | None = MISTRAL_CHAT

    def knows(self, client: Any) -> bool:
        """See `Sdk.knows`."""
        mro = type(client).__mro__
        return any(c.__name__.startswith("Mistral") and c.__module__.partition(".")[0] == "mistralai" for c in mro)

    def patched(self, client: Any) -> Any:
        """See `Patched.patched`."""
        return client.sdk_configuration

    def wrap(self, client: Any, interceptors: tuple[Interceptor, ...], provider: str | None) -> None:
        """See `Sdk.wrap`."""
        is_guarded = must_see(interceptors)
        undos = [
            replace_methods(
                getattr(client, name), _methods(dialect, methods, interceptors, provider), is_guarded=is_guarded
            )
            for name, (_, dialect, methods) in _RESOURCES.items()
            if hasattr(client, name)
        ]
        self.remember(client, all_undone(undos))

    def patch(self, module: Any) -> Undo:
        """See `Sdk.patch`."""
        undos = [
            replace_methods(
                getattr(import_module(f"{module.__name__}.{name}"), cls), _methods(dialect, methods, (), None)
            )
            for name, (cls, dialect, methods) in _RESOURCES.items()
        ]
        return all_undone(undos)


def _methods(
    dialect: Dialect, methods: tuple[str, ...], interceptors: tuple[Interceptor, ...], provider: str | None
) -> dict[str, Begin]:
    def begin_of(name: str) -> Begin:
        def begin(resource: Any, __: tuple[Any, ...], given: Mapping[str, Any]) -> Begun | None:
            if slot.recorder is None and not interceptors:
                return None
            given = {name: once(value) for name, value in given.items()}  # sent as it was read
            body = {k: v for k, v in given.items() if k not in _NOT_BODY and type(v).__name__ != "Unset"}
            streams = name == "stream"
            asked = {**body, "stream": True} if streams else body
            server = given.get("server_url") or resource.sdk_configuration.get_server_details()[0]
            served = provider or "mistral_ai"
            hooked = begin_call(dialect, served, asked, stream=streams, interceptors=interceptors, server=server)
            return Begun(hooked, lambda call: ((), _sent(hooked, call, given)), hooked.received)

        return begin

    return {f"{name}{twin}": begin_of(name) for name in methods for twin in ("", "_async")}


def _sent(hooked: HookedCall, call: Call, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, with the request as the interceptors left it."""
    if not hooked.is_changed(call):
        return dict(given)
    body = dict(call.request)
    body.pop("stream", None)
    return {**{name: value for name, value in given.items() if name in _NOT_BODY}, **body}
