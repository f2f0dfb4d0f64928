"""Destinations for well-known backends: `from loopkit import backends`."""

from __future__ import annotations

from loopkit.export.presets import collector, datadog, honeycomb, langfuse, logfire, mlflow, phoenix

__all__ = ["collector", "datadog", "honeycomb", "langfuse", "logfire", "mlflow", "phoenix"]
