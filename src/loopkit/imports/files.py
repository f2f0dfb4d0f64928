"""The rows of an exported file: JSON, JSON lines, CSV, Parquet, SQLite; compressed by gzip or not."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from loopkit._extras import require
from loopkit.capture.dialects._content import objects
from loopkit.errors import InvalidInput

TABLE = "_table"
"""In a row of a database: which table it is of."""
_PAGES = ("data", "items", "runs", "results")
"""Under which a page of a REST API, or a whole trace, has its rows."""


def rows_of(path: Path) -> list[dict[str, Any]]:
    """All rows. Raises `InvalidInput` with what is wrong with the file."""
    try:
        return list(_rows(path))
    except (OSError, EOFError, UnicodeDecodeError, RecursionError, sqlite3.DatabaseError, csv.Error) as error:
        raise InvalidInput(f"{path} can't be read: {error}") from error


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    kinds = [suffix.lower() for suffix in path.suffixes]
    if kinds[-1:] == [".parquet"]:
        table: Any = require("pyarrow.parquet", "parquet").read_table(path)
        yield from table.to_pylist()
        return
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith(b"SQLite format 3"):
        yield from _of_database(path)
        return
    data = path.read_bytes()
    text = (gzip.decompress(data) if head.startswith(b"\x1f\x8b") else data).decode("utf-8-sig")
    yield from _of_csv(text) if ".csv" in kinds else _of_json(path, text)


def _of_database(path: Path) -> Iterator[dict[str, Any]]:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            quoted = str(table).replace('"', '""')
            for row in connection.execute(f'SELECT * FROM "{quoted}"'):
                yield {TABLE: table, **dict(row)}


def _of_csv(text: str) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    reader = csv.DictReader(io.StringIO(text, newline=""))
    names = [name for name in reader.fieldnames or () if name]
    if len(names) != len(set(names)):
        raise csv.Error(f"the column {next(name for name in names if names.count(name) > 1)!r} is there twice")
    for row in reader:
        if None in row:
            raise csv.Error(f"line {reader.line_num} has more cells than the header has columns")
        yield {name: cell or None for name, cell in row.items() if name is not None}


def _of_json(path: Path, text: str) -> Iterator[dict[str, Any]]:
    try:
        yield from _objects(json.loads(text))
        return
    except ValueError as error:
        if "\n" not in text.strip():
            raise InvalidInput(f"{path} is no JSON: {error}") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield from _objects(json.loads(line))
            except ValueError as error:
                raise InvalidInput(f"{path}, line {number} is no JSON: {error}") from error


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    for item in objects(value if isinstance(value, list) else [value]):
        row = dict(item)
        page = next((row[name] for name in _PAGES if isinstance(row.get(name), list)), None)
        if page is None:
            yield row
        else:
            yield from _objects(page)
