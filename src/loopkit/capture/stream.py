"""Streams: one iterator in both colours that records what passes and lets interceptors hold it back.

A stream being read is not the current span, and nothing stays attached across a yield: a stream may be closed
from another task, and OpenTelemetry's context can't be left there.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from loopkit.capture.chain import Filter
from loopkit.capture.recording import Recording


class RecordedIterator:
    """Stands in for the SDK stream's own iterator; each chunk is recorded, then filtered, then given out."""

    def __init__(self, inner: Any, recording: Recording, filters: tuple[Filter, ...], close: Callable[[], Any]) -> None:
        self._inner = inner
        self._recording = recording
        self._filters = filters
        self._close = close
        self._ready: deque[Any] = deque()
        self._ended = False
        self.stepping = False
        """True while the SDK's iterator runs: it closes the response itself at the end of the stream."""

    def __iter__(self) -> RecordedIterator:
        return self

    def __aiter__(self) -> RecordedIterator:
        return self

    def __next__(self) -> Any:
        while not self._ready:
            if self._ended:
                raise StopIteration
            self.stepping = True
            try:
                chunk = next(self._inner)
            except StopIteration:
                self._end()
            except BaseException as error:
                self._recording.raised(error)
                raise
            else:
                try:
                    self._take(chunk)
                except BaseException:
                    self._close()
                    raise
            finally:
                self.stepping = False
        return self._ready.popleft()

    async def __anext__(self) -> Any:
        while not self._ready:
            if self._ended:
                raise StopAsyncIteration
            self.stepping = True
            try:
                chunk = await self._inner.__anext__()
            except StopAsyncIteration:
                self._end()
            except BaseException as error:
                self._recording.raised(error)
                raise
            else:
                try:
                    self._take(chunk)
                except BaseException:
                    await self._close()
                    raise
            finally:
                self.stepping = False
        return self._ready.popleft()

    def _take(self, chunk: Any) -> None:
        self._recording.chunk(chunk)
        self._pass_on([chunk], 0)

    def _end(self) -> None:
        self._ended = True
        try:
            for index, each in enumerate(self._filters):
                self._pass_on(each.end(), index + 1)
        except BaseException as error:
            self._recording.raised(error)
            raise
        self._recording.ended()

    def _pass_on(self, chunks: list[Any], start: int) -> None:
        """Through the filters from `start` on, then out."""
        try:
            for each in self._filters[start:]:
                chunks = [passed for chunk in chunks for passed in each.feed(chunk)]
        except BaseException as error:
            self._recording.raised(error)
            raise
        self._ready.extend(chunks)


def watch_stream(stream: Any, recording: Recording, filters: tuple[Filter, ...]) -> Any:
    """Put the recording iterator inside an SDK's stream object: the type stays, and so does its identity.

    Both Stainless stream classes keep their iterator in `_iterator` and their HTTP response in `response`.
    """
    response = stream.response
    close = getattr(response, "aclose", response.close) if hasattr(stream, "__aiter__") else response.close
    iterator = RecordedIterator(stream._iterator, recording, filters, close)
    stream._iterator = iterator
    _watch_close(response, recording, lambda: iterator.stepping)
    _watch_garbage(stream, recording)
    recording.remember(stream)
    return stream


def watch_raw(raw: Any, recording: Recording, filters: tuple[Filter, ...]) -> Any:
    """A raw response whose body hasn't been read: recorded when the application reads, parses or closes it."""
    reading = _Flag()
    response = raw.http_response
    _watch_read(response, recording, reading)
    _watch_close(response, recording, lambda: reading.up)
    _watch_garbage(raw, recording)
    recording.remember(raw)
    parse = raw.parse

    def parsed(*args: Any, **kwargs: Any) -> Any:
        result = parse(*args, **kwargs)
        if hasattr(result, "__await__"):
            return _awaited(result)
        return kept(result)

    async def _awaited(result: Any) -> Any:
        return kept(await result)

    def kept(result: Any) -> Any:
        if hasattr(result, "_iterator") and hasattr(result, "response"):
            if not isinstance(result._iterator, RecordedIterator):  # parse() gives the same stream twice
                watch_stream(result, recording, filters)
        else:
            recording.remember(result)
        return result

    raw.parse = parsed
    return raw


class _Flag:
    up = False


def _watch_read(response: Any, recording: Recording, reading: _Flag) -> None:
    read, aread = response.read, response.aread

    def watched_read() -> bytes:
        reading.up = True
        try:
            body: bytes = read()
        except BaseException as error:
            recording.raised(error)
            raise
        finally:
            reading.up = False
        recording.answered(body.decode(errors="replace"))
        return body

    async def watched_aread() -> bytes:
        reading.up = True
        try:
            body: bytes = await aread()
        except BaseException as error:
            recording.raised(error)
            raise
        finally:
            reading.up = False
        recording.answered(body.decode(errors="replace"))
        return body

    response.read, response.aread = watched_read, watched_aread


def _watch_close(response: Any, recording: Recording, busy: Callable[[], bool]) -> None:
    """The SDKs' stream helpers close the HTTP response directly, past their own stream object."""
    close, aclose = response.close, response.aclose

    def watched_close() -> None:
        if not busy():
            recording.abandoned()
        close()

    async def watched_aclose() -> None:
        if not busy():
            recording.abandoned()
        await aclose()

    with contextlib.suppress(AttributeError):
        response.close, response.aclose = watched_close, watched_aclose


def _watch_garbage(thing: Any, recording: Recording) -> None:
    with contextlib.suppress(TypeError):
        weakref.finalize(thing, recording.abandoned).atexit = False
