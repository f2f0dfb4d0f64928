"""Feedback from files and into files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from loopkit._ids import is_span_id
from loopkit._json import canonical, from_dict, to_dict
from loopkit._pseudonyms import pseudonym
from loopkit.capture import slot
from loopkit.capture.finish import Finisher
from loopkit.config import Signal, home_directory, settings
from loopkit.errors import InvalidInput
from loopkit.export.scores import datawizz_row, langfuse_score, langsmith_feedback, of_datawizz
from loopkit.imports.cells import as_table, is_table, uncelled
from loopkit.imports.files import rows_of
from loopkit.imports.load import SOURCES, Imported, under_pseudonym
from loopkit.imports.values import hashed
from loopkit.signals.declared import declared
from loopkit.signals.say import ARGUMENTS, checked
from loopkit.signals.state import held
from loopkit.store.locate import open_store
from loopkit.store.sqlite import FILE, Store
from loopkit.types import Feedback, split_target

_FIELDS = tuple(field.name for field in fields(Feedback))
_FORMATS = ("loopkit", "datawizz", "langfuse", "langsmith")


def import_feedback(*paths: str | os.PathLike[str], format: str = "loopkit", store: Store | None = None) -> Imported:
    """Read statements from JSON, JSON lines or CSV (`.csv`), gzipped or not, into the local store.

    `format` is "loopkit": rows with `feedback`'s arguments by name, or what `export_feedback` wrote, whose events keep
    their ids and times; "datawizz"; "langfuse"; "langsmith". What was imported before is not there twice.

    Raises `InvalidInput` with the row that is wrong, before anything is written.
    """
    _check_format(format)
    if not paths:
        raise InvalidInput("no file was given: name what is to be read")
    directory = store.directory if store is not None else _directory()
    signals = declared(store or Store(directory)) if (directory / FILE).exists() else {}
    skipped: Counter[str] = Counter()
    events = [event for path in paths for event in _events(Path(path), format, signals, skipped)]
    recorder = slot.recorder
    finisher = Finisher(settings("import", store=directory) if recorder is None else recorder.settings)
    kept = [finisher.feedback(_under_pseudonym(event, format, directory)) for event in events]
    (store or Store(directory)).append(None, kept)
    return Imported(spans=0, feedback=len(kept), skipped=dict(skipped))


def _events(path: Path, format: str, signals: Mapping[str, Signal], skipped: Counter[str]) -> Iterator[Feedback]:
    rows = rows_of(path)
    if is_table(path):
        is_export = any("arrived_at" in row for row in rows) or format != "loopkit"
        rows = [uncelled(row, format, is_export=is_export) for row in rows]
    if format in SOURCES:
        for each in SOURCES[format](rows, lambda reason: skipped.update((reason,))):
            if isinstance(each, Feedback):
                yield _validated(each, signals)
            else:
                skipped["it is no feedback"] += 1
        return
    seen: Counter[str] = Counter()
    for number, row in enumerate(rows, start=1):
        try:
            yield _event(of_datawizz(row) if format == "datawizz" else row, signals, seen)
        except InvalidInput as error:
            raise InvalidInput(f"{path}, row {number}: {error}") from error


def export_feedback(
    path: str | os.PathLike[str], *, format: str = "loopkit", target: str | None = None, store: Store | None = None
) -> int:
    """Write the events of the local store, all or those on one target, into a file: JSON lines, or CSV (`.csv`).

    "loopkit" writes them whole, to be imported elsewhere; "datawizz", "langfuse" and "langsmith" what those take of
    what holds now, with its targets as they are known today (Langfuse and LangSmith can't take a key whose call isn't
    known). Gives how many were written. Raises `InvalidInput`, `NotFound`.
    """
    _check_format(format)
    to = Path(path).resolve()
    if to.suffix.lower() == ".gz":
        raise InvalidInput(f"{to} is to be compressed: name a .jsonl or .csv, and run gzip over it")
    store = store or open_store()
    rows = _rows(format, target, store)
    text = as_table(rows, format) if is_table(to) else "".join(f"{canonical(row)}\n" for row in rows)
    partial = to.with_name(f"{to.name}.part")
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(text.encode())
        os.replace(partial, to)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise InvalidInput(f"{to} can't be written: {error.strerror}") from error
    return len(rows)


_ROWS: Mapping[str, Callable[[Feedback, str], dict[str, Any]]] = {
    "langfuse": langfuse_score,
    "langsmith": langsmith_feedback,
}


def _rows(format: str, target: str | None, store: Store) -> list[dict[str, Any]]:
    if format == "loopkit":
        return [to_dict(event) for event in store.feedback(target)]
    current = held(store).current
    stands = [
        (event, slot[0]) for slot, event in current.items() if target in (None, event.target, event.whole, slot[0])
    ]
    if format == "datawizz":
        return [datawizz_row(event) for event, _ in stands]
    return [_ROWS[format](event, about) for event, about in stands if _takes(format, split_target(about)[0])]


def _takes(format: str, whole: str) -> bool:
    is_session = whole.startswith("session:") and format == "langfuse"
    return is_span_id(whole) or whole.startswith("trace:") or is_session


def _check_format(format: str) -> None:
    if format not in _FORMATS:
        raise InvalidInput(f"format is {format!r}: known are {', '.join(_FORMATS)}")


def _under_pseudonym(event: Feedback, format: str, directory: Path) -> Feedback:
    """With others' evaluators by their names; in files of our own nobody's."""
    if format in SOURCES or event.by is None:
        return under_pseudonym(event, directory)
    return replace(event, by=pseudonym(event.by, directory))


def _directory() -> Path:
    recorder = slot.recorder
    return (None if recorder is None else recorder.settings.store) or home_directory()


def _event(row: Mapping[str, Any], signals: Mapping[str, Signal], seen: Counter[str]) -> Feedback:
    """One of our own events as it was, or a statement as an event: the same row of a file is the same event."""
    if "id" in row and "arrived_at" in row:
        from pydantic import ValidationError

        unknown = [name for name in row if name not in _FIELDS]
        if unknown:
            raise InvalidInput(f"unknown field {unknown[0]!r}; known: {', '.join(_FIELDS)}")
        try:
            event = from_dict(Feedback, {name: value for name, value in row.items() if value is not None})
        except ValidationError as error:
            wrong = error.errors()[0]
            raise InvalidInput(f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']} ({wrong['input']!r})") from error
        return _validated(event, signals)
    target, said = checked(row, signals)
    content = canonical({**row, "at": said.get("at")})
    seen[content] += 1
    id = hashed("import", f"{content}:{seen[content]}")
    recorder = slot.recorder
    now = _now() if recorder is None else recorder.clock.now()
    whole: dict[str, Any] = {"at": now, "key": f"import:{id}", **said}
    return Feedback(id=id, target=target, arrived_at=now, **whole)


def _validated(event: Feedback, signals: Mapping[str, Signal]) -> Feedback:
    """A whole event, held to what `feedback` holds a statement to. Raises `InvalidInput`."""
    said = {
        name: getattr(event, name)
        for name in ARGUMENTS
        if name in _FIELDS and getattr(event, name) not in (None, (), {})
    }
    checked(said, signals)
    for name in ("at", "arrived_at"):
        if not 0 <= getattr(event, name) < 2**63:
            raise InvalidInput(f"{name} is {getattr(event, name)!r}: give nanoseconds since the epoch")
    return event


def _now() -> int:
    from loopkit._ids import Clock

    return Clock().now()
