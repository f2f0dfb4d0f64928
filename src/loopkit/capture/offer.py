"""A span that a framework has started for the model call it is about to make: offered to the hook below it, once.

A framework's callbacks often can't make their span current, since they run in another context than the call and can't
put back what was there before. What they can do is leave it where the call finds it.
"""

from __future__ import annotations

from contextvars import ContextVar

from loopkit.capture.live import LiveSpan


class Offer:
    """Taken by the first call that finds it. One that is over is not taken any more: an old one harms nobody."""

    __slots__ = ("_left",)

    def __init__(self, live: LiveSpan) -> None:
        self._left: list[LiveSpan] = [live]

    def take(self) -> LiveSpan | None:
        """The span, for one taker; None where it is gone or has ended."""
        try:
            live = self._left.pop()  # atomic
        except IndexError:
            return None
        return live if live.is_recording() and live.exchange is None else None


offered: ContextVar[Offer | None] = ContextVar("loopkit-offered", default=None)
"""What is on offer here."""


def take_offer() -> LiveSpan | None:
    """The span that is on offer here, if there is one."""
    offer = offered.get()
    return None if offer is None else offer.take()
