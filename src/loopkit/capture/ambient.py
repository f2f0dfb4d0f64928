"""What holds for many calls, user, session, tags and metadata: our key in OpenTelemetry's context."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry import context as otel_context

from loopkit import _host
from loopkit.capture.snapshot import plain_copy
from loopkit.types import JSON

_KEY = otel_context.create_key("loopkit-ambient")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ambient:
    """What the spans started here inherit. One is equal to itself alone: what is made of it is kept by identity."""

    user_id: str | None = None
    session_id: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, JSON] = field(default_factory=dict[str, JSON])


NOTHING = Ambient()
_TAG_LIMIT = 200


@contextmanager
def context(
    *,
    user_id: str | None = None,
    session_id: str | None = None,
    tags: Iterable[str] = (),
    **metadata: JSON,
) -> Generator[None]:
    """Set what holds for every call inside the block, added to what holds outside it.

    Top-level metadata become `key:value` tags (a bare tag where the value is None), and such a tag is a join
    key: `with loopkit.context(order="4432")` lets feedback name the target `order:4432` tomorrow.
    Follows into asyncio tasks and `asyncio.to_thread`; for threads and executors use `contextvars.copy_context`.
    """
    merged = ambient()
    with _host.Shielded("context()"):
        merged = _merge(user_id, session_id, tags, metadata)
    token = otel_context.attach(otel_context.set_value(_KEY, merged))
    try:
        yield
    finally:
        otel_context.detach(token)


def ambient(ctx: otel_context.Context | None = None) -> Ambient:
    """What holds here."""
    found = otel_context.get_value(_KEY, ctx)
    return found if isinstance(found, Ambient) else NOTHING


def holding(found: Ambient | None, ctx: otel_context.Context | None = None) -> otel_context.Context:
    """A context in which that holds."""
    if found is None:
        return otel_context.get_current() if ctx is None else ctx
    return otel_context.set_value(_KEY, found, ctx)


def tags_of(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Top-level metadata as tags."""
    return tuple(key if value is None else f"{key}:{value}"[:_TAG_LIMIT] for key, value in metadata.items())


def _merge(user_id: str | None, session_id: str | None, tags: Iterable[str], metadata: Mapping[str, JSON]) -> Ambient:
    outer = ambient()
    plain = plain_copy(metadata)
    return Ambient(
        user_id=_text("user_id", user_id) or outer.user_id,
        session_id=_text("session_id", session_id) or outer.session_id,
        tags=tuple(dict.fromkeys((*outer.tags, *_tag_list(tags), *tags_of(plain)))),
        metadata={**outer.metadata, **plain},
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
