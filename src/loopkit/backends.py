"""Destinations for well-known backends: `from loopkit import backends`."""

from __future__ import annotations

from loopkit.export.presets import (
    braintrust,
    collector,
    datadog,
    honeycomb,
    langfuse,
    langsmith,
    logfire,
    mlflow,
    phoenix,
)

__all__ = [
    "braintrust",
    "collector",
    "datadog",
    "honeycomb",
    "langfuse",
    "langsmith",
    "logfire",
    "mlflow",
    "phoenix",
]
