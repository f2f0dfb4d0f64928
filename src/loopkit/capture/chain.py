"""Interceptors: what may look at a call, change it, answer it, repeat it or stop it.

An interceptor is a plain generator and has no colour; the two drivers below do the waiting, as httpx's clients
do for its authentication flows. Guards and routers are interceptors, and so are users' own plugins.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from loopkit.capture.dialects._content import changed_texts, mapping, texts_in
from loopkit.capture.dialects._protocol import Dialect


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call on its way: a provider's request body, or a function's inputs by name."""

    task: str | None
    request: Mapping[str, Any]
    dialect: Dialect | None = None
    """None for a decorated function."""
    stream: bool = False

    def input_texts(self) -> list[str]:
        """What the model or function is about to read."""
        return texts_in(self.with_input)

    def with_input(self, change: Callable[[str], str]) -> Call:
        """The call with those texts changed."""
        if self.dialect is not None:
            return replace(self, request=self.dialect.with_input(self.request, change))
        return replace(self, request=changed_texts(dict(self.request), change))

    def output_texts(self, result: Any) -> list[str]:
        """What came back, as texts."""
        if self.dialect is not None:
            return self.dialect.output_texts(result)
        return texts_in(lambda change: changed_texts(result, change))

    def with_output(self, result: Any, change: Callable[[str], str]) -> Any:
        """The result with those texts changed."""
        if self.dialect is not None:
            return self.dialect.with_output(result, change)
        return changed_texts(result, change)


class Interceptor(Protocol):
    """Stands around calls. May also have `filter(call) -> Filter | None`, for streams. Provisional.

    With `must_see = False` a call that can't be read is made without it; otherwise it is not made (`Unguarded`).
    """

    def around(self, call: Call) -> Generator[Call, Any, Any]:
        """Yield the call, as it is or altered, to let it go on, and receive its result (or its exception).

        Yield again to make another attempt. Return what the caller is to get; raise to stop.
        """
        ...


class Filter(Protocol):
    """What an interceptor does to a stream."""

    def feed(self, chunk: Any) -> list[Any]:
        """The chunks that may pass on now."""
        ...

    def end(self) -> list[Any]:
        """The rest, when the stream has ended; raise to stop it."""
        ...


def must_see(interceptors: tuple[Interceptor, ...]) -> bool:
    """Whether one of them is to see every call."""
    return any(getattr(each, "must_see", True) for each in interceptors)


class IncludeUsage:
    """Asks for the usage of streams, which OpenAI's API leaves out otherwise: one more chunk, without choices."""

    must_see = False

    def around(self, call: Call) -> Generator[Call, Any, Any]:
        """See `Interceptor.around`."""
        name = None if call.dialect is None else call.dialect.name
        if call.stream and name in ("openai.chat", "openai.completions"):
            asked = mapping(call.request.get("stream_options"))
            if asked.get("include_usage") is None:
                options = {**asked, "include_usage": True}
                call = replace(call, request={**call.request, "stream_options": options})
        return (yield call)


class _Stopped(Exception):
    """Carries the function's own StopIteration, which can't be thrown into a generator."""

    def __init__(self, error: StopIteration) -> None:
        super().__init__(error)
        self.error = error


def drive(interceptors: tuple[Interceptor, ...], call: Call, send: Callable[[Call], Any]) -> Any:
    """Run the chain around `send`."""
    plan = _compose(interceptors, call)
    try:
        step = next(plan)
        while True:
            try:
                result = send(step)
            except StopIteration as error:
                step = plan.throw(_Stopped(error))
            except Exception as error:  # noqa: BLE001  # the interceptors decide what becomes of it
                step = plan.throw(error)
            else:
                step = plan.send(result)
    except StopIteration as done:
        return done.value
    except _Stopped as stopped:
        raise stopped.error from None


async def adrive(interceptors: tuple[Interceptor, ...], call: Call, send: Callable[[Call], Awaitable[Any]]) -> Any:
    """`drive`, awaiting `send`."""
    plan = _compose(interceptors, call)
    try:
        step = next(plan)
        while True:
            try:
                result = await send(step)
            except Exception as error:  # noqa: BLE001  # the interceptors decide what becomes of it
                step = plan.throw(error)
            else:
                step = plan.send(result)
    except StopIteration as done:
        return done.value


def _compose(interceptors: tuple[Interceptor, ...], call: Call) -> Generator[Call, Any, Any]:
    """The whole chain as one generator: the first interceptor is the outermost."""
    if not interceptors:
        return (yield call)
    steps = interceptors[0].around(call)
    try:
        step = next(steps)
        while True:
            try:
                result = yield from _compose(interceptors[1:], step)
            except Exception as error:  # noqa: BLE001  # this interceptor decides what becomes of it
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as done:
        return done.value
