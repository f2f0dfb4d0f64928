"""What holds for many calls, user, session, tags and metadata: our key in OpenTelemetry's context."""

from __future__ import annotations

import contextvars
import functools
import inspect
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, ParamSpec, TypeVar

from opentelemetry import context as otel_context

from loopkit import _host
from loopkit.capture.snapshot import plain_copy
from loopkit.errors import InvalidInput
from loopkit.types import JSON

P = ParamSpec("P")
R = TypeVar("R")

Less = Literal["off", "local"]
"""Nowhere, or into the local store alone."""
_KEY = otel_context.create_key("loopkit-ambient")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ambient:
    """What the spans started here inherit. One is equal to itself alone: what is made of it is kept by identity."""

    user_id: str | None = None
    session_id: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, JSON] = field(default_factory=dict[str, JSON])
    content: Less | None = None
    """How far what is said may go, where that is less far than the settings have it."""


NOTHING = Ambient()
TAG_LIMIT = 200


@contextmanager
def context(
    *,
    user_id: str | None = None,
    session_id: str | None = None,
    tags: Iterable[str] = (),
    content: str | None = None,
    **metadata: JSON,
) -> Generator[None]:
    """Set what holds for every call inside the block, added to what holds outside it.

    Top-level metadata become `key:value` tags (a bare tag where the value is None), and such a tag is a join
    key: `with loopkit.context(order="4432")` lets feedback name the target `order:4432` tomorrow.
    `content` keeps what is said in these calls nearer than `init(content=)` would: "local" in the local store, "off"
    nowhere. Follows into asyncio tasks and `asyncio.to_thread`; for threads and executors see `carried`.
    """
    merged = ambient()
    less = check_less(content)
    with _host.Shielded("context()"):
        merged = _merge(user_id, session_id, tags, metadata, less)
    token = otel_context.attach(otel_context.set_value(_KEY, merged))
    try:
        yield
    finally:
        otel_context.detach(token)


def ambient(ctx: otel_context.Context | None = None) -> Ambient:
    """What holds here."""
    found = otel_context.get_value(_KEY, ctx)
    return found if isinstance(found, Ambient) else NOTHING


def carried(function: Callable[P, R]) -> Callable[P, R]:
    """The function, to be run elsewhere with what holds here: the current span, user, session, tags.

    Threads and executors don't take it along by themselves; asyncio's tasks and `asyncio.to_thread` do. A coroutine
    function may be run by another event loop. Raises `InvalidInput` for a generator function: carry what iterates.

        executor.submit(loopkit.carried(work), item)
        threading.Thread(target=loopkit.carried(work)).start()
    """
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidInput(f"carried() got the generator function {function!r}: carry what iterates over it")
    here = contextvars.copy_context()
    if any(map(inspect.iscoroutinefunction, (function, type(function).__call__))):

        @functools.wraps(function)
        async def arun(*args: P.args, **kwargs: P.kwargs) -> Any:
            import asyncio  # takes long, and whoever awaits this has it

            loop = asyncio.get_running_loop()
            made: Any = function(*args, **kwargs)
            return await here.copy().run(loop.create_task, made)  # a task keeps its context

        return arun  # type: ignore[return-value]  # what it gives is awaitable, as the function's

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        return here.copy().run(function, *args, **kwargs)  # a context can be entered once at a time

    return run


def check_less(content: Any) -> Less | None:
    """What a call's content may be set to. Raises `InvalidInput` for the rest."""
    if content is None or content == "off" or content == "local":
        return content  # type: ignore[no-any-return]  # mypy doesn't narrow Any by equality
    raise InvalidInput(f"content is {content!r}: a call's may be 'off' or 'local', less than init() allows")


def less_of(one: Less | None, other: Less | None) -> Less | None:
    """The stricter of two."""
    return "off" if "off" in (one, other) else one or other


def both(above: Ambient | None, here: Ambient) -> Ambient:
    """What a framework's span above has, and what holds where the call is made: that goes before."""
    if above is None or above is here or above is NOTHING:
        return here
    if here is NOTHING:
        return above
    return Ambient(
        user_id=here.user_id or above.user_id,
        session_id=here.session_id or above.session_id,
        tags=tuple(dict.fromkeys((*above.tags, *here.tags))),
        metadata={**above.metadata, **here.metadata},
        content=less_of(here.content, above.content),
    )


def holding(found: Ambient | None, ctx: otel_context.Context | None = None) -> otel_context.Context:
    """A context in which that holds."""
    if found is None:
        return otel_context.get_current() if ctx is None else ctx
    return otel_context.set_value(_KEY, found, ctx)


def tags_of(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Top-level metadata as tags."""
    return tuple(key if value is None else f"{key}:{value}"[:TAG_LIMIT] for key, value in metadata.items())


def _merge(
    user_id: str | None,
    session_id: str | None,
    tags: Iterable[str],
    metadata: Mapping[str, JSON],
    content: Less | None,
) -> Ambient:
    outer = ambient()
    plain = plain_copy(metadata)
    return Ambient(
        user_id=_text("user_id", user_id) or outer.user_id,
        session_id=_text("session_id", session_id) or outer.session_id,
        tags=tuple(dict.fromkeys((*outer.tags, *_tag_list(tags), *tags_of(plain)))),
        metadata={**outer.metadata, **plain},
        content=less_of(content, outer.content),
    )


def _text(name: str, value: Any) -> str | None:
    """Ids are strings; an int is one person's id as good as any, so it is taken as its digits."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, int):
        _host.warn_once(f"context({name})", f"{name} is {value!r}, not a string: its text is recorded")
    return str(value)


def _tag_list(tags: Any) -> tuple[str, ...]:
    if isinstance(tags, str):
        _host.warn_once("context(tags)", f"tags is the string {tags!r}, not a list of strings: taken as one tag")
        return (tags,)
    return tuple(str(tag) for tag in tags)
