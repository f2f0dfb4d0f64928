"""The two drivers of interceptors: they send the call and do the waiting, without and with await.

Work of an interceptor that runs beside a sync call has a thread, or the process's one helper loop where it is async;
the call itself then has a thread too, so that its caller can be released at once.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from loopkit import _host
from loopkit.capture.chain import Begin, Call, Effect, Interrupt, Join, OutOfTime, Pause, Plan, Read, Running, forgotten

Left = Callable[[Any], None]
"""Is given the future of a call for which nobody waits any longer."""
_CANCEL_SECONDS = 0.01
"""That a cancelled call may take to end, before its caller is released all the same."""


class _Stopped(Exception):
    """Carries the function's own StopIteration, which can't be thrown into a generator."""

    def __init__(self, error: StopIteration) -> None:
        super().__init__(error)
        self.error = error


def _nobody(_: Any) -> None:
    pass


def drive(plan: Plan, send: Callable[[Call], Any], left: Left = _nobody) -> Any:
    """Run a plan; `send` makes the call."""
    begun: list[Running] = []
    came: list[Any] = []
    try:
        step = next(plan)
        while True:
            try:
                if isinstance(step, Call):
                    came.clear()
                    result = _send_beside(send, step, begun, left) if begun else send(step)
                    came.append(result)
                elif isinstance(step, Begin):
                    result = _begin(step)
                    begun += (result,) * step.is_waited_for
                elif isinstance(step, Join):
                    begun.remove(step.running)
                    result = _join(step.running, step.seconds)
                else:
                    result = _read(step)
            except StopIteration as error:
                step = plan.throw(_Stopped(error))
            except (Exception, Interrupt) as error:  # noqa: BLE001  # the interceptors decide what becomes of it
                step = plan.throw(error)
            else:
                step = plan.send(result)
    except StopIteration as done:
        return done.value
    except (Interrupt, _Stopped) as error:
        _give_up(came, left)
        raise error.error from None
    except BaseException:
        _give_up(came, left)
        raise
    finally:
        _ended(plan, begun)


async def adrive(plan: Plan, send: Callable[[Call], Awaitable[Any]], left: Left = _nobody) -> Any:
    """`drive`, awaiting."""
    begun: list[Running] = []
    came: list[Any] = []
    try:
        step = next(plan)
        while True:
            try:
                if isinstance(step, Call):
                    came.clear()
                    result = await (_asend_beside(send, step, begun, left) if begun else send(step))
                    came.append(result)
                elif isinstance(step, Begin):
                    result = _abegin(step)
                    begun += (result,) * step.is_waited_for
                elif isinstance(step, Join):
                    begun.remove(step.running)
                    result = await _ajoin(step.running, step.seconds)
                else:
                    result = await _aread(step)
            except (Exception, Interrupt) as error:  # noqa: BLE001  # the interceptors decide what becomes of it
                step = plan.throw(error)
            else:
                step = plan.send(result)
    except StopIteration as done:
        return done.value
    except Interrupt as error:  # no coroutine raises a StopIteration
        _give_up(came, left)
        raise error.error from None
    except BaseException:
        _give_up(came, left)
        raise
    finally:
        _ended(plan, begun)


def _read(step: Read | Pause) -> Any:
    if isinstance(step, Read):
        step.chunks.extend(step.stream)


async def _aread(step: Read | Pause) -> Any:
    if isinstance(step, Pause):
        await asyncio.sleep(0)
        return
    async for chunk in step.stream:
        step.chunks.append(chunk)


def _ended(plan: Plan, begun: list[Running]) -> None:
    """What has been begun for it is stopped; one that was given up is told so."""
    for running in begun:
        running.drop()
    with _host.Shielded("closing an interceptor"):
        plan.close()


def _give_up(came: list[Any], left: Left) -> None:
    """What the call gave, its caller doesn't get: a stream is to be closed, and what was used to be written down."""
    for result in came:
        done: Future[Any] = Future()
        done.set_result(result)
        left(done)


def settle(plan: Generator[Effect, Any, Any]) -> Any:
    """Run a plan that makes no call."""
    return drive(plan, _no_call)


async def asettle(plan: Generator[Effect, Any, Any]) -> Any:
    """`settle`, awaiting."""
    return await adrive(plan, _no_call)


def _no_call(_: Call) -> Any:
    raise TypeError("there is no call to be made here")


def _send_beside(send: Callable[[Call], Any], call: Call, begun: list[Running], left: Left) -> Any:
    """Make the call on a thread, and wait until it is over or something that was begun has failed."""
    _stop_if_failed(begun)
    sent = _on_thread(lambda: send(call))
    while True:
        wait({sent, *_pending(begun)}, return_when=FIRST_COMPLETED)
        try:
            _stop_if_failed(begun)
        except Interrupt:
            left(sent)
            raise
        if sent.done():
            return sent.result()


async def _asend_beside(send: Callable[[Call], Awaitable[Any]], call: Call, begun: list[Running], left: Left) -> Any:
    _stop_if_failed(begun)
    sent = asyncio.ensure_future(send(call))
    sent.add_done_callback(forgotten)
    try:
        while True:
            await asyncio.wait({sent, *_pending(begun)}, return_when=asyncio.FIRST_COMPLETED)
            try:
                _stop_if_failed(begun)
            except Interrupt:
                left(sent)
                sent.cancel()
                await asyncio.wait({sent}, timeout=_CANCEL_SECONDS)
                raise
            if sent.done():
                return sent.result()
    except asyncio.CancelledError:
        if sent.done() and not sent.cancelled() and sent.exception() is None:
            left(sent)
        sent.cancel()
        await asyncio.wait({sent})
        raise


def _pending(begun: list[Running]) -> set[Any]:
    return {each.future for each in begun if each.interrupts and not each.future.done()}


def _stop_if_failed(begun: list[Running]) -> None:
    for each in begun:
        future = each.future
        if each.is_dropped or not each.interrupts or not future.done() or future.cancelled():
            continue
        if (error := future.exception()) is not None:
            raise Interrupt(each, error)


def _begin(step: Begin) -> Running:
    future: Any = _on_thread(step.work) if step.blocks else _on_helper_loop(step.work)
    return Running(future, step.timeout, time.monotonic(), step.interrupts)


def _abegin(step: Begin) -> Running:
    work: Any = asyncio.wrap_future(_on_thread(step.work)) if step.blocks else step.work()
    task = asyncio.ensure_future(work)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return Running(task, step.timeout, time.monotonic(), step.interrupts)


_tasks: set[asyncio.Future[Any]] = set()
"""The loop itself holds its tasks weakly."""


def _join(running: Running, seconds: float | None) -> Any:
    wait({running.future}, timeout=_left(running, seconds))
    return _outcome(running)


async def _ajoin(running: Running, seconds: float | None) -> Any:
    await asyncio.wait({running.future}, timeout=_left(running, seconds))
    return _outcome(running)


def _left(running: Running, seconds: float | None) -> float | None:
    """How long it may be waited for."""
    until = None if running.timeout is None else max(running.began_at + running.timeout - time.monotonic(), 0.0)
    known = [each for each in (until, seconds) if each is not None]
    return min(known, default=None)


def _outcome(running: Running) -> Any:
    future = running.future
    if not future.done():
        running.drop()
        told = "in time" if running.timeout is None else f"within {running.timeout:g} s"
        raise OutOfTime(f"no answer {told}")
    if future.cancelled():  # by itself: it is no reason to think that its caller was
        raise RuntimeError("it was cancelled")
    return future.result()


async def in_time(work: Awaitable[Any], seconds: float | None) -> Any:
    """What is awaited, unless it takes longer. Raises `OutOfTime`, which says so."""
    if seconds is None:
        return await work
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not task.done():
        task.cancel()
        task.add_done_callback(forgotten)
        raise OutOfTime(f"no answer within {seconds:g} s")
    return task.result()


def _on_thread(work: Callable[[], Any]) -> Future[Any]:
    """A thread of its own, with the caller's context: it may hang without keeping others, or the process, waiting.
    Where there can be no more threads, it is done here."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            result = context.run(work)
        except StopIteration:  # a future can't carry it into a coroutine
            future.set_exception(RuntimeError("it raised StopIteration"))
        except BaseException as error:  # noqa: BLE001  # whoever waits for it gets it
            future.set_exception(error)
        else:
            future.set_result(result)

    try:
        threading.Thread(target=run, name="loopkit-beside", daemon=True).start()
    except RuntimeError:
        run()
    return future


_loops: dict[int, tuple[asyncio.AbstractEventLoop, threading.Thread]] = {}


def _on_helper_loop(work: Callable[[], Awaitable[Any]]) -> Future[Any]:
    """On the process's one loop for what is async below a sync call. What is called from there itself has a thread."""
    loop, thread = _helper_loop()
    if thread is threading.current_thread():
        return _on_thread(lambda: asyncio.run(_guarded(work)))
    return asyncio.run_coroutine_threadsafe(_guarded(work), loop)


async def _guarded(work: Callable[[], Awaitable[Any]]) -> Any:
    """What would end a program must not end the loop."""
    try:
        return await work()
    except (SystemExit, KeyboardInterrupt) as error:
        raise RuntimeError(f"it raised {type(error).__name__}") from error


def _helper_loop() -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
    """No lock, which a fork could leave locked: of two that begin at once one wins."""
    known = _loops.get(os.getpid())
    if known is None or not known[1].is_alive():
        loop = asyncio.new_event_loop()
        made = loop, threading.Thread(target=loop.run_forever, name="loopkit-async", daemon=True)
        made[1].start()
        if known is not None:
            _loops.pop(os.getpid(), None)
        known = _loops.setdefault(os.getpid(), made)
        if known is not made:
            loop.call_soon_threadsafe(loop.stop)
    return known
