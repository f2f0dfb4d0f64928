"""The one wrapper that keeps our faults out of the host application.

Whatever goes wrong while recording is warned about once per place and counted; under `strict` (and in our own
tests) it is raised instead.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from types import TracebackType

logger = logging.getLogger("loopkit")

faults: Counter[str] = Counter()
"""How often each place failed, since the process started."""

strict = False


class Shielded:
    """`with Shielded("what"):` suppresses, counts and once reports any `Exception` of ours.

    One reusable object per place: it has no state, so that entering it costs nothing but the call.
    """

    __slots__ = ("place",)

    def __init__(self, place: str) -> None:
        self.place = place

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None or not isinstance(error, Exception):
            return False
        return report(self.place, error)


def report(place: str, error: Exception) -> bool:
    """Count the fault and warn the first time; True where it is to be suppressed."""
    faults[place] += 1
    if strict:
        return False
    if faults[place] == 1:
        logger.warning(
            "loopkit: %s failed and was skipped (%s: %s); further failures here are only counted",
            place, type(error).__name__, error, exc_info=logger.isEnabledFor(logging.DEBUG),
        )  # fmt: skip
    return True


_last: dict[str, float] = {}
_SECONDS = 60.0


def warn_now_and_then(place: str, message: str) -> None:
    """A warning about what may go on for long: counted every time, logged once a minute at most."""
    faults[place] += 1
    now = time.monotonic()
    if now - _last.get(place, -_SECONDS) >= _SECONDS:
        _last[place] = now
        logger.warning("loopkit: %s", message)


def warn_once(place: str, message: str) -> None:
    """A warning that is logged the first time and counted every time."""
    faults[place] += 1
    if faults[place] == 1:
        logger.warning("loopkit: %s", message)
