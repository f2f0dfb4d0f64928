"""Policies for routers: `from loopkit import policies`."""

from __future__ import annotations

from loopkit.route.bandits import best, linucb, thompson
from loopkit.route.learned import learned, semantic
from loopkit.route.named import policy_of
from loopkit.route.policy import Arm, Ask, Odds, explore, weights
from loopkit.route.source import Logged

__all__ = [
    "Arm",
    "Ask",
    "Logged",
    "Odds",
    "best",
    "explore",
    "learned",
    "linucb",
    "policy_of",
    "semantic",
    "thompson",
    "weights",
]
