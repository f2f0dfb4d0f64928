"""`lineage()`: why is it as it is. From a span, a dataset, a variant or a rollout, back to what it came from and on
to what came of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from loopkit._words import duration
from loopkit.errors import NotFound
from loopkit.signals.state import held
from loopkit.store.locate import open_store
from loopkit.store.sqlite import Store
from loopkit.types import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Trail:
    """One thing, with what it came from and what came of it, each a tree."""

    kind: str
    """span, feedback, dataset, variant, experiment, rollout or serving."""
    id: str
    text: str
    """What it is, in one line."""
    came_from: tuple[Trail, ...] = field(default=())
    leads_to: tuple[Trail, ...] = field(default=())


_NAMED_SOURCES = 3
"""Of the calls that a dataset was made from, so many are named."""


def lineage(id: str, *, store: Store | None = None) -> Trail:
    """What a span, a dataset, a variant (`task/v2`) or a rollout came from and led to.

    Onwards: a span leads to its feedback, to the datasets whose examples name it, to the variants tuned from those,
    and to the decisions about them. Backwards: a rollout came from its candidate, a variant from its dataset, a
    dataset from calls and what was said of them, a span from the variant that served it. Raises `NotFound`.
    """
    store = store or open_store()
    for kind, tell, origins in (
        ("dataset", _dataset, _origins_of_dataset),
        ("variant", _variant, _origins_of_variant),
        ("rollout", _rollout, _origins_of_rollout),
    ):
        documents = store.documents(kind, id=id)
        if documents:
            return replace(tell(store, documents[-1]), came_from=origins(store, documents[-1]))
    try:
        span = store.span(id)
    except NotFound as error:
        raise NotFound(f"{id!r} is no dataset, variant (task/v1), rollout or span of {store.path}") from error
    return _span(store, span)


def _span(store: Store, span: Span) -> Trail:
    said = [
        Trail(kind="feedback", id=event.id, text=_said(event))
        for (target, *_), event in held(store).current.items()
        if target == span.id
    ]
    datasets = [
        _dataset(store, document)
        for document in store.documents("dataset", task=span.task)
        if any(span.id in example.get("spans", ()) for example in document["examples"])
    ]
    text = f"{span.name} ({span.kind}, {span.status}, {duration(span.duration)}), variant {span.variant or 'none'}"
    served_by = _named_variant(store, span.task, span.variant)
    return Trail(kind="span", id=span.id, text=text, came_from=served_by, leads_to=(*said, *datasets))


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


def _origins_of_rollout(store: Store, document: dict[str, Any]) -> tuple[Trail, ...]:
    made = document["rollout"]
    return (
        *_named_variant(store, made["task"], made["candidate"]),
        *_named_variant(store, made["task"], made["current"]),
    )


def _named_variant(store: Store, task: str | None, name: str | None) -> tuple[Trail, ...]:
    """The variant and what it came from; nothing where the registry doesn't know it (a router's default)."""
    return tuple(
        replace(_variant(store, document), leads_to=(), came_from=_origins_of_variant(store, document))
        for document in store.documents("variant", id=f"{task}/{name}")[-1:]
    )


def _origins_of_variant(store: Store, document: dict[str, Any]) -> tuple[Trail, ...]:
    dataset = document["variant"].get("provenance", {}).get("dataset")
    return tuple(
        replace(_dataset(store, found), leads_to=(), came_from=_origins_of_dataset(store, found))
        for found in store.documents("dataset", id=str(dataset))[-1:]
    )


def _origins_of_dataset(store: Store, document: dict[str, Any]) -> tuple[Trail, ...]:
    """How many calls and statements it came from, and the newest of the calls by their ids."""
    spans = [span for example in document["examples"] for span in example.get("spans", ())]
    events = {event for example in document["examples"] for event in example.get("feedback", ())}
    authors = {event.by or event.source for event in store.feedback() if event.id in events}
    given = sum(not example.get("spans") for example in document["examples"])
    text = f"{len(spans)} calls, {len(events)} statements by {len(authors)} authors; {given} examples were given"
    newest = [Trail(kind="span", id=id, text="") for id in spans[-_NAMED_SOURCES:]]
    return (Trail(kind="feedback", id=document["task"], text=text), *newest)
