"""`report()`: a task's story as one HTML file with pictures, to open or to send; no server, no script, no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from loopkit.observe.look import Figures, confusion, figures
from loopkit.store.locate import open_store
from loopkit.store.sqlite import Store

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
svg text { fill: var(--ink); font: 13px system-ui, sans-serif } .soft { fill: var(--soft); color: var(--soft) }
"""  # noqa: E501  # the palette reads best on one line


def report(task: str, *, store: Store | None = None, title: str | None = None) -> str:
    """The page's HTML: figures by variant, the confusion, the last experiment, and every change of what serves.

    Raises `NotFound` for an unknown task.
    """
    store = store or open_store()
    rows = figures(task, store=store)
    experiments = store.documents("experiment", task=task)
    sections = [
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
        f"<h1>{heading}</h1>{''.join(sections)}</html>\n"
    )


def _section(heading: str, body: str) -> str:
    return f"<section><h2>{escape(heading)}</h2>{body}</section>"


def _figures_table(rows: Sequence[Figures]) -> str:
    cells = [
        (
            row.segment,
            str(row.calls),
            str(row.errors),
            str(row.judged),
            "" if not row.judged else f"{row.right:.0%}",
            "" if not row.judged else f"{row.low:.0%} to {row.high:.0%}",
            f"{row.latency_p50:.2f} s",
            f"{row.latency_p95:.2f} s",
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
    return f"<table><caption>rows: expected, columns: answered</caption><tr><th></th>{head}</tr>{body}</table>"


def _heat(count: int, most: int, right: bool) -> str:
    share = round(100 * count / most) if most else 0
    colour = "var(--good)" if right else "var(--bar)"
    style = f"background: color-mix(in srgb, {colour} {share * 2 // 3}%, transparent)"
    return f'<td style="{style}">{count or ""}</td>'


def _experiment(document: Mapping[str, Any]) -> str:
    overall = [s for s in document["summaries"] if s["split"] == "all"]
    bars = [(s["variant"], s["mean"], s["low"], s["high"]) for s in overall]
    cells = [
        (
            s["variant"],
            f"{s['mean']:.0%}",
            f"{s['low']:.0%} to {s['high']:.0%}",
            str(s["examples"]),
            f"{s['latency_p50']:.3f} s",
            f"{s['latency_p95']:.3f} s",
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

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def _bars(rows: Sequence[tuple[str, float, float, float]], caption: str) -> str:
    """Horizontal bars with whiskers, one a row, as SVG."""
    left, width, height = 170, 480, 26
    parts: list[str] = []
    for number, (name, value, low, high) in enumerate(rows):
        y = number * height + 6
        whisker = y + 8
        parts.append(
            f'<text x="{left - 10}" y="{y + 13}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{left}" y="{y}" width="{value * width:.1f}" height="16" rx="2" fill="var(--bar)"/>'
            f'<path d="M{left + low * width:.1f} {whisker}H{left + high * width:.1f}" stroke="var(--ink)" '
            'stroke-width="2"/>'
            f'<text x="{left + width + 12}" y="{y + 13}">{value:.0%}</text>'
        )
    total = len(rows) * height + 12
    return (
        f'<svg viewBox="0 0 {left + width + 60} {total}" width="100%" style="max-width: 710px" role="img" '
        f'aria-label="{escape(caption)}">{"".join(parts)}</svg><p class="soft">{escape(caption)}</p>'
    )
