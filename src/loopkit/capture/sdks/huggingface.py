"""huggingface_hub's inference clients: their chat, whoever serves it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from loopkit.capture import slot
from loopkit.capture.chain import Call, Interceptor, must_see
from loopkit.capture.dialects._protocol import Conversation
from loopkit.capture.dialects.known import HUGGING_FACE_CHAT
from loopkit.capture.hooked import HookedCall
from loopkit.capture.hooked import begin as begin_call
from loopkit.capture.providers import provider_at, provider_known_as
from loopkit.capture.readable import once
from loopkit.capture.sdks._protocol import Begin, Begun, Patched, Undo, all_undone, replace_methods

_ROUTER = "https://router.huggingface.co"
_ITSELF = (None, "auto", "hf-inference")
"""What the client calls its provider where that isn't another company."""


class HuggingFace(Patched):
    """See `Sdk`."""

    name = "huggingface"
    module = "huggingface_hub.inference._client"
    extra = "huggingface"
    conversation: Conversation | None = HUGGING_FACE_CHAT

    def knows(self, client: Any) -> bool:
        """See `Sdk.knows`."""
        return any(cls.__module__.startswith("huggingface_hub.inference.") for cls in type(client).__mro__)

    def wrap(self, client: Any, interceptors: tuple[Interceptor, ...], provider: str | None) -> None:
        """See `Sdk.wrap`."""
        begins = {"chat_completion": _begin_of(interceptors, provider)}
        self.remember(client, replace_methods(client, begins, is_guarded=must_see(interceptors)))

    def patch(self, module: Any) -> Undo:
        """See `Sdk.patch`."""
        twin: Any = import_module("huggingface_hub.inference._generated._async_client")
        begins = {"chat_completion": _begin_of((), None)}
        return all_undone(replace_methods(cls, begins) for cls in (module.InferenceClient, twin.AsyncInferenceClient))


def _begin_of(interceptors: tuple[Interceptor, ...], provider: str | None) -> Begin:
    def begin(client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Begun | None:
        if slot.recorder is None and not interceptors:
            return None
        given = {**dict(zip(("messages",), args, strict=False)), **kwargs}
        place = str(client.model) if str(client.model).startswith("http") else None
        given = {name: once(value) for name, value in given.items()}  # sent as it was read
        asked = {name: value for name, value in given.items() if value is not None and name != "extra_body"}
        asked.update(given.get("extra_body") or {})  # which the SDK puts over the rest
        if place is None and client.model:
            asked.setdefault("model", client.model)
        hooked = begin_call(
            HUGGING_FACE_CHAT, provider or _served_by(client, place), asked, stream=bool(given.get("stream")),
            interceptors=interceptors, server=place or _ROUTER,
        )  # fmt: skip
        return Begun(hooked, lambda call: _sent(hooked, call, given), hooked.received)

    return begin


def _served_by(client: Any, place: str | None) -> str:
    if place is not None:
        return provider_at(place) or "hugging_face"
    named = client.provider
    return "hugging_face" if named in _ITSELF else provider_known_as(str(named).replace("-", "_"))


def _sent(hooked: HookedCall, call: Call, given: Mapping[str, Any]) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """The arguments, with the request as the interceptors left it."""
    if not hooked.is_changed(call):
        return (), given
    own: Mapping[str, Any] = given.get("extra_body") or {}
    changed = {name: value for name, value in call.request.items() if name not in own}
    changed |= {name: given[name] for name in own if name in given}
    return (), {**changed, "extra_body": {name: call.request.get(name) for name in own}} if own else changed
