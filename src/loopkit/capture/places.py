"""Where feedback belongs: which span is meant, as far as this process has lately seen it go by.

A span may be named by its provider's response id or by the application's own key. The local store knows them all;
exporters, which must not wait for it, ask here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, NamedTuple

from loopkit._ids import is_span_id
from loopkit.capture.live import LiveSpan
from loopkit.types import Feedback

_MOST: Final = 8192
"""Names that are kept: some 3 MB."""


class Place(NamedTuple):
    """A span, or a whole trace."""

    trace_id: int
    span_id: int | None
    sampled: bool
    """Whether the application's own OpenTelemetry samples the trace."""
    content: bool = True
    """Whether the span's content may go where content goes."""


class Places:
    """The latest names. On the worker's thread alone."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Place] = OrderedDict()

    def note(self, live: LiveSpan, keys: Iterable[str]) -> None:
        """A finished span goes by these names. A local root goes before what is below it."""
        place = Place(live.trace_id, live.span_id, live.sampled, live.content is None)
        for key in keys:
            if key.startswith("session:"):
                continue
            known = self._known.get(key)
            if known is None or live.local_root or known.trace_id != live.trace_id:
                self._known[key] = place
                self._known.move_to_end(key)
        if not place.content:
            self._known[f"{live.trace_id:032x}-{live.span_id:016x}"] = place
        while len(self._known) > _MOST:
            self._known.popitem(last=False)

    def find(self, event: Feedback) -> Place | None:
        """What an event is about; None for a session, and for what isn't known here."""
        target = event.whole
        trace = target.removeprefix("trace:")[:32]
        known = self._known.get(target)
        with suppress(ValueError):  # what only looks like an id
            if is_span_id(target):
                root = self._known.get(f"trace:{trace}")
                sampled, content = root is None or root.sampled, known is None or known.content
                return Place(int(trace, 16), int(target[33:], 16), sampled, content)
            if known is None and target.startswith("trace:"):
                return Place(int(trace, 16), None, True)
        return known
