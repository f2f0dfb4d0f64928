"""Tuners: `from loopkit import tuners`."""

from __future__ import annotations

from loopkit.tuning.adapters import Cascade, FewShot, Nearest, Vote, best_prompt

__all__ = ["Cascade", "FewShot", "Nearest", "Vote", "best_prompt"]
