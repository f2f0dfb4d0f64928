"""The commands. Each calls one public function or method and shows what it gives."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from loopkit import _assemble
from loopkit._version import __version__
from loopkit.cli import screen
from loopkit.cli.application import Application, read_toml
from loopkit.cli.diagnosis import diagnose
from loopkit.cli.trial import tried
from loopkit.config import STORE_BYTES, STORE_DAYS
from loopkit.datasets.dataset import Dataset
from loopkit.deploy.registry import Registry
from loopkit.deploy.rollout import Rollout
from loopkit.deploy.routing import CLIP, fit_router, simulate_router
from loopkit.deploy.routing import routes as show_routes
from loopkit.deploy.trail import lineage as trace_lineage
from loopkit.errors import InvalidInput, NotFound
from loopkit.evals.experiment import evaluate as run_evaluation
from loopkit.evals.scoring import exact
from loopkit.export.place import spools as known_spools
from loopkit.export.spool import DiskSpool
from loopkit.imports.load import import_traces
from loopkit.imports.statements import export_feedback, import_feedback
from loopkit.observe import look
from loopkit.observe.annotations import annotate
from loopkit.observe.calibrating import calibrate
from loopkit.observe.forgetting import forget as forget_user
from loopkit.observe.guarding import guard_labels, replay_guard
from loopkit.observe.page import report as render_report
from loopkit.observe.prices import set_price
from loopkit.observe.sensing import sense
from loopkit.route.named import policy_of
from loopkit.signals import say
from loopkit.signals.declared import declared
from loopkit.signals.state import orphans as orphan_events
from loopkit.store.locate import open_store
from loopkit.store.outbox import resend
from loopkit.store.outbox import untold as untold_feedback
from loopkit.store.sqlite import Store
from loopkit.tuning.adapters import tune as run_tuner
from loopkit.types import Variant

app = typer.Typer(
    help="The continuous-learning loop of your LLM application.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
feedback_app = typer.Typer(help="What people said.")
guard_app = typer.Typer(help="What may pass.", no_args_is_help=True)
signals_app = typer.Typer(help="What people show without saying it.", no_args_is_help=True)
dataset_app = typer.Typer(help="What to learn from.", no_args_is_help=True)
rollout_app = typer.Typer(help="What is served: candidates on real calls.", no_args_is_help=True)
router_app = typer.Typer(
    help="Which variant: routers that learn, and what others would have earned.", no_args_is_help=True
)
store_app = typer.Typer(help="The local store.", no_args_is_help=True)
app.add_typer(feedback_app, name="feedback")
app.add_typer(signals_app, name="signals")
app.add_typer(guard_app, name="guard")
app.add_typer(dataset_app, name="dataset")
app.add_typer(router_app, name="router")
app.add_typer(rollout_app, name="rollout")
app.add_typer(store_app, name="store")
spool_app = typer.Typer(help="Where else it goes: what waits to be delivered.", no_args_is_help=True)
app.add_typer(spool_app, name="spool")

out = Console()

_FORMATS = "loopkit, datawizz, langfuse or langsmith."
Task = Annotated[str, typer.Argument(help="The task's name, as in @loopkit.trace(task=...).")]
App = Annotated[str | None, typer.Option("--app", help="The application's module; default: app in loopkit.toml.")]
Since = Annotated[str | None, typer.Option(help="Of the last days, hours or minutes: 7d, 12h, 30m; default: all.")]
Endpoint = Annotated[str | None, typer.Argument(help="One destination's URL; default: all.")]


def _say_version(asked: bool) -> None:
    if asked:
        out.print(f"loopkit {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """The continuous-learning loop of your LLM application."""


@app.command()
def show(id: Annotated[str, typer.Argument(help="A span's id, or its beginning.")]) -> None:
    """A call with what was said of it: its whole trace, content and feedback."""
    store = open_store()
    span = store.span(id)
    out.print(screen.trace(store, span))


@app.command()
def lineage(id: Annotated[str, typer.Argument(help="A span, dataset, rollout, or a variant as task/v2.")]) -> None:
    """Why it is as it is: from a span to datasets, variants and decisions."""
    out.print(screen.trail(trace_lineage(id)))


@app.command()
def figures(task: Task, by: Annotated[str, typer.Option(help="variant, all, or a tag's name.")] = "variant") -> None:
    """How a task is going: calls, errors, latency, how often it was right."""
    out.print(screen.figures(look.figures(task, by=by), by))


@app.command()
def forget(
    user: Annotated[str, typer.Option(help="The id that spans bear as user.id.")],
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask first.")] = False,
    store: Annotated[Path | None, typer.Option(help="The store's directory, where init(store=) named one.")] = None,
) -> None:
    """Remove what was recorded of a person: from the store, the spools, the ring and the dead letters."""
    if not yes:
        typer.confirm(f"Remove everything recorded of {user!r}? This can't be undone.", abort=True)
    gone = forget_user(user, store=store)
    out.print(
        f"{len(gone.traces)} traces went: {gone.spans} spans, {gone.feedback} statements, {gone.examples} examples, "
        f"{gone.waiting} waiting batches changed, {gone.held} held",
        highlight=False,
    )
    if gone.unreachable:
        out.print(
            f"{gone.unreachable} segments of spools are written by living processes: deliver them, or end those "
            "processes, and run this again"
        )
        raise typer.Exit(1)


@app.command("import")
def import_(
    source: Annotated[str, typer.Argument(help="langfuse, langsmith, promptlayer or trulens.")],
    files: Annotated[list[Path], typer.Argument(help="What it exported; all files of one export at once.")],
    service: Annotated[str | None, typer.Option(help="The name that the spans get; default: the source's.")] = None,
    task: Annotated[str | None, typer.Option(help="The task that they are of.")] = None,
) -> None:
    """Read another tool's exports into the local store, as spans and feedback."""
    got = import_traces(source, *files, service=service, task=task)
    out.print(f"{got.spans} spans and {got.feedback} statements from {source}", highlight=False)
    for reason, count in got.skipped.items():
        out.print(f"{count} rows left out: {reason}", highlight=False)


@app.command()
def tag(
    id: Annotated[str, typer.Argument(help="A span's id, a response's id, or a join key.")],
    tags: Annotated[list[str], typer.Argument(help="Tags, or key=value for metadata.")],
    replace: Annotated[bool, typer.Option(help="In the place of the span's own.")] = False,
) -> None:
    """Give a stored span tags and metadata."""
    pairs = dict(each.split("=", 1) for each in tags if "=" in each)
    annotate(id, tags=[each for each in tags if "=" not in each], metadata=pairs, replace=replace)
    out.print(f"tagged {id}", highlight=False)


@app.command()
def price(
    provider: Annotated[str, typer.Argument(help="As spans have it, such as openai.")],
    model: Annotated[str, typer.Argument(help="The model's name.")],
    input: Annotated[float, typer.Option(help="US dollars a million input tokens.")],
    output: Annotated[float, typer.Option(help="US dollars a million output tokens.")],
    cache_read: Annotated[float | None, typer.Option(help="The same of those read from the cache.")] = None,
    cache_write: Annotated[float | None, typer.Option(help="The same of those written to it.")] = None,
) -> None:
    """Say what a model's tokens cost, where the known prices are not yours."""
    set_price(provider, model, input=input, output=output, cache_read=cache_read, cache_write=cache_write)
    out.print(f"{provider} {model}: ${input:g} in, ${output:g} out, a million tokens", highlight=False)


@app.command()
def failures(task: Task, newest: int = 20) -> None:
    """The latest calls that were called wrong."""
    out.print(screen.failures(look.failures(task, newest=newest)))


@app.command()
def confusion(task: Task, variant: str | None = None) -> None:
    """What was answered where what was expected."""
    out.print(screen.confusion(look.confusion(task, variant=variant)))


@app.command()
def report(task: Task, to: Annotated[Path, typer.Option("--out", help="The file to write.")]) -> None:
    """One HTML file with a task's figures and pictures."""
    html = render_report(task)
    try:
        to.write_text(html)
    except OSError as error:
        raise InvalidInput(f"{to} can't be written: {error.strerror}") from error
    out.print(f"wrote {to}")


@app.command()
def tune(
    task: Task,
    tuner: Annotated[str, typer.Option("--with", help="few-shot, nearest, vote, cascade, or an installed one.")],
    dataset: Annotated[str | None, typer.Option(help="A dataset's id; default: the task's latest.")] = None,
    name: Annotated[str | None, typer.Option(help="What to call it; default: v2, v3, …")] = None,
    application: App = None,
) -> None:
    """Make a better variant from a dataset, and register it as a candidate."""
    registry = Registry(open_store())
    current = _current(registry, task, Application(application))
    data = Dataset.load(dataset or task, store=registry.store)
    named = registry.add(task, run_tuner(current, data, tuner), name=name)
    out.print(f"registered [b]{task}/{named}[/b], tuned with {tuner} from dataset {data.id}")


@app.command()
def evaluate(
    task: Task,
    variants: Annotated[
        str, typer.Option(help="Names, comma-separated; the first is the baseline.")
    ] = "current,candidate",
    dataset: Annotated[str | None, typer.Option(help="A dataset's id; default: the task's latest.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many examples.")] = None,
    application: App = None,
) -> None:
    """Compare variants on held-out and golden examples, with intervals."""
    registry = Registry(open_store())
    given = Application(application)
    _current(registry, task, given)
    names = [registry.resolve(task, name.strip()) for name in variants.split(",")]
    with screen.progress("evaluating") as step:
        experiment = run_evaluation(
            task,
            {name: registry.variant(task, name) for name in names},
            dataset=Dataset.load(dataset or task, store=registry.store),
            evaluators=given.evaluators() or [exact],
            baseline=names[0],
            client=given.client(),
            limit=limit,
            store=registry.store,
            progress=step,
        )
    out.print(screen.experiment(experiment))


@app.command()
def variants(task: Task) -> None:
    """A task's variants, and every change of what is served."""
    registry = Registry(open_store())
    registry.store.check_task(task)
    out.print(screen.variants(registry.variants(task), registry.history(task)))


@app.command()
def promote(
    task: Task, variant: Annotated[str, typer.Argument(help="A name such as v2.")], reason: str = "by hand"
) -> None:
    """Let one variant serve all of a task's calls."""
    registry = Registry(open_store())
    registry.promote(task, variant, reason=reason)
    out.print(f"{registry.current(task)} serves {task} now")


@app.command()
def routes(
    task: Annotated[str | None, typer.Argument(help="One task; default: all.")] = None,
    since: Since = None,
) -> None:
    """How each variant's calls went: shares, rewards with intervals, failures, time and cost."""
    store = open_store()
    if task is not None:
        store.check_task(task)
    out.print(screen.routes(show_routes(task, since=_start(since), store=store)))


@router_app.command("fit")
def router_fit(
    task: Task,
    to: Annotated[Path, typer.Option("--out", help="The file to write, for policies.learned().")],
    cost: Annotated[
        list[str] | None, typer.Option(help="What a call of a variant costs, as NAME=NUMBER; default: as logged.")
    ] = None,
    field: Annotated[list[str] | None, typer.Option(help="An input to read; default: all.")] = None,
    since: Since = None,
) -> None:
    """Learn from logged calls which variant answers what well."""
    costs = dict(map(_cost, cost)) if cost else None
    if not to.parent.is_dir():
        raise InvalidInput(f"--out is {to}: there is no folder {to.parent}")
    quality = fit_router(task, costs=costs, fields=tuple(field or ()), since=_start(since))
    quality.save(to)
    out.print(screen.quality(quality))
    out.print(f"wrote {to}: give it to policies.learned({str(to)!r}, ...)", highlight=False)


@router_app.command("simulate")
def router_simulate(
    task: Task,
    policy: Annotated[Path, typer.Option(help="A .toml file: policy = its name, and its arguments.")],
    since: Since = None,
    clip: Annotated[float, typer.Option(help="The largest ratio of probabilities that counts as it is.", min=1)] = CLIP,
) -> None:
    """What another policy would have earned on logged calls, before anybody is served by it."""
    found = policy_of(read_toml(policy))
    out.print(screen.simulated(simulate_router(task, found, since=_start(since), clip=clip)))


@app.command()
def doctor() -> None:
    """Check every station of the pipeline, and say what to do where one fails."""
    findings = diagnose()
    out.print(screen.findings(findings))
    if any(not finding.good for finding in findings):
        raise typer.Exit(1)


@app.command()
def demo(
    yes: Annotated[bool, typer.Option("--yes", help="Install what is missing without asking.")] = False,
    seed: Annotated[int, typer.Option(help="Which draw of the data.")] = 0,
    quick: Annotated[bool, typer.Option(help="Fewer items: a look at the screens, not at the figures.")] = False,
    home: Annotated[Path | None, typer.Option(help="Where to keep its store and report.")] = None,
    model: Annotated[Path | None, typer.Option(help="Another .gguf file.")] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The OTLP receiver's port; default: a free one.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Your own base prompt, with {headline} in it.")] = None,
) -> None:
    """The whole loop on a real model, here and offline: about six minutes."""
    from loopkit.cli.demo.story import run

    run(seed=seed, quick=quick, home=home, install_missing=yes, console=out, model=model, port=port, prompt=prompt)


@feedback_app.callback(invoke_without_command=True)
def feedback_options(
    context: typer.Context,
    orphans: Annotated[bool, typer.Option("--orphans", help="What waits for a target that isn't known yet.")] = False,
    untold: Annotated[bool, typer.Option("--untold", help="What backends have not taken yet, and why.")] = False,
) -> None:
    """What people said."""
    if context.invoked_subcommand is not None:
        return
    store = open_store() if orphans or untold else None
    if store is None:
        out.print(context.get_help(), highlight=False)
    elif untold:
        out.print(screen.untold(untold_feedback(store)))
    else:
        out.print(screen.feedback(store, orphan_events(store)))


@feedback_app.command("add")
def feedback_add(
    target: Annotated[str, typer.Argument(help="A span's or a response's id, trace:…, session:… or a join key.")],
    name: Annotated[str | None, typer.Option(help="The signal's name.")] = None,
    value: Annotated[str | None, typer.Option(help="true, false, a number, or a label.")] = None,
    correction: Annotated[str | None, typer.Option(help="What the output should have been: text, or JSON.")] = None,
    preferred_over: Annotated[str | None, typer.Option(help="The target that this one is better than.")] = None,
    document: Annotated[str | None, typer.Option(help="Of a retrieval span: the document's id, or position.")] = None,
    comment: str | None = None,
    reason: str | None = None,
    source: Annotated[str, typer.Option(help="user, reviewer, code, judge, guardrail or system.")] = "reviewer",
    by: str | None = None,
    weight: float | None = None,
    key: str | None = None,
) -> None:
    """Say something about a call."""
    given: dict[str, Any] = {"source": source, "correction": _value(correction, json_too=True)}
    with _recording():
        event = say.feedback(
            target, name, _value(value), preferred_over=preferred_over, document=document, comment=comment,
            reason=reason, by=by, weight=weight, key=key, **given,
        )  # fmt: skip
    out.print(f"recorded {event.id if event else 'nothing'}")


@feedback_app.command("import")
def feedback_import(
    files: Annotated[list[Path], typer.Argument(help="JSON lines, JSON or CSV; rows with feedback()'s arguments.")],
    format: Annotated[str, typer.Option(help=_FORMATS)] = "loopkit",
) -> None:
    """Record many statements. Nothing is written unless every row is good."""
    got = import_feedback(*files, format=format)
    out.print(f"{got.feedback} events are there", highlight=False)
    for reason, count in got.skipped.items():
        out.print(f"{count} rows left out: {reason}", highlight=False)


@feedback_app.command("export")
def feedback_export(
    file: Annotated[Path, typer.Argument(help="What to write: CSV where it ends in .csv, else JSON lines.")],
    format: Annotated[str, typer.Option(help=_FORMATS)] = "loopkit",
    target: Annotated[str | None, typer.Option(help="Of this target alone.")] = None,
) -> None:
    """Write the events into a file."""
    out.print(f"wrote {export_feedback(file, format=format, target=target)} events", highlight=False)


@feedback_app.command("list")
def feedback_list(target: Annotated[str | None, typer.Argument()] = None, orphans: bool = False) -> None:
    """The events, as they came; with --orphans those whose target isn't known yet."""
    store = open_store()
    events = orphan_events(store) if orphans else store.feedback(target)
    out.print(screen.feedback(store, [each for each in events if target in (None, each.whole, each.target)]))


@feedback_app.command("retract")
def feedback_retract(event: Annotated[str, typer.Argument(help="The event's id.")]) -> None:
    """Take an event back."""
    found = [known for known in open_store().feedback() if known.id.startswith(event)]
    if len(found) != 1:
        raise NotFound(f"{len(found) or 'no'} feedback events begin with {event!r}: see  loopkit feedback list")
    with _recording():
        say.retract(found[0])
    out.print(f"retracted {found[0].id}")


@feedback_app.command("resend")
def feedback_resend() -> None:
    """Have what backends have not taken be tried again, by the process that sends."""
    out.print(f"{resend(open_store())} targets are told of again", highlight=False)


@signals_app.command("sense")
def signals_sense(
    session: Annotated[str | None, typer.Option(help="One session; default: all.")] = None,
) -> None:
    """Read what sessions show: asked again, rephrased, contradicted, left."""
    seen = Counter(event.name for event in sense(session_id=session))
    out.print(", ".join(f"{count} {name}" for name, count in sorted(seen.items())) or "nothing new", highlight=False)


@signals_app.command("calibrate")
def signals_calibrate(task: Annotated[str | None, typer.Argument(help="One task; default: all.")] = None) -> None:
    """Hold what people show against what they say: a card for each signal, and whether it may train."""
    cards = calibrate(task)
    if not cards:
        out.print("nothing was shown yet: see  loopkit signals sense", highlight=False)
    for card in cards:
        out.print(screen.calibration(card))


@guard_app.command("test")
def guard_test(
    file: Annotated[Path, typer.Argument(help="A text a line, or .jsonl with `text`, and `label` if known.")],
    guard: Annotated[str | None, typer.Option(help="The guard's name in the module; default: its only one.")] = None,
    stage: Annotated[str, typer.Option(help="input, output, tool_call or tool_result.")] = "input",
    show: Annotated[int, typer.Option(help="So many lines that were not allowed, or wrongly were.")] = 20,
    app: App = None,
) -> None:
    """Try a guard of your application's on a file of texts."""
    where: Any = stage
    out.print(screen.trial(list(tried(Application(app).guard(guard), file, where)), show))


@guard_app.command("replay")
def guard_replay(
    guard: Annotated[str | None, typer.Option(help="The guard's name in the module; default: its only one.")] = None,
    task: Annotated[str | None, typer.Option(help="One task; default: all.")] = None,
    days: Annotated[float, typer.Option(help="Of the last so many days.", min=0, max=36_500)] = 7,
    show: Annotated[int, typer.Option(help="So many calls about which something else would be done.")] = 20,
    app: App = None,
) -> None:
    """What a guard of your application's would have done about recorded calls."""
    since = time.time_ns() - int(days * 86_400e9)
    out.print(screen.replay(list(replay_guard(Application(app).guard(guard), task=task, since=since)), show))


@guard_app.command("tune")
def guard_tune(
    check: Annotated[str, typer.Argument(help="The check's name, as verdicts have it: injection, toxicity, your own.")],
    to: Annotated[Path, typer.Option("--out", help="The file of weights to write, where they are better.")],
    guard: Annotated[str | None, typer.Option(help="The guard's name in the module; default: its only one.")] = None,
    task: Annotated[str | None, typer.Option(help="One task; default: all.")] = None,
    stage: Annotated[str, typer.Option(help="Whose text it is of calls about which the check said nothing.")] = "input",
    most_false: Annotated[float | None, typer.Option(help="The share of good texts that may be stopped.")] = None,
    app: App = None,
) -> None:
    """Have a check learn from what people said of its verdicts."""
    where: Any = stage
    labels = guard_labels(check, stage=where, task=task)
    _, learnt = Application(app).guard(guard).fit({check: labels}, most_false=most_false)
    found = learnt[check]
    out.print(f"{len(labels)} labelled texts; judged on those kept back:", highlight=False)
    out.print(f"before: {found.before}\nafter:  {found.after}", highlight=False)
    if not found.is_better:
        out.print("no better: nothing is written", highlight=False)
        raise typer.Exit(1)
    made: Any = found.check
    made.weights.save(to)
    out.print(f"wrote {to}: give it to the check as weights={str(to)!r}", highlight=False)


@dataset_app.command("create")
def dataset_create(
    task: Task,
    source: Annotated[str, typer.Option("--from", help="Where from: feedback.")] = "feedback",
    golden: float = 0.2,
    test: float = 0.2,
    credit: Annotated[
        str | None,
        typer.Option(help="Whose doing is what was said of a whole trace or session: last, uniform, decay, touched."),
    ] = None,
) -> None:
    """Make a dataset from what was captured and said."""
    method: Any = credit
    out.print(screen.dataset(Dataset.create(task, source=source, golden=golden, test=test, credit=method)))


@dataset_app.command("show")
def dataset_show(dataset: Annotated[str, typer.Argument(help="An id, or a task for its latest.")]) -> None:
    """A dataset's report."""
    out.print(screen.dataset(Dataset.load(dataset)))


@rollout_app.command("start")
def rollout_start(
    task: Task, candidate: str = "candidate", share: float = 0.5, alpha: float = 0.05, twin: bool = False
) -> None:
    """Give a candidate a share of the calls."""
    store = open_store()
    store.check_task(task)
    made = Rollout.start(task, candidate, share=share, alpha=alpha, twin=twin, store=store)
    out.print(f"rollout {made.id}: {made.candidate} gets {made.share:.0%} of {task}'s calls, {made.current} the rest")


@rollout_app.command("step")
def rollout_step(task: Task) -> None:
    """Look at the evidence, and promote, stop or wait accordingly."""
    store = open_store()
    out.print(screen.decision(_running(task, store).step(store=store)))


@rollout_app.command("status")
def rollout_status(task: Task) -> None:
    """Look at the evidence; changes nothing."""
    store = open_store()
    out.print(screen.decision(_running(task, store).decide(store=store)))


@rollout_app.command("stop")
def rollout_stop(task: Task, reason: str = "stopped by hand") -> None:
    """Take the candidate away."""
    store = open_store()
    _running(task, store).end(False, reason, store=store)
    out.print(f"stopped; {Registry(store).current(task)} serves {task}")


@store_app.command("stats")
def store_stats() -> None:
    """How much there is of what."""
    store = open_store()
    out.print(screen.stats(store))


@store_app.command("prune")
def store_prune(
    days: Annotated[float, typer.Option(help="Spans that arrived longer ago go.")] = STORE_DAYS,
    size: Annotated[int, typer.Option("--bytes", help="The oldest of what is more go.")] = STORE_BYTES,
) -> None:
    """Remove old spans with their pictures; feedback, datasets and variants stay."""
    gone = open_store().prune(days=days, bytes=size)
    out.print(f"{gone.spans} spans went")


@store_app.command("media")
def store_media(
    reference: Annotated[str, typer.Argument(help="As a message's part has it: ni:///sha-256;…")],
    to: Annotated[Path, typer.Option("--out", help="The file to write.")],
) -> None:
    """Write a picture, sound or file that a call showed into a file."""
    data = open_store().media(reference)
    try:
        to.write_bytes(data)
    except OSError as error:
        raise InvalidInput(f"{to} can't be written: {error.strerror}") from error
    out.print(f"wrote {to}")


@spool_app.command("list")
def spool_list() -> None:
    """What waits on disk to be delivered, and what was refused."""
    out.print(screen.spools(known_spools()))


@spool_app.command("replay")
def spool_replay(endpoint: Endpoint = None) -> None:
    """Let what was refused wait again, after you mended why; the next process that exports there delivers it."""
    for name, spool in _chosen(endpoint).items():
        out.print(f"{name}: {spool.replay()} batches wait again")
        spool.close()


@spool_app.command("drop")
def spool_drop(endpoint: Endpoint = None) -> None:
    """Remove what waits and what was refused; what a living process is writing stays."""
    for name, spool in _chosen(endpoint).items():
        out.print(f"{name}: {spool.clear()} batches removed")


class _recording:  # noqa: N801  # reads as a statement: with _recording():
    """Recording on, for what a command says; flushed and given back at the end."""

    def __enter__(self) -> None:
        try:
            known = declared(open_store())
        except NotFound:  # the first statement makes the store
            known = {}
        _assemble.init("loopkit-cli", strict=True, signals=known.values())

    def __exit__(self, *_: object) -> None:
        _assemble.shutdown()


def _start(since: str | None) -> int | None:
    """Nanoseconds since the epoch, of `7d`, `12h`, `30m`."""
    if since is None:
        return None
    units = {"d": 86_400, "h": 3_600, "m": 60}
    number, unit = since[:-1], units.get(since[-1:])
    if unit is None or not re.fullmatch(r"\d{1,6}(\.\d+)?", number):
        raise InvalidInput(f"--since is {since!r}: write days, hours or minutes, such as 7d, 12h or 30m")
    seconds = float(number) * unit
    return max(time.time_ns() - int(seconds * 1e9), 0)


def _cost(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        return name, float(number)
    except ValueError:
        raise InvalidInput(f"--cost is {text!r}: write the variant's name and a number, such as small=0.2") from None


def _chosen(endpoint: str | None) -> dict[str, DiskSpool]:
    known = known_spools()
    if endpoint is not None and endpoint not in known:
        raise NotFound(f"nothing was spooled for {endpoint!r}; known: {', '.join(known) or 'none'}")
    return known if endpoint is None else {endpoint: known[endpoint]}


def _current(registry: Registry, task: str, given: Application) -> Variant:
    """What serves the task; the application's own default is registered first where nothing does yet."""
    try:
        return registry.variant(task, "current")
    except NotFound:
        router = given.router(task)
        if router is None:
            raise
        registry.promote(task, registry.add(task, router.default), reason="the router's default")
        return router.default


def _running(task: str, store: Store) -> Rollout:
    running = Rollout.running(task, store=store)
    if running is None:
        raise NotFound(f"no rollout of {task!r} is running: start one with  loopkit rollout start {task}")
    return running


def _value(text: str | None, *, json_too: bool = False) -> Any:
    if text is None or text in ("true", "false"):
        return None if text is None else text == "true"
    if json_too:
        try:
            return json.loads(text) if text[:1] in ("{", "[") else text
        except ValueError:
            return text
    try:
        return float(text)
    except ValueError:
        return text
