"""Checks for guards: `from loopkit import checks`."""

from __future__ import annotations

from loopkit.guard.check import injection, passes, pii, secrets

__all__ = ["injection", "passes", "pii", "secrets"]
