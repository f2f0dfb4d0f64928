"""One test for both colours: what is awaitable is awaited."""

from __future__ import annotations

import inspect
from typing import Any


async def value(thing: Any) -> Any:
    """The thing, awaited where it is awaitable: one test for both colours."""
    return await thing if inspect.isawaitable(thing) else thing


async def collect(stream: Any, most: int | None = None) -> list[Any]:
    """The stream's chunks, at most so many."""
    chunks: list[Any] = []
    if hasattr(stream, "__aiter__"):
        async for chunk in stream:
            chunks.append(chunk)
            if len(chunks) == most:
                break
    else:
        for chunk in stream:
            chunks.append(chunk)
            if len(chunks) == most:
                break
    return chunks


async def closed(stream: Any) -> None:
    """The stream, closed before its end."""
    close = getattr(stream, "aclose", None) or stream.close
    await value(close())


class Entered:
    """`async with` over a context manager of either colour."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    async def __aenter__(self) -> Any:
        if hasattr(self._manager, "__aenter__"):
            return await self._manager.__aenter__()
        return self._manager.__enter__()

    async def __aexit__(self, *error: Any) -> Any:
        if hasattr(self._manager, "__aexit__"):
            return await self._manager.__aexit__(*error)
        return self._manager.__exit__(*error)
