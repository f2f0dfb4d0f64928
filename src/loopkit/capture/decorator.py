"""`@trace` for functions of every colour, and `span` for a block."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from typing import Any, TypeVar, overload

from opentelemetry import trace as otel_trace

from loopkit import _host
from loopkit.capture import slot
from loopkit.capture.ambient import Less, check_less
from loopkit.capture.chain import (
    Call,
    Cut,
    Filter,
    Interceptor,
    Passing,
    chained,
    compose,
    ended,
    stream_filters,
    through,
)
from loopkit.capture.clients import check_interceptors
from loopkit.capture.drive import adrive, asettle, drive, settle
from loopkit.capture.live import Handle, LiveSpan, NoSpan
from loopkit.capture.recorder import Recorder
from loopkit.capture.recording import Attached, Recording, arun, run
from loopkit.capture.snapshot import snapshot
from loopkit.errors import InvalidInput
from loopkit.types import JSON, Kind
from loopkit.wire.names import OI_KINDS

F = TypeVar("F", bound=Callable[..., Any])

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@overload
def trace(function: F, /) -> F: ...


@overload
def trace(
    *,
    name: str | None = None,
    kind: Kind = "task",
    task: str | None = None,
    tags: Iterable[str] = (),
    guard: Interceptor | None = None,
    exclude: Iterable[str] = (),
    redact: Iterable[str] | Mapping[str, Callable[[Any], Any]] = (),
    content: Less | None = None,
) -> Callable[[F], F]: ...


def trace(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    kind: Kind = "task",
    task: str | None = None,
    tags: Iterable[str] = (),
    guard: Interceptor | None = None,
    exclude: Iterable[str] = (),
    redact: Iterable[str] | Mapping[str, Callable[[Any], Any]] = (),
    content: Less | None = None,
) -> Any:
    """Record every call of a function: its inputs by name, its output, how long it took, how it failed.

    For sync and async functions, generators and async generators, methods, classmethods, staticmethods and objects that
    can be called. `task` names what the function does for the loop (spans below inherit it); `guard` stands around the
    call; `exclude` names arguments that are not recorded, `redact` those of which it is only recorded that they were
    there, or maps their names to functions that give what is to be recorded of them. `content` keeps what this call and
    those in it say nearer than `init(content=)` would: "local" in the local store, "off" nowhere.

        @loopkit.trace(task="triage")
        def triage(ticket: str) -> str: ...
    """
    if kind not in OI_KINDS:
        raise InvalidInput(f"kind is {kind!r}: choose one of {', '.join(OI_KINDS)}")
    check_interceptors(() if guard is None else (guard,))
    interceptors = chained(() if guard is None else (guard,))
    check_less(content)
    hidden = _redactions(redact)

    def decorate(target: Any) -> Any:
        method: Any = target  # isinstance makes `target` a method of unknown types; this stays Any
        if isinstance(target, (classmethod, staticmethod)):
            return method.__class__(decorate(method.__func__))
        if not callable(target):
            raise InvalidInput(f"@trace got {target!r}, which can't be called")
        return _traced(
            target, _Plan(target, name, kind, task, tuple(tags), interceptors, frozenset(exclude), hidden, content)
        )

    return decorate if function is None else decorate(function)


_starting, _ending = _host.Shielded("starting a span"), _host.Shielded("recording a result")
_NAMELESS = frozenset((type(None), bool, int, float, str, bytes, list, dict, tuple, set))
"""Types whose values can't be referenced weakly: feedback can't be given on them."""


class _Plan:
    """What the wrappers of one function share: how to start a span for a call, and what to capture."""

    def __init__(
        self,
        function: Any,
        name: str | None,
        kind: Kind,
        task: str | None,
        tags: tuple[str, ...],
        interceptors: tuple[Interceptor, ...],
        exclude: frozenset[str],
        redact: Mapping[str, Callable[[Any], Any]],
        content: Less | None,
    ) -> None:
        qualname = function.__qualname__ if hasattr(function, "__qualname__") else type(function).__qualname__
        self.name = name or (task if task is not None else qualname.replace(".<locals>", ""))
        self.kind: Kind = kind
        self.task = task
        self.tags = tags
        self.interceptors = interceptors
        self.exclude = exclude
        self.redact = redact
        self.content: Less | None = content
        self.parameters, self.owner = _parameter_names(function)

    def inputs(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The call's inputs by name, without self and cls."""
        named = dict(zip(self.parameters, args, strict=False))
        if len(args) > len(self.parameters):
            named["args"] = list(args[len(self.parameters) :])
        if self.owner:
            named.pop(self.owner, None)
        named.update(kwargs)
        return named

    def arguments(
        self, inputs: Mapping[str, Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The inputs, as an interceptor may have changed them, as arguments again."""
        changed = [inputs.get(name, value) for name, value in zip(self.parameters, args, strict=False)]
        rest = inputs.get("args", args[len(self.parameters) :]) if len(args) > len(self.parameters) else ()
        return (*changed, *rest), {name: inputs.get(name, value) for name, value in kwargs.items()}

    def begin(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Recording, Call]:
        """A started span with its inputs, and the call as interceptors see it."""
        recorder = slot.recorder
        live = None if recorder is None else self.start(recorder, args, kwargs)
        return Recording(recorder, live), Call(
            task=self.task, request=self.inputs(args, kwargs), kind=self.kind, name=self.name
        )

    def start(self, recorder: Recorder, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> LiveSpan | None:
        """A started span with its inputs; None where it is sampled out, or couldn't be started."""
        if not recorder.calling.is_timed():
            return self._start(recorder, args, kwargs)
        began = time.perf_counter_ns()
        live = self._start(recorder, args, kwargs)
        if live is not None:
            live.timed = True
        recorder.calling.began(time.perf_counter_ns() - began)
        return live

    def _start(self, recorder: Recorder, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> LiveSpan | None:
        with _starting:
            live = recorder.start(self.name, self.kind, self.task)
            if live is not None:
                if self.tags:
                    live.describe({}, self.tags)
                if self.content is not None:
                    live.keep_near(self.content)
                if live.bare:
                    return live
                inputs = self.inputs(args, kwargs)
                for name in self.exclude:
                    inputs.pop(name, None)
                for name, change in self.redact.items():
                    if name in inputs:
                        inputs[name] = _redacted(change, inputs[name])
                live.input = snapshot(inputs)
            return live
        return None

    def failed(self, recorder: Recorder, live: LiveSpan | None, token: object, error: BaseException) -> None:
        """The call is over with an exception, which the caller raises on."""
        recorder.leave(token)
        if live is not None:
            live.finish(error)

    def returned(self, recorder: Recorder, live: LiveSpan | None, token: object, value: Any) -> None:
        """The call is over: its output, and the end of its span."""
        began = time.perf_counter_ns() if live is not None and live.timed else 0
        recorder.leave(token)
        if live is None:
            return
        with _ending:
            if not live.bare:
                live.output = snapshot(value)
            if type(value) not in _NAMELESS:
                recorder.identities.remember(value, live.id)
        live.finish()
        if began:
            recorder.calling.ended(time.perf_counter_ns() - began)


def _traced(function: Any, plan: _Plan) -> Any:
    inner = function if inspect.isroutine(function) or inspect.isclass(function) else type(function).__call__
    if inspect.isasyncgenfunction(inner):
        return _wrap_async_generator(function, plan)
    if inspect.isgeneratorfunction(inner):
        return _wrap_generator(function, plan)
    if inspect.iscoroutinefunction(inner):
        return _wrap_async(function, plan)
    return _wrap_sync(function, plan)


# Without a guard a call needs no chain: this is the path that every traced call of an application takes.


def _wrap_sync(function: Any, plan: _Plan) -> Any:
    if plan.interceptors:
        return _guard_sync(function, plan)

    @functools.wraps(function, updated=())
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        recorder = slot.recorder
        if recorder is None:
            return function(*args, **kwargs)
        live = plan.start(recorder, args, kwargs)
        token = recorder.current(live)
        try:
            value = function(*args, **kwargs)
        except BaseException as error:
            plan.failed(recorder, live, token, error)
            raise
        plan.returned(recorder, live, token, value)
        return value

    return wrapper


def _wrap_async(function: Any, plan: _Plan) -> Any:
    if plan.interceptors:
        return _guard_async(function, plan)

    @functools.wraps(function, updated=())
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        recorder = slot.recorder
        if recorder is None:
            return await function(*args, **kwargs)
        live = plan.start(recorder, args, kwargs)
        token = recorder.current(live)
        try:
            value = await function(*args, **kwargs)
        except BaseException as error:
            plan.failed(recorder, live, token, error)
            raise
        plan.returned(recorder, live, token, value)
        return value

    return wrapper


def _guard_sync(function: Any, plan: _Plan) -> Any:
    @functools.wraps(function, updated=())
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        recording, call = plan.begin(args, kwargs)

        def send(step: Call) -> Any:
            if step is call:
                return function(*args, **kwargs)
            changed, named = plan.arguments(step.request, args, kwargs)
            return function(*changed, **named)

        return run(recording, call, plan.interceptors, send, _returned(recording))

    return wrapper


def _guard_async(function: Any, plan: _Plan) -> Any:
    @functools.wraps(function, updated=())
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        recording, call = plan.begin(args, kwargs)

        async def send(step: Call) -> Any:
            if step is call:
                return await function(*args, **kwargs)
            changed, named = plan.arguments(step.request, args, kwargs)
            return await function(*changed, **named)

        return await arun(recording, call, plan.interceptors, send, _returned(recording))

    return wrapper


def _returned(recording: Recording) -> Callable[[Any], Any]:
    def received(value: Any) -> Any:
        recording.returned(value)
        return value

    return received


def _wrap_generator(function: Any, plan: _Plan) -> Any:
    @functools.wraps(function, updated=())
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        if slot.recorder is None and not plan.interceptors:
            bare: Generator[Any, Any, Any] = function(*args, **kwargs)
            return (yield from bare)
        return (yield from _generated(function, plan, args, kwargs))

    return wrapper


def _generated(function: Any, plan: _Plan, args: Any, kwargs: Any) -> Generator[Any, Any, Any]:
    recording, call = plan.begin(args, kwargs)
    pieces = _Pieces(recording, stream_filters(plan.interceptors, call))
    inner: Any = None

    def open_inner(step: Call) -> Any:
        changed, named = plan.arguments(step.request, args, kwargs)
        return function(*changed, **named)

    try:
        with recording.attached():
            inner = drive(compose(plan.interceptors, call), open_inner, recording.left)
        if not hasattr(inner, "send"):  # an interceptor answered by itself
            yield pieces.answer(inner)
            return None
        step, argument = inner.send, None
        while not pieces.is_cut:
            try:
                with recording.attached():
                    item = step(argument)
            except StopIteration as done:
                for piece in pieces.settled(pieces.end()):
                    yield piece
                pieces.finish()
                return done.value
            step, argument = inner.send, None
            for piece in pieces.passed(item) or pieces.settled(pieces.take(item)):
                try:
                    argument = yield piece
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001  # thrown in by the caller: the function's to handle
                    step, argument = inner.throw, error
                    break
        pieces.finish()
    except BaseException as error:
        recording.raised(pieces.failed(error))
        raise
    finally:
        if hasattr(inner, "send"):
            inner.close()


def _wrap_async_generator(function: Any, plan: _Plan) -> Any:
    @functools.wraps(function, updated=())
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        recording, call = plan.begin(args, kwargs)
        pieces = _Pieces(recording, stream_filters(plan.interceptors, call))
        inner: Any = None

        async def open_inner(step: Call) -> Any:
            changed, named = plan.arguments(step.request, args, kwargs)
            return function(*changed, **named)

        try:
            with recording.attached():
                inner = await adrive(compose(plan.interceptors, call), open_inner, recording.left)
            if not hasattr(inner, "asend"):  # an interceptor answered by itself
                yield pieces.answer(inner)
                return
            step, argument = inner.asend, None
            while not pieces.is_cut:
                try:
                    with recording.attached():
                        item = await step(argument)
                except StopAsyncIteration:
                    for piece in await pieces.asettled(pieces.end()):
                        yield piece
                    pieces.finish()
                    return
                step, argument = inner.asend, None
                for piece in pieces.passed(item) or await pieces.asettled(pieces.take(item)):
                    try:
                        argument = yield piece
                    except GeneratorExit:
                        raise
                    except BaseException as error:  # noqa: BLE001  # thrown in by the caller: the function's to handle
                        step, argument = inner.athrow, error
                        break
            pieces.finish()
        except BaseException as error:
            recording.raised(pieces.failed(error))
            raise
        finally:
            if hasattr(inner, "asend"):
                await inner.aclose()

    return wrapper


_KEPT_ITEMS = 10_000
"""Of what a generator gives, so many are recorded."""


class _Pieces:
    """What a generator has given so far: recorded, filtered, and current only while a step runs."""

    def __init__(self, recording: Recording, filters: tuple[Filter, ...]) -> None:
        self._recording = recording
        self._filters = filters
        self._given: list[Any] = []
        self._error: BaseException | None = None
        self.is_cut = False
        """Whether a filter has stopped the stream."""

    def passed(self, item: Any) -> tuple[Any, ...]:
        """The item, where nothing is to be seen of it first."""
        if self._filters:
            return ()
        self._keep(item)
        return (item,)

    def take(self, item: Any) -> Passing:
        self._keep(item)
        return through(self._filters, [item])

    def end(self) -> Passing:
        return ended(self._filters)

    def answer(self, value: Any) -> Any:
        """What an interceptor gives instead of the function's stream."""
        self._keep(value)
        self.finish()
        return value

    def finish(self) -> None:
        """All has been given; raises what cut it off."""
        if self._error is not None:
            raise self._error
        self._recording.returned(self._output())

    def _keep(self, item: Any) -> None:
        if self._recording.live is not None and len(self._given) < _KEPT_ITEMS:
            self._given.append(item)

    def settled(self, plan: Passing) -> list[Any]:
        """What passes of a plan; what cuts the stream off is kept."""
        try:
            with self._recording.attached():
                found: list[Any] = settle(plan)
        except Cut as cut:
            return self._cut(cut)
        return found

    async def asettled(self, plan: Passing) -> list[Any]:
        """`settled`, awaiting."""
        try:
            with self._recording.attached():
                found: list[Any] = await asettle(plan)
        except Cut as cut:
            return self._cut(cut)
        return found

    def _cut(self, cut: Cut) -> list[Any]:
        self.is_cut, self._error = True, cut.error
        return cut.passed

    def failed(self, error: BaseException) -> BaseException:
        """Keep what had been given."""
        if self._recording.live is not None and self._given:
            self._recording.live.output = snapshot(self._output())
        return error

    def _output(self) -> Any:
        texts = [item for item in self._given if isinstance(item, str)]
        return "".join(texts) if len(texts) == len(self._given) else self._given


class span:  # noqa: N801  # used as a function: with loopkit.span("retrieve") as s
    """A span for a block: `with loopkit.span("retrieve", kind="retrieval") as s: s.set(output=documents)`.

    Works as `async with` too. What it gives is a handle with `id`, `trace_id` and `set()`; where nothing is
    recorded, one that takes everything and keeps nothing.
    """

    def __init__(
        self,
        name: str,
        *,
        kind: Kind = "task",
        task: str | None = None,
        input: JSON = None,
        content: Less | None = None,
        **metadata: JSON,
    ) -> None:
        if kind not in OI_KINDS:
            raise InvalidInput(f"kind is {kind!r}: choose one of {', '.join(OI_KINDS)}")
        check_less(content)
        self._what = (name, kind, task)
        self._content: Less | None = content
        self._input = input
        self._metadata = metadata
        self._attached: Attached | None = None
        self._live: LiveSpan | None = None

    def __enter__(self) -> Handle:
        recorder = slot.recorder
        if recorder is None:
            return NoSpan()
        self._live = recorder.start(*self._what)
        self._attached = Attached(recorder, self._live)
        self._attached.__enter__()
        if self._live is None:
            return NoSpan()
        self._live.keep_near(self._content)
        handle = Handle(self._live)
        handle.set(input=self._input, **self._metadata)
        return handle

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self._attached is not None:
            self._attached.__exit__()
        if self._live is not None:
            self._live.finish(error)

    async def __aenter__(self) -> Handle:
        return self.__enter__()

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.__exit__(kind, error, trace)


def current_span() -> Handle:
    """The span that runs here; where none of loopkit's does, or it isn't recorded, one that keeps nothing."""
    live = live_span()
    return NoSpan() if live is None else Handle(live)


def live_span() -> LiveSpan | None:
    """The same, as the package itself holds it."""
    found = otel_trace.get_current_span()
    return found if isinstance(found, LiveSpan) else None


def _redactions(redact: Any) -> Mapping[str, Callable[[Any], Any]]:
    given: Any = redact  # isinstance makes it a mapping of unknown types; this stays Any
    if isinstance(redact, str) or not isinstance(redact, Iterable):
        raise InvalidInput(f"redact is {redact!r}: give names of arguments, or a dict from them to functions")
    found: dict[str, Any] = dict(given) if isinstance(redact, Mapping) else dict.fromkeys(given, _hidden)
    for name, change in found.items():
        if not callable(change):
            raise InvalidInput(
                f"redact has {change!r} for {name!r}: give a function from the value to what is recorded"
            )
    return found


def _redacted(change: Callable[[Any], Any], value: Any) -> Any:
    """Fails closed: what can't be redacted isn't recorded."""
    with _redacting:
        return change(value)
    return _hidden(value)


_redacting = _host.Shielded("redacting an argument")


def _hidden(_: Any) -> str:
    return "[REDACTED]"


def _parameter_names(function: Any) -> tuple[tuple[str, ...], str | None]:
    """The positional parameters' names, and which of them is self or cls."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return (), None
    names = tuple(parameter.name for parameter in parameters if parameter.kind in _POSITIONAL)
    return names, names[0] if names and names[0] in ("self", "cls") else None
