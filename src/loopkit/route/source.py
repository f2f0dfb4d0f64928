"""What a router reads: which variants serve a task now, and the examples that a variant retrieves from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from loopkit.types import Example, Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """How a task is served."""

    variants: Mapping[str, Variant]
    """By the registry's names (v1, v2, …)."""
    shares: Mapping[str, float]
    """The probability of each; they sum to 1."""
    rules: tuple[tuple[str, str], ...] = ()
    """(tag, variant): a call that bears the tag gets the variant, before any share is drawn."""
    salt: str = ""
    """Part of the sticky hash: a new rollout draws anew."""


class VariantSource(Protocol):
    """The registry, as a router sees it. Reading is from memory, once it has loaded."""

    def serving(self, task: str) -> Serving | None:
        """How the task is served; None where the registry knows nothing of it."""
        ...

    def examples(self, dataset: str) -> Sequence[Example]:
        """The training examples of a dataset's version."""
        ...

    def refresh(self) -> None:
        """Read the registry now."""
        ...
