"""Values as tables and trees on a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any, Literal

from rich.console import Console, Group
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from loopkit._words import describe, duration, short
from loopkit.cli.diagnosis import Finding
from loopkit.cli.trial import Tried
from loopkit.datasets.dataset import Dataset
from loopkit.deploy.rollout import RolloutDecision
from loopkit.deploy.routing import Route, Simulated
from loopkit.deploy.trail import Trail
from loopkit.evals.experiment import Experiment
from loopkit.export.spool import DiskSpool
from loopkit.observe.guarding import Replayed
from loopkit.observe.look import Failure, Figures
from loopkit.route.quality import Quality
from loopkit.signals.cards import Calibration
from loopkit.signals.state import held
from loopkit.store.outbox import Untold
from loopkit.store.sqlite import Store
from loopkit.types import Feedback, Span, Variant

_WIDE = 100


def table(*heads: str) -> Table:
    """A calm table; heads that begin with > are right-aligned, those with # hold ids, which are never cut."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        justify: Literal["left", "right"] = "right" if head.startswith(">") else "left"
        made.add_column(head.lstrip(">#"), justify=justify, overflow="fold", no_wrap=head.startswith("#"))
    return made


@contextmanager
def progress(label: str) -> Generator[Callable[[int, int], None]]:
    """A progress bar; gives the function that moves it."""
    if not Console().is_terminal:
        yield _in_quarters(label)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True) as bar:
        job = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(job, completed=done, total=total)


def _in_quarters(label: str) -> Callable[[int, int], None]:
    """For logs and pipes: a line at every quarter."""

    def step(done: int, total: int) -> None:
        if done == total or done % max(total // 4, 1) == 0:
            Console().print(f"  {label}: {done} of {total}")

    return step


def figures(rows: Sequence[Figures], by: str) -> Table:
    """See `loopkit.figures`."""
    made = table(by, ">calls", ">errors", ">judged", ">right", ">95 %", ">p50", ">p95", ">tokens", ">cost")
    for row in rows:
        right = f"{row.right:.0%}" if row.judged else "–"
        interval = f"{row.low:.0%} to {row.high:.0%}" if row.judged else "–"
        made.add_row(
            escape(row.segment), str(row.calls), str(row.errors), str(row.judged), right, interval,
            duration(row.latency_p50), duration(row.latency_p95), f"{many(row.input_tokens)}/{many(row.output_tokens)}",
            "–" if row.cost is None else f"${row.cost:.4g}",
        )  # fmt: skip
    return made


def routes(rows: Sequence[Route]) -> Table:
    """See `loopkit.routes`."""
    made = table(
        "task", "variant", ">share", ">drawn", ">calls", ">judged", ">reward", ">95 %", ">failed", ">p50", ">cost"
    )
    for row in rows:
        made.add_row(
            escape(row.task), escape(row.variant), "–" if row.share is None else f"{row.share:.0%}", f"{row.drawn:.0%}",
            str(row.calls), str(row.judged), f"{row.reward:.3f}" if row.judged else "–",
            f"{row.low:.3f} to {row.high:.3f}" if row.judged else "–", f"{row.failed:.0%}" if row.calls else "–",
            duration(row.seconds) if row.calls else "–",
            "–" if row.cost is None else f"${row.cost:.4g}",
        )  # fmt: skip
    return made


def quality(found: Quality) -> Group:
    """What a learned router knows, and what its targets come to."""
    heads = table("variant", ">outcomes", ">good", ">off by", ">cost")
    for name, cost in found.costs.items():
        told = found.about
        heads.add_row(
            escape(name),
            str(told["outcomes"][name]),
            f"{told['good'][name]:.3f}",
            f"{told['off'][name]:.3f}",
            f"{cost:.4g}",
        )
    points = table(">cost of a call", ">quality, held out", ">price")
    step = max(len(found.curve) // 10, 1)
    for point in found.curve[::step]:
        points.add_row(f"{point.cost:.4g}", f"{point.quality:.3f}", f"{point.price:.4g}")
    return Group(heads, "", points)


def simulated(found: Simulated) -> Group:
    """What another policy would have earned."""
    earned = found.earned
    made = table("a call", ">earned", ">95 %")
    rows = {"logged": earned.logged, "IPS": earned.ips, "SNIPS": earned.snips, "doubly robust": earned.dr}
    for name, each in rows.items():
        made.add_row(name, f"{each.value:.3f}", f"{each.low:.3f} to {each.high:.3f}")
    shares = ", ".join(f"{escape(name)} {share:.0%}" for name, share in found.shares.items() if share)
    lines = [
        f"{earned.draws} calls, which tell as much as {earned.effective:.0f} of its own; it would have given {shares}",
        f"mean weight {earned.mean_weight:.3f} (1 where all it does was tried); {earned.clipped} weights clipped, "
        f"{earned.clipped_share:.1%} of all",
    ]
    if found.untried:
        lines.append(
            f"{found.untried:.1%} of its choices are of variants without a judged call: nothing is known of those"
        )
    lines += [f"left out: {count} {escape(reason)}" for reason, count in found.left_out.items() if count]
    return Group(made, *lines)


def many(count: int) -> str:
    """A count in a few characters: 9999, 12k, 3.4M."""
    return str(count) if count < 10_000 else f"{count / 1e3:.0f}k" if count < 1e6 else f"{count / 1e6:.1f}M"


def failures(rows: Sequence[Failure]) -> Table:
    """See `loopkit.failures`."""
    made = table("#span", "input", "answered", "expected")
    for row in rows:
        cells = (row.span.id, short(row.span.input, 60), short(row.span.output, 30), short(row.expected, 30))
        made.add_row(*map(escape, cells))
    return made


def confusion(counts: Mapping[tuple[str, str], int]) -> Table:
    """See `loopkit.confusion`."""
    labels = sorted({label for pair in counts for label in pair})
    made = table("expected ↓ answered →", *(f">{escape(label)}" for label in labels))
    for expected in labels:
        made.add_row(escape(expected), *(str(counts.get((expected, got), "") or "·") for got in labels))
    return made


def dataset(made: Dataset) -> Group:
    """A dataset's report."""
    report = made.report
    lines = [f"[b]dataset {made.id}[/b] of task {escape(made.task)}: {len(made.examples)} examples"]
    lines += [f"  {n} {name}" for name, n in report.get("splits", {}).items()]
    lines += [f"  left out: {n} {escape(why)}" for why, n in report.get("left_out", {}).items() if n]
    if report.get("conflicting_feedback"):
        lines.append(
            f"  {report['conflicting_feedback']} calls on which people disagreed: the most trusted word was taken"
        )
    return Group(*lines)


def experiment(made: Experiment) -> Group:
    """Every variant's figures, and a sentence for each comparison."""
    rows = table("variant", "split", ">score", ">95 % interval", ">examples", ">p50", ">p95", ">tokens")
    for s in made.summaries:
        rows.add_row(
            s.variant, s.split, f"{s.mean:.1%}", f"{s.low:.0%} to {s.high:.0%}", str(s.examples),
            duration(s.latency_p50), duration(s.latency_p95), "–" if s.tokens is None else f"{s.tokens:.0f}",
        )  # fmt: skip
    return Group(rows, *(f"• {escape(comparison.sentence)}" for comparison in made.comparisons))


def decision(made: RolloutDecision) -> Group:
    """What a rollout's evidence says."""
    colour = {"promote": "green", "stop": "red", "wait": "yellow"}[made.action]
    counts = f"  {made.calls} calls, {made.quality.exposures} outcomes"
    if made.action == "wait" and made.detectable < 1:
        counts += f"; a difference of {made.detectable * 100:.0f} points would probably have shown by now"
    return Group(f"[{colour} b]{made.action}[/]: {escape(made.sentence)}", counts)


def variants(known: Mapping[str, Variant], history: Sequence[Mapping[str, Any]]) -> Group:
    """The registry of one task."""
    rows = table("variant", "what", "made by")
    for name, variant in known.items():
        made_by = variant.provenance.get("tuner", "hand")
        rows.add_row(name, escape(describe(variant)), str(made_by))
    changes = table("serves", "shares", "why")
    for entry in history:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in entry["shares"].items())
        changes.add_row(entry["current"], shares, escape(entry["reason"]))
    return Group(rows, "", changes)


def findings(found: Sequence[Finding]) -> Table:
    """The doctor's findings."""
    made = table("", "station", "finding")
    for finding in found:
        made.add_row("[green]✓[/]" if finding.good else "[red]✗[/]", finding.station, escape(finding.text))
    return made


def feedback(store: Store, events: Sequence[Feedback]) -> Table:
    """Events, with what their target is today."""
    made = table("#event", "#target", "name", "value or correction", "source", "by")
    for event in events:
        what = event.correction if event.correction is not None else event.value
        cells = (event.id, store.resolve(event), event.name, short(what, 40), event.source, event.by or "")
        made.add_row(*map(escape, cells))
    return made


def untold(waiting: Sequence[Untold]) -> Table:
    """See `loopkit.untold`."""
    made = table("destination", "#target", "since", ">tries", "why")
    for each in waiting:
        since = datetime.fromtimestamp(each.since / 1e9, timezone.utc).isoformat(sep=" ", timespec="seconds")
        why = f"refused: {each.reason}" if each.is_refused else each.reason
        made.add_row(*map(escape, (each.destination, each.target, since, str(each.tries), short(why, 80))))
    return made


def calibration(card: Calibration) -> Group:
    """A signal's card."""

    def between(value: float | None, low: float, high: float) -> str:
        return "unknown" if value is None else f"{value:.2f} [{low:.2f}, {high:.2f}]"

    verdict = f"trains, weight {card.weight:.2f}" if card.trains else str(card.why_not)
    head = (
        f"{card.signal} of {card.task}: AUC {between(card.area, card.low, card.high)}"
        f" (unweighted {'unknown' if card.raw_area is None else f'{card.raw_area:.2f}'}),"
        f" {card.pairs} pairs of {card.calls} calls, {card.users} users, effective size {card.effective:.0f}"
    )
    made = table("shown", ">calls", ">labelled", ">good")
    for each in card.bins:
        made.add_row(each.shown, str(each.calls), str(each.labelled), between(each.good, each.low, each.high))
    return Group(Text(head), made, Text(verdict))


def trial(found: Sequence[Tried], show: int) -> Group:
    """What a guard did with a file's texts: how often what, and lines worth a look."""
    stopped = ("hold", "block", "retry")
    made = table("verdict", "check", ">texts", ">share")
    counts = Counter((each.verdict.action, each.verdict.check) for each in found)
    for (action, check), count in counts.most_common():
        made.add_row(*map(escape, (action, check, str(count), f"{count / len(found):.1%}")))
    worth = [each for each in found if each.verdict.action != "allow" or each.label]
    lines = table("#line", "verdict", "why", "text")
    labelled = [each for each in found if each.label is not None]
    parts: list[Any] = [made]
    if labelled:
        bad = [each for each in labelled if each.label]
        hits = sum(each.verdict.action in stopped for each in bad)
        false = sum(each.verdict.action in stopped for each in labelled if not each.label)
        parts.append(
            Text(f"stopped: {hits} of {len(bad)} that should be, {false} of {len(labelled) - len(bad)} others")
        )
        worth = [each for each in labelled if (each.verdict.action in stopped) is not each.label]
    for each in worth[:show]:
        lines.add_row(*map(escape, (str(each.line), each.verdict.action, each.verdict.reason, short(each.text, 80))))
    if worth:
        parts.append(lines)
    return Group(*parts)


def replay(found: Sequence[Replayed], show: int) -> Group:
    """What another guard would have done: how often what in the place of what, and the calls about which it is so."""
    made = table("then", "now", ">calls", ">called bad", ">called good")
    for (before, now), count in sorted(Counter((each.before, each.now.action) for each in found).items()):
        same = [each for each in found if (each.before, each.now.action) == (before, now)]
        said = [str(sum(each.is_bad is which for each in same)) for which in (True, False)]
        made.add_row(*map(escape, (before, now, str(count), *said)))
    changed = [each for each in found if each.changed]
    if not changed:
        return Group(made, Text("nothing would be done otherwise"))
    lines = table("#call", "then", "now", "why", "text")
    for each in changed[max(len(changed) - show, 0) :]:
        why = f"{each.now.check}: {each.now.reason}" if each.now.check else ""
        lines.add_row(*map(escape, (each.span.id[:12], each.before, each.now.action, why, short(each.text, 60))))
    return Group(made, lines)


def stats(store: Store) -> Table:
    """The store's counts."""
    made = table("what", ">how much")
    for name, count in store.stats().items():
        made.add_row(name, f"{count:,}")
    made.add_row("path", str(store.path))
    return made


def spools(known: Mapping[str, DiskSpool]) -> Table:
    """See `loopkit.spools`."""
    made = table("endpoint", ">waiting", ">bytes", ">refused", "why, the last time")
    for endpoint, spool in known.items():
        waiting, letters = [len(batch.data) for batch in spool.waiting()], spool.letters()
        why = short(letters[-1][1], 60) if letters else ""
        made.add_row(escape(endpoint), str(len(waiting)), f"{sum(waiting):,}", str(len(letters)), escape(why))
    return made


def trail(made: Trail) -> Tree:
    """A lineage as a tree: first what it came from, then what came of it."""
    tree = Tree(_trail_line(made))
    if made.came_from:
        _grow(tree.add("[dim]came from[/dim]"), made, "came_from")
    if made.leads_to:
        _grow(tree.add("[dim]led to[/dim]"), made, "leads_to")
    return tree


def trace(store: Store, span: Span) -> Group:
    """A trace as a tree, with this span's content and what was said."""
    spans = store.spans(trace_id=span.trace_id)
    said = held(store)
    by_parent: dict[str | None, list[Span]] = {}
    ids = {each.span_id for each in spans}
    for each in spans:
        by_parent.setdefault(each.parent_id if each.parent_id in ids else None, []).append(each)
    tree = Tree(f"trace {span.trace_id}")

    def grow(branch: Tree, parent: str | None) -> None:
        for each in by_parent.get(parent, ()):
            grow(branch.add(_span_line(each, each.id == span.id)), each.span_id)

    grow(tree, None)
    lines = [
        f"[b]input[/b]     {escape(short(span.input, 600))}",
        f"[b]output[/b]    {escape(short(span.output, 600))}",
        f"[b]who[/b]       user {span.user_id or '–'}, session {span.session_id or '–'}",
        f"[b]tags[/b]      {escape(', '.join(span.tags)) or '–'}",
    ]
    if span.error is not None:
        lines.append(f"[b red]error[/]     {escape(span.error.type)}: {escape(span.error.message)}")
    if span.model_call is not None:
        lines += [f"[b]{m.role:9}[/b] {escape(m.text)}" for m in (*span.model_call.input, *span.model_call.output)]
    for each in spans:
        lines += [f"[b]feedback[/b]  {escape(_said(event))} on {escape(each.name)}" for event in said.about(each.id)]
    return Group(tree, *lines)


def _said(event: Feedback) -> str:
    what = f"→ {short(event.correction, 80)}" if event.correction is not None else f"= {event.value}"
    comment = f" “{event.comment}”" if event.comment else ""
    return f"{event.name} {what} ({event.source}{', ' + event.by if event.by else ''}){comment}"


def _span_line(span: Span, here: bool) -> Text:
    marks = {"ok": "green", "error": "red", "cancelled": "yellow"}
    text = Text(f"{span.name} ", style="bold" if here else "")
    text.append(f"{span.kind} ", style="cyan")
    text.append(f"{span.status} ", style=marks[span.status])
    text.append(duration(span.duration), style="dim")
    if span.variant is not None:
        text.append(f"  {span.variant} at {span.propensity}", style="magenta")
    return text


def _grow(tree: Tree, made: Trail, way: Literal["came_from", "leads_to"]) -> None:
    for child in getattr(made, way):
        _grow(tree.add(_trail_line(child)), child, way)


def _trail_line(made: Trail) -> str:
    return f"[b]{made.kind}[/b] {escape(made.id)}  {escape(short(made.text, _WIDE))}"
