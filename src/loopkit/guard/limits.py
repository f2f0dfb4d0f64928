"""How long a text may be, and how often somebody may ask."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, get_args

from loopkit.errors import InvalidInput
from loopkit.guard.check import ALONE, PLAINLY, Action, How, OnError, Seen, Trip, action_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from loopkit.guard.check import Options

Unit = Literal["characters", "words"]
_NO_PLACE: Final = "it finds no place in the text that could be changed"
_MOST_USERS: Final = 100_000


@dataclass(frozen=True, slots=True)
class LengthCheck:
    """Lets texts of a length pass. Fails closed."""

    action: Action
    least: int
    most: int | None
    unit: Unit
    how: How = PLAINLY
    name: str = "length"
    on_error: OnError = "closed"

    def check(self, text: str, seen: Seen = ALONE) -> Trip | None:
        """See `Check.check`."""
        count = len(text) if self.unit == "characters" else len(text.split())
        if self.most is not None and count > self.most:
            told = f"Your answer has {count} {self.unit}. Answer with at most {self.most}."
            return Trip(self.action, f"{count} {self.unit}, where {self.most} may be", told)
        if count < self.least:
            told = f"Your answer has {count} {self.unit}. Answer with at least {self.least}."
            return Trip(self.action, f"{count} {self.unit}, where {self.least} should be", told)
        return None


def length(
    *, most: int | None = None, least: int = 0, unit: Unit = "characters", action: Action = "block",
    **how: Unpack[Options],
) -> LengthCheck:  # fmt: skip
    """Texts of so many characters or words."""
    for name, value in (("most", most), ("least", least)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise InvalidInput(f"{name} is {value!r}: give a number, 0 or more")
    if (most is None and not least) or (most is not None and most < least):
        raise InvalidInput(f"length() got most={most!r} and least={least!r}: every text would pass, or none")
    if unit not in get_args(Unit):
        raise InvalidInput(f"unit is {unit!r}: choose {' or '.join(get_args(Unit))}")
    return LengthCheck(action_of(action, but=("redact", "replace"), why=_NO_PLACE), least, most, unit, How.of(how))


@dataclass(slots=True)
class RateCheck:
    """Lets so many calls a while pass, of each user. Fails closed."""

    action: Action
    calls: int
    seconds: float
    now: Callable[[], float]
    how: How = PLAINLY
    name: str = "rate"
    on_error: OnError = "closed"
    _left: OrderedDict[str | None, tuple[float, float]] = field(default_factory=OrderedDict)
    """Of each user how many calls were left, and when that was."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self, text: str, seen: Seen = ALONE) -> Trip | None:
        """See `Check.check`."""
        user, now = seen.user_id, self.now()
        with self._lock:
            left, at = self._left.pop(user, (float(self.calls), now))
            left = min(left + (now - at) * self.calls / self.seconds, float(self.calls))
            passes = left >= 1
            self._left[user] = (left - 1 if passes else left, now)
            if len(self._left) > _MOST_USERS:
                self._left.popitem(last=False)
        if passes:
            return None
        wait = (1 - left) * self.seconds / self.calls
        return Trip(self.action, f"more than {self.calls} in {self.seconds:g} s; the next in {wait:.1f} s")


def rate(
    calls: int,
    seconds: float,
    *,
    action: Action = "block",
    now: Callable[[], float] = time.monotonic,
    **how: Unpack[Options],
) -> RateCheck:
    """So many texts in so many seconds, of each user of `loopkit.context(user_id=)`, and of all others together; in
    this process. A user who was silent may make all of them at once."""
    if not isinstance(calls, int) or isinstance(calls, bool) or calls < 1:
        raise InvalidInput(f"calls is {calls!r}: give a number, 1 or more")
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or seconds <= 0:
        raise InvalidInput(f"seconds is {seconds!r}: give a number, more than 0")
    return RateCheck(
        action_of(action, but=("redact", "replace"), why=_NO_PLACE), calls, float(seconds), now, How.of(how)
    )
