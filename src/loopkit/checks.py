"""Checks for guards: `from loopkit import checks`."""

from __future__ import annotations

from loopkit.guard.check import Check, Seen, Trip
from loopkit.guard.functions import passes
from loopkit.guard.injection import injection
from loopkit.guard.spans import pii, secrets

__all__ = ["Check", "Seen", "Trip", "injection", "passes", "pii", "secrets"]
