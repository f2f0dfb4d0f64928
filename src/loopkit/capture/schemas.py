"""What shape a call's answer was asked to have: what a correction of it is held against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from loopkit.capture.dialects._content import mapping

Schema = Mapping[str, Any]
"""A JSON schema."""

_KEPT: Final = 1024
_PLACES: Final = (
    ("response_format", "json_schema", "schema"),  # OpenAI's chat and who speaks it
    ("response_format", "json_schema"),  # Cohere
    ("response_format", "schema"),
    ("text", "format", "schema"),  # OpenAI's responses
    ("output_config", "format", "schema"),  # Anthropic
    ("output_format", "schema"),
    ("generationConfig", "responseJsonSchema"),  # Google
    ("format",),  # Ollama
)
"""Where providers' requests say it."""
_NAMES: Final = frozenset(first for first, *_ in _PLACES)
_KEYWORDS: Final = frozenset(("type", "$ref", "properties", "anyOf", "oneOf", "allOf", "enum", "const"))
"""One of which is in every schema that asks for something."""


def schema_in(request: Mapping[str, Any]) -> Schema | None:
    """The schema that a provider's request asks the answer to have; None where it asks for none."""
    if _NAMES.isdisjoint(request):
        return None
    for first, *rest in _PLACES:
        found = mapping(request.get(first))
        for name in rest:
            found = mapping(found.get(name))
        if not _KEYWORDS.isdisjoint(found) and found.get("type") not in _FORMATS:
            return found
    return None


_FORMATS: Final = ("json_schema", "json_object", "text", "grammar")
"""What `type` says of a format, which is no schema yet."""


class Schemas:
    """Those of this process's latest calls, by the ids of spans and responses."""

    def __init__(self) -> None:
        self._known: dict[str, Schema] = {}

    def remember(self, schema: Schema, names: Iterable[str | None]) -> None:
        """An answer that goes by these names was to have this shape."""
        known = self._known
        for name in names:
            if name is not None:
                known[name] = schema
        while len(known) > _KEPT:
            try:
                known.pop(next(iter(known)), None)
            except (RuntimeError, StopIteration):  # other threads add to it meanwhile
                break

    def find(self, name: str) -> Schema | None:
        """Of the call that goes by this name; None where it isn't known here."""
        return self._known.get(name)
