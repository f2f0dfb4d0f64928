"""From log-odds to a probability."""

from __future__ import annotations

import math


def logistic(value: float) -> float:
    """Between 0 and 1, and never quite either: beyond 30 it stays where it is."""
    return 1 / (1 + math.exp(-max(min(value, 30.0), -30.0)))
