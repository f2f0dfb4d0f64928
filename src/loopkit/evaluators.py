"""Evaluators that ship: `from loopkit import evaluators`."""

from __future__ import annotations

from loopkit.evals.scoring import contains, exact, same_json
from loopkit.signals.credit import FirstWrongStep

__all__ = ["FirstWrongStep", "contains", "exact", "same_json"]
