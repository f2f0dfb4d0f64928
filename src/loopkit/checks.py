"""Checks for guards: `from loopkit import checks`."""

from __future__ import annotations

from loopkit.guard.answers import valid_json
from loopkit.guard.check import Check, Seen, Trip
from loopkit.guard.functions import passes
from loopkit.guard.injection import injection
from loopkit.guard.leaks import canary, leakage
from loopkit.guard.limits import length, rate
from loopkit.guard.links import exfiltration, urls
from loopkit.guard.lists import banned
from loopkit.guard.spans import pii, secrets
from loopkit.guard.tools import tools
from loopkit.guard.unseen import invisible
from loopkit.guard.weights import Weights

__all__ = [
    "Check",
    "Seen",
    "Trip",
    "Weights",
    "banned",
    "canary",
    "exfiltration",
    "injection",
    "invisible",
    "leakage",
    "length",
    "passes",
    "pii",
    "rate",
    "secrets",
    "tools",
    "urls",
    "valid_json",
]
