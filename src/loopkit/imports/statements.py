"""Feedback from files and into files."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from loopkit._ids import is_span_id
from loopkit._json import canonical, from_dict, to_dict
from loopkit.capture import slot
from loopkit.capture.finish import Finisher
from loopkit.config import home_directory, settings
from loopkit.errors import InvalidInput
from loopkit.export.scores import datawizz_row, langfuse_score, langsmith_feedback, of_datawizz
from loopkit.imports.files import rows_of
from loopkit.imports.load import SOURCES, Imported, under_pseudonym
from loopkit.imports.values import hashed
from loopkit.signals.declared import declared
from loopkit.signals.say import ARGUMENTS, checked
from loopkit.store.locate import open_store
from loopkit.store.sqlite import FILE, Store
from loopkit.types import Feedback, Span, split_target

_FIELDS = tuple(field.name for field in fields(Feedback))
_TEXTS = ("id", "target", "name", "preferred_over", "source", "kind", "by", "comment", "reason", "key", "supersedes",
          "retracts", "correction_status")  # fmt: skip
"""Whose cells are texts as they are; the others are JSON, or else a text."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")
_FORMATS = ("loopkit", "datawizz", "langfuse", "langsmith")


def import_feedback(*paths: str | os.PathLike[str], format: str = "loopkit", store: Store | None = None) -> Imported:
    """Read statements from JSON, JSON lines or CSV (`.csv`), gzipped or not, into the local store.

    `format` is "loopkit": rows with `feedback`'s arguments by name, or what `export_feedback` wrote, whose events keep
    their ids and times; "datawizz"; "langfuse"; "langsmith". What was imported before is not there twice.

    Raises `InvalidInput` with the row that is wrong, before anything is written.
    """
    if format not in _FORMATS:
        raise InvalidInput(f"format is {format!r}: known are {', '.join(_FORMATS)}")
    if not paths:
        raise InvalidInput("no file was given: name what is to be read")
    recorder = slot.recorder
    directory = store.directory if store is not None else _directory()
    signals = declared(store or Store(directory)) if (directory / FILE).exists() else {}
    made = settings("import", store=directory) if recorder is None else recorder.settings
    finisher = Finisher(made)
    skipped: Counter[str] = Counter()
    events: list[Feedback] = []
    seen: Counter[str] = Counter()
    for path in paths:
        rows = rows_of(Path(path))
        if format in SOURCES:
            found = list(SOURCES[format](rows, lambda reason: skipped.update((reason,))))
            events += [each for each in found if isinstance(each, Feedback)]
            skipped["it is no feedback"] += sum(isinstance(each, Span) for each in found)
            continue
        for number, row in enumerate(rows, start=1):
            given = _uncelled(row) if ".csv" in Path(path).suffixes else row
            given = of_datawizz(given) if format == "datawizz" else given
            try:
                events.append(_event(given, signals, seen))
            except InvalidInput as error:
                raise InvalidInput(f"{path}, row {number}: {error}") from error
    kept = [finisher.feedback(under_pseudonym(event, directory)) for event in events]
    (store or Store(directory)).append(None, kept)
    return Imported(spans=0, feedback=len(kept), skipped=dict(+skipped))


def export_feedback(
    path: str | os.PathLike[str], *, format: str = "loopkit", target: str | None = None, store: Store | None = None
) -> int:
    """Write the events of the local store, all or those on one target, into a file: JSON lines, or CSV (`.csv`).

    "loopkit" writes them whole, to be imported elsewhere; "datawizz", "langfuse" and "langsmith" what those take, of
    each event that is still true to the letter of the log, with its target as it is known today (Langfuse and LangSmith
    can't take a key whose call isn't known). Gives how many were written. Raises `InvalidInput`, `NotFound`.
    """
    if format not in _FORMATS:
        raise InvalidInput(f"format is {format!r}: known are {', '.join(_FORMATS)}")
    store = store or open_store()
    rows = [row for event in store.feedback(target) if (row := _row(event, format, store)) is not None]
    to = Path(path)
    text = _as_csv(rows) if to.suffix == ".csv" else "".join(f"{canonical(row)}\n" for row in rows)
    partial = to.with_name(f"{to.name}.part")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, to)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise InvalidInput(f"{to} can't be written: {error.strerror}") from error
    return len(rows)


_ROWS: Mapping[str, Callable[[Feedback, str], dict[str, Any]]] = {
    "loopkit": lambda event, _: to_dict(event),
    "datawizz": lambda event, _: datawizz_row(event),
    "langfuse": langfuse_score,
    "langsmith": langsmith_feedback,
}


def _row(event: Feedback, format: str, store: Store) -> dict[str, Any] | None:
    if format in ("loopkit", "datawizz"):
        return _ROWS[format](event, event.target)
    target = store.resolve(event)
    whole, _ = split_target(target)
    takes = is_span_id(whole) or whole.startswith("trace:") or (whole.startswith("session:") and format == "langfuse")
    return _ROWS[format](event, target) if takes and event.retracts is None else None


def _directory() -> Path:
    recorder = slot.recorder
    return (None if recorder is None else recorder.settings.store) or home_directory()


def _event(row: Mapping[str, Any], signals: Mapping[str, Any], seen: Counter[str]) -> Feedback:
    """One of our own events as it was, or a statement as an event: the same row is the same event."""
    if "id" in row and "arrived_at" in row:
        from pydantic import ValidationError

        try:
            return from_dict(Feedback, {name: value for name, value in row.items() if value is not None})
        except ValidationError as error:
            wrong = error.errors()[0]
            raise InvalidInput(f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']} ({wrong['input']!r})") from error
    target, said = checked(row, signals)
    content = canonical({**row, "at": said.get("at")})
    seen[content] += 1
    id = hashed("import", f"{content}:{seen[content]}")
    recorder = slot.recorder
    now = _now() if recorder is None else recorder.clock.now()
    whole: dict[str, Any] = {"at": now, "key": f"import:{id}", **said}
    return Feedback(id=id, target=target, arrived_at=now, **whole)


def _now() -> int:
    from loopkit._ids import Clock

    return Clock().now()


def _as_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    out = io.StringIO()
    listed = list(rows)
    names = [name for name in (*_FIELDS, *ARGUMENTS) if any(name in row for row in listed)]
    names += sorted({name for row in listed for name in row} - set(names))
    writer = csv.writer(out)  # with CRLF, as RFC 4180 has it, and both quoted
    writer.writerow(names)
    writer.writerows([_cell(name, row.get(name)) for name in names] for row in listed)
    return out.getvalue()


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    is_text = isinstance(value, str) and (name in _TEXTS or bool(value and not _is_json(value)))
    if not is_text:
        return canonical(value)
    return f"'{value}" if value.startswith(_FORMULA) else str(value)  # spreadsheets calculate what begins so


def _uncelled(row: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, cell in row.items():
        if cell in (None, ""):
            continue
        text = cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell
        found[name] = json.loads(text) if name not in _TEXTS and _is_json(text) and text is cell else text
    return found


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
