"""Tags and metadata that a stored span is given afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from loopkit._ids import is_span_id
from loopkit.capture.ambient import tags_of
from loopkit.capture.snapshot import plain_copy
from loopkit.errors import InvalidInput, NotFound
from loopkit.signals.say import target_of
from loopkit.store.locate import open_store
from loopkit.store.sqlite import Store
from loopkit.types import JSON, Feedback


def annotate(
    target: Any,
    *,
    tags: Iterable[str] = (),
    metadata: Mapping[str, JSON] | None = None,
    replace: bool = False,
    store: Store | None = None,
) -> None:
    """Add tags and metadata to a stored span, or with `replace` put them in the place of its own.

    `target` is what feedback takes: a span's handle or id, a provider's response or its id, a join key. As in
    `context`, metadata become `key:value` tags, a bare tag where the value is None. The span that was exported is not
    changed: others have had it.

        loopkit.annotate(response, tags=["reviewed"], metadata={"order": "4432"})

    Raises `NotFound` for a span that isn't in the store, `InvalidInput` for tags that are no list of strings.
    """
    given: list[Any] = list(tags) if not isinstance(tags, str) else [None]
    if not all(isinstance(tag, str) and tag for tag in given):
        raise InvalidInput(f"tags is {tags!r}: give a list of non-empty strings")
    if not given and not metadata and not replace:
        raise InvalidInput("annotate() has nothing to say: give tags or metadata")
    store = store or open_store()
    named = target_of(target)
    id = store.resolve(Feedback(id="", target=named, name="annotation", at=2**62, arrived_at=2**62))
    if not is_span_id(id):
        raise NotFound(f"no span in {store.path} is known as {named!r}")
    plain = plain_copy(metadata or {})
    store.annotate(id, tags=list(dict.fromkeys((*given, *tags_of(plain)))), metadata=plain, replace=replace)
