"""Policies for routers: `from loopkit import policies`."""

from __future__ import annotations

from loopkit.route.policy import sticky, weights

__all__ = ["sticky", "weights"]
