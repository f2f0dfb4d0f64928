"""`evaluate()`: several variants on the same examples, compared pair by pair with the one that serves now."""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from loopkit._json import canonical, to_dict
from loopkit._plugins import named
from loopkit._words import duration
from loopkit.capture import slot
from loopkit.capture.decorator import live_span, span
from loopkit.capture.redact import redact_value, redactor
from loopkit.datasets.dataset import Dataset
from loopkit.detect.patterns import redact as redact_patterns
from loopkit.errors import InvalidInput
from loopkit.evals.scoring import EVALUATORS, Evaluator, exact
from loopkit.route.answer import Kitchen, check_variant
from loopkit.statistics.paired import PairedResult, holm, holm_level, mean_interval, paired_difference, quantile
from loopkit.store.locate import open_store
from loopkit.store.sqlite import Store
from loopkit.types import Example, ModelCall, Score, Span, Variant

_KIND = "experiment"
_FLUSH_SECONDS = 5.0
Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One variant on one example."""

    variant: str
    example: str
    split: str
    output: Any = None
    error: str | None = None
    """The variant itself failed: its scores are 0."""
    seconds: float = 0.0
    tokens: int | None = None
    """In and out, of its model calls; None where nothing was recorded or the provider reported none."""
    cost: float | None = None
    """In US dollars; None where no price is known."""
    scores: tuple[Score, ...] = ()
    span: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One variant against the baseline, on one evaluator."""

    variant: str
    baseline: str
    evaluator: str
    result: PairedResult
    adjusted_p: float
    """Holm's, over all variants and evaluators of the experiment."""
    alpha: float
    effort: str = ""
    """What a call takes, against the baseline: time, tokens and cost as far as they are known."""

    @property
    def sentence(self) -> str:
        """What can be said, in one plain sentence."""
        r = self.result
        gap = f"{abs(r.difference) * 100:.1f} points"
        known = math.isfinite(r.low) and math.isfinite(r.high)
        ends = f"interval {r.low * 100:+.1f} to {r.high * 100:+.1f}" if known else "too few for an interval"
        interval = f"{ends}, {r.examples} examples"
        if self.adjusted_p <= self.alpha:
            word = "better" if r.difference > 0 else "worse"
            return (
                f"{self.variant} is {word} than {self.baseline} by {gap} ({interval}, p {self.adjusted_p:.2g})"
                f"{self.effort}"
            )
        return (
            f"{self.variant} can't be told from {self.baseline}: {r.difference * 100:+.1f} points ({interval}, "
            f"p {self.adjusted_p:.2g}; {r.detectable * 100:.0f} points would have shown){self.effort}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One variant over all its examples."""

    variant: str
    evaluator: str
    split: str
    """"all", or one split: golden and fresh examples are reported apart."""
    mean: float
    low: float
    high: float
    examples: int
    """Those with a score."""
    errors: int
    """Examples on which the variant failed; they score 0."""
    unscored: int
    """Examples on which the evaluator failed or gave no number; they are left out."""
    latency_p50: float
    latency_p95: float
    tokens: float | None = None
    """Mean per example, in and out; 0 for a variant without a model; None where it isn't known."""
    cost: float | None = None
    """Mean per example, in US dollars; None where a price isn't known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """What an evaluation found, kept in the store."""

    id: str
    task: str
    dataset: str
    baseline: str
    rows: tuple[Row, ...] = field(repr=False)
    summaries: tuple[Summary, ...]
    comparisons: tuple[Comparison, ...]

    def best(self) -> str:
        """The variant with the highest mean among those that are significantly better; the baseline without any.

        By the first evaluator.
        """
        name = self.summaries[0].evaluator
        better = {
            c.variant
            for c in self.comparisons
            if c.evaluator == name and c.adjusted_p <= c.alpha and c.result.difference > 0
        }
        means = {s.variant: s.mean for s in self.overall() if s.evaluator == name and s.variant in better}
        return max(means, key=lambda variant: means[variant]) if means else self.baseline

    def overall(self) -> list[Summary]:
        """Each variant over all its examples, on the first evaluator."""
        first = self.summaries[0].evaluator
        return [summary for summary in self.summaries if summary.split == "all" and summary.evaluator == first]


def evaluate(
    task: str,
    variants: Mapping[str, Variant],
    *,
    dataset: Dataset | None = None,
    splits: Sequence[str] = ("test", "golden"),
    evaluators: Sequence[Evaluator | str] = (exact,),
    baseline: str = "current",
    client: Any = None,
    limit: int | None = None,
    alpha: float = 0.05,
    store: Store | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Experiment:
    """Run every variant on the held-out examples and compare each with the baseline.

    Pairs are compared within examples, clustered by their group, and the p-values are corrected for the number of
    comparisons (Holm 1979); each interval is at the level of its Holm step, so that it agrees with the verdict. At
    most `limit` examples are taken, a seeded draw. A variant that fails on an example scores 0 there. An evaluator may
    be named: one that ships, or an installed package's (entry points `loopkit.evaluators`). Raises `InvalidInput`
    before anything runs.
    """
    store = store or open_store()
    data = dataset or Dataset.load(task, store=store)
    examples = _examples(data, splits, limit)
    if baseline not in variants:
        raise InvalidInput(f"the baseline {baseline!r} is not among the variants: {', '.join(variants)}")
    if not evaluators:
        raise InvalidInput("evaluate() has no evaluators: give at least one, such as evaluators.exact")
    scorers = _scorers(evaluators)
    for name, variant in variants.items():
        check_variant(variant)
        if client is None and _needs_client(variant):
            raise InvalidInput(f"variant {name!r} has a model, but no client was given: pass client=")
    kitchen = Kitchen(client, lambda id: Dataset.load(id, store=store).split("train"))
    rows: list[Row] = []
    total = len(variants) * len(examples)
    for name, variant in variants.items():
        for example in examples:
            rows.append(_run(kitchen, name, variant, example, scorers))
            if progress is not None:
                progress(len(rows), total)
    rows = _with_usage(rows, {name for name, variant in variants.items() if _needs_client(variant)}, store)
    made = _experiment(task, data, baseline, rows, examples, scorers, alpha)
    document = to_dict(made)
    for row in document["rows"]:
        _without_secrets(row)
    for told, comparison in zip(document["comparisons"], made.comparisons, strict=True):
        told["sentence"] = comparison.sentence
    store.put(_KIND, made.id, document, task=task)
    return made


def _scorers(given: Sequence[Evaluator | str]) -> list[Evaluator]:
    found = [named("evaluators", e, EVALUATORS) if isinstance(e, str) else e for e in given]
    made = [e if isinstance(e, Evaluator) else Evaluator(e, getattr(e, "__name__", repr(e))) for e in found]
    repeated = [name for name, count in Counter(e.name for e in made).items() if count > 1]
    if repeated:
        raise InvalidInput(f"two evaluators are named {repeated[0]!r}: give one of them another name")
    return made


def _needs_client(variant: Variant) -> bool:
    return variant.model is not None or any(map(_needs_client, variant.stages))


def _examples(data: Dataset, splits: Sequence[str], limit: int | None) -> list[Example]:
    if limit is not None and limit < 2:
        raise InvalidInput(f"limit is {limit!r}: two examples are needed to compare")
    examples = [example for name in splits for example in data.split(name) if example.expected is not None]
    if len(examples) < 2:
        raise InvalidInput(
            f"dataset {data.id} has {len(examples)} examples in {', '.join(splits)}: two are needed to compare"
        )
    if limit is not None and len(examples) > limit:
        # a draw that depends on nothing but the examples themselves
        examples = sorted(examples, key=lambda e: hashlib.sha256(e.id.encode()).digest())[:limit]
    return examples


def _run(kitchen: Kitchen, name: str, variant: Variant, example: Example, evaluators: Sequence[Evaluator]) -> Row:
    started = time.perf_counter()
    error, output, at = None, None, None
    with span(f"evaluate {name}", kind="evaluation", input=dict(example.input)) as mark:
        live = live_span()
        at = None if live is None else live.id
        try:
            output = kitchen.serve(variant, example.input).output
        except Exception as raised:  # noqa: BLE001  # a variant that fails is a row, not the end of the run
            error = f"{type(raised).__name__}: {raised}"
        mark.set(output=output)
    seconds = time.perf_counter() - started
    if error is not None:
        scores = tuple(Score(name=e.name, value=0.0, reason="the variant failed") for e in evaluators)
    else:
        scores = tuple(e.score(output, example) for e in evaluators)
    return Row(
        variant=name, example=example.id, split=example.split, output=output, error=error, seconds=seconds,
        scores=scores, span=at,
    )  # fmt: skip


def _without_secrets(row: dict[str, Any]) -> None:
    """What a variant said, as recording would keep it: redacted, or not at all."""
    recorder = slot.recorder
    keep = recorder is None or recorder.settings.content != "off"
    redact = redact_patterns if recorder is None else redactor(recorder.settings)
    for name in ("output", "error"):
        if name in row:
            row[name] = redact_value(row[name], redact) if keep else None
    for score in row.get("scores", ()):
        if "reason" in score:
            score["reason"] = redact_value(score["reason"], redact) if keep else None


def _with_usage(rows: Sequence[Row], with_model: set[str], store: Store) -> list[Row]:
    """The rows with the tokens and the cost of the model calls below their spans, as far as they were recorded."""
    recorded = {row.span[:32] for row in rows if row.span is not None}
    if recorded and slot.recorder is not None:
        slot.recorder.worker.flush(_FLUSH_SECONDS)
    below: dict[str, list[Span]] = defaultdict(list)
    for found in store.spans(trace_ids=recorded) if recorded else ():
        below[f"{found.trace_id}-{found.parent_id}"].append(found)
    calls = {row.span: _calls_below(row.span, below) for row in rows if row.span is not None}
    seen = {row.variant for row in rows if row.span is not None and calls[row.span]}
    # A variant with a model but without a single recorded call was served by a client that isn't wrapped.
    unknown = with_model - seen
    return [row if row.span is None or row.variant in unknown else _used(row, calls[row.span]) for row in rows]


def _calls_below(id: str, below: Mapping[str, Sequence[Span]]) -> list[ModelCall]:
    calls: list[ModelCall] = []
    waiting = [id]
    while waiting:
        for span_below in below.get(waiting.pop(), ()):
            waiting.append(span_below.id)
            if span_below.model_call is not None:
                calls.append(span_below.model_call)
    return calls


def _used(row: Row, calls: Sequence[ModelCall]) -> Row:
    tokens = [c.usage.input_tokens for c in calls] + [c.usage.output_tokens for c in calls]
    costs = [call.cost for call in calls]
    return replace(row, tokens=_total(tokens), cost=_total(costs))


def _total(values: Sequence[Number | None]) -> Number | None:
    """The sum, 0 of nothing; None where one of them isn't known."""
    known = [value for value in values if value is not None]
    total: Any = sum(known)
    return total if len(known) == len(values) else None


def _experiment(
    task: str,
    data: Dataset,
    baseline: str,
    rows: Sequence[Row],
    examples: Sequence[Example],
    evaluators: Sequence[Evaluator],
    alpha: float,
) -> Experiment:
    names = list(dict.fromkeys(row.variant for row in rows))
    numbers = {(row.variant, s.name, row.example): s.value for row in rows for s in row.scores if s.value is not None}
    pairs = [(name, e.name) for e in evaluators for name in names if name != baseline]
    p_values = [_paired(numbers, baseline, name, metric, examples, alpha).p_value for name, metric in pairs]
    adjusted = holm(p_values)
    results = [
        _paired(numbers, baseline, name, metric, examples, holm_level(p_values, index, alpha))
        for index, (name, metric) in enumerate(pairs)
    ]
    summaries = [
        _summary(name, e.name, split, [r for r in rows if r.variant == name and split in ("all", r.split)])
        for e in evaluators
        for split in ("all", *dict.fromkeys(example.split for example in examples))
        for name in names
    ]
    whole = {s.variant: s for s in summaries if s.split == "all"}
    digest = hashlib.sha256(canonical([to_dict(row) for row in rows]).encode()).hexdigest()
    return Experiment(
        id=digest[:16],
        task=task,
        dataset=data.id,
        baseline=baseline,
        rows=tuple(rows),
        summaries=tuple(summaries),
        comparisons=tuple(
            Comparison(
                variant=n,
                baseline=baseline,
                evaluator=m,
                result=r,
                adjusted_p=p,
                alpha=alpha,
                effort=_effort(whole[n], whole[baseline]),
            )
            for (n, m), r, p in zip(pairs, results, adjusted, strict=True)
        ),
    )


def _paired(
    numbers: Mapping[tuple[str, str, str], float],
    baseline: str,
    variant: str,
    metric: str,
    examples: Sequence[Example],
    alpha: float,
) -> PairedResult:
    """The comparison on the examples that have a score of both; where an evaluator failed, there is none."""
    both = [e for e in examples if (baseline, metric, e.id) in numbers and (variant, metric, e.id) in numbers]
    if len(both) < 2:
        return PairedResult(0.0, -math.inf, math.inf, 1.0, len(both), len(both), math.inf)
    return paired_difference(
        [numbers[baseline, metric, e.id] for e in both],
        [numbers[variant, metric, e.id] for e in both],
        [e.group or e.id for e in both],
        alpha=alpha,
    )


def _summary(variant: str, metric: str, split: str, rows: Sequence[Row]) -> Summary:
    scores = [score for row in rows for score in row.scores if score.name == metric]
    values = [score.value for score in scores if score.value is not None]
    low, high = mean_interval(values)
    times = [row.seconds for row in rows]
    return Summary(
        variant=variant,
        evaluator=metric,
        split=split,
        mean=sum(values) / len(values) if values else math.nan,
        low=low,
        high=high,
        examples=len(values),
        errors=sum(row.error is not None for row in rows),
        unscored=len(scores) - len(values),
        latency_p50=quantile(times, 0.5),
        latency_p95=quantile(times, 0.95),
        tokens=_mean([row.tokens for row in rows]),
        cost=_mean([row.cost for row in rows]),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    total = _total(values)
    return None if total is None or not values else total / len(values)


def _effort(variant: Summary, baseline: Summary) -> str:
    parts = [f"{duration(variant.latency_p50)} a call against {duration(baseline.latency_p50)}"]
    if variant.tokens is not None and baseline.tokens is not None:
        parts.append(f"{variant.tokens:.0f} tokens against {baseline.tokens:.0f}")
    if variant.cost is not None and baseline.cost is not None and variant.cost + baseline.cost > 0:
        parts.append(f"${variant.cost:.5f} against ${baseline.cost:.5f}")
    return "; " + ", ".join(parts)
