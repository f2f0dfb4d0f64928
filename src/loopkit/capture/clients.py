"""`wrap` and `unwrap`: the client that an application has, recorded."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TypeVar

from loopkit._plugins import named
from loopkit.capture.chain import IncludeUsage, Interceptor, chained
from loopkit.capture.sdks.known import SDKS, sdk_of
from loopkit.errors import InvalidInput, UnsupportedClient

Client = TypeVar("Client")
_wrapping = threading.Lock()


def wrap(
    client: Client,
    *,
    guard: Interceptor | None = None,
    interceptors: Iterable[Interceptor | str] = (),
    provider: str | None = None,
    include_usage: bool = False,
) -> Client:
    """Record every model call that goes through this client; gives back the same object.

    Sync and async clients, streams, raw responses, parsed ones and stream helpers are each recorded exactly
    once, and copies made by `with_options()` too. Wrapping twice changes nothing. An interceptor may be named: an
    installed package's plugin (entry points `loopkit.interceptors`). `provider` names who serves it, where neither the
    client's class nor its base URL tells: "vllm", say. `include_usage` asks for the usage of OpenAI's streams, which
    then end with one more chunk, without choices; a stream without it has no usage, since none is guessed.

        client = loopkit.wrap(OpenAI())
        client = loopkit.wrap(OpenAI(), guard=loopkit.Guard(input=[checks.pii()]))
    """
    sdk = sdk_of(client)
    if sdk is None:
        raise _unsupported(client)
    plugins = [named("interceptors", i, {})() if isinstance(i, str) else i for i in interceptors]
    chain = tuple(plugins) if guard is None else (guard, *plugins)
    if include_usage:
        chain = (*chain, IncludeUsage())
    check_interceptors(chain)
    with _wrapping:
        if not sdk.is_wrapped(client):
            sdk.wrap(client, chained(chain), provider)
        elif chain:
            raise InvalidInput("this client is wrapped already: unwrap() it first, then give wrap() what it is to do")
    return client


def unwrap(client: Client) -> Client:
    """Give the client its own class back; a client that isn't wrapped is left as it is."""
    sdk = sdk_of(client)
    if sdk is None:
        return client
    with _wrapping:
        if sdk.is_wrapped(client):
            sdk.unwrap(client)
    return client


def check_interceptors(chain: Iterable[object]) -> None:
    """Refuse what has no `around`."""
    for interceptor in chain:
        if not callable(getattr(interceptor, "around", None)):
            raise InvalidInput(f"{interceptor!r} is no interceptor: it has no method around(call)")


def _unsupported(client: object) -> UnsupportedClient:
    kind = type(client)
    known = ", ".join(sdk.name for sdk in SDKS)
    return UnsupportedClient(
        f"wrap() got a {kind.__module__}.{kind.__qualname__}; it knows the clients of: {known}. For others call "
        "loopkit.record_model_call() when you have the answer, or decorate the function with @loopkit.trace"
    )
