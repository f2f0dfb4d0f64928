"""Which traces are recorded (the head) and which of those are kept (the tail).

Both draw by ids and not by chance, so that every process that sees a part of a trace decides alike. The head's draw is
OpenTelemetry's TraceIdRatioBased; the tail's is a hash of it, so that the two are independent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from loopkit import _host
from loopkit._ids import is_span_id
from loopkit.capture.live import LiveSpan
from loopkit.config import Sampling
from loopkit.types import Feedback, split_target
from loopkit.wire import names
from loopkit.wire.encode import EncodedSpan

_LOW = (1 << 64) - 1
_PASSED = ("allow", None)


def head_probability(sampling: Sampling, task: str | None) -> float:
    """With which a trace that begins with this task is recorded."""
    return sampling.head if task is None else sampling.tasks.get(task, sampling.head)


def head_takes(sampling: Sampling, probability: float, trace_id: int, user_id: str | None) -> bool:
    """Whether such a trace is recorded."""
    if sampling.by == "user" and user_id is not None:
        from hashlib import blake2b  # importing it takes milliseconds

        number = int.from_bytes(blake2b(user_id.encode("utf-8", "replace"), digest_size=8).digest(), "big")
    else:
        number = trace_id & _LOW
    return number < probability * (1 << 64)


def tail_takes(probability: float, trace_id: int) -> bool:
    """Whether the tail keeps this trace even if it is an ordinary one."""
    mixed = _mixed((trace_id & _LOW) ^ _mixed(trace_id >> 64))
    return mixed < probability * (1 << 64)


def _mixed(number: int) -> int:
    """64 bits in which every one depends on all that were given: the finaliser of SplitMix64 (Steele et al. 2014)."""
    number = (number + 0x9E3779B97F4A7C15) & _LOW
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _LOW
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _LOW
    return number ^ (number >> 31)


@dataclass(frozen=True, slots=True)
class Held:
    """A trace's spans, as far as a batch has them, and what feedback on them may name."""

    trace_id: str
    keys: frozenset[str]
    """`trace:…`, `session:…`, tags and response ids; empty in what is released."""
    resource: bytes
    """Of the process that recorded them."""
    spans: tuple[EncodedSpan, ...]


class Ring(Protocol):
    """Where ordinary traces wait until feedback asks for them or their time is over."""

    dropped: int
    """Parts of traces that went before their time was over."""

    def hold(self, traces: Iterable[Held]) -> list[Held]:
        """Keep these; give back those that have been asked for already."""
        ...

    def release(self, keys: Iterable[str], hand_on: Callable[[Iterable[Held]], object]) -> None:
        """Hand on what is held and bears one of these keys, then forget it; what comes later is not held at all."""
        ...

    def close(self) -> None:
        """Give it back."""
        ...


class Tail:
    """The tail's decision, on the worker's thread, a batch at a time."""

    def __init__(self, open_ring: Callable[[], Ring | None], resource: Callable[[], bytes]) -> None:
        """`open_ring` is called when a ring is needed; it gives None while nothing is held here."""
        self._open_ring = open_ring
        self._ring: Ring | None = None
        self._resource = resource
        self.dropped = 0
        """Sampled-out traces that could not be held."""

    def ring(self) -> Ring | None:
        """Where ordinary traces wait, opened now if need be. Raises `StoreUnusable`."""
        if self._ring is None:
            self._ring = self._open_ring()
        return self._ring

    def sift(
        self, spans: Iterable[tuple[LiveSpan, EncodedSpan]], keys: Callable[[LiveSpan], set[str]]
    ) -> tuple[list[EncodedSpan], set[str]]:
        """The spans that are kept now, while the others wait; and the keys of traces to be kept as a whole.

        `keys` says what feedback on a span may name.
        """
        kept: list[EncodedSpan] = []
        waiting: dict[int, list[tuple[LiveSpan, EncodedSpan]]] = {}
        asked: set[str] = set()
        for live, encoded in spans:
            if live.tail_probability == 1.0 or tail_takes(live.tail_probability, live.trace_id):
                kept.append(encoded)
                continue
            if live.kept_for is not None:
                asked.add(f"trace:{live.trace_id:032x}")
            waiting.setdefault(live.trace_id, []).append((live, encoded))
        if not waiting:
            return kept, asked
        resource = self._resource()
        traces = [
            Held(
                f"{trace_id:032x}",
                frozenset(chain.from_iterable(keys(live) for live, _ in pairs)),
                resource,
                tuple(encoded for _, encoded in pairs),
            )
            for trace_id, pairs in waiting.items()
        ]
        now = [trace for trace in traces if not asked.isdisjoint(trace.keys)]
        ordinary = [trace for trace in traces if asked.isdisjoint(trace.keys)]
        try:
            ring = self.ring() if ordinary else None
            if ring is not None:
                now += ring.hold(ordinary)
        except Exception as error:  # noqa: BLE001  # a full disk, say: what was drawn is kept all the same
            self.dropped += len(ordinary)
            _host.warn_now_and_then("ring", f"sampled-out traces can't wait for feedback, and are dropped: {error}")
        for trace in now:
            kept += trace.spans
        return kept, asked

    def release(self, keys: set[str], hand_on: Callable[[bytes, tuple[EncodedSpan, ...]], object]) -> None:
        """Hand on what waits and bears one of these keys: each process's spans with its resource."""

        def hand_on_each(traces: Iterable[Held]) -> None:
            by_resource: dict[bytes, list[EncodedSpan]] = {}
            for trace in traces:
                by_resource.setdefault(trace.resource, []).extend(trace.spans)
            for resource, spans in by_resource.items():
                hand_on(resource, tuple(spans))

        ring = self.ring()
        if ring is not None:
            ring.release(keys, hand_on_each)

    def lost(self) -> int:
        """Sampled-out traces, or parts of them, that could not wait as long as they should."""
        return self.dropped + (0 if self._ring is None else self._ring.dropped)

    def after_fork(self) -> None:
        """In a child: what the parent lost is the parent's to tell."""
        self.dropped = 0
        if self._ring is not None:
            self._ring.dropped = 0

    def close(self) -> None:
        """Give back the ring."""
        if self._ring is not None:
            self._ring.close()


def reason_to_keep(live: LiveSpan, sampling: Sampling) -> str | None:
    """Why this span alone keeps its trace, as far as it can be told without reading it: error, guardrail or slow."""
    if live.status == "error":
        return "error"
    if live.kind == "guardrail" and live.attributes.get(names.GUARD_OUTCOME) not in _PASSED:
        return "guardrail"
    seconds = (live.ended_at - live.started_at) / 1e9
    if sampling.slow is not None and live.local_root and seconds >= sampling.slow:
        return "slow"
    return None


def keys_of(event: Feedback) -> set[str]:
    """What an event asks for, as `Held.keys` has it."""
    return {key_of(target) for target in (event.target, event.preferred_over, *event.ranking) if target is not None}


def key_of(target: str) -> str:
    """A span stands for its trace, and so does a part of it; everything else for itself."""
    target, _ = split_target(target)
    id = target.removeprefix("trace:")
    return f"trace:{id[:32]}" if is_span_id(id) else target
