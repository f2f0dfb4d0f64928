"""Values as people read them, the same on the screen, in reports and in sentences."""

from __future__ import annotations

import json
from typing import Any

from loopkit.types import Variant


def duration(seconds: float) -> str:
    """`1.20 s`, `45 ms`, `0.3 ms`: three digits at most."""
    if seconds >= 0.9995:
        return f"{seconds:.2f} s"
    milliseconds = seconds * 1000
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"


def short(value: Any, limit: int) -> str:
    """A value on one line of at most `limit` characters."""
    if value is None:
        return "–"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def describe(variant: Variant) -> str:
    """A variant in a few words."""
    if variant.stages:
        stages = " then ".join(describe(stage) for stage in variant.stages)
        return f"cascade: {stages}, at confidence {variant.threshold:.2f}"
    if variant.callable is not None:
        return variant.callable
    extra = f" + {len(variant.demonstrations)} demonstrations" if variant.demonstrations else ""
    if variant.retriever is not None:
        extra += f" + {variant.retriever['k']} nearest"
    return f"{variant.model}: {short(variant.prompt, 50)}{extra}"
