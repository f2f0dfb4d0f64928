"""Evaluators that ship: `from loopkit import evaluators`."""

from __future__ import annotations

from loopkit.evals.scoring import contains, exact, same_json

__all__ = ["contains", "exact", "same_json"]
