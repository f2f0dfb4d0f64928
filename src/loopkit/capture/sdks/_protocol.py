"""What an SDK is to us. Provisional."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from loopkit import _host
from loopkit.capture.chain import Call, Interceptor
from loopkit.capture.dialects._protocol import Conversation
from loopkit.capture.hooked import HookedCall
from loopkit.capture.readable import CallersError
from loopkit.capture.recording import arun, run
from loopkit.errors import LoopkitError, Unguarded

Undo = Callable[[], None]
"""Puts back what was there before."""


class Sdk(Protocol):
    """One SDK package, with all its clients."""

    name: str
    """As `instrument()` is told it."""
    conversation: Conversation | None
    """How a router calls its clients; None where it doesn't."""

    def knows(self, client: Any) -> bool:
        """Whether this is one of its clients."""
        ...

    def is_wrapped(self, client: Any) -> bool:
        """Whether `wrap` has been here."""
        ...

    def wrap(self, client: Any, interceptors: tuple[Interceptor, ...], provider: str | None) -> None:
        """Record this client."""
        ...

    def unwrap(self, client: Any) -> None:
        """Give it back as it was."""
        ...


class Instrumented(Protocol):
    """An SDK or a framework that `instrument()` can patch as a whole."""

    name: str
    """As `instrument()` is told it."""
    module: str
    """Whose import makes its classes patchable."""
    extra: str
    """Of loopkit, which installs it."""

    def patch(self, module: Any) -> Undo:
        """Record all that goes through it, clients that are there already too."""
        ...


_UNDO = "_loopkit_undo"


class Patched:
    """For SDKs whose narrow methods are replaced where they are: on a client's own object, or on its class."""

    def patched(self, client: Any) -> Any:
        """The object that is patched, which copies of the client share."""
        return client

    def is_wrapped(self, client: Any) -> bool:
        """See `Sdk.is_wrapped`."""
        return _UNDO in self.patched(client).__dict__

    def remember(self, client: Any, undo: Undo) -> None:
        """How to undo it."""
        self.patched(client).__dict__[_UNDO] = undo

    def unwrap(self, client: Any) -> None:
        """See `Sdk.unwrap`."""
        self.patched(client).__dict__.pop(_UNDO)()


class Begun:
    """A call of a narrow method, about to be made."""

    __slots__ = ("arguments", "hooked", "opened", "received")

    def __init__(
        self,
        hooked: HookedCall,
        arguments: Callable[[Call], tuple[tuple[Any, ...], Mapping[str, Any]]],
        received: Callable[[Any], Any],
        opened: Callable[[Any], Any] | None = None,
    ) -> None:
        """`arguments` are the method's, with the request as the interceptors left it; `opened` makes of what the method
        gave what interceptors are to see; `received` records what came back, and gives what the caller is to get."""
        self.hooked = hooked
        self.arguments = arguments
        self.received = received
        self.opened = opened


Begin = Callable[[Any, tuple[Any, ...], Mapping[str, Any]], Begun | None]
"""From the object and the arguments; None where it is no model call, or nothing wants to see it."""


def hooked_method(
    original: Callable[..., Any], begin: Begin, *, is_async: bool, is_guarded: bool = False
) -> Callable[..., Any]:
    """What stands in the place of a narrow method, which is called with its object first."""

    def method(target: Any, /, *args: Any, **kwargs: Any) -> Any:
        begun = _begun(begin, target, args, kwargs, is_guarded=is_guarded)
        if begun is None:
            return original(target, *args, **kwargs)
        hooked = begun.hooked

        def send(call: Call) -> Any:
            given, named = begun.arguments(call)
            result = original(target, *given, **named)
            return result if begun.opened is None else begun.opened(result)

        return run(hooked.recording, hooked.call, hooked.interceptors, hooked.sent(send), begun.received)

    async def amethod(target: Any, /, *args: Any, **kwargs: Any) -> Any:
        begun = _begun(begin, target, args, kwargs, is_guarded=is_guarded)
        if begun is None:
            return await original(target, *args, **kwargs)
        hooked = begun.hooked

        async def send(call: Call) -> Any:
            given, named = begun.arguments(call)
            result = await original(target, *given, **named)
            return result if begun.opened is None else begun.opened(result)

        return await arun(hooked.recording, hooked.call, hooked.interceptors, hooked.asent(send), begun.received)

    return amethod if is_async else method


def with_argument(
    names: Sequence[str], name: str, value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """The arguments with another value for one of them, in the form in which they came: others' wrappers count them."""
    place = names.index(name)
    if place < len(args):
        return (*args[:place], value, *args[place + 1 :]), kwargs
    return args, {**kwargs, name: value}


def _begun(
    begin: Begin, target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, is_guarded: bool
) -> Begun | None:
    """A call that we can't read is made as it is, unless guards are to see it; how they were asked for is said."""
    try:
        return begin(target, args, kwargs)
    except LoopkitError:
        raise
    except CallersError as theirs:
        raise theirs.error from None
    except Exception as error:  # odd arguments: the SDK is to say so itself
        if is_guarded:
            raise Unguarded(
                f"a call could not be read, so its guards could not check it ({type(error).__name__}: {error}):"
                " give the arguments in the form that the SDK documents"
            ) from error
        if not _host.report("reading a call", error):
            raise
        return None


def all_undone(undos: Iterable[Undo]) -> Undo:
    """Several as one."""
    kept = tuple(undos)

    def undo() -> None:
        for each in kept:
            each()

    return undo


def replace_methods(target: Any, begins: Mapping[str, Begin], *, is_guarded: bool = False) -> Undo:
    """Put hooks in the place of methods, by name, on a class or on one object; gives back what undoes it.

    Where it `is_guarded`, a call that can't be read raises `Unguarded` and is not made.
    """
    return all_undone([replace_method(target, name, _hook(begin, is_guarded)) for name, begin in begins.items()])


def _hook(begin: Begin, is_guarded: bool) -> Callable[[Any, Callable[[], bool]], Any]:
    def make(original: Any, is_on: Callable[[], bool]) -> Any:
        def begin_if_on(target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Begun | None:
            return begin(target, args, kwargs) if is_on() else None

        is_async = inspect.iscoroutinefunction(inspect.unwrap(original))
        return hooked_method(original, begin_if_on, is_async=is_async, is_guarded=is_guarded)

    return make


def replace_method(target: Any, name: str, make: Callable[[Any, Callable[[], bool]], Any]) -> Undo:
    """Put something in the place of a method, on a class, an object or a module; gives back what undoes it.

    `make` is given what was there, and a function that says whether ours is still on: where somebody else has patched
    it since, theirs stays, and ours in it is to let everything pass.
    """
    own, original = target.__dict__.get(name), getattr(target, name)
    on = [True]
    is_object = not isinstance(target, (type, types.ModuleType))
    method = _with_object(original) if is_object else original
    made = functools.wraps(original)(make(method, lambda: bool(on)))
    setattr(target, name, types.MethodType(made, target) if is_object else made)
    ours = target.__dict__[name]

    def undo() -> None:
        on.clear()
        if target.__dict__.get(name) is not ours:
            return
        if own is None:
            delattr(target, name)
        else:
            setattr(target, name, own)

    return undo


def _with_object(method: Any) -> Callable[..., Any]:
    """A method to be called with its object first, which an object's own has already."""

    @functools.wraps(method)
    def call(_: Any, /, *args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs)

    return call
