"""`Dataset`: examples of one task, immutable and named by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from loopkit._json import canonical, from_dict, to_dict
from loopkit.datasets.select import Selection, from_feedback
from loopkit.datasets.split import separate
from loopkit.errors import InvalidInput, NotFound
from loopkit.signals.cards import last_cards
from loopkit.signals.credit import Method, StepJudge, check_method
from loopkit.store.locate import open_store
from loopkit.store.sqlite import Store
from loopkit.types import Example

_KIND = "dataset"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Examples with their splits, and the report of how they came about."""

    id: str
    """A hash of task and examples: the same content is the same dataset."""
    task: str
    examples: tuple[Example, ...]
    report: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What was taken, what was left out and why, and the size of each split."""

    @classmethod
    def create(
        cls,
        task: str,
        *,
        source: str = "feedback",
        golden: float = 0.2,
        test: float = 0.2,
        add: Iterable[Example] = (),
        credit: Method | StepJudge | None = None,
        store: Store | None = None,
    ) -> Dataset:
        """A dataset from what was captured and said, kept in the store.

        `golden` and `test` are shares of the groups (users or sessions, else single calls). A group's side is a hash of
        its name, so it is on the same side in every later version, and a golden example can never enter training. `add`
        brings examples of your own, which stay on the side that they name (an expert's golden set). `credit` says whose
        doing it was what was said of a whole trace or session, where the task has several calls in it: "last",
        "uniform", "decay", "touched" (whose words the user saw), or a function (`evaluators.FirstWrongStep`); by
        default "uniform" for agents, else "last". What people only showed counts where it was calibrated
        (`loopkit.calibrate`). Near-duplicates are removed within and between splits. Raises `NotFound` for an unknown
        task and `InvalidInput` where nothing is left.
        """
        if source != "feedback":
            raise InvalidInput(f"source is {source!r}: so far datasets are made from 'feedback'")
        if not all(isinstance(share, (int, float)) for share in (golden, test)) or not (
            0 <= golden < 1 and 0 <= test < 1 and golden + test < 1
        ):
            raise InvalidInput(
                f"golden is {golden!r} and test {test!r}: shares of at least 0 that leave some to train on"
            )
        added = tuple(add)
        for example in added:
            if not isinstance(example, Example) or not isinstance(example.input, Mapping):
                raise InvalidInput(f"add has {example!r}: give Examples whose input is a dict")
            if example.split not in ("train", "test", "golden"):
                raise InvalidInput(f"example {example.id!r} has the split {example.split!r}: train, test or golden")
        check_method(credit)
        store = store or open_store()
        store.check_task(task)
        trusted = {card.signal: card.weight for card in last_cards(store, task) if card.trains}
        selection = from_feedback(store, task, credit=credit, trusted=trusted)
        examples, removed = separate(selection.examples, added, golden=golden, test=test, salt=task)
        if not examples:
            raise InvalidInput(f"no example is left for {task!r}: {_reasons(selection, removed)}")
        made = cls._of(task, tuple(examples), {**_report(selection, examples, removed), "trusted": sorted(trusted)})
        if not store.documents(_KIND, id=made.id):
            store.put(_KIND, made.id, to_dict(made), task=task)
        return made

    @classmethod
    def load(cls, id: str, *, store: Store | None = None) -> Dataset:
        """A dataset by its id, or by a task's name: that task's latest. Raises `NotFound`."""
        store = store or open_store()
        found = store.documents(_KIND, id=id) or store.documents(_KIND, task=id)
        if not found:
            raise NotFound(f"no dataset {id!r} in {store.path}: make one with  loopkit dataset create TASK")
        return from_dict(cls, found[-1])

    def split(self, name: str) -> tuple[Example, ...]:
        """The examples of one split: "train", "test" or "golden"."""
        return tuple(example for example in self.examples if example.split == name)

    @classmethod
    def _of(cls, task: str, examples: tuple[Example, ...], report: Mapping[str, Any]) -> Dataset:
        content = canonical([task, [to_dict(example) for example in examples]])
        return cls(id=hashlib.sha256(content.encode()).hexdigest()[:16], task=task, examples=examples, report=report)


def _report(selection: Selection, examples: list[Example], removed: Mapping[str, int]) -> dict[str, Any]:
    sizes = {name: sum(e.split == name for e in examples) for name in ("train", "test", "golden")}
    labels: dict[str, int] = {}
    for example in examples:
        if isinstance(example.expected, str) and len(example.expected) <= 60:
            labels[example.expected] = labels.get(example.expected, 0) + 1
    return {
        "calls": selection.calls,
        "left_out": {**selection.left_out, **removed},
        "conflicting_feedback": selection.conflicts,
        "splits": sizes,
        "labels": dict(sorted(labels.items())) if len(labels) <= 50 else {},
    }


def _reasons(selection: Selection, removed: Mapping[str, int]) -> str:
    counts = {**selection.left_out, **removed}
    return f"of {selection.calls} calls " + ", ".join(f"{n} {why}" for why, n in counts.items() if n)
