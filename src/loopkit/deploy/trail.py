"""`lineage()`: why is it as it is. From a span, a dataset, a variant or a rollout, along what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loopkit.errors import NotFound
from loopkit.signals.fold import fold
from loopkit.store.locate import open_store
from loopkit.store.sqlite import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Trail:
    """One thing, and what came of it, as a tree."""

    kind: str
    """span, feedback, dataset, variant, experiment, rollout or serving."""
    id: str
    text: str
    """What it is, in one line."""
    leads_to: tuple[Trail, ...] = field(default=())


def lineage(id: str, *, store: Store | None = None) -> Trail:
    """What a span, a dataset, a variant (`task/v2`) or a rollout came from and led to.

    A span leads to its feedback, to the datasets whose examples name it, to the variants tuned from those, and to
    the decisions about them. Raises `NotFound`.
    """
    store = store or open_store()
    for kind, tell in (("dataset", _dataset), ("variant", _variant), ("rollout", _rollout)):
        documents = store.documents(kind, id=id)
        if documents:
            return tell(store, documents[-1])
    try:
        return _span(store, id)
    except NotFound as error:
        raise NotFound(f"{id!r} is no dataset, variant (task/v1), rollout or span of {store.path}") from error


def _span(store: Store, id: str) -> Trail:
    span = store.span(id)
    said = [
        Trail(kind="feedback", id=event.id, text=_said(event))
        for (target, *_), event in fold(store.feedback(), store.resolve).current.items()
        if target == span.id
    ]
    datasets = [
        _dataset(store, document)
        for document in store.documents("dataset", task=span.task)
        if any(span.id in example.get("spans", ()) for example in document["examples"])
    ]
    text = f"{span.name} ({span.kind}, {span.status}, {span.duration:.2f} s), variant {span.variant or 'none'}"
    return Trail(kind="span", id=span.id, text=text, leads_to=(*said, *datasets))


def _said(event: Any) -> str:
    what = f"corrected to {event.correction!r}" if event.correction is not None else f"{event.name} = {event.value!r}"
    return f"{what}, by {event.by or event.source}"


def _dataset(store: Store, document: dict[str, Any]) -> Trail:
    tuned = [
        _variant(store, variant)
        for variant in store.documents("variant", task=document["task"])
        if variant["variant"].get("provenance", {}).get("dataset") == document["id"]
    ]
    sizes = ", ".join(f"{n} {name}" for name, n in document["report"].get("splits", {}).items())
    return Trail(kind="dataset", id=document["id"], text=f"task {document['task']}: {sizes}", leads_to=tuple(tuned))


def _variant(store: Store, document: dict[str, Any]) -> Trail:
    task, name, made = document["task"], document["name"], document["variant"].get("provenance", {})
    decisions = [
        _rollout(store, rollout)
        for rollout in store.documents("rollout", task=task)
        if rollout["rollout"]["candidate"] == name and rollout["state"] != "running"
    ]
    text = f"tuned with {made['tuner']} from dataset {made['dataset']}" if "dataset" in made else "written by hand"
    return Trail(kind="variant", id=f"{task}/{name}", text=text, leads_to=tuple(decisions))


def _rollout(store: Store, document: dict[str, Any]) -> Trail:
    made = document["rollout"]
    served = [
        Trail(kind="serving", id=made["task"], text=f"{entry['current']} serves: {entry['reason']}")
        for entry in store.documents("serving", task=made["task"])
        if _evidence(entry).get("rollout") == made["id"]
    ]
    text = f"{made['candidate']} against {made['current']}: {document['state']}. {document.get('reason', '')}"
    return Trail(kind="rollout", id=made["id"], text=text.strip(), leads_to=tuple(served))


def _evidence(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    return entry.get("evidence") or {}
