"""Templates: `{name}` stands for an input, `{{` and `}}` for braces. Nothing else is evaluated.

Unlike `str.format` a template reaches no attributes and no items, so inputs can't pull secrets out of objects.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from loopkit.errors import InvalidInput

_TOKEN = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}|[{}]")


def fields(template: str) -> tuple[str, ...]:
    """The inputs that a template asks for, in order. Raises `InvalidInput` for a brace that stands alone."""
    names: dict[str, None] = {}
    for match in _TOKEN.finditer(template):
        if match.group() in "{}":
            near = template[max(match.start() - 20, 0) : match.end() + 20]
            raise InvalidInput(f"the template has a lone brace near {near!r}: write {{{{ or }}}} for a brace itself")
        if match.group(1):
            names[match.group(1)] = None
    return tuple(names)


def render(template: str, inputs: Mapping[str, Any]) -> str:
    """The template with the inputs put in; what is not a string goes in as JSON.

    Raises `InvalidInput` naming the inputs that are missing.
    """
    missing = [name for name in fields(template) if name not in inputs]
    if missing:
        given = ", ".join(map(repr, inputs)) or "none"
        raise InvalidInput(f"the template needs {', '.join(map(repr, missing))}; given: {given}")

    def put(match: re.Match[str]) -> str:
        if match.group(1) is None:
            return match.group()[0]
        value = inputs[match.group(1)]
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)

    return _TOKEN.sub(put, template)


@functools.lru_cache(maxsize=256)
def version(prompt: str, system: str | None = None) -> str:
    """Eight hex digits that change with the text of the template, or of the system message that goes with it."""
    text = prompt if system is None else f"{system}\0{prompt}"
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:8]
