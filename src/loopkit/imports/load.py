"""Exports of other tools into the local store."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from loopkit._pseudonyms import pseudonym
from loopkit._version import __version__
from loopkit.capture import slot
from loopkit.capture.finish import Finisher
from loopkit.config import home_directory, settings
from loopkit.errors import InvalidInput
from loopkit.imports import langfuse, langsmith, promptlayer, trulens
from loopkit.imports.files import rows_of
from loopkit.imports.values import text
from loopkit.store.sqlite import Store
from loopkit.types import Feedback, Span
from loopkit.wire.encode import encode_request, encode_resource

Reader = Callable[[Iterable[dict[str, Any]], Callable[[str], None]], Iterator[Span | Feedback]]
SOURCES: Mapping[str, Reader] = {
    "langfuse": langfuse.read,
    "langsmith": langsmith.read,
    "promptlayer": promptlayer.read,
    "trulens": trulens.read,
}
_BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import brought."""

    spans: int
    feedback: int
    skipped: Mapping[str, int]
    """Rows that were left out: how many, by the reason."""


def import_traces(
    source: str,
    *paths: str | os.PathLike[str],
    service: str | None = None,
    task: str | None = None,
    store: Store | None = None,
) -> Imported:
    """Read exports of another tool into the local store, as spans and feedback, redacted as what is recorded.

    `source` is langfuse, langsmith, promptlayer or trulens; `paths` are what it exported: JSON, JSON lines, CSV,
    Parquet (`pip install pyarrow`), gzip of those, or TruLens's database. Give all files of an export at once, so that
    a trace, its observations and its scores find each other. `service` is the name that the spans get (default: the
    source's), `task` the task that they are of, which datasets ask for. What was imported before is not there twice,
    and stays as long as what arrives now.

    Raises `InvalidInput` for an unknown source and for files that can't be read, before anything is written.
    """
    reader = SOURCES.get(source)
    if reader is None:
        raise InvalidInput(f"source is {source!r}: known are {', '.join(SOURCES)}")
    if not paths:
        raise InvalidInput("no file was given: name what was exported")
    rows = [row for path in paths for row in rows_of(Path(path))]
    skipped: Counter[str] = Counter()

    def skip(reason: str) -> None:
        skipped[reason] += 1

    found = list(reader(rows, skip))
    if rows and not found:
        raise InvalidInput(f"nothing in {', '.join(map(str, paths))} looks like {source}'s: {_reasons(skipped)}")
    recorder = slot.recorder
    kept = None if recorder is None else recorder.settings.store
    directory = store.directory if store is not None else kept or home_directory()
    finisher = Finisher(settings(service or source, store=directory) if recorder is None else recorder.settings)
    resource = encode_resource({"service.name": service or source, "telemetry.sdk.name": "loopkit"})
    spans = [_sound(each, task) for each in found if isinstance(each, Span)]
    events = [finisher.feedback(under_pseudonym(each, directory)) for each in found if isinstance(each, Feedback)]
    portions: list[tuple[bytes, dict[str, bytes]]] = []
    for portion in _portions(spans):
        encoded = [finisher.read(span) for span in portion]
        media = {name: data for each in encoded for name, data in each.media.items()}
        request = encode_request(resource, "loopkit", __version__, [each.stored() for each in encoded])
        portions.append((request, media))
    store = store or Store(directory)  # only now: what can't be read or encoded leaves nothing behind
    for request, media in portions:
        store.append(request, [], media)
    store.append(None, events)
    return Imported(spans=len(spans), feedback=len(events), skipped=dict(skipped))


def _sound(span: Span, task: str | None) -> Span:
    """With names and ids as texts, whatever they were in the export; and of the task."""
    call = span.model_call
    if call is not None:
        names = ("provider", "model", "response_model", "response_id")
        told: dict[str, Any] = {name: text(getattr(call, name)) for name in names}
        call = replace(call, **told)
    return replace(
        span, user_id=text(span.user_id), session_id=text(span.session_id), model_call=call, task=task or span.task
    )


def under_pseudonym(event: Feedback, directory: Path) -> Feedback:
    """With its author under a pseudonym, unless it is an evaluator's name."""
    if event.by is None or event.source in ("judge", "guardrail"):
        return event
    return replace(event, by=pseudonym(event.by, directory))


def _portions(spans: list[Span]) -> Iterator[list[Span]]:
    rest = iter(spans)
    while portion := list(islice(rest, _BATCH)):
        yield portion


def _reasons(skipped: Mapping[str, int]) -> str:
    return "; ".join(f"{count} rows: {reason}" for reason, count in skipped.items()) or "it has no rows"
