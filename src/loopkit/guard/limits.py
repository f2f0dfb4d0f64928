"""How long a text may be, how often somebody may ask, and what it may cost."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from loopkit._prices import Price, cost_of, load_prices
from loopkit.capture.chain import Call
from loopkit.errors import InvalidInput
from loopkit.guard.check import ALONE, PLAINLY, Action, How, OnError, Seen, Trip, whole_action
from loopkit.types import ModelCall, Usage

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
    return LengthCheck(whole_action(action, _NO_PLACE), least, most, unit, How.of(how))


class Allowances:
    """What each user has left of something that comes back evenly: all of it in so many seconds. In this process."""

    def __init__(self, most: float, seconds: float, now: Callable[[], float]) -> None:
        self.most = most
        self.seconds = seconds
        self._now = now
        self._left: OrderedDict[str | None, tuple[float, float]] = OrderedDict()
        """Of each user how much was left, and when that was."""
        self._used: deque[tuple[str | None, float, float]] = deque()
        """Not yet taken away. A stream's garbage may be collected amid anything, so that telling takes no lock."""
        self._lock = threading.Lock()

    def used(self, user: str | None, amount: float) -> None:
        """Take so much away, whether it is there or not."""
        self._used.append((user, amount, self._now()))

    def left(self, user: str | None, *, taking: float = 0.0) -> float:
        """What was left; `taking` is taken away where it is there."""
        now = self._now()
        with self._lock:
            while self._used:
                another, amount, then = self._used.popleft()
                then = max(then, self._left.get(another, (0.0, then))[1])
                self._keep(another, self._of(another, then) - amount, then)
            left = self._of(user, now)
            self._keep(user, left - taking if left >= taking else left, now)
        return left

    def wait(self, amount: float) -> float:
        """Seconds until so much has come back."""
        return amount * self.seconds / self.most

    def _of(self, user: str | None, now: float) -> float:
        left, at = self._left.get(user, (self.most, now))
        return min(left + (now - at) * self.most / self.seconds, self.most)

    def _keep(self, user: str | None, left: float, now: float) -> None:
        self._left[user] = (left, now)
        self._left.move_to_end(user)
        if len(self._left) > _MOST_USERS:
            self._left.popitem(last=False)


@dataclass(frozen=True, slots=True)
class RateCheck:
    """Lets so many calls a while pass, of each user. Fails closed."""

    action: Action
    calls: Allowances
    how: How = PLAINLY
    name: str = "rate"
    on_error: OnError = "closed"
    once_a_call: bool = True

    def check(self, text: str, seen: Seen = ALONE) -> Trip | None:
        """See `Check.check`."""
        left = self.calls.left(seen.user_id, taking=1 if seen.records else 0)
        if left >= 1:
            return None
        wait = self.calls.wait(1 - left)
        each = f"more than {self.calls.most:g} in {self.calls.seconds:g} s"
        return Trip(self.action, f"{each}; the next in {wait:.1f} s")


def rate(
    calls: int,
    seconds: float,
    *,
    action: Action = "block",
    now: Callable[[], float] = time.monotonic,
    **how: Unpack[Options],
) -> RateCheck:
    """So many calls in so many seconds, of each user of `loopkit.context(user_id=)`, and of all others together; in
    this process. A user who was silent may make all of them at once. At other stages than "input" it counts texts."""
    if not isinstance(calls, int) or isinstance(calls, bool) or calls < 1:
        raise InvalidInput(f"calls is {calls!r}: give a number, 1 or more")
    action = whole_action(action, _NO_PLACE)
    return RateCheck(action, Allowances(float(calls), _more_than_none("seconds", seconds), now), How.of(how))


@dataclass(frozen=True, slots=True)
class BudgetCheck:
    """Lets calls pass while there is something left, of each user. Fails closed."""

    action: Action
    allowances: Allowances
    prices: Mapping[str, Price] | None
    """By model, where dollars are counted; None where tokens are."""
    how: How = PLAINLY
    name: str = "budget"
    on_error: OnError = "closed"
    once_a_call: bool = True

    def check(self, text: str, seen: Seen = ALONE) -> Trip | None:
        """See `Check.check`."""
        if seen.call is not None and (why := self._why_not(seen.call)) is not None:
            return Trip("flag" if self.how.on_error == "open" else "block", why)
        mine = self.allowances
        left, least = mine.left(seen.user_id), min(1.0, mine.most) if self.prices is None else 0.0
        if left > 0 and left >= least:
            return None
        spent = f"{mine.most:,.0f} tokens" if self.prices is None else f"{mine.most:g} US dollars"
        return Trip(self.action, f"{spent} in {mine.seconds:g} s are spent; more in {mine.wait(least - left):.1f} s")

    def used(self, call: ModelCall, user: str | None) -> None:
        """See `Meter`."""
        if self.prices is None:
            amount = float((call.usage.input_tokens or 0) + (call.usage.output_tokens or 0))
        else:
            amount = self._dollars(call) or 0.0
        self.allowances.used(user, amount)

    def _why_not(self, call: Call) -> str | None:
        """Why what this call will use can't be counted."""
        if call.dialect is None:
            return "a budget counts what models use: give its guard to loopkit.wrap()"
        facts = replace(call.dialect.facts(call.provider, call.request, {}), usage=_SOME)
        if self.prices is not None and self._dollars(facts) is None:
            return f"no price of {call.provider}'s {facts.model} is known: give budget(prices=)"
        return None

    def _dollars(self, call: ModelCall) -> float | None:
        own = self.prices or {}
        return cost_of(call, {(call.provider, model): price for model, price in own.items()})


_SOME: Final = Usage(input_tokens=1, output_tokens=1)


def budget(
    *, seconds: float, tokens: int | None = None, cost: float | None = None,
    prices: Mapping[str, tuple[float, float]] | None = None, action: Action = "block",
    now: Callable[[], float] = time.monotonic, **how: Unpack[Options],
) -> BudgetCheck:  # fmt: skip
    """So many tokens (of input and output) or US dollars in so many seconds, of each user of
    `loopkit.context(user_id=)`, and of all others together; in this process. As an input check of a wrapped client.

        guard = loopkit.Guard(input=[checks.budget(cost=0.50, seconds=86_400, prices={"my-model": (0.25, 2.0)})])

    It comes back evenly, and a user who was silent may spend all of it at once. What a call uses is known when it is
    over: a call goes on while anything is left, and calls that are under way aren't counted yet. A call whose provider
    doesn't say what it used, as of a stream that was given up, counts a token for four characters. `prices` are US
    dollars a million tokens of input and of output, by model; without them, those of `loopkit-sdk[prices]`. Of a model
    without a price no call is made.
    """
    if (tokens is None) == (cost is None):
        raise InvalidInput("budget() takes one of tokens= and cost=: give each a check of its own")
    action = whole_action(action, _NO_PLACE)
    most = _more_than_none("tokens", tokens) if cost is None else _more_than_none("cost", cost)
    allowances = Allowances(most, _more_than_none("seconds", seconds), now)
    return BudgetCheck(action, allowances, None if cost is None else _prices(prices), How.of(how))


def _prices(given: Mapping[str, tuple[float, float]] | None) -> dict[str, Price]:
    load_prices()
    known: dict[str, Price] = {}
    for model, price in dict(given or {}).items():
        if not (isinstance(price, (tuple, list)) and len(price) == 2 and all(map(_is_dollars, price))):
            raise InvalidInput(
                f"the price of {model!r} is {price!r}: give US dollars a million tokens, (input, output)"
            )
        known[model] = Price(input=price[0], output=price[1])
    return known


def _is_dollars(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf


def _more_than_none(name: str, value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
        raise InvalidInput(f"{name} is {value!r}: give a number, more than 0")
    return float(value)
