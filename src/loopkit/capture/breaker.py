"""A circuit breaker: what keeps failing is left alone for a while, then tried once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class Breaker:
    """Of one thing that may fail. Threads may share it: at worst one try more is made."""

    __slots__ = ("_count", "_failures", "_now", "_rests", "_seconds", "_until")

    def __init__(self, failures: int = 5, seconds: float = 30.0, now: Callable[[], float] = time.monotonic) -> None:
        self._failures = failures
        self._seconds = seconds
        self._now = now
        self._count = 0
        self._until = 0.0
        self._rests = 0.0
        """Until when it was told to be left alone, whatever works meanwhile."""

    def is_open(self) -> bool:
        """Whether it is to be left alone now. Once the time is over, one caller is told that it isn't."""
        if self._count < self._failures and not self._rests:
            return False
        now = self._now()
        if now < self._rests:
            return True
        self._rests = 0.0
        if self._count < self._failures:
            return False
        if now < self._until:
            return True
        self._until = now + self._seconds
        return False

    def may_be_asked(self) -> bool:
        """The same, without being told that one may try."""
        return self.waits() <= 0

    def waits(self) -> float:
        """Seconds for which it will be left alone."""
        until = max(self._rests, self._until if self._count >= self._failures else 0.0)
        return max(until - self._now(), 0.0) if until else 0.0

    def rests(self) -> float:
        """Seconds for which it was told to be left alone; infinite where it is left alone because it kept failing."""
        return self.waits() if self._count < self._failures else math.inf

    def rest(self, seconds: float) -> None:
        """Leave it alone for so long, or longer where that was said before."""
        self._rests = max(self._rests, self._now() + seconds)

    def worked(self) -> None:
        """It did."""
        self._count = 0

    def failed(self) -> None:
        """It didn't."""
        self._count += 1
        self._until = self._now() + self._seconds
