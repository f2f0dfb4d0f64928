"""Tags and metadata that a stored span is given afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from loopkit._ids import is_span_id
from loopkit.capture import slot
from loopkit.capture.ambient import TAG_LIMIT, tags_of
from loopkit.capture.redact import redact_value, redactor
from loopkit.capture.snapshot import plain_copy
from loopkit.config import settings
from loopkit.errors import InvalidInput, NotFound
from loopkit.signals.targets import target_of
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

    They are redacted as everything else is. Raises `NotFound` for a span that isn't in the store, `InvalidInput` for
    tags that are no list of strings and metadata that are no dict.
    """
    given: Any = tags  # isinstance makes it a container of unknown types; this stays Any
    if not isinstance(tags, (list, tuple, set, frozenset)) or not all(isinstance(tag, str) and tag for tag in given):
        raise InvalidInput(f"tags is {tags!r}: give a list of non-empty strings")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise InvalidInput(f"metadata is {metadata!r}: give a dict")
    if not given and not metadata and not replace:
        raise InvalidInput("annotate() has nothing to say: give tags or metadata")
    store = store or open_store()
    named = target_of(target)
    id = store.resolve(Feedback(id="", target=named, name="annotation", at=2**62, arrived_at=2**62))
    if not is_span_id(id):
        raise NotFound(f"no span in {store.path} is known as {named!r}")
    redact = redactor(settings() if slot.recorder is None else slot.recorder.settings)
    try:
        plain = redact_value(plain_copy(metadata or {}), redact)
        said = [redact(tag) for tag in (*(tag[:TAG_LIMIT] for tag in given), *tags_of(plain))]
    except Exception as error:
        raise InvalidInput(f"tags and metadata could not be redacted, so nothing is kept: {error!r}") from error
    store.annotate(id, tags=list(dict.fromkeys(said)), metadata=plain, anew=replace)
