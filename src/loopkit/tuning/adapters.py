"""`tune()`: a better variant from a dataset, by a named tuner; and the tuners that need no training."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from loopkit._plugins import named
from loopkit.datasets.dataset import Dataset
from loopkit.errors import InvalidInput
from loopkit.prompts.nearest import NearestIndex, text_of
from loopkit.route.answer import Kitchen, check_variant
from loopkit.route.vote import CALLABLE as VOTE
from loopkit.route.vote import vote as cast_vote
from loopkit.types import Example, Variant


class Tuner(Protocol):
    """From a variant and training examples to a better variant. Provisional until one that trains stands behind it."""

    def tune(self, variant: Variant, dataset: Dataset) -> Variant:
        """The tuned variant. Only `dataset.split("train")` may be learned from."""
        ...


class FewShot:
    """Fixed demonstrations: for each expected output its most typical examples, shown before every question.

    Typical means most similar, on average, to the others with the same output. Fixed demonstrations keep a
    provider's prompt cache.
    """

    def __init__(self, per_label: int = 1, limit: int = 20) -> None:
        self.per_label = _positive("per_label", per_label)
        self.limit = _positive("limit", limit)

    def tune(self, variant: Variant, dataset: Dataset) -> Variant:
        """See `Tuner.tune`."""
        by_label: dict[str, list[Example]] = defaultdict(list)
        for example in _known(dataset):
            by_label[str(example.expected)].append(example)
        columns = [_typical(by_label[label])[: self.per_label] for label in sorted(by_label)]
        # one of each label in turn, so that no label stands in a block next to the question
        chosen = [column[row] for row in range(self.per_label) for column in columns if row < len(column)]
        return replace(_model(variant), demonstrations=tuple(chosen[: self.limit]))


class Nearest:
    """Demonstrations per call: the most similar training examples. Better, and dearer: they miss the prompt cache."""

    def __init__(self, k: int = 4, fields: Sequence[str] = ()) -> None:
        self.k = _positive("k", k)
        self.fields = tuple(fields)

    def tune(self, variant: Variant, dataset: Dataset) -> Variant:
        """See `Tuner.tune`."""
        _known(dataset)
        return replace(_model(variant), retriever=_retriever(dataset, self.k, self.fields))


class Vote:
    """No model: the nearest training examples vote. `k` is the best of a few by leaving one out.

    Where no example is near, the commonest output is the answer.
    """

    def __init__(self, ks: Sequence[int] = (3, 5, 9, 15), fields: Sequence[str] = ()) -> None:
        self.ks = tuple(_positive("k", k) for k in ks)
        self.fields = tuple(fields)

    def tune(self, variant: Variant, dataset: Dataset) -> Variant:
        """See `Tuner.tune`."""
        examples = _known(dataset)
        right = {k: sum(hit for hit, _ in leave_one_out(examples, k, self.fields)) for k in self.ks}
        best = max(self.ks, key=lambda k: (right[k], -k))
        commonest = Counter(str(example.expected) for example in examples).most_common(1)[0][0]
        return Variant(
            callable=VOTE,
            parameters={"otherwise": commonest},
            retriever=_retriever(dataset, best, self.fields),
        )


class Cascade:
    """The vote while it is sure, else the variant itself.

    Sure is the lowest confidence above which the vote, leaving one out, is right at least `precision` of the time.
    """

    def __init__(self, precision: float = 0.9, fields: Sequence[str] = ()) -> None:
        if not 0 < precision <= 1:
            raise InvalidInput(f"precision is {precision!r}: it is a share above 0, at most 1")
        self.precision = precision
        self.fields = tuple(fields)

    def tune(self, variant: Variant, dataset: Dataset) -> Variant:
        """See `Tuner.tune`."""
        first = Vote(fields=self.fields).tune(variant, dataset)
        assert first.retriever is not None
        outcomes = leave_one_out(_known(dataset), int(first.retriever["k"]), self.fields)
        return Variant(stages=(first, variant), threshold=_threshold(outcomes, self.precision))


TUNERS: dict[str, Callable[..., Tuner]] = {
    "few-shot": FewShot,
    "nearest": Nearest,
    "vote": Vote,
    "cascade": Cascade,
}
"""By name; other packages add theirs by the entry-point group `loopkit.tuners`."""


def tune(variant: Variant, dataset: Dataset, tuner: Tuner | str = "few-shot", **options: Any) -> Variant:
    """A better variant, with its provenance: which tuner, from which dataset.

    `tuner` is an object with `tune(variant, dataset)` or a name: few-shot, nearest, vote, cascade, or an
    installed package's. `options` go to a named tuner. Raises `NotFound` for an unknown name and `InvalidInput`
    for options or data that don't fit.
    """
    check_variant(variant)
    chosen = _named(tuner, options) if isinstance(tuner, str) else tuner
    tuned = check_variant(chosen.tune(variant, dataset))
    own = next((name for name, made in TUNERS.items() if type(tuner) is made), type(tuner).__name__)
    name = tuner if isinstance(tuner, str) else own
    return replace(tuned, provenance={"tuner": name, "dataset": dataset.id, "options": dict(options)})


def best_prompt(
    prompts: Sequence[str],
    variant: Variant,
    examples: Sequence[Example],
    *,
    client: Any,
    score: Callable[[Any, Example], float],
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Variant, Mapping[str, float]]:
    """The variant with the best of several prompts on some examples, and each prompt's mean score."""
    if not prompts or not examples:
        raise InvalidInput(
            f"best_prompt() got {len(prompts)} prompts and {len(examples)} examples: it needs some of each"
        )
    kitchen = Kitchen(client)
    means: dict[str, float] = {}
    for prompt in prompts:
        candidate = replace(variant, prompt=prompt)
        total = 0.0
        for number, example in enumerate(examples):
            total += score(kitchen.serve(candidate, example.input).output, example)
            if progress is not None:
                progress(len(means) * len(examples) + number + 1, len(prompts) * len(examples))
        means[prompt] = total / len(examples)
    return replace(variant, prompt=max(prompts, key=lambda prompt: means[prompt])), means


def leave_one_out(examples: Sequence[Example], k: int, fields: Sequence[str]) -> list[tuple[bool, float]]:
    """For each example whether the others' vote is right, and how sure it is."""
    texts = [text_of(example.input, fields) for example in examples]
    index = NearestIndex(texts)
    outcomes: list[tuple[bool, float]] = []
    for position, example in enumerate(examples):
        found = [(i, s) for i, s in index.nearest(texts[position], k + 1) if i != position][:k]
        answer = cast_vote(nearest=[(examples[i], s) for i, s in found])
        outcomes.append((answer.output == str(example.expected), answer.confidence or 0.0))
    return outcomes


def _named(name: str, options: Mapping[str, Any]) -> Tuner:
    make = named("tuners", name, TUNERS)
    try:
        tuner: Tuner = make(**options)
    except TypeError as error:
        raise InvalidInput(f"the tuner {name!r} doesn't take these options: {error}") from error
    return tuner


def _known(dataset: Dataset) -> list[Example]:
    examples = [example for example in dataset.split("train") if example.expected is not None and example.consent]
    if not examples:
        raise InvalidInput(f"dataset {dataset.id} has no training example with an expected output")
    return examples


def _model(variant: Variant) -> Variant:
    if variant.model is None:
        raise InvalidInput("demonstrations need a variant with a model and a prompt")
    return variant


def _retriever(dataset: Dataset, k: int, fields: tuple[str, ...]) -> dict[str, Any]:
    return {"dataset": dataset.id, "k": k, "fields": list(fields)}


def _typical(examples: Sequence[Example]) -> list[Example]:
    texts = [text_of(example.input) for example in examples]
    index = NearestIndex(texts)
    centrality = [sum(score for _, score in index.nearest(text, len(texts))) for text in texts]
    order = sorted(range(len(examples)), key=lambda i: (-centrality[i], examples[i].id))
    return [examples[i] for i in order]


def _threshold(outcomes: Sequence[tuple[bool, float]], precision: float) -> float:
    ranked = sorted(outcomes, key=lambda outcome: -outcome[1])
    threshold, right = 1.01, 0
    for number, (hit, confidence) in enumerate(ranked, start=1):
        right += hit
        tied = number < len(ranked) and ranked[number][1] == confidence  # all of one confidence, or none
        if not tied and right >= precision * number:
            threshold = confidence
    return threshold


def _positive(name: str, value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidInput(f"{name} is {value!r}: give a whole number of at least 1")
    return value
