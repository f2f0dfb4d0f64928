"""Feedback as a table: what a cell says, and how it is written so that nothing is lost and nothing is calculated."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from loopkit._json import canonical

_JSON: Final[Mapping[str, frozenset[str]]] = {
    "loopkit": frozenset(
        ("value", "correction", "ranking", "weight", "metadata", "at", "arrived_at", "range", "document")
    ),
    "datawizz": frozenset(("score", "weight", "improvement", "metadata")),
    "langfuse": frozenset(("metadata",)),
    "langsmith": frozenset(("feedback_source", "correction", "value", "score")),
}
"""The columns whose cells are JSON, or else a text, by format; all others are texts as they are."""
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "'")


def is_table(path: Path) -> bool:
    """Whether a file of this name is CSV, compressed or not."""
    return ".csv" in (suffix.lower() for suffix in path.suffixes)


def as_table(rows: Sequence[Mapping[str, Any]], format: str) -> str:
    """CSV with CRLF, as RFC 4180 has it."""
    out = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.writer(out)
    writer.writerow(map(_escaped, names))
    writer.writerows([_cell(row.get(name), name in _JSON[format]) for name in names] for row in rows)
    return out.getvalue()


def uncelled(row: Mapping[str, Any], format: str, *, is_export: bool) -> dict[str, Any]:
    """A row of such a table, or of one that somebody wrote by hand (not `is_export`)."""
    found: dict[str, Any] = {}
    for name, cell in row.items():
        if cell in (None, ""):
            continue
        text = cell[1:] if is_export and cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell
        plain = name[1:] if name.startswith("'") and name[1:].startswith(_FORMULA) else name
        found[plain] = _meant(text) if plain in _JSON[format] and text is cell else text
    return found


def _cell(value: Any, is_json: bool) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return canonical(value) if is_json and (not value or _meant(value) != value) else _escaped(value)
    return canonical(value)


def _escaped(text: str) -> str:
    """Spreadsheets calculate what begins so."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _meant(text: str) -> Any:
    """The JSON value that a cell may be, spreadsheets' TRUE and FALSE, or the text itself."""
    if text in ("TRUE", "FALSE"):
        return text == "TRUE"
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
