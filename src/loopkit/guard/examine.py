"""One call under a guard's eyes: its checks are asked about texts, and what they say is recorded and acted on."""

from __future__ import annotations

import inspect
import random
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeAlias

from loopkit import _host
from loopkit.capture.chain import Begin, Effect, Join, OutOfTime, Pause, Running
from loopkit.capture.drive import in_time
from loopkit.detect.patterns import Finding
from loopkit.errors import Blocked, Held
from loopkit.guard.check import NoAnswer, Placed, Seen, Trip
from loopkit.guard.stream import Edits, SpanWatch
from loopkit.guard.verdicts import record
from loopkit.types import Verdict

GRAVITY: Final = {"allow": 0, "flag": 1, "redact": 2, "replace": 3, "retry": 4, "hold": 5, "block": 6}
STOPPING: Final = ("retry", "hold", "block")
_LEFT_ALONE: Final = "it kept failing, so it is left alone for a while"
_SPENT: Final = "the guard's budget is spent"
_SLICE: Final = 4_000
"""Characters that are looked at in one go: less than a millisecond's work."""


Looked: TypeAlias = "tuple[tuple[Placed, ...], str, Seen]"
"""The checks that look at a text."""


class Tripped(Exception):
    """A check that ran beside the call has found what stops it."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict


@dataclass(frozen=True, slots=True)
class Beside:
    """A check that is being asked while the call is made."""

    place: Placed
    seen: Seen
    running: Running


class Examination:
    """Of one call. `budget` is what all checks together may keep it waiting, in seconds."""

    def __init__(self, budget: float | None = None) -> None:
        self._left = budget

    def of(
        self,
        places: Iterable[Placed],
        text: str,
        seen: Seen,
        runs: tuple[str, ...] = ("before",),
        *,
        is_drawn_already: bool = False,
    ) -> Generator[Effect, Any, tuple[Verdict, str]]:
        """The gravest verdict, and the text as it goes on, by the checks that run so. First those are asked that find
        spans, all in the text as it came; then the others; then, all at once, those that wait for something."""
        taking = [each for each in places if each.how.run in runs and (is_drawn_already or is_drawn(each))]
        spans = [each for each in taking if finds_spans(each)]
        gravest, text = yield from self._of_spans(spans, text, seen)
        rest = [each for each in taking if not finds_spans(each)]
        for place in [each for each in rest if not each.waits]:
            if gravest.action in STOPPING:
                return gravest, text
            gravest, text = self._applied(gravest, self.asked(place, text, seen), text)
        if gravest.action in STOPPING:
            return gravest, text
        waiting = [each for each in rest if each.waits]
        return (yield from self._waited(gravest, waiting, text, seen))

    def asked(self, place: Placed, text: str, seen: Seen) -> Verdict:
        """What a check says that answers at once."""
        if place.breaker.is_open():
            return self.failed(place, seen, _LEFT_ALONE)
        return self.answered(place, seen, partial(place.ask, text, seen))

    def answered(self, place: Placed, seen: Seen, ask: Callable[[], Any]) -> Verdict:
        """What is asked of a check amounts to."""
        try:
            trip = _trip(ask())
        except Exception as error:  # noqa: BLE001  # a check may raise anything; its class says what that means
            return self.failed(place, seen, _words(error), error)
        place.breaker.worked()
        return self.said(place, trip, seen)

    def said(self, place: Placed, trip: Trip | None, seen: Seen, seconds: float | None = None) -> Verdict:
        """What a trip amounts to, recorded."""
        if trip is None:
            return Verdict(action="allow", check=place.check.name, stage=seen.stage)
        verdict = Verdict(
            action=trip.action, check=place.check.name, stage=seen.stage, reason=trip.reason, score=trip.score,
            text=trip.text, mode=_mode(place),
        )  # fmt: skip
        _record(verdict, place, seen, seconds)
        return _enforced(verdict)

    def failed(self, place: Placed, seen: Seen, why: str, error: Exception | None = None) -> Verdict:
        """What it amounts to that a check failed, recorded."""
        name = place.check.name
        if error is not None:
            if not isinstance(error, NoAnswer):
                place.breaker.failed()
            # what an exception says may quote the text
            told = f"the check {name!r} failed ({type(error).__name__}); it fails {place.on_error}"
            _host.warn_once(f"check {name}", told)
        verdict = Verdict(
            action="allow" if place.on_error == "open" else "block", check=name, stage=seen.stage,
            reason=f"the check itself failed: {why}", mode=_mode(place), failed=True,
        )  # fmt: skip
        _record(verdict, place, seen, None)
        return _enforced(verdict)

    def begin_beside(self, texts: Iterable[Looked]) -> Generator[Effect, Any, list[Beside]]:
        """Ask the parallel ones. Raises `Tripped` in the call's place when one says stop."""
        found: list[Beside] = []
        for places, text, seen in texts:
            for place in [each for each in places if each.how.run == "parallel" and is_drawn(each)]:
                if place.breaker.is_open():
                    stop(self.failed(place, seen, _LEFT_ALONE))
                    continue
                work = self._beside(place, text, seen)
                timeout = None if place.is_async else place.how.timeout  # an async one sees to its time itself
                running = yield Begin(work, timeout, blocks=not place.is_async)
                found.append(Beside(place, seen, running))
        return found

    def join_beside(self, beside: Iterable[Beside]) -> Generator[Effect, Any, None]:
        """Wait for those that are still being asked."""
        for each in beside:
            began = time.monotonic()
            try:
                yield Join(each.running, self._left)
            except Tripped as tripped:
                raise error_of(tripped.verdict) from None
            except Exception as error:  # noqa: BLE001  # see above
                stop(self._late(each.place, each.seen, error, began))
            self._spend(began)

    def ask_after(self, texts: Iterable[Looked]) -> Generator[Effect, Any, None]:
        """Have those asked that look when all is over; nobody waits for them."""
        for places, text, seen in texts:
            for place in [each for each in places if each.how.run == "after" and is_drawn(each)]:
                if not place.breaker.is_open():
                    work = self._beside(place, text, seen)
                    yield Begin(work, None, blocks=not place.is_async, is_waited_for=False)

    def verdict_of_spans(self, place: Placed, found: list[Finding], seen: Seen) -> Verdict:
        """What spans amount to."""
        check: Any = place.check
        return self.said(place, Trip(check.action, check.why(found)) if found else None, seen)

    def _of_spans(self, places: list[Placed], text: str, seen: Seen) -> Generator[Effect, Any, tuple[Verdict, str]]:
        gravest, edits = Verdict(action="allow", check="", stage=seen.stage), Edits()
        said: list[tuple[Placed, list[Finding]]] = []
        for place in places:
            if place.breaker.is_open():
                verdict = self.failed(place, seen, _LEFT_ALONE)
            else:
                found = yield from self._found(place, text)
                if not isinstance(found, Exception):
                    said.append((place, found))
                    continue
                verdict = self.failed(place, seen, _words(found), found)
            if verdict.action in STOPPING:
                return verdict, text
        at = min((found[0].start for place, found in said if found and _stops(place)), default=len(text))
        for place, found in said:  # as in a stream: what is first stops it, and what is after it is not said
            is_first = bool(found) and _stops(place) and found[0].start == at and gravest.action not in STOPPING
            told = found[:1] if is_first else [each for each in found if each.end <= at]
            verdict = self.verdict_of_spans(place, told, seen)
            gravest = graver(gravest, verdict)
            if verdict.action == "redact":
                edits.add(told)
        if gravest.action in STOPPING:
            return gravest, text
        text = edits.applied(text, 0)
        return (replace(gravest, text=text) if gravest.action == "redact" else gravest), text

    @staticmethod
    def _found(place: Placed, text: str) -> Generator[Effect, Any, list[Finding] | Exception]:
        check: Any = place.check
        try:
            if len(text) <= _SLICE:
                return findings(check.find(text))
            watch = SpanWatch(check)
            found: list[Finding] = []
            for at in range(0, len(text), _SLICE):
                found += watch.feed(text[at : at + _SLICE], final=at + _SLICE >= len(text))
                yield Pause()
            return found
        except Exception as error:  # noqa: BLE001  # a check may raise anything; its class says what that means
            return error

    def _waited(
        self, gravest: Verdict, places: list[Placed], text: str, seen: Seen
    ) -> Generator[Effect, Any, tuple[Verdict, str]]:
        """All at once. Of several that would change the text, the later ones are asked again about the changed one."""
        begun: list[tuple[Placed, Running | Verdict]] = []
        began = time.monotonic()
        for place in places:
            begun.append((place, (yield from self._begun(place, text, seen))))
        came = text
        for place, running in begun:
            verdict = (yield from self._joined(place, running, seen)) if isinstance(running, Running) else running
            if verdict.action in ("redact", "replace") and text != came:
                again = yield from self._begun(place, text, seen)
                verdict = (yield from self._joined(place, again, seen)) if isinstance(again, Running) else again
            gravest, text = self._applied(gravest, verdict, text)
            if gravest.action in STOPPING:
                break
        if begun:
            self._spend(began)
        return gravest, text

    def _spend(self, began: float) -> None:
        if self._left is not None:
            self._left = max(self._left - (time.monotonic() - began), 0.0)

    def _late(self, place: Placed, seen: Seen, error: Exception, began: float) -> Verdict:
        """What a failure while it was waited for amounts to; that others took long is not its fault."""
        if isinstance(error, OutOfTime) and self._left is not None and time.monotonic() - began >= self._left:
            return self.failed(place, seen, _SPENT)
        return self.failed(place, seen, _words(error), error)

    def _begun(self, place: Placed, text: str, seen: Seen) -> Generator[Effect, Any, Running | Verdict]:
        if place.breaker.is_open():
            return self.failed(place, seen, _LEFT_ALONE)
        if self._left is not None and self._left <= 0:
            return self.failed(place, seen, _SPENT)
        work = _timed(partial(place.ask, text, seen), is_async=place.is_async)
        running: Running = yield Begin(work, place.how.timeout, blocks=not place.is_async)
        return running

    def _joined(self, place: Placed, running: Running, seen: Seen) -> Generator[Effect, Any, Verdict]:
        began = time.monotonic()
        try:
            left = None if self._left is None else max(running.began_at + self._left - began, 0.0)
            trip, seconds = yield Join(running, left)
            trip = _trip(trip)
        except Exception as error:  # noqa: BLE001  # see above
            return self._late(place, seen, error, running.began_at)
        place.breaker.worked()
        return self.said(place, trip, seen, seconds)

    def _beside(self, place: Placed, text: str, seen: Seen) -> Callable[[], Any]:
        """The check as work of its own, which raises `Tripped` where the call is to stop."""
        ask = _timed(partial(place.ask, text, seen), is_async=place.is_async)

        def judged(outcome: Any) -> None:
            if isinstance(outcome, Exception):
                verdict = self.failed(place, seen, _words(outcome), outcome)
            else:
                trip, seconds = outcome
                place.breaker.worked()
                if trip is not None and trip.action in ("redact", "replace", "retry") and _mode(place) == "enforce":
                    trip = Trip("block", f"{trip.reason} (too late to {trip.action} it)", None, trip.score)
                verdict = self.said(place, trip, seen, seconds)
            if verdict.action in STOPPING:
                raise Tripped(verdict)

        def work() -> None:
            try:
                trip, seconds = ask()
                outcome: Any = (_trip(trip), seconds)
            except (Exception, *_ENDS) as error:  # noqa: BLE001  # see above
                outcome = _as_failure(error)
            judged(outcome)

        async def awork() -> None:
            try:
                trip, seconds = await in_time(ask(), place.how.timeout)
                outcome: Any = (_trip(trip), seconds)
            except (Exception, *_ENDS) as error:  # noqa: BLE001  # see above
                outcome = _as_failure(error)
            judged(outcome)

        return awork if place.is_async else work

    @staticmethod
    def _applied(gravest: Verdict, verdict: Verdict, text: str) -> tuple[Verdict, str]:
        if verdict.action in ("redact", "replace"):
            text = verdict.text or ""
        return graver(gravest, verdict), text


def finds_spans(place: Placed) -> bool:
    """Whether its check says where in a text something is."""
    return hasattr(place.check, "find") and hasattr(place.check, "open_at")


def graver(one: Verdict, other: Verdict) -> Verdict:
    """Of two verdicts the one that weighs more, else the later."""
    return other if GRAVITY[other.action] >= GRAVITY[one.action] and other.action != "allow" else one


def error_of(verdict: Verdict) -> Blocked:
    """`Blocked`, or `Held`."""
    return (Held if verdict.action == "hold" else Blocked)(verdict)


def stop(verdict: Verdict) -> None:
    """Raises it for one after which nothing goes on."""
    if verdict.action in STOPPING:
        raise error_of(verdict)


def findings(found: Iterable[Any]) -> list[Finding]:
    """What a check found, if it is that."""
    listed = list(found)
    for each in listed:
        if not isinstance(each, Finding):
            raise TypeError(f"it found {type(each).__name__}, not a Finding")
    return listed


def _record(verdict: Verdict, place: Placed, seen: Seen, seconds: float | None) -> None:
    if seen.records:
        record(verdict, place.on_error, seconds)


def _enforced(verdict: Verdict) -> Verdict:
    return verdict if verdict.mode == "enforce" else replace(verdict, action="allow")


def _stops(place: Placed) -> bool:
    check: Any = place.check
    return check.action in STOPPING and _mode(place) == "enforce"


def _mode(place: Placed) -> Any:
    return "after" if place.how.run == "after" else "shadow" if place.how.shadow else "enforce"


def is_drawn(place: Placed) -> bool:
    """Whether it is asked this time."""
    return place.how.sample >= 1 or random.random() < place.how.sample


def _trip(said: Any) -> Trip | None:
    if said is not None and not isinstance(said, Trip):
        if inspect.iscoroutine(said):
            said.close()
        raise TypeError(f"it returned {type(said).__name__}, not a Trip or None")
    if said is not None and said.action not in GRAVITY:
        raise TypeError(f"it returned the action {said.action!r}")
    if said is not None and said.action in ("redact", "replace") and not isinstance(said.text, str):
        raise TypeError(f"it said {said.action} without a text to go on with")
    return said


def _timed(ask: Callable[[], Any], *, is_async: bool) -> Callable[[], Any]:
    """Gives what it gives, and the seconds that it took."""

    def timed() -> tuple[Any, float]:
        began = time.monotonic()
        return ask(), time.monotonic() - began

    async def atimed() -> tuple[Any, float]:
        began = time.monotonic()
        return await ask(), time.monotonic() - began

    return atimed if is_async else timed


_ENDS: Final = (SystemExit, KeyboardInterrupt)
"""What ends a program, which a check has no business to."""


def _as_failure(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else RuntimeError(type(error).__name__)


def _words(error: Exception) -> str:
    """Ours say what happened; what others say may quote the text."""
    return str(error) if isinstance(error, (OutOfTime, NoAnswer)) else type(error).__name__
