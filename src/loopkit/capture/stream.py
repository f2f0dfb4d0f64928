"""Streams: one iterator in both colours that records what passes and lets interceptors hold it back.

A stream being read is not the current span, and nothing stays attached across a yield: a stream may be closed
from another task, and OpenTelemetry's context can't be left there.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

from loopkit.capture.chain import Cut, Filter, ended, through
from loopkit.capture.drive import asettle, settle
from loopkit.capture.recording import Recording


class RecordedIterator:
    """Stands in for the SDK stream's own iterator; each chunk is recorded, then filtered, then given out."""

    def __init__(self, inner: Any, recording: Recording, filters: tuple[Filter, ...], close: Callable[[], Any]) -> None:
        self._inner = inner
        self._recording = recording
        self._filters = filters
        self._close = close
        recording.closes(filters)
        self._ready: deque[Any] = deque()
        self._ended = False
        self._error: BaseException | None = None
        self.stepping = False
        """True while the SDK's iterator runs: it closes the response itself at the end of the stream."""

    def __iter__(self) -> RecordedIterator:
        return self

    def __aiter__(self) -> RecordedIterator:
        return self

    def __next__(self) -> Any:
        while not self._ready:
            if self._ended:
                raise self._over or StopIteration
            self.stepping = True
            try:
                chunk = next(self._inner)
            except StopIteration:
                self._ended = True
                with self._passing(), self._recording.attached():
                    self._ready.extend(settle(ended(self._filters)))
                self._recording.ended()
            except BaseException as error:
                self._ended = True
                self._recording.raised(error)
                raise
            else:
                self._recording.chunk(chunk)
                if not self._filters:
                    return chunk
                with self._passing(), self._recording.attached():
                    self._ready.extend(settle(through(self._filters, [chunk])))
                if self._ended:
                    with contextlib.suppress(Exception):  # what stopped it is what its reader is told
                        self._close()
            finally:
                self.stepping = False
        return self._ready.popleft()

    async def __anext__(self) -> Any:
        while not self._ready:
            if self._ended:
                raise self._over or StopAsyncIteration
            self.stepping = True
            try:
                chunk = await self._inner.__anext__()
            except StopAsyncIteration:
                self._ended = True
                with self._passing(), self._recording.attached():
                    self._ready.extend(await asettle(ended(self._filters)))
                self._recording.ended()
            except BaseException as error:
                self._ended = True
                self._recording.raised(error)
                raise
            else:
                self._recording.chunk(chunk)
                if not self._filters:
                    return chunk
                with self._passing(), self._recording.attached():
                    self._ready.extend(await asettle(through(self._filters, [chunk])))
                if self._ended:
                    with contextlib.suppress(Exception):
                        await self._close()
            finally:
                self.stepping = False
        return self._ready.popleft()

    def abandoned(self) -> None:
        """Closed before its end."""
        self._recording.abandoned()

    @property
    def _over(self) -> BaseException | None:
        """What stopped it, once."""
        error, self._error = self._error, None
        return error

    @contextlib.contextmanager
    def _passing(self) -> Generator[None]:
        """What a filter raises ends the stream; what it lets pass still comes first."""
        try:
            yield
        except BaseException as error:  # noqa: BLE001  # raised when what had passed has been read
            self._ended = True
            self._ready.extend(error.passed if isinstance(error, Cut) else ())
            self._error = error.error if isinstance(error, Cut) else error
            self._recording.cut(self._error)


def watch_stream(stream: Any, recording: Recording, filters: tuple[Filter, ...], iterator: str = "_iterator") -> Any:
    """Put the recording iterator inside an SDK's stream object: the type stays, and so does its identity.

    Both Stainless stream classes keep their iterator in `_iterator` and their HTTP response in `response`; Mistral's
    in `generator`.
    """
    response = stream.response
    busy = _watch_close(response, recording)
    _put_inside(stream, recording, filters, busy, iterator)
    return stream


def is_readable(stream: Any) -> bool:
    """Whether it can be read, and given to its reader as if it hadn't been."""
    is_sdks = hasattr(stream, "response") and (hasattr(stream, "_iterator") or hasattr(stream, "generator"))
    return is_sdks or hasattr(stream, "__next__") or hasattr(stream, "__anext__")


def unread(stream: Any, chunks: list[Any]) -> Any:
    """A stream that has been read, from its beginning: the SDK's object, or a generator in the place of one."""
    again = _again(chunks) if hasattr(stream, "__aiter__") else iter(chunks)
    for name in ("_iterator", "generator"):
        if hasattr(stream, name) and hasattr(stream, "response"):
            setattr(stream, name, again)
            return stream
    return again


async def _again(chunks: list[Any]) -> AsyncIterator[Any]:
    for chunk in chunks:
        yield chunk


def watch_raw(raw: Any, recording: Recording, filters: tuple[Filter, ...]) -> Any:
    """A raw response whose body hasn't been read: recorded when the application reads, parses or closes it."""
    busy = _watch_close(raw.http_response, recording)
    _watch_read(raw.http_response, recording, busy)
    watch_garbage(raw, recording)
    recording.remember(raw)
    parse = raw.parse

    def parsed(*args: Any, **kwargs: Any) -> Any:
        result = parse(*args, **kwargs)
        return _awaited(result) if hasattr(result, "__await__") else kept(result)

    async def _awaited(result: Any) -> Any:
        return kept(await result)

    def kept(result: Any) -> Any:
        if not (hasattr(result, "_iterator") and hasattr(result, "response")):
            recording.remember(result)
        elif not isinstance(result._iterator, RecordedIterator):  # parse() gives the same stream twice
            _put_inside(result, recording, filters, busy)
        return result

    raw.parse = parsed
    return raw


def watch_generator(inner: Any, recording: Recording, filters: tuple[Filter, ...]) -> Any:
    """A generator in the place of one, or of an iterator that is no object to hold on to."""
    recording.closes(filters)  # one that is never begun is over too
    made = _awatched(inner, recording, filters) if hasattr(inner, "__anext__") else _watched(inner, recording, filters)
    watch_garbage(made, recording)
    recording.remember(made)
    return made


def _watched(inner: Any, recording: Recording, filters: tuple[Filter, ...]) -> Iterator[Any]:
    try:
        yield from RecordedIterator(inner, recording, filters, getattr(inner, "close", _nothing))
    finally:
        recording.abandoned()
        getattr(inner, "close", _nothing)()


async def _awatched(inner: Any, recording: Recording, filters: tuple[Filter, ...]) -> AsyncIterator[Any]:
    close = getattr(inner, "aclose", _anothing)
    try:
        async for chunk in RecordedIterator(inner, recording, filters, close):
            yield chunk
    finally:
        recording.abandoned()
        await close()


def _nothing() -> None:
    pass


async def _anothing() -> None:
    pass


def watch_body(response: Any, recording: Recording) -> None:
    """An HTTP response whose body hasn't been read: recorded when the application reads or closes it."""
    busy = _watch_close(response, recording)
    _watch_read(response, recording, busy)
    watch_garbage(response, recording)


class _Busy:
    """Up while the SDK or httpx reads: they close the response themselves at the end of the body.

    As a context: one step of reading the body. One that fails is the call's failure.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self.iterator: RecordedIterator | None = None
        self.reading = 0

    def __bool__(self) -> bool:
        return self.reading > 0 or (self.iterator is not None and self.iterator.stepping)

    def __enter__(self) -> None:
        self.reading += 1

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.reading -= 1
        if error is not None and not isinstance(error, (StopIteration, StopAsyncIteration)):
            self._recording.raised(error)


def _put_inside(
    stream: Any, recording: Recording, filters: tuple[Filter, ...], busy: _Busy, iterator: str = "_iterator"
) -> None:
    response = stream.response
    close = response.aclose if hasattr(stream, "__aiter__") else response.close
    busy.iterator = RecordedIterator(getattr(stream, iterator), recording, filters, close)
    setattr(stream, iterator, busy.iterator)
    watch_garbage(stream, recording)
    recording.remember(stream)


def _watch_read(response: Any, recording: Recording, busy: _Busy) -> None:
    """Reading the whole body, at once or in pieces, answers the call; a parsed stream records itself."""
    iter_bytes, aiter_bytes = response.iter_bytes, response.aiter_bytes

    def watched(*args: Any, **kwargs: Any) -> Iterator[bytes]:
        pieces: list[bytes] = []
        inner = iter_bytes(*args, **kwargs)
        while True:
            try:
                with busy:
                    piece = next(inner)
            except StopIteration:
                break
            pieces.append(piece)
            yield piece
        _read(recording, busy, pieces)

    async def awatched(*args: Any, **kwargs: Any) -> AsyncIterator[bytes]:
        pieces: list[bytes] = []
        inner = aiter_bytes(*args, **kwargs)
        while True:
            try:
                with busy:
                    piece = await inner.__anext__()
            except StopAsyncIteration:
                break
            pieces.append(piece)
            yield piece
        _read(recording, busy, pieces)

    iter_raw, aiter_raw = response.iter_raw, response.aiter_raw

    def watched_raw(*args: Any, **kwargs: Any) -> Iterator[bytes]:
        yield from iter_raw(*args, **kwargs)
        if not busy:  # nobody reads it as text: it has been read all the same
            recording.ended()

    async def awatched_raw(*args: Any, **kwargs: Any) -> AsyncIterator[bytes]:
        async for piece in aiter_raw(*args, **kwargs):
            yield piece
        if not busy:
            recording.ended()

    response.iter_bytes, response.aiter_bytes = watched, awatched
    response.iter_raw, response.aiter_raw = watched_raw, awatched_raw


def _read(recording: Recording, busy: _Busy, pieces: list[bytes]) -> None:
    if busy.iterator is None:
        recording.answered(b"".join(pieces).decode(errors="replace"))


def _watch_close(response: Any, recording: Recording) -> _Busy:
    """The SDKs' stream helpers close the HTTP response directly, past their own stream object."""
    close, aclose = response.close, response.aclose
    busy = _Busy(recording)

    def watched_close() -> None:
        if not busy:
            recording.abandoned()
        close()

    async def watched_aclose() -> None:
        if not busy:
            recording.abandoned()
        await aclose()

    response.close, response.aclose = watched_close, watched_aclose
    return busy


def watch_garbage(thing: Any, recording: Recording) -> None:
    """End the recording when nobody can read the thing any more."""
    with contextlib.suppress(TypeError):
        weakref.finalize(thing, recording.dropped).atexit = False
