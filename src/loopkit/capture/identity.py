"""Which span an object came from: a response in the application's hands leads back to its span.

By identity, through weak references, in the process that made the object.
"""

from __future__ import annotations

import weakref
from typing import Any


class Identities:
    """Objects to span ids. Objects that can't be referenced weakly are not remembered."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Any], str]] = {}

    def remember(self, thing: Any, span_id: str) -> None:
        """From now on `find(thing)` gives `span_id`, as long as the object lives."""
        key = id(thing)
        known = self._known
        try:
            known[key] = (weakref.ref(thing, lambda _: known.pop(key, None)), span_id)
        except TypeError:
            return

    def find(self, thing: Any) -> str | None:
        """The span that this very object came from."""
        found = self._known.get(id(thing))
        return found[1] if found is not None and found[0]() is thing else None
