"""`report()`: a task's story as one HTML file with pictures, to open or to send; no server, no script, no network."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from html import escape
from typing import Any

from loopkit._json import from_dict
from loopkit._version import __version__
from loopkit._words import describe, duration
from loopkit.observe.look import Figures, confusion, figures
from loopkit.store.locate import open_store
from loopkit.store.sqlite import Store
from loopkit.types import Span, Variant

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #667; --line: #d5dae0; --bar: #3b6ea5; --good: #2a7f62; --back: #fff }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ed; --soft: #9aa4b0; --line: #3a424c; --bar: #6fa3da; --good: #5fc19c; --back: #14181d }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--line) }
th:first-child, td:first-child, th.words, td.words { text-align: left } caption { text-align: left; color: var(--soft) }
.wide { overflow-x: auto } .axis { stroke: var(--line) } footer { margin-top: 2.5rem; color: var(--soft) }
svg text { fill: var(--ink); font: 13px system-ui, sans-serif } .soft { fill: var(--soft); color: var(--soft) }
"""  # noqa: E501  # the palette reads best on one line


def report(task: str, *, store: Store | None = None, title: str | None = None) -> str:
    """The page's HTML: the variants, their figures, the confusion, the last evaluation, every change of what serves.

    Raises `NotFound` for an unknown task.
    """
    store = store or open_store()
    rows = figures(task, store=store)
    experiments = store.documents("experiment", task=task)
    sections = [
        _section("Variants", _variants(store.documents("variant", task=task))),
        _section("Live calls by variant", _figures_table(rows)),
        _section("Expected against answered", _confusion_table(confusion(task, store=store))),
    ]
    if experiments:
        sections.append(_section("The last evaluation", _experiment(experiments[-1])))
    sections.append(_section("What was served, and why", _history(store.documents("serving", task=task))))
    heading = escape(title or f"Task {task}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{heading}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<h1>{heading}</h1>{_period(store.spans(task=task, kind='task'))}{''.join(sections)}"
        f"<footer>{_day(time.time_ns())}, loopkit {__version__}, from {escape(str(store.path))}</footer></html>\n"
    )


def _section(heading: str, body: str) -> str:
    return f"<section><h2>{escape(heading)}</h2>{body}</section>"


def _period(calls: Sequence[Span]) -> str:
    """Whose calls, and from when to when."""
    if not calls:
        return '<p class="soft">No calls yet.</p>'
    services = ", ".join(sorted({call.service or "?" for call in calls}))
    first, last = min(call.started_at for call in calls), max(call.started_at for call in calls)
    return f'<p class="soft">{len(calls)} calls of {escape(services)}, {_day(first)} to {_day(last)}</p>'


def _day(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def _variants(documents: Sequence[Mapping[str, Any]]) -> str:
    cells = [
        (
            document["name"],
            describe(from_dict(Variant, document["variant"])),
            str(document["variant"].get("provenance", {}).get("tuner", "hand")),
        )
        for document in documents
    ]
    return _table(("variant", "what", "made by"), cells, words=(1, 2))


def _figures_table(rows: Sequence[Figures]) -> str:
    cells = [
        (
            row.segment,
            str(row.calls),
            str(row.errors),
            str(row.judged),
            "" if not row.judged else f"{row.right:.0%}",
            "" if not row.judged else f"{row.low:.0%} to {row.high:.0%}",
            duration(row.latency_p50),
            duration(row.latency_p95),
        )
        for row in rows
    ]
    head = ("variant", "calls", "errors", "judged", "right", "95 % interval", "p50", "p95")
    bars = [(row.segment, row.right, row.low, row.high) for row in rows if row.judged]
    return _bars(bars, "Share of judged calls that were right, with 95 % intervals") + _table(head, cells)


def _confusion_table(counts: Mapping[tuple[str, str], int]) -> str:
    labels = sorted({label for pair in counts for label in pair})
    if not labels or len(labels) > 20:
        return '<p class="soft">No outputs, or too many different ones, to cross.</p>'
    most = max(counts.values())
    body = "".join(
        f"<tr><td>{escape(expected)}</td>"
        + "".join(_heat(counts.get((expected, got), 0), most, expected == got) for got in labels)
        + "</tr>"
        for expected in labels
    )
    head = "".join(f"<th>{escape(label)}</th>" for label in labels)
    caption = "rows: expected, columns: answered"
    return f'<div class="wide"><table><caption>{caption}</caption><tr><th></th>{head}</tr>{body}</table></div>'


def _heat(count: int, most: int, right: bool) -> str:
    share = round(100 * count / most) if most else 0
    colour = "var(--good)" if right else "var(--bar)"
    style = f"background: color-mix(in srgb, {colour} {share * 2 // 3}%, transparent)"
    return f'<td style="{style}">{count or ""}</td>'


def _experiment(document: Mapping[str, Any]) -> str:
    overall = [s for s in document["summaries"] if s["split"] == "all"]
    bars = [(s["variant"], s["mean"], s["low"], s["high"]) for s in overall]
    share = _are_shares(bars)
    cells = [
        (
            s["variant"],
            _number(s["mean"], share),
            f"{_number(s['low'], share)} to {_number(s['high'], share)}",
            str(s["examples"]),
            duration(s["latency_p50"]),
            duration(s["latency_p95"]),
        )
        for s in overall
    ]
    head = ("variant", overall[0]["evaluator"], "95 % interval", "examples", "p50", "p95")
    sentences = "".join(f"<li>{escape(c['sentence'])}</li>" for c in document["comparisons"])
    table = _table(head, cells)
    return _bars(bars, f"Mean {overall[0]['evaluator']}, with 95 % intervals") + table + f"<ul>{sentences}</ul>"


def _history(entries: Sequence[Mapping[str, Any]]) -> str:
    cells = [
        (
            str(entry["current"]),
            ", ".join(f"{name} {share:.0%}" for name, share in entry["shares"].items()),
            entry["reason"],
        )
        for entry in entries
    ]
    return _table(("current", "shares", "why"), cells, words=(1, 2))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, words: Sequence[int] = ()) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        marked = [(cell, ' class="words"' if number in words else "") for number, cell in enumerate(cells)]
        return "<tr>" + "".join(f"<{tag}{mark}>{escape(cell)}</{tag}>" for cell, mark in marked) + "</tr>"

    return f'<div class="wide"><table>{line(head, "th")}{"".join(line(row, "td") for row in rows)}</table></div>'


_Bar = tuple[str, float, float, float]
"""Name, value, and the ends of its interval."""
_LEFT, _WIDTH, _HEIGHT, _MARGIN = 170, 480, 26, 70


def _are_shares(rows: Sequence[_Bar]) -> bool:
    """Whether the values are told in percent: none leaves 0 to 1."""
    return all(0 <= value <= 1 for _, value, _, _ in rows)


def _number(value: float, share: bool) -> str:
    return f"{value:.0%}" if share else f"{value:.3g}"


def _bars(rows: Sequence[_Bar], caption: str) -> str:
    """Horizontal bars with whiskers, one a row, over an axis, as SVG."""
    rows = [row for row in rows if all(map(math.isfinite, row[1:]))]
    share = _are_shares(rows)
    ends = [end for _, value, low, high in rows for end in (value, low, high)]
    least, most = (0.0, 1.0) if share else (min(0.0, *ends), max(0.0, *ends))

    def x(value: float) -> float:
        return _LEFT + _WIDTH * (min(max(value, least), most) - least) / ((most - least) or 1.0)

    bottom = len(rows) * _HEIGHT + 6
    parts = [
        f'<path class="axis" d="M{x(tick):.1f} 0V{bottom}"/>'
        f'<text class="soft" x="{x(tick):.1f}" y="{bottom + 16}" text-anchor="middle">{_number(tick, share)}</text>'
        for tick in (least, (least + most) / 2, most)
    ]
    for number, (name, value, low, high) in enumerate(rows):
        y = number * _HEIGHT + 6
        start, end = sorted((x(0.0), x(value)))
        parts.append(
            f'<text x="{_LEFT - 10}" y="{y + 13}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{start:.1f}" y="{y}" width="{end - start:.1f}" height="16" rx="2" fill="var(--bar)"/>'
            f'<path d="M{x(low):.1f} {y + 8}H{x(high):.1f}" stroke="var(--ink)" stroke-width="2"/>'
            f'<text x="{max(end, x(high)) + 8:.1f}" y="{y + 13}">{_number(value, share)}</text>'
        )
    return (
        f'<svg viewBox="0 0 {_LEFT + _WIDTH + _MARGIN} {bottom + 22}" width="100%" style="max-width: 720px" role="img" '
        f'aria-label="{escape(caption)}">{"".join(parts)}</svg><p class="soft">{escape(caption)}</p>'
    )
