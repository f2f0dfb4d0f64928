"""Checks for guards: `from loopkit import checks`."""

from __future__ import annotations

from loopkit.guard.answers import valid_json
from loopkit.guard.check import Check, Seen, Trip
from loopkit.guard.functions import passes
from loopkit.guard.grounding import grounded
from loopkit.guard.injection import injection
from loopkit.guard.languages import language
from loopkit.guard.leaks import canary, leakage
from loopkit.guard.likeness import labelled, similar, toxicity
from loopkit.guard.limits import budget, length, rate
from loopkit.guard.links import exfiltration, urls
from loopkit.guard.lists import banned, required
from loopkit.guard.matches import matches
from loopkit.guard.recognised import presidio
from loopkit.guard.remote import http, judge, llama_guard
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
    "budget",
    "canary",
    "exfiltration",
    "grounded",
    "http",
    "injection",
    "invisible",
    "judge",
    "labelled",
    "language",
    "leakage",
    "length",
    "llama_guard",
    "matches",
    "passes",
    "pii",
    "presidio",
    "rate",
    "required",
    "secrets",
    "similar",
    "tools",
    "toxicity",
    "urls",
    "valid_json",
]
