"""cohere: the methods of its second API's raw clients, which all its clients call."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from types import SimpleNamespace
from typing import Any

from loopkit.capture import slot
from loopkit.capture.chain import Call, Interceptor, must_see
from loopkit.capture.dialects._protocol import Conversation, Dialect
from loopkit.capture.dialects.known import COHERE_CHAT, COHERE_EMBED, COHERE_RERANK
from loopkit.capture.hooked import HookedCall
from loopkit.capture.hooked import begin as begin_call
from loopkit.capture.readable import once
from loopkit.capture.sdks._protocol import (
    Begin,
    Begun,
    Patched,
    Undo,
    all_undone,
    hooked_method,
    replace_method,
    replace_methods,
)  # fmt: skip

_METHODS: Mapping[str, Dialect] = {"chat": COHERE_CHAT, "embed": COHERE_EMBED, "rerank": COHERE_RERANK}
_STREAM = "chat_stream"


class Cohere(Patched):
    """See `Sdk`."""

    name = "cohere"
    module = "cohere.v2.raw_client"
    extra = "cohere"
    conversation: Conversation | None = COHERE_CHAT

    def knows(self, client: Any) -> bool:
        """See `Sdk.knows`."""
        return any(cls.__name__ in ("V2Client", "AsyncV2Client") for cls in type(client).__mro__)

    def wrap(self, client: Any, interceptors: tuple[Interceptor, ...], provider: str | None) -> None:
        """See `Sdk.wrap`. A whole client has the second API once more, as `.v2`."""
        again = [client.v2] if hasattr(client, "v2") else []
        self.remember(client, all_undone(_hooked(_raw_of(each), interceptors, provider) for each in (client, *again)))

    def patch(self, module: Any) -> Undo:
        """See `Sdk.patch`."""
        return all_undone(_hooked(cls, (), None) for cls in (module.RawV2Client, module.AsyncRawV2Client))


def _raw_of(client: Any) -> Any:
    """Where the calls are made; a whole client's stands beside the first API's."""
    raw = client._raw_client
    return raw.__dict__.get("_v2", raw)


def _hooked(target: Any, interceptors: tuple[Interceptor, ...], provider: str | None) -> Undo:
    is_guarded = must_see(interceptors)
    begins = {name: _begin_of(dialect, interceptors, provider) for name, dialect in _METHODS.items()}
    begin_stream = _begin_of(COHERE_CHAT, interceptors, provider, streams=True)

    def make(original: Any, is_on: Callable[[], bool]) -> Any:
        is_async = (target if isinstance(target, type) else type(target)).__name__.startswith("Async")

        def begin(raw: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Begun | None:
            return begin_stream(raw, args, kwargs) if is_on() else None

        return (_astream if is_async else _stream)(original, begin, is_guarded=is_guarded)

    return all_undone((replace_methods(target, begins, is_guarded=is_guarded), replace_method(target, _STREAM, make)))


def _stream(original: Any, begin: Begin, *, is_guarded: bool) -> Any:
    """The raw stream is a block; the call is made when it is entered, again where an interceptor asks for it."""

    @contextmanager
    def stream(raw: Any, *args: Any, **kwargs: Any) -> Generator[Any]:
        with ExitStack() as stack:

            def enter(raw: Any, *args: Any, **kwargs: Any) -> Any:
                return stack.enter_context(original(raw, *args, **kwargs))

            response = hooked_method(enter, begin, is_async=False, is_guarded=is_guarded)(raw, *args, **kwargs)
            stack.callback(getattr(response.data, "close", lambda: None))
            yield response

    return stream


def _astream(original: Any, begin: Begin, *, is_guarded: bool) -> Any:
    """The same, awaiting."""

    @asynccontextmanager
    async def stream(raw: Any, *args: Any, **kwargs: Any) -> AsyncGenerator[Any]:
        async with AsyncExitStack() as stack:

            async def enter(raw: Any, *args: Any, **kwargs: Any) -> Any:
                return await stack.enter_async_context(original(raw, *args, **kwargs))

            response = await hooked_method(enter, begin, is_async=True, is_guarded=is_guarded)(raw, *args, **kwargs)
            if hasattr(response.data, "aclose"):
                stack.push_async_callback(response.data.aclose)
            yield response

    return stream


def _begin_of(
    dialect: Dialect, interceptors: tuple[Interceptor, ...], provider: str | None, *, streams: bool = False
) -> Begin:
    def begin(raw: Any, args: tuple[Any, ...], given: Mapping[str, Any]) -> Begun | None:
        if slot.recorder is None and not interceptors:
            return None
        given = {name: once(value) for name, value in given.items()}  # sent as it was read
        body = {k: v for k, v in given.items() if v is not ... and v is not None and k != "request_options"}
        asked = {**body, "stream": True} if streams else body
        server = raw._client_wrapper.get_base_url()
        hooked = begin_call(
            dialect, provider or "cohere", asked, stream=streams, interceptors=interceptors, server=server
        )
        came: list[Any] = []

        def opened(response: Any) -> Any:
            came.append(response)
            return response.data

        def received(data: Any) -> Any:
            given_out = hooked.received(data)
            if not came:  # an interceptor's own answer
                return SimpleNamespace(data=given_out, headers={})
            came[-1]._data = given_out
            hooked.recording.remember(came[-1])
            return came[-1]

        return Begun(hooked, lambda call: (args, _sent(hooked, call, given)), received, opened)

    return begin


def _sent(hooked: HookedCall, call: Call, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments, with the request as the interceptors left it."""
    if not hooked.is_changed(call):
        return given
    body = {name: value for name, value in call.request.items() if name != "stream"}
    return {**given, **body}
