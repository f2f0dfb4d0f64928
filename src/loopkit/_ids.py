"""Ids for spans and events, and the clock: the two edges that tests replace."""

from __future__ import annotations

import os
import random
import threading
import time


class Clock:
    """The wall clock, in nanoseconds since the epoch."""

    def now(self) -> int:
        """The present."""
        return time.time_ns()


class Ids:
    """Random trace and span ids as W3C wants them, and event ids that increase within a process."""

    def __init__(self) -> None:
        self._random = random.Random(os.urandom(16))
        self._lock = threading.Lock()
        self._last = 0

    def trace_id(self) -> int:
        """128 bits, not zero."""
        return self._random.getrandbits(128) or 1

    def span_id(self) -> int:
        """64 bits, not zero."""
        return self._random.getrandbits(64) or 1

    def event_id(self, now: int) -> str:
        """Milliseconds, a counter and 64 random bits as hex: sorts by time, and strictly within a process.

        Laid out as UUID version 7 is (RFC 9562 section 6.2, method 1), without its dashes.
        """
        with self._lock:
            # 16 bits of counter below the milliseconds: 65,536 events in one before it borrows from the next.
            self._last = max(self._last + 1, (now // 1_000_000) << 16)
            stamp = self._last
        return f"{stamp:016x}{self._random.getrandbits(64):016x}"

    def after_fork(self) -> None:
        """A child must not repeat its parent's ids."""
        self._random = random.Random(os.urandom(16))
        self._lock = threading.Lock()


def is_span_id(text: str) -> bool:
    """Whether this is trace id and span id in one string."""
    return len(text) == 49 and text[32] == "-"
