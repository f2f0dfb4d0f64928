"""Redaction of JSON values and texts: by the user's function, or by the built-in patterns."""

from __future__ import annotations

import functools
import json
from typing import Any

from loopkit.config import Redactor, Settings
from loopkit.detect.patterns import may_hold
from loopkit.detect.patterns import redact as redact_patterns
from loopkit.wire.messages import dumps


def redactor(settings: Settings) -> Redactor:
    """The user's, else the built-in patterns. What the user's gives back must be a text."""
    own = settings.redact
    if own is None:
        return redact_patterns

    def checked(text: str) -> str:
        cleaned = own(text)
        if not isinstance(cleaned, str):
            raise TypeError(f"the redactor gave back {type(cleaned).__name__}, not a text")
        return cleaned

    return checked


def redact_value(value: Any, redact: Redactor) -> Any:
    """A JSON value with every text in it redacted, keys and long numbers too.

    A text that is JSON itself (a tool call's arguments) is redacted inside, where no escape stands in the way.
    """
    if isinstance(value, str):
        return _redact_text(value, redact)
    inside: Any = value  # isinstance makes `value` a dict of unknown types; this stays Any
    if isinstance(value, dict):
        return {redact(str(key)): redact_value(item, redact) for key, item in inside.items()}
    if isinstance(value, (list, tuple)):
        return [redact_value(item, redact) for item in inside]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**12:
        cleaned = redact(str(value))
        return value if cleaned == str(value) else cleaned
    return value


def _redact_text(text: str, redact: Redactor) -> str:
    if text[:1] in ("{", "["):
        try:
            inner = json.loads(text)
        except (ValueError, RecursionError):
            return redact(text)
        cleaned = redact_value(inner, redact)
        # where nothing was found inside, the text itself may still hold something: a key that is there twice
        return redact(text) if cleaned == inner else dumps(cleaned)
    return redact(text)


def redacted(text: str, redact: Redactor) -> str:
    """A JSON text with every value in it redacted.

    Where the built-in patterns' prefilter says that nothing can be in it, nothing needs walking. A user's own redactor
    sees every text by itself.
    """
    if redact is redact_patterns and not may_hold(text):
        return text
    return dumps(redact_value(json.loads(text), redact))


@functools.lru_cache(maxsize=1024)
def known_name(name: str) -> str:
    """Names repeat."""
    return redact_patterns(name)
