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

from loopkit.capture.chain import Begin, Call, Effect, Interrupt, Join, Plan, Running

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
    try:
        step = next(plan)
        while True:
            try:
                if isinstance(step, Call):
                    result = _send_beside(send, step, begun, left) if begun else send(step)
                elif isinstance(step, Begin):
                    result = _begin(step)
                    begun += (result,) * step.is_waited_for
                elif isinstance(step, Join):
                    begun.remove(step.running)
                    result = _join(step.running)
                else:
                    result = None
            except StopIteration as error:
                step = plan.throw(_Stopped(error))
            except (Exception, Interrupt) as error:  # noqa: BLE001  # the interceptors decide what becomes of it
                step = plan.throw(error)
            else:
                step = plan.send(result)
    except StopIteration as done:
        return done.value
    except _Stopped as stopped:
        raise stopped.error from None
    except Interrupt as interrupt:
        raise interrupt.error from None
    finally:
        for running in begun:
            _drop(running)


async def adrive(plan: Plan, send: Callable[[Call], Awaitable[Any]], left: Left = _nobody) -> Any:
    """`drive`, awaiting."""
    begun: list[Running] = []
    try:
        step = next(plan)
        while True:
            try:
                if isinstance(step, Call):
                    result = await (_asend_beside(send, step, begun, left) if begun else send(step))
                elif isinstance(step, Begin):
                    result = _abegin(step)
                    begun += (result,) * step.is_waited_for
                elif isinstance(step, Join):
                    begun.remove(step.running)
                    result = await step.running.future
                else:
                    await asyncio.sleep(0)
                    result = None
            except (Exception, Interrupt) as error:  # noqa: BLE001  # the interceptors decide what becomes of it
                step = plan.throw(error)
            else:
                step = plan.send(result)
    except StopIteration as done:
        return done.value
    except Interrupt as interrupt:
        raise interrupt.error from None
    finally:
        for running in begun:
            _drop(running)


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
        wait({sent, *(each.future for each in begun if not each.future.done())}, return_when=FIRST_COMPLETED)
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
    try:
        while True:
            pending = {each.future for each in begun if not each.future.done()}
            await asyncio.wait({sent, *pending}, return_when=asyncio.FIRST_COMPLETED)
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
        sent.cancel()
        await asyncio.wait({sent})
        raise


def _stop_if_failed(begun: list[Running]) -> None:
    for each in begun:
        if each.future.done() and not each.future.cancelled() and (error := each.future.exception()) is not None:
            raise Interrupt(each, error)


def _begin(step: Begin) -> Running:
    if step.blocks:
        return Running(_on_thread(step.work), step.timeout, time.monotonic())
    return Running(asyncio.run_coroutine_threadsafe(_awaited(step), _helper_loop()))


def _abegin(step: Begin) -> Running:
    work = asyncio.wrap_future(_on_thread(step.work)) if step.blocks else step.work()
    task = asyncio.ensure_future(in_time(work, step.timeout))
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return Running(task)


_tasks: set[asyncio.Future[Any]] = set()
"""The loop itself holds its tasks weakly."""


def _join(running: Running) -> Any:
    left = None if running.timeout is None else max(running.began_at + running.timeout - time.monotonic(), 0.0)
    done, _ = wait({running.future}, timeout=left)
    if not done:
        raise TimeoutError(f"no answer within {running.timeout:g} s")
    return running.future.result()


def _drop(running: Running) -> None:
    """Nobody asks any more what became of it."""
    running.future.cancel()
    running.future.add_done_callback(_forgotten)


def _forgotten(future: Any) -> None:
    """Else the loop would complain that nobody asked."""
    if not future.cancelled():
        future.exception()


async def _awaited(step: Begin) -> Any:
    return await in_time(step.work(), step.timeout)


async def in_time(work: Awaitable[Any], seconds: float | None) -> Any:
    """What is awaited, unless it takes longer. Raises `TimeoutError`, which says so."""
    if seconds is None:
        return await work
    try:
        return await asyncio.wait_for(work, seconds)
    except asyncio.TimeoutError:
        raise TimeoutError(f"no answer within {seconds:g} s") from None


def _on_thread(work: Callable[[], Any]) -> Future[Any]:
    """A thread of its own, with the caller's context: it may hang without keeping others, or the process, waiting."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            result = context.run(work)
        except BaseException as error:  # noqa: BLE001  # whoever waits for it gets it
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, name="loopkit-beside", daemon=True).start()
    return future


_loops: dict[int, asyncio.AbstractEventLoop] = {}


def _helper_loop() -> asyncio.AbstractEventLoop:
    """The process's one loop for what is async below a sync call. No lock, which a fork could leave locked."""
    loop = _loops.get(os.getpid())
    if loop is None:
        made = asyncio.new_event_loop()
        loop = _loops.setdefault(os.getpid(), made)
        if loop is made:
            threading.Thread(target=loop.run_forever, name="loopkit-async", daemon=True).start()
        else:
            made.close()
    return loop
