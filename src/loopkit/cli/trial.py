"""A guard, tried on a file of texts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopkit.capture.dialects._content import mapping
from loopkit.errors import InvalidInput
from loopkit.guard.guard import Guard
from loopkit.types import Stage, Verdict

_LABELS = ("label", "is_bad", "bad")


@dataclass(frozen=True, slots=True)
class Tried:
    """One text's verdict."""

    line: int
    text: str
    label: bool | None
    """Whether it should be stopped, where the file says so."""
    verdict: Verdict


def tried(guard: Guard, path: Path, stage: Stage) -> Iterator[Tried]:
    """The verdict on each line: of a .jsonl file on its `text`, with `label` true where it should be stopped; of any
    other on the line itself. Raises `InvalidInput` for a line that is neither."""
    if not path.is_file():
        raise InvalidInput(f"there is no file {path}")
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                text, label = _read(path, number, line)
                yield Tried(number, text, label, guard.check(text, stage=stage, record=False))


def _read(path: Path, number: int, line: str) -> tuple[str, bool | None]:
    if path.suffix != ".jsonl":
        return line.rstrip("\n"), None
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise InvalidInput(f"{path}, line {number}, is no JSON: {error}") from None
    fields = mapping(row)
    text: Any = fields.get("text")
    if not isinstance(text, str):
        example = '{"text": "...", "label": true}'
        raise InvalidInput(f"{path}, line {number}, has no text: give lines such as {example}")
    label: Any = next((fields[name] for name in _LABELS if name in fields), None)
    if label is not None and label not in (True, False, 0, 1):
        raise InvalidInput(f"{path}, line {number}, has the label {label!r}: give true or false")
    return text, None if label is None else bool(label)
