"""google-genai: four methods of one API client are under everything but its interactions and live sessions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from loopkit.capture import slot
from loopkit.capture.chain import Call, Interceptor, must_see
from loopkit.capture.dialects._content import objects
from loopkit.capture.dialects._protocol import Conversation, Dialect
from loopkit.capture.dialects.known import GENERATE_CONTENT, GOOGLE_EMBEDDINGS
from loopkit.capture.hooked import HookedCall
from loopkit.capture.hooked import begin as begin_call
from loopkit.capture.sdks._protocol import Begin, Begun, Patched, Undo, replace_methods, with_argument

_OPERATIONS: Mapping[str, Dialect] = {
    "generateContent": GENERATE_CONTENT,
    "streamGenerateContent": GENERATE_CONTENT,
    "batchEmbedContents": GOOGLE_EMBEDDINGS,
    "embedContent": GOOGLE_EMBEDDINGS,
}
_ARGUMENTS = ("http_method", "path", "request_dict", "http_options")


class GoogleGenAI(Patched):
    """See `Sdk`."""

    name = "google-genai"
    module = "google.genai._api_client"
    extra = "google"
    conversation: Conversation | None = GENERATE_CONTENT

    def knows(self, client: Any) -> bool:
        """See `Sdk.knows`."""
        mro = type(client).__mro__
        return any(cls.__module__ == "google.genai.client" for cls in mro) and hasattr(client, "_api_client")

    def patched(self, client: Any) -> Any:
        """See `Patched.patched`."""
        return client._api_client

    def wrap(self, client: Any, interceptors: tuple[Interceptor, ...], provider: str | None) -> None:
        """See `Sdk.wrap`."""
        begins = _methods(interceptors, provider)
        self.remember(client, replace_methods(client._api_client, begins, is_guarded=must_see(interceptors)))

    def patch(self, module: Any) -> Undo:
        """See `Sdk.patch`."""
        return replace_methods(module.BaseApiClient, _methods((), None))


def _methods(interceptors: tuple[Interceptor, ...], provider: str | None) -> dict[str, Begin]:
    def begin(api: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Begun | None:
        given = {**dict(zip(_ARGUMENTS, args, strict=False)), **kwargs}
        method, path, body = given["http_method"], given["path"], given["request_dict"]
        model, _, operation = path.partition("?")[0].rpartition(":")
        dialect = _OPERATIONS.get(operation) or (_predicts(body) if operation == "predict" else None)
        if dialect is None or method != "post" or (slot.recorder is None and not interceptors):
            return None
        streams = operation == "streamGenerateContent"
        asked = {"model": model.rpartition("/")[2], **{k: v for k, v in body.items() if not k.startswith("_")}}
        if streams:
            asked["stream"] = True
        served = provider or ("gcp.vertex_ai" if api.vertexai else "gcp.gemini")
        server = getattr(getattr(api, "_http_options", None), "base_url", None)
        hooked = begin_call(dialect, served, asked, stream=streams, interceptors=interceptors, server=server)
        return Begun(
            hooked,
            lambda call: with_argument(_ARGUMENTS, "request_dict", _sent(hooked, call, body), args, kwargs),
            hooked.received if streams else _received(hooked),
        )

    return dict.fromkeys(("request", "request_streamed", "async_request", "async_request_streamed"), begin)


def _sent(hooked: HookedCall, call: Call, body: Any) -> Any:
    """The SDK's own dict, with the request as the interceptors left it."""
    if not hooked.is_changed(call):
        return body
    own = {name: value for name, value in body.items() if name.startswith("_")}
    return {**own, **{name: value for name, value in call.request.items() if name not in ("model", "stream")}}


def _received(hooked: HookedCall) -> Callable[[Any], Any]:
    """What the SDK reads is an HTTP response; a guard may answer with what the application gets, which becomes one."""

    def received(result: Any) -> Any:
        if hasattr(result, "candidates") and not hasattr(result, "body"):
            types: Any = import_module("google.genai.types")
            result = types.HttpResponse(headers={}, body=result.model_dump_json(by_alias=True, exclude_none=True))
        return hooked.received_whole(result)

    return received


def _predicts(body: Any) -> Dialect | None:
    """Vertex AI's predict is for much: where it has texts to embed, they are called content."""
    instances = objects(body.get("instances"))
    return GOOGLE_EMBEDDINGS if instances and "content" in instances[0] else None
