"""What is held to be true of what a store has: its events folded, on the targets that are known today."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Protocol

from loopkit._ids import is_span_id
from loopkit._json import canonical
from loopkit.capture.dialects._content import mapping
from loopkit.capture.schemas import Schema, schema_in
from loopkit.signals.fold import State, fold
from loopkit.signals.schemas import why_not
from loopkit.types import Feedback, Span, split_target

_REDACTED = re.compile(r"\[[A-Z][A-Z_ ]+\]")
"""What stands in the place of what was redacted: a correction with that isn't what was said, and can't be judged."""


class Log(Protocol):
    """Where events and spans lie. Provisional until a second store implements it."""

    def feedback(self) -> list[Feedback]:
        """All events."""
        ...

    def resolve_all(self, events: Sequence[Feedback]) -> list[str]:
        """The target of each event as it is known today."""
        ...

    def known(self, targets: Collection[str]) -> set[str]:
        """Those of these spans, traces and sessions that are there."""
        ...

    def spans(self, *, trace_ids: Collection[str]) -> list[Span]:
        """The spans of these traces."""
        ...


def held(log: Log) -> State:
    """The state of all its events. A correction that breaks its call's schema counts as rejected, with the reason."""
    state = _folded(log)
    corrected = {
        slot[0]
        for slot, event in state.current.items()
        if event.correction is not None and event.correction_status != "rejected" and is_span_id(slot[0])
    }
    schemas = _schemas(log, corrected)
    if not schemas:
        return state
    current = {
        slot: _checked(event, schemas[slot[0]]) if slot[0] in schemas and event.correction is not None else event
        for slot, event in state.current.items()
    }
    return replace(state, current=current)


def orphans(log: Log) -> list[Feedback]:
    """What counts now, and is about something that isn't there (yet): it waits, without a limit. In order of `at`."""
    state = _folded(log)
    wholes = {slot: split_target(slot[0])[0] for slot in state.current}
    known = log.known(set(wholes.values()))
    return sorted((state.current[slot] for slot, whole in wholes.items() if whole not in known), key=lambda e: e.at)


def _folded(log: Log) -> State:
    events = log.feedback()
    targets = {id(event): target for event, target in zip(events, log.resolve_all(events), strict=True)}
    return fold(events, lambda event: targets[id(event)])


def _schemas(log: Log, ids: set[str]) -> dict[str, Schema]:
    spans = log.spans(trace_ids={id[:32] for id in ids}) if ids else []
    found: dict[str, Schema] = {}
    for span in spans:
        call = span.model_call
        if span.id in ids and call is not None and call.native_request:
            schema = _schema_of(call.native_request)
            if schema is not None:
                found[span.id] = schema
    return found


def _schema_of(request: str) -> Schema | None:
    try:
        return schema_in(mapping(json.loads(request)))
    except ValueError:  # cut
        return None


def _checked(event: Feedback, schema: Schema) -> Feedback:
    if event.correction_status == "rejected" or _REDACTED.search(canonical(event.correction)):
        return event
    reason = why_not(event.correction, schema)
    return event if reason is None else replace(event, correction_status="rejected", reason=reason)
