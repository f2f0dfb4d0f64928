"""One call's lifecycle, written once: started; returned, raised or streamed; finished exactly once.

No I/O and no colour: the sync and the async paths call the same methods. `run` and `arun` differ by await only.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry.trace.status import StatusCode

from loopkit import _host
from loopkit.capture.chain import Call, Filter, Interceptor, compose
from loopkit.capture.dialects._loose import server_sent
from loopkit.capture.dialects._protocol import Fold
from loopkit.capture.drive import adrive, drive
from loopkit.capture.exchange import Exchange
from loopkit.capture.live import CANCELLED, LiveSpan
from loopkit.capture.recorder import Recorder
from loopkit.capture.snapshot import snapshot
from loopkit.wire import names

TOLD = otel_context.create_key("loopkit-told")
"""In OpenTelemetry's context: the recording of the model call that is under way here, which tells of it."""
_shield = _host.Shielded("recording a call")
_closing = _host.Shielded("telling a filter that its stream is over")


class Recording:
    """A span under way and the exchange it carries; without a recorder it does nothing."""

    __slots__ = (
        "__weakref__",
        "_filters",
        "_fold",
        "_is_over",
        "_last",
        "_left",
        "_told_as",
        "adopted",
        "ends_if_cancelled",
        "exchange",
        "is_current",
        "is_telling",
        "live",
        "recorder",
        "tells",
    )

    def __init__(
        self,
        recorder: Recorder | None,
        live: LiveSpan | None,
        exchange: Exchange | None = None,
        *,
        adopted: bool = False,
        ends_if_cancelled: bool = True,
        is_current: bool = False,
        told_as: str | None = None,
    ) -> None:
        self.recorder = recorder
        self.live = live
        self.exchange = exchange
        self.adopted = adopted
        """Whether somebody else, a framework above, has started the span and ends it."""
        self.ends_if_cancelled = ends_if_cancelled or not adopted
        """Whether it ends here all the same when the call is cancelled, which its framework may never tell."""
        self.is_telling = False
        """Whether the call is being made: what is called below is the same call. A task begun there may outlive it."""
        self.tells = False
        """Whether nobody below is to tell of the same call."""
        self.is_current = is_current
        """Whether it is the current one already, or not to be."""
        self._is_over = False
        self._told_as = told_as
        """The id of somebody else's span for the same call, which is read in."""
        self._fold: Fold | None = None
        self._filters: tuple[Filter, ...] = ()
        self._last: int | None = None
        """When the last chunk came."""
        self._left: Any = None
        if live is not None:
            live.exchange = exchange

    def enter(self) -> object:
        """Make the span current, where it isn't; give back what `leave` wants."""
        if self.recorder is None:
            return None
        if not self.tells:
            return None if self.is_current else self.recorder.current(self.live)
        here = otel_context.get_current() if self.is_current else self.recorder.entering(self.live)
        self.is_telling = True
        return otel_context.attach(otel_context.set_value(TOLD, self, here))

    def leave(self, token: object) -> None:
        """Make current again what was before."""
        self.is_telling = False
        if self.recorder is not None and token is not None:
            self.recorder.leave(token)

    def attached(self) -> Attached:
        """Current while the block runs. Never to be held across a yield."""
        return Attached(self.recorder, self.live)

    def returned(self, value: Any) -> None:
        """A whole answer: an SDK's response object, or a function's result."""
        if self.live is None:
            return
        with _shield:
            self._keep(value)
            self.remember(value)
        self._finish()

    def _keep(self, value: Any) -> None:
        if self.exchange is not None:
            self.exchange.answer(value)
        elif self.live is not None and not self.live.bare:
            self.live.output = snapshot(value)

    def answered(self, body: str) -> None:
        """A whole answer that came as text: of JSON, or of a stream's events."""
        if self.live is None or self.exchange is None or not self.live.is_recording():
            return
        with _shield:
            if self._fold is None:
                self._read(body, self.exchange)
        self._finish()

    def closes(self, filters: tuple[Filter, ...]) -> None:
        """Tell these when the stream is over."""
        self._filters = filters

    def _close_filters(self) -> None:
        filters, self._filters = self._filters, ()
        for each in filters:
            close = getattr(each, "close", None)
            with _closing:
                if close is not None:
                    close()

    def raised(self, error: BaseException) -> None:
        """The call failed, or was cancelled; what had come of a stream is kept."""
        self._close_filters()
        left, self._left = self._left, None
        if left is not None:
            left.add_done_callback(partial(self._ended_alone, error))
        elif self.live is not None:
            self._keep_partial()
            self._finish(error)

    def cut(self, error: BaseException | None) -> None:
        """Its stream was stopped by one of ours before its end: how much was used may not be known."""
        if self.live is not None:
            self.live.set_attribute(names.INTERRUPTED, True)
        if error is None:
            self.abandoned()
        else:
            self.raised(error)

    def left(self, call: Any) -> None:
        """Its caller doesn't get what comes of the call, a future: it is recorded when it ends."""
        self._left = call
        if self.live is not None and not call.done():
            self.live.set_attribute(names.INTERRUPTED, True)

    def forget_left(self) -> None:
        """The call is made once more."""
        self._left = None

    def ends_alone(self) -> bool:
        """Whether what its caller gets is another's answer: the call's own is written down when it comes."""
        left, self._left = self._left, None
        if left is not None:
            left.add_done_callback(partial(self._ended_alone, None))
        return left is not None

    def _ended_alone(self, error: BaseException | None, call: Any) -> None:
        with _shield:
            if self.live is not None and not call.cancelled() and call.exception() is None:
                answer = call.result()
                if close_stream(answer):
                    self.live.set_attribute(names.INTERRUPTED, True)
                else:
                    self._keep(answer)
        if self.live is not None:
            self._finish(error)

    def refused(self, said: str) -> None:
        """The server answered that it won't."""
        if self.live is not None:
            self.live.set_status(StatusCode.ERROR, said)
            self._finish()

    def chunk(self, chunk: Any) -> None:
        """The next piece of a stream."""
        fold = self._fold
        with _shield:
            if fold is None:
                if self.live is None or self.exchange is None:
                    return
                fold = self._fold = self.exchange.dialect.fold()
                started = self.live.started_at
                self.exchange.time_to_first_token = (self.live.recorder.clock.now() - started) / 1e9
            if self.live is not None:
                self._last = self.live.recorder.clock.now()
            fold.feed(chunk)

    def ended(self) -> None:
        """The stream came to its end."""
        self._close_filters()
        if self.live is not None:
            self._keep_partial()
            self._finish()

    def abandoned(self) -> None:
        """The stream was closed, dropped or garbage-collected before its end."""
        self._close_filters()
        if self.live is not None:
            self._keep_partial()
            self._finish(cancelled=True)

    def dropped(self) -> None:
        """Nobody can read the rest any more, since when is not known: it ended with its last chunk."""
        self._close_filters()
        if self.live is not None:
            self._keep_partial()
            self._finish(cancelled=True, at=self._last)

    def remember(self, thing: Any) -> None:
        """Let feedback be given on this object."""
        known_as = self._told_as if self.live is None else self.live.id
        if self.recorder is not None and known_as is not None and thing is not None:
            self.recorder.identities.remember(thing, known_as)

    def _finish(self, error: BaseException | None = None, *, cancelled: bool = False, at: int | None = None) -> None:
        live = self.live
        if live is None or self._is_over:
            return
        self._is_over = True
        exchange = self.exchange
        if exchange is not None and exchange.schema is not None and self.recorder is not None:
            self.recorder.schemas.remember(exchange.schema, (live.id, exchange.response_id))
        is_cancelled = cancelled or type(error).__name__ in CANCELLED
        if not self.adopted or (is_cancelled and self.ends_if_cancelled):
            live.finish(error, cancelled=cancelled, at=at)
        elif is_cancelled and live.is_recording():
            live.status, live.error = "cancelled", error

    def _read(self, body: str, exchange: Exchange) -> None:
        try:
            answer: Any = json.loads(body)
        except ValueError:
            fold = exchange.dialect.fold()
            seen = False
            for event in server_sent(body):
                fold.feed(event)
                seen = True
            rest: Any = fold.result() if seen else exchange.dialect.kept(body)
            if seen or rest is not body:
                exchange.answer_with(rest)
            return
        whole: Any = answer  # isinstance makes `answer` a dict of unknown types; this stays Any
        if isinstance(answer, dict):
            kept = exchange.dialect.kept(whole)
            exchange.answer_with(kept, body if kept is whole else None)

    def _keep_partial(self) -> None:
        if self._fold is not None and self.exchange is not None and self.exchange.response is None:
            with _shield:
                self.exchange.answer_with(self._fold.result())


class Attached:
    """A span that is current while the block runs."""

    __slots__ = ("_live", "_recorder", "_token")

    def __init__(self, recorder: Recorder | None, live: LiveSpan | None) -> None:
        self._recorder = recorder
        self._live = live
        self._token: object = None

    def __enter__(self) -> None:
        if self._recorder is not None:
            self._token = self._recorder.current(self._live)

    def __exit__(self, *_: object) -> None:
        if self._recorder is not None:
            self._recorder.leave(self._token)


def run(
    recording: Recording,
    call: Call,
    interceptors: tuple[Interceptor, ...],
    send: Callable[[Call], Any],
    received: Callable[[Any], Any],
) -> Any:
    """Make the call under its span and give the caller what `received` makes of the result."""
    token = recording.enter()
    try:
        plan = compose(interceptors, call) if interceptors else None
        result = send(call) if plan is None else drive(plan, _anew(recording, send), recording.left)
    except BaseException as error:
        recording.raised(error)
        raise
    finally:
        recording.leave(token)
    return _received(recording, received, result)


async def arun(
    recording: Recording,
    call: Call,
    interceptors: tuple[Interceptor, ...],
    send: Callable[[Call], Awaitable[Any]],
    received: Callable[[Any], Any],
) -> Any:
    """`run`, awaiting the call."""
    token = recording.enter()
    try:
        plan = compose(interceptors, call) if interceptors else None
        result = await (send(call) if plan is None else adrive(plan, _anew(recording, send), recording.left))
    except BaseException as error:
        recording.raised(error)
        raise
    finally:
        recording.leave(token)
    return _received(recording, received, result)


def _anew(recording: Recording, send: Callable[[Call], Any]) -> Callable[[Call], Any]:
    """Another attempt is the call's, whatever became of the one before."""

    def sending(call: Call) -> Any:
        recording.forget_left()
        return send(call)

    return sending


def _received(recording: Recording, received: Callable[[Any], Any], result: Any) -> Any:
    try:
        return result if recording.ends_alone() else received(result)
    except BaseException as error:
        recording.raised(error)
        raise


_tasks: set[Any] = set()
"""The loop itself holds its tasks weakly."""


def close_stream(answer: Any) -> bool:
    """Close it, where it is a stream that nobody will read."""
    if not any(hasattr(answer, each) for each in ("__next__", "__anext__", "_iterator", "generator", "http_response")):
        return False
    close = getattr(answer, "close", None) or getattr(answer, "aclose", None)
    closing = close() if callable(close) else None
    if inspect.isawaitable(closing):
        _tasks.add(task := asyncio.ensure_future(closing))
        task.add_done_callback(_tasks.discard)
    return True
