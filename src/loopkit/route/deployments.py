"""Where models are served: one client or several, each left alone for a while when it fails; who is asked, and when.

Waiting and stopping are tenacity's business. What is transient (timeouts, lost connections, 408, 409, 429 and 5xx) is
tried again, elsewhere first; anything else is the caller's at once.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from loopkit.capture.breaker import Breaker
from loopkit.capture.dialects._content import mapping
from loopkit.errors import InvalidInput, NoDeployment

if TYPE_CHECKING:
    import tenacity

DEFAULT_RETRY: Final[Any] = object()
"""Three attempts, with waits that grow at random."""
_FAILURES: Final = 5
_COOLDOWN: Final = 30.0
"""So many failures in a row, and so many seconds for which a deployment is left alone then."""
LONGEST: Final = 20.0
"""Seconds: who is told to wait for longer asks somebody else instead."""
_LONGEST_REST: Final = 300.0
_NOT_LET_IN: Final = frozenset((401, 403))
_TRANSIENT: Final = frozenset((408, 409, 425, 429))
_PER_CALL: Final = 0.2
_MOST_SAVED: Final = 10.0
"""Attempts beside the first: one for five calls, and ten more in a row, so that a provider in need isn't flooded."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Deployment:
    """One place where models are served: a client, with its own key, region or provider."""

    client: Any
    name: str = ""
    """As spans and errors tell it; by default numbered."""
    weight: float = 1.0
    """How often it is asked, against the others of its pool."""
    models: Mapping[str, str] = field(default_factory=dict[str, str])
    """What it calls a variant's model, where that isn't the variant's name for it."""


class Pool:
    """Deployments that serve the same variants, and how each is doing. Threads may share it."""

    def __init__(
        self,
        deployments: Sequence[Deployment],
        *,
        now: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._deployments = tuple(deployments)
        self._breakers = {each.name: Breaker(_FAILURES, _COOLDOWN, now) for each in deployments}
        self._draw = draw
        self._last: dict[str, str] = {}

    @property
    def names(self) -> list[str]:
        """Of all of them."""
        return [each.name for each in self._deployments]

    @property
    def clients(self) -> list[Any]:
        """Of all of them."""
        return [each.client for each in self._deployments]

    def take(self, but: Collection[str] = ()) -> Deployment | None:
        """One that may be asked now, by the weights; None where all are being left alone."""
        able = self._able(but)
        if not able:
            return None
        place = self._draw() * sum(each.weight for each in able)
        reached = zip(accumulate(each.weight for each in able), able, strict=True)
        taken = next((each for reach, each in reached if place < reach), able[-1])
        # of several that find its time to be over, one makes the trial
        return None if self._breakers[taken.name].is_open() else taken

    def has_another(self, but: Collection[str]) -> bool:
        """Whether one besides these may be asked now."""
        return bool(self._able(but))

    def rests(self) -> float:
        """Seconds until one may be asked that has said when to come again."""
        return min(breaker.rests() for breaker in self._breakers.values())

    def failed(self, deployment: Deployment, error: Exception) -> None:
        """It did. One that says when to come again is left alone until then."""
        breaker, rest = self._breakers[deployment.name], retry_after(error)
        self._last[deployment.name] = f"{type(error).__name__}: {error}"[:200]
        breaker.failed()
        if rest is not None:
            breaker.rest(min(rest, _LONGEST_REST))

    def worked(self, deployment: Deployment) -> None:
        """It did."""
        self._breakers[deployment.name].worked()

    def _able(self, but: Collection[str]) -> list[Deployment]:
        return [each for each in self._deployments if each.name not in but and self._breakers[each.name].may_be_asked()]

    def health(self) -> dict[str, str]:
        """Of each by its name: "ok", or why it is being left alone."""
        return {
            name: "ok" if breaker.may_be_asked() else f"left alone after {self._last.get(name, 'failures')}"
            for name, breaker in self._breakers.items()
        }

    def none_left(self) -> NoDeployment:
        """What to tell whoever asked."""
        told = "; ".join(f"{name}: {state}" for name, state in self.health().items())
        return NoDeployment(f"no deployment is healthy: {told}")


class Retries:
    """Of one router: tenacity's policy, and how many attempts beside the first its calls may still make."""

    def __init__(self, retry: tenacity.BaseRetrying | None = DEFAULT_RETRY) -> None:
        if retry is not None and retry is not DEFAULT_RETRY and not hasattr(retry, "stop"):
            raise InvalidInput(f"retry is {retry!r}: give tenacity.Retrying(stop=..., wait=...), or None")
        self._retry = retry
        self._saved = _MOST_SAVED

    @property
    def may_wait(self) -> bool:
        """Whether a call may be kept waiting at all."""
        return self._retry is not None

    def begun(self) -> None:
        """A call has begun."""
        self._saved = min(self._saved + _PER_CALL, _MOST_SAVED)

    def wait(self, error: Exception, attempt: int, began: float, *, elsewhere: bool) -> float | None:
        """Seconds to wait before another attempt, none where it can be made `elsewhere`; None where there is to be
        none."""
        if self._retry is None or self._saved < 1:
            return None
        from tenacity import RetryCallState  # needed where something fails alone

        retry = _by_default() if self._retry is DEFAULT_RETRY else self._retry
        state = RetryCallState(retry, None, (), {})
        state.start_time, state.attempt_number = began, attempt
        state.set_exception((type(error), error, error.__traceback__))
        if not retry.retry(state) or retry.stop(state):
            return None
        told = max(float(retry.wait(state)) if retry.wait else 0.0, retry_after(error) or 0.0)
        seconds = 0.0 if elsewhere else told
        if seconds > LONGEST:
            return None
        self._saved -= 1
        return seconds


def pools_of(client: Any) -> dict[str, Pool]:
    """A router's clients by name: one, several that serve the same, or a dict of those. Raises `InvalidInput`."""
    whole: Any = client  # isinstance makes a mapping of unknown types; this stays Any
    named: dict[str, Any] = dict(whole) if isinstance(client, Mapping) else {"": client}
    pools: dict[str, Pool] = {}
    for name, given in named.items():
        these: Any = given
        several: list[Any] = list(these) if isinstance(given, (list, tuple)) else [given]
        made = [each if isinstance(each, Deployment) else Deployment(client=each) for each in several]
        if not made or any(not (isinstance(d.weight, (int, float)) and 0 < d.weight < math.inf) for d in made):
            raise InvalidInput(f"the clients {name or given!r} are {given!r}: give one or more, with weights above 0")
        prefix = name or "client"
        pools[name] = Pool([
            Deployment(
                client=_once(each.client), name=each.name or (prefix if len(made) == 1 else f"{prefix}-{number}"),
                weight=each.weight, models=each.models,
            )
            for number, each in enumerate(made, start=1)
        ])  # fmt: skip
    every = [name for pool in pools.values() for name in pool.names]
    twice = next((name for name in every if every.count(name) > 1), None)
    if twice is not None:
        raise InvalidInput(f"two deployments have the name {twice!r}: give each its own")
    return pools


def is_transient(error: BaseException) -> bool:
    """Whether the same call may go well another time, or elsewhere."""
    status = status_of(error)
    if status is not None:
        return status in _TRANSIENT or status >= 500
    names = {base.__name__ for base in type(error).__mro__}
    return bool(names & {"TimeoutError", "ConnectionError", "APIConnectionError", "TransportError", "BotoCoreError"})


def is_the_places(error: BaseException) -> bool:
    """Whether it is the place that is in the way, though the same call won't go better there: a key, a permission."""
    return status_of(error) in _NOT_LET_IN


def status_of(error: BaseException) -> int | None:
    """The HTTP status that a provider's exception carries, whoever made it."""
    response: Any = getattr(error, "response", None)
    of_boto = mapping(mapping(response).get("ResponseMetadata")).get("HTTPStatusCode")
    holders: tuple[Any, ...] = (error, response)
    told = [getattr(each, name, None) for each in holders for name in ("status_code", "code", "status")]
    return next((each for each in (*told, of_boto) if isinstance(each, int) and 400 <= each < 600), None)


def retry_after(error: BaseException) -> float | None:
    """Seconds after which a provider wants to be asked again; None where it doesn't say."""
    headers: Any = getattr(getattr(error, "response", None), "headers", None) or getattr(error, "headers", None)
    if not hasattr(headers, "get"):
        return None
    said = headers.get("retry-after-ms")
    scale = 1.0 if said is None else 1000.0
    said = headers.get("retry-after") if said is None else said
    if said is None:
        return None
    try:
        seconds = float(said) / scale
    except ValueError:
        seconds = _until(said)
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _until(date: str) -> float:
    """Seconds until then; NaN for what is no date."""
    try:
        return parsedate_to_datetime(date).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return math.nan


def _by_default() -> tenacity.BaseRetrying:
    import tenacity

    return tenacity.Retrying(
        stop=tenacity.stop_after_attempt(3),
        wait=tenacity.wait_random_exponential(multiplier=0.5, max=8),
        retry=tenacity.retry_if_exception(is_transient),
    )


def _once(client: Any) -> Any:
    """The client without its own retries, which would multiply ours."""
    if getattr(client, "max_retries", 0) and hasattr(client, "with_options"):
        return client.with_options(max_retries=0)
    return client
