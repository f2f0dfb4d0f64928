"""cohere: the methods of its second API, which its older clients have as `.v2`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from loopkit.capture import slot
from loopkit.capture.chain import Call, Interceptor
from loopkit.capture.dialects._protocol import Conversation, Dialect
from loopkit.capture.dialects.known import COHERE_CHAT, COHERE_EMBED, COHERE_RERANK
from loopkit.capture.hooked import HookedCall
from loopkit.capture.hooked import begin as begin_call
from loopkit.capture.sdks._protocol import Begin, Begun, Patched, Undo, all_undone, plain, replace_methods

_METHODS: Mapping[str, Dialect] = {
    "chat": COHERE_CHAT,
    "chat_stream": COHERE_CHAT,
    "embed": COHERE_EMBED,
    "rerank": COHERE_RERANK,
}
_TURNS = ("messages", "documents", "inputs")


class Cohere(Patched):
    """See `Sdk`. A client keeps its own methods from when it is made: `instrument` reaches those made after it."""

    name = "cohere"
    module = "cohere.v2.client"
    extra = "cohere"
    conversation: Conversation | None = COHERE_CHAT

    def knows(self, client: Any) -> bool:
        """See `Sdk.knows`."""
        return any(cls.__name__ in ("V2Client", "AsyncV2Client") for cls in type(client).__mro__)

    def wrap(self, client: Any, interceptors: tuple[Interceptor, ...], provider: str | None) -> None:
        """See `Sdk.wrap`."""
        self.remember(client, replace_methods(client, _begins(interceptors, provider), is_guarded=bool(interceptors)))

    def patch(self, module: Any) -> Undo:
        """See `Sdk.patch`."""
        begins = _begins((), None)
        return all_undone(replace_methods(cls, begins) for cls in (module.V2Client, module.AsyncV2Client))


def _begins(interceptors: tuple[Interceptor, ...], provider: str | None) -> dict[str, Begin]:
    def begin_of(name: str, dialect: Dialect) -> Begin:
        def begin(client: Any, args: tuple[Any, ...], given: Mapping[str, Any]) -> Begun | None:
            if slot.recorder is None and not interceptors:
                return None
            read = {name: list(given[name]) for name in _TURNS if isinstance(given.get(name), Iterator)}
            given = {**given, **read}  # what can be gone through once is sent as it was read
            body = {k: v for k, v in given.items() if v is not ... and v is not None and k != "request_options"}
            for turns in _TURNS:
                if turns in body:
                    body[turns] = [plain(each) for each in body[turns]]
            streams = name == "chat_stream"
            asked = {**body, "stream": True} if streams else body
            server = client._raw_client._client_wrapper.get_base_url() if hasattr(client, "_raw_client") else None
            hooked = begin_call(
                dialect, provider or "cohere", asked, stream=streams, interceptors=interceptors, server=server
            )
            return Begun(hooked, lambda call: (args, _sent(hooked, call, given)), hooked.received)

        return begin

    return {name: begin_of(name, dialect) for name, dialect in _METHODS.items()}


def _sent(hooked: HookedCall, call: Call, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments, with the request as the interceptors left it."""
    if not hooked.is_changed(call):
        return given
    body = {name: value for name, value in call.request.items() if name != "stream"}
    return {**given, **body}
