"""How much of the processor recording may take, and what it leaves out where it would take more.

First content: spans go on without what was said in them. Then spans: at each further level half as many traces are
recorded as before, and bear that probability, so that figures stay true.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from loopkit import _host

_PERIOD = 2.0
"""Seconds between looks."""
_HIGHEST = 8
_CALM = 0.25
"""Below this part of the budget there is room for the next lower level, which may cost twice as much."""


class Budget:
    """Looked at by the worker after each batch; its level is read by every call."""

    def __init__(self, share: float, spent: Callable[[], float], now: Callable[[], float] = time.monotonic) -> None:
        """`spent` gives the seconds of processor time that recording has taken so far, all of its threads together."""
        self.level = 0
        """0 records all, 1 leaves out content, n records one trace in 2 ** (n - 1)."""
        self.share = 0.0
        """Of one processor, at the last look."""
        self._limit = share
        self._spent = spent
        self._now = now
        self._last = (now(), spent())

    @property
    def sampling(self) -> float:
        """The probability with which a trace is recorded at this level."""
        return 1.0 if self.level < 2 else 0.5 ** (self.level - 1)

    def reset(self) -> None:
        """Begin anew, as a forked child does."""
        self.level = 0
        self._last = (self._now(), self._spent())

    def look(self) -> None:
        """Raise or lower the level by what was spent since the last look."""
        now, (before, spent_before) = self._now(), self._last
        if now - before < _PERIOD:
            return
        spent = self._spent()
        self._last = now, spent
        self.share = (spent - spent_before) / (now - before)
        if self.share > self._limit and self.level < _HIGHEST:
            self.level += 1
            left_out = "content is" if self.level == 1 else f"content and {1 - self.sampling:.0%} of the traces are"
            _host.warn_now_and_then(
                "budget",
                f"recording takes {self.share:.0%} of a processor, more than its budget of {self._limit:.0%}: "
                f"{left_out} left out until it takes less",
            )
        elif self.level and self.share < self._limit * _CALM:
            self.level = max(self.level - int((now - before) / _PERIOD), 0)
            if not self.level:
                _host.logger.warning("loopkit: recording is within its budget again: everything is recorded")
