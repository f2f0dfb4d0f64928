"""The registry: a task's variants by name, and how they share its calls. The only truth about what is served.

An append-only log in the store; the latest "serving" document counts. Routers read it through a cache that is
filled once, then refreshed in the background at most once a second, and serves what it has meanwhile.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from loopkit import _host
from loopkit._json import canonical, from_dict, to_dict, to_json
from loopkit.datasets.dataset import Dataset
from loopkit.deploy.decisions import logged
from loopkit.errors import InvalidInput, NotFound
from loopkit.route.answer import check_variant
from loopkit.route.source import Learn, Logged, Serving
from loopkit.store.sqlite import Store
from loopkit.types import Example, Variant

_REFRESH_SECONDS = 1.0
_LEARN_SECONDS = 30.0
_LEARN_SPANS = 20_000
"""So many of a task's latest spans are learnt from."""
CURRENT, CANDIDATE = "current", "candidate"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")


class Registry:
    """The registry in one store. Reading it as a `VariantSource` never waits after the first time."""

    def __init__(self, store: Store, *, later: Callable[[Callable[[], None]], None] | None = None) -> None:
        self.store = store
        self._later = later
        self._serving: dict[str, Serving | None] = {}
        self._examples: dict[str, Sequence[Example]] = {}
        self._read_at = 0.0
        self._learners: list[tuple[str, Callable[[], Learn | None]]] = []
        """Held weakly: a router that is gone learns nothing."""
        self._taught_at = time.monotonic()

    # As a VariantSource

    def serving(self, task: str) -> Serving | None:
        """See `VariantSource.serving`."""
        if task not in self._serving:
            self._serving[task] = self._load(task)
            self._read_at = time.monotonic()
        elif self._later is not None and time.monotonic() - self._read_at > _REFRESH_SECONDS:
            self._read_at = time.monotonic()
            self._later(self.refresh)
            if self._learners and self._read_at - self._taught_at > _LEARN_SECONDS:
                self._taught_at = self._read_at
                self._later(self.teach)
        return self._serving[task]

    def examples(self, dataset: str) -> Sequence[Example]:
        """See `VariantSource.examples`."""
        if dataset not in self._examples:
            self._examples[dataset] = Dataset.load(dataset, store=self.store).split("train")
        return self._examples[dataset]

    def follow(self, task: str, learn: Learn) -> None:
        """See `VariantSource.follow`: at once, then every half minute in which the task is called."""
        kept: Callable[[], Learn | None] = weakref.WeakMethod(learn) if hasattr(learn, "__self__") else lambda: learn
        self._learners.append((task, kept))
        if self._later is not None:
            self._later(partial(self._teach, [(task, kept)]))

    def teach(self) -> None:
        """Tell those who follow what came of calls. One that can't learn from it goes on as it was."""
        self._learners = [each for each in self._learners if each[1]() is not None]
        self._teach(self._learners)

    def _teach(self, learners: Sequence[tuple[str, Callable[[], Learn | None]]]) -> None:
        known: dict[str, list[Logged]] = {}
        for task, kept in learners:
            learn = kept()
            if learn is not None:
                with _host.Shielded(f"learning from calls of {task}"):
                    if task not in known:
                        known[task] = logged(task, newest=_LEARN_SPANS, store=self.store)
                    learn(known[task])

    def refresh(self) -> None:
        """See `VariantSource.refresh`. What can't be read leaves the last good state."""
        for task in list(self._serving):
            self._serving[task] = self._load(task)
        self._read_at = time.monotonic()

    # At the desk

    def add(self, task: str, variant: Variant, *, name: str | None = None) -> str:
        """Register a variant and give its name: yours, else v1, v2, …; the same variant keeps its name.

        Raises `InvalidInput` where the name is taken, or the variant has another one.
        """
        check_variant(variant)
        if name is not None and (not _NAME.fullmatch(name) or name in (CURRENT, CANDIDATE)):
            raise InvalidInput(
                f"name is {name!r}: up to 60 letters, digits, '.', '-' or '_', not {CURRENT!r} or {CANDIDATE!r}"
            )
        text, given = to_json(variant), to_dict(variant)
        named = ""

        def numbered(known: list[Any]) -> tuple[str, Any] | None:
            nonlocal named
            names = {document["name"] for document in known}
            for document in known:
                if to_json(from_dict(Variant, document["variant"])) == text:
                    named = document["name"]
                    if name not in (None, named):
                        raise InvalidInput(f"this variant is {task}/{named} already: it can't be {name!r} too")
                    return None
            if name in names:
                raise InvalidInput(f"task {task!r} has another variant {name!r}: choose another name")
            named = name or next(v for n in itertools.count(len(known) + 1) if (v := f"v{n}") not in names)
            return f"{task}/{named}", {"task": task, "name": named, "variant": given}

        self.store.put_numbered("variant", task, numbered)
        return named

    def variants(self, task: str) -> dict[str, Variant]:
        """The task's variants by name, oldest first."""
        documents = self.store.documents("variant", task=task)
        return {document["name"]: from_dict(Variant, document["variant"]) for document in documents}

    def variant(self, task: str, name: str) -> Variant:
        """One variant: by name, or "current", or "candidate" (the latest that isn't current). Raises `NotFound`."""
        name = self.resolve(task, name)
        return self.variants(task)[name]

    def resolve(self, task: str, name: str) -> str:
        """The registry's name for a name, "current" or "candidate". Raises `NotFound`."""
        known = self.variants(task)
        if name == CURRENT:
            return self.current(task)
        if name == CANDIDATE:
            serving = self._state(task)
            others = [n for n in known if serving is None or n != serving["current"]]
            if others:
                return others[-1]
        if name in known:
            return name
        raise NotFound(f"task {task!r} has no variant {name!r}; known: {', '.join(known) or 'none'}")

    def current(self, task: str) -> str:
        """The variant that serves by default. Raises `NotFound` where none was promoted yet."""
        state = self._state(task)
        if state is None:
            raise NotFound(f"nothing is served for task {task!r} yet: promote a variant first")
        name: str = state["current"]
        return name

    def promote(self, task: str, name: str, *, reason: str, evidence: Mapping[str, Any] | None = None) -> None:
        """Let one variant serve all calls. Rules stay."""
        name = self.resolve(task, name)
        self._change(task, lambda _: {"current": name, "shares": {name: 1.0}, "reason": reason}, evidence=evidence)

    def share(self, task: str, shares: Mapping[str, float], *, reason: str, salt: str) -> None:
        """Let several variants share the calls."""
        known = self.variants(task)
        unknown = [name for name in shares if name not in known]
        if unknown:
            raise NotFound(f"task {task!r} has no variant {unknown[0]!r}; known: {', '.join(known) or 'none'}")
        if any(not 0 < share < 1 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-9:
            raise InvalidInput(f"shares are {dict(shares)!r}: give numbers between 0 and 1 that sum to 1")
        self.current(task)
        self._change(task, lambda _: {"shares": dict(shares), "reason": reason, "salt": salt})

    def shares(self, task: str) -> dict[str, float]:
        """How the task's calls are shared now, by variant; empty where nothing is served."""
        state = self._state(task)
        return dict(state["shares"]) if state is not None else {}

    def rule(self, task: str, tag: str, name: str | None) -> None:
        """Send calls that bear a tag to one variant; None takes the rule away."""
        self.current(task)
        to = None if name is None else self.resolve(task, name)

        def ruled(state: Mapping[str, Any]) -> dict[str, Any]:
            others = [rule for rule in state["rules"] if rule[0] != tag]
            if to is None:
                return {"rules": others, "reason": f"no rule for {tag} any more"}
            return {"rules": [*others, (tag, to)], "reason": f"{tag} goes to {to}"}

        self._change(task, ruled)

    def history(self, task: str) -> list[dict[str, Any]]:
        """Every change of what is served, oldest first: when, to what, why, and on which evidence."""
        return self.store.documents("serving", task=task)

    def _change(
        self,
        task: str,
        change: Callable[[Mapping[str, Any]], Mapping[str, Any]],
        *,
        evidence: Mapping[str, Any] | None = None,
    ) -> None:
        """The next state of what is served, from the latest, with no other writer in between."""

        def after(known: list[Any]) -> tuple[str, Any]:
            state: dict[str, Any] = known[-1] if known else {"rules": [], "salt": task}
            body: dict[str, Any] = {**state, **change(state), "evidence": evidence, "at": time.time_ns()}
            return hashlib.sha256(canonical(body).encode()).hexdigest()[:16], body

        self.store.put_numbered("serving", task, after)
        self._serving.pop(task, None)

    def _state(self, task: str) -> dict[str, Any] | None:
        documents = self.history(task)
        return documents[-1] if documents else None

    def _load(self, task: str) -> Serving | None:
        state = self._state(task)
        if state is None:
            return None
        named = {*state["shares"], *(name for _, name in state["rules"])}
        return Serving(
            variants={name: variant for name, variant in self.variants(task).items() if name in named},
            shares=state["shares"],
            rules=tuple((tag, name) for tag, name in state["rules"]),
            salt=state["salt"],
        )
