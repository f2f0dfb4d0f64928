"""Where finished spans and feedback go: the Protocol that the store and the exporters implement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from loopkit.capture.places import Place
from loopkit.types import Feedback
from loopkit.wire.encode import EncodedSpan


@dataclass(frozen=True, slots=True)
class Batch:
    """What the worker hands to every sink: spans, encoded once, and feedback events, in order of arrival."""

    spans: tuple[EncodedSpan, ...] = ()
    feedback: tuple[Feedback, ...] = ()
    resource: bytes | None = None
    """What the spans' process is, where another one recorded them than this."""
    places: Mapping[str, Place] = field(default_factory=dict[str, Place])
    """By the ids of feedback events, what they are about: as far as it is known, and for who exports alone."""


class NotTaken(OSError):
    """A sink could not take all of a batch now: `left` is to be tried again."""

    def __init__(self, said: str, left: Batch) -> None:
        super().__init__(said)
        self.left = left


class Sink(Protocol):
    """Takes batches on the worker's thread. Provisional until a third implementation stands behind it."""

    @property
    def durable(self) -> bool | None:
        """Whether what was accepted outlives the process; None where that is for others to say."""
        ...

    def accept(self, batch: Batch) -> None:
        """Keep the batch. On return it is on disk; raise `OSError` or `StoreUnusable` where it isn't, `NotTaken` where
        a part of it is."""

    def sync(self) -> None:
        """Have what was accepted survive a power failure too, as far as the disk's own cache."""

    def close(self, timeout: float) -> None:
        """Give back threads, files and connections within `timeout` seconds."""

    def after_fork(self) -> None:
        """Called in a forked child before anything else: forget the parent's connections."""


@runtime_checkable
class Drainable(Protocol):
    """A sink that sends what it took somewhere else, later."""

    @property
    def lost(self) -> int:
        """How much was refused there, or dropped before, since this process started."""
        ...

    def drained(self, timeout: float) -> bool:
        """Wait until all of it has been taken there, or refused; False at the timeout, in seconds."""
        ...
