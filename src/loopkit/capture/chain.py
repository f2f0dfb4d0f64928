"""Interceptors: what may look at a call, change it, answer it, repeat it or stop it.

An interceptor is a plain generator and has no colour: what it wants to be done it yields, and a driver does the waiting
(`loopkit.capture.drive`), as httpx's clients do for its authentication flows. Guards and routers are interceptors, and
so are users' own plugins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, TypeAlias

from loopkit import _host
from loopkit.capture.breaker import Breaker
from loopkit.capture.dialects._content import Said, changed_texts, heard, mapping
from loopkit.capture.dialects._protocol import Dialect
from loopkit.errors import LoopkitError
from loopkit.types import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call on its way: a provider's request body, or a function's inputs by name."""

    task: str | None
    request: Mapping[str, Any]
    dialect: Dialect | None = None
    """None for a decorated function."""
    provider: str = ""
    """Who serves the model, by OpenTelemetry's name."""
    stream: bool = False
    kind: Kind = "llm"
    """Of the span."""
    name: str | None = None
    """Of the function."""
    course: Course = field(default_factory=lambda: Course(), compare=False, repr=False)
    """What became of it; all that is made of one call shares it."""

    @property
    def sent(self) -> Call | None:
        """The call as it was made last, after all interceptors; None before."""
        return self.course.sent

    def asks(self) -> list[Said]:
        """The texts that the model or function is about to read, each with what it is."""
        return heard(self.with_input)

    def says(self, result: Any) -> list[Said]:
        """The texts that came back, each with what it is."""
        if self.dialect is not None:
            return heard(partial(self.dialect.hear, result))
        return heard(partial(changed_texts, result))

    def with_input(self, change: Callable[[str], str]) -> Call:
        """The call with those texts changed."""
        if self.dialect is not None:
            return replace(self, request=self.dialect.with_input(self.request, change))
        return replace(self, request=changed_texts(dict(self.request), change))

    def words(self, result: Any) -> str:
        """What the model answered."""
        text: Callable[[Any], str] | None = getattr(self.dialect, "text", None)
        return "" if text is None else text(result)

    def told(self, message: str, words: str) -> Call:
        """The call once more, after the model was told what was wrong with these words of it; a function is told
        nothing."""
        if self.dialect is None:
            return self
        with_turns = getattr(self.dialect, "with_turns", None)
        if with_turns is not None:
            turns = [*([("assistant", words)] if words else []), ("user", message)]
            return replace(self, request=with_turns(self.request, turns))
        places = self.asks()
        last = len(places) - 1
        count = iter(range(len(places)))
        return self.with_input(lambda text: f"{text}\n\n{message}" if next(count) == last else text)

    def with_output(self, result: Any, change: Callable[[str], str]) -> Any:
        """The result with those texts changed."""
        if self.dialect is not None:
            return self.dialect.with_output(result, change)
        return changed_texts(result, change)


@dataclass(eq=False, slots=True)
class Course:
    """What became of a call so far."""

    sent: Call | None = None
    came: list[Any] = field(default_factory=list)
    """What models answered, attempt after attempt, nothing where nobody will hear it; not yet a stream that is to be
    read."""
    read: Came | None = None
    """The stream that came last, where it has been read already."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Yielded: work to be begun now, beside whatever comes. Given is what `Join` waits for.

    Where the work fails while a call is being made, nobody waits for the call any longer: `Interrupt` is raised where
    the call was yielded. An async call is cancelled; a sync one ends on its thread.
    """

    work: Callable[[], Any]
    timeout: float | None = None
    """Seconds."""
    blocks: bool = False
    """Whether it is no coroutine function, but one that waits by itself: it gets a thread."""
    is_waited_for: bool = True
    """Else it goes on when the plan is over."""
    interrupts: bool = True
    """Whether its failure stops a call; else it is seen by who joins it."""


@dataclass(eq=False, slots=True)
class Running:
    """Work that was begun."""

    future: Any
    timeout: float | None
    """Seconds since `began_at`."""
    began_at: float
    interrupts: bool = True
    is_dropped: bool = False
    """Whether nobody asks any more what became of it."""

    def drop(self) -> None:
        """Stop it, where it can be stopped."""
        self.is_dropped = True
        self.future.cancel()
        self.future.add_done_callback(forgotten)


def forgotten(future: Any) -> None:
    """Else the loop would complain that nobody asked."""
    if not future.cancelled():
        future.exception()


@dataclass(frozen=True, slots=True)
class Join:
    """Yielded: wait for work. Given is what it gives, or its exception is raised; `OutOfTime` when its time is up, or
    after so many seconds from now."""

    running: Running
    seconds: float | None = None


class OutOfTime(TimeoutError):
    """Work took longer than it may."""


@dataclass(frozen=True, slots=True)
class Read:
    """Yielded: read a stream to its end. Given is what `Came`, or its exception is raised."""

    stream: Any
    chunks: list[Any] = field(default_factory=list)
    """Those that came."""


@dataclass(frozen=True, slots=True)
class Came:
    """A stream that has been read."""

    chunks: list[Any]
    """As they came."""
    passed: list[Any]
    """What interceptors have let pass of them."""
    error: BaseException | None
    """What they stopped it with."""
    depth: int
    """How many interceptors these were, from the innermost."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Yielded amid long computing: lets others go on in an event loop."""


class Interrupt(BaseException):
    """Work that ran beside a call has failed, so the call was given up. For who began it: hence no `Exception`."""

    def __init__(self, running: Running, error: BaseException) -> None:
        super().__init__(error)
        self.running = running
        self.error = error


Effect: TypeAlias = "Begin | Join | Read | Pause"
Plan: TypeAlias = "Generator[Call | Effect, Any, Any]"
Passing: TypeAlias = "Generator[Effect, Any, list[Any]]"


class Interceptor(Protocol):
    """Stands around calls. May also have `filter(call) -> Filter | None`, for streams. Provisional.

    With `must_see = False` a call that can't be read is made without it; otherwise it is not made (`Unguarded`). With
    `sees_output = True` nobody may ask for an answer in a form in which it can't be read (raw responses). With
    `on_error = "open"` calls go on without it where it fails itself, and after five failures in a row they do so for
    half a minute without asking it; otherwise what it raises, the caller gets. Of several the one with the higher
    `priority` (0 where it has none) is further out: it sees a call before the others do, and its answer after them.
    """

    def around(self, call: Call) -> Plan:
        """Yield the call, as it is or altered, to let it go on, and receive its result (or its exception).

        Yield again to make another attempt. Return what the caller is to get; raise to stop. Yield `Begin` and `Join`
        for what has to be waited for.
        """
        ...


class Cut(Exception):
    """Raised by a filter that stops a stream: these chunks pass on still, then the error is raised, if there is one."""

    def __init__(self, passed: list[Any], error: BaseException | None) -> None:
        super().__init__(error)
        self.passed = passed
        self.error = error


class Filter(Protocol):
    """What an interceptor does to a stream. Either method may be a generator too, which yields `Begin` and `Join`.

    It may also have `close()`, which is called once, when the stream is over: read to its end, stopped, or given up.
    """

    def feed(self, chunk: Any) -> list[Any] | Passing:
        """The chunks that may pass on now. Raises `Cut` to stop the stream after them."""
        ...

    def end(self) -> list[Any] | Passing:
        """The rest, when the stream has ended; raise to stop it."""
        ...


def chained(interceptors: Iterable[Interceptor]) -> tuple[Interceptor, ...]:
    """In their order, outermost first, each as it is to be treated when it fails."""
    found = sorted(interceptors, key=lambda each: -getattr(each, "priority", 0))
    return tuple(Dispensable(each) if getattr(each, "on_error", "closed") == "open" else each for each in found)


def compose(interceptors: tuple[Interceptor, ...], call: Call) -> Plan:
    """The whole chain as one generator: the first interceptor is the outermost."""
    if not interceptors:
        return (yield from _sent(call))
    steps = interceptors[0].around(call)
    begun: list[Running] = []
    try:
        step = next(steps)
        while True:
            try:
                if isinstance(step, Call):
                    mine = step if step.course is call.course else replace(step, course=call.course)
                    result = yield from compose(interceptors[1:], mine)
                elif isinstance(step, Read):
                    result = yield from _read(step, interceptors[1:], call)
                else:
                    result = yield step
                    if isinstance(step, Begin) and step.is_waited_for:
                        begun.append(result)
            except (Exception, Interrupt) as error:  # noqa: BLE001  # this interceptor decides what becomes of it
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as done:
        return done.value
    finally:  # what it has not asked for is nobody's: it must not stop what others still do
        for each in begun:
            each.drop()


def _sent(call: Call) -> Plan:
    """The call is made."""
    course = call.course
    course.sent, course.read = replace(call, course=Course()), None  # a copy: else each would be a circle
    try:
        result = yield call
    except (Interrupt, GeneratorExit):  # its caller has gone: the model answers all the same
        course.came.append({})
        raise
    except Exception as error:
        # an SDK that couldn't parse an answer carries it; after a timeout one may have been made, as after the above
        parsed = getattr(error, "completion", None)
        if parsed is not None or "Timeout" in type(error).__name__:
            course.came.append(parsed or {})
        raise
    if not call.stream:
        course.came.append(result)
    return result


def _read(step: Read, inner: tuple[Interceptor, ...], call: Call) -> Generator[Effect, Any, Came]:
    """A stream as interceptors further in let it pass."""
    yield step
    passed, error = yield from filtered(stream_filters(inner, call), step.chunks)
    return Came(step.chunks, passed, error, len(inner))


def stream_filters(interceptors: Iterable[Interceptor], call: Call) -> tuple[Filter, ...]:
    """What interceptors want to see of a stream, innermost first. Where some have read it, what they let pass."""
    waiting, read = list(interceptors), call.course.read
    found: list[Filter] = []
    if read is not None:
        waiting = waiting[: len(waiting) - read.depth]
        found.append(_AlreadyRead(read))
    for interceptor in reversed(waiting):
        make = getattr(interceptor, "filter", None)
        made = None if make is None else make(call)
        if made is not None:
            found.append(made)
    return tuple(found)


class _AlreadyRead:
    """What interceptors have let pass of a stream, when it is read again."""

    def __init__(self, read: Came) -> None:
        self._read = read

    def feed(self, chunk: Any) -> list[Any]:  # it has been looked at
        """See `Filter.feed`."""
        return []

    def end(self) -> list[Any]:
        """See `Filter.end`."""
        if self._read.error is not None:
            raise Cut(self._read.passed, self._read.error)
        return self._read.passed


def filtered(
    filters: Sequence[Filter], chunks: Iterable[Any]
) -> Generator[Effect, Any, tuple[list[Any], BaseException | None]]:
    """What filters let pass of a whole stream, and what they stopped it with."""
    passed: list[Any] = []
    try:
        for chunk in chunks:
            passed += yield from through(filters, [chunk])
        passed += yield from ended(filters)
    except Cut as cut:
        return passed + cut.passed, cut.error
    except Exception as error:  # noqa: BLE001  # raised when what has passed is read
        return passed, error
    finally:
        for each in filters:
            with _host.Shielded("closing a filter"):
                getattr(each, "close", _nothing)()
    return passed, None


def _nothing() -> None:
    pass


def through(filters: Sequence[Filter], chunks: list[Any]) -> Passing:
    """Chunks on their way through filters."""
    for index, each in enumerate(filters):
        passed: list[Any] = []
        for chunk in chunks:
            try:
                passed += yield from _given(each.feed(chunk))
            except Cut as cut:
                raise Cut((yield from through(filters[index + 1 :], passed + cut.passed)), cut.error) from None
        chunks = passed
    return chunks


def ended(filters: Sequence[Filter]) -> Passing:
    """What filters still hold when the stream is over: each one's rest goes through those after it."""
    rest: list[Any] = []
    for index, each in enumerate(filters):
        try:
            rest += yield from through(filters[index + 1 :], (yield from _given(each.end())))
        except Cut as cut:
            raise Cut([*rest, *cut.passed], cut.error) from None
    return rest


def _given(made: list[Any] | Passing) -> Passing:
    return made if isinstance(made, list) else (yield from made)


class Dispensable:
    """An interceptor that calls go on without where it fails."""

    def __init__(self, inner: Interceptor) -> None:
        self._inner = inner
        self._name = str(getattr(inner, "name", type(inner).__name__))
        self._breaker = Breaker()
        self.must_see: bool = getattr(inner, "must_see", True)
        self.sees_output: bool = getattr(inner, "sees_output", False)

    def around(self, call: Call) -> Plan:
        """See `Interceptor.around`. Of what fails after the call, the call's own outcome stands."""
        if self._breaker.is_open():
            return (yield call)
        steps = self._inner.around(call)
        move: Callable[[], Any] = partial(next, steps)
        outcome: tuple[Any, BaseException | None] | None = None
        while True:
            try:
                step = move()
            except StopIteration as done:
                self._breaker.worked()
                return done.value
            except Exception as error:
                if not self._is_its_own(error) or (outcome is not None and outcome[1] is error):
                    raise
                self._failed(error)
                if outcome is None:
                    return (yield call)
                if outcome[1] is not None:
                    raise outcome[1] from None
                return outcome[0]
            try:
                # a failure beside the call is seen when it is asked for: the call goes on without
                given = yield replace(step, interrupts=False) if isinstance(step, Begin) else step
            except (Exception, Interrupt) as error:  # noqa: BLE001  # the interceptor decides what becomes of it
                move = partial(steps.throw, error)
                outcome = (None, error) if isinstance(step, Call) else outcome
            else:
                move = partial(steps.send, given)
                outcome = (given, None) if isinstance(step, Call) else outcome

    def filter(self, call: Call) -> Filter | None:
        """See `Interceptor`."""
        make = getattr(self._inner, "filter", None)
        if make is None or self._breaker.is_open():
            return None
        try:
            made: Filter | None = make(call)
        except Exception as error:
            if not self._is_its_own(error):
                raise
            self._failed(error)
            return None
        return None if made is None else _DispensableFilter(made, self)

    @staticmethod
    def _is_its_own(error: Exception) -> bool:
        """Whether the interceptor has failed: what is raised on purpose is a refusal."""
        return not isinstance(error, LoopkitError)

    def _failed(self, error: Exception) -> None:
        self._breaker.failed()
        _host.warn_once(
            f"interceptor {self._name}", f"{self._name} failed ({type(error).__name__}): calls go on without it"
        )


class _DispensableFilter:
    """Where it fails, what it still held passes, and so does all that comes."""

    def __init__(self, inner: Filter, owner: Dispensable) -> None:
        self._inner: Filter | None = inner
        self._owner = owner
        self._held: deque[Any] = deque()

    def feed(self, chunk: Any) -> list[Any] | Passing:
        """See `Filter.feed`."""
        self._held.append(chunk)
        return self._passed(lambda inner: inner.feed(chunk))

    def end(self) -> list[Any] | Passing:
        """See `Filter.end`."""
        return self._passed(lambda inner: inner.end())

    def close(self) -> None:
        """See `Filter`."""
        close = getattr(self._inner, "close", None)
        if close is not None:
            close()

    def _passed(self, ask: Callable[[Filter], list[Any] | Passing]) -> Passing:
        if self._inner is not None:
            try:
                passed = yield from _given(ask(self._inner))
            except Exception as error:
                if isinstance(error, (LoopkitError, Cut)):
                    raise
                self._owner._failed(error)  # pyright: ignore[reportPrivateUsage]
                self.close()
                self._inner = None
            else:
                for _ in passed:
                    if self._held:
                        self._held.popleft()
                return passed
        rest = list(self._held)
        self._held.clear()
        return rest


def must_see(interceptors: tuple[Interceptor, ...]) -> bool:
    """Whether one of them is to see every call."""
    return any(getattr(each, "must_see", True) for each in interceptors)


class IncludeUsage:
    """Asks for the usage of streams, which OpenAI's API leaves out otherwise: one more chunk, without choices."""

    must_see = False

    def around(self, call: Call) -> Plan:
        """See `Interceptor.around`."""
        name = None if call.dialect is None else call.dialect.name
        if call.stream and name in ("openai.chat", "openai.completions"):
            asked = mapping(call.request.get("stream_options"))
            if asked.get("include_usage") is None:
                options = {**asked, "include_usage": True}
                call = replace(call, request={**call.request, "stream_options": options})
        return (yield call)
