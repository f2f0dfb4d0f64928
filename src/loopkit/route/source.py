"""What a router reads: which variants serve a task now, and the examples that a variant retrieves from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from loopkit.types import JSON, Example, Variant


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """A call of the past: how it was decided, and what came of it."""

    id: str
    """Of its span."""
    at: int
    """When it began, nanoseconds since the epoch."""
    variant: str
    propensity: float | None
    """None where nobody wrote down with which probability the variant was chosen."""
    inputs: Mapping[str, JSON] = field(default_factory=dict[str, JSON])
    """Empty where they weren't kept."""
    reward: float | None = None
    """How good it was, from 0 to 1, by what was said of it; 0 where it failed; None where nobody has said yet."""
    seconds: float = 0.0
    cost: float | None = None
    """US dollars; None where no price is known."""
    failed: bool = False
    weight: float = 1.0
    """How many calls like it it stands for, where calls are sampled."""
    user_id: str | None = None
    session_id: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, JSON] = field(default_factory=dict[str, JSON])


Learn: TypeAlias = Callable[[Sequence[Logged]], None]
"""Is given what came of a task's latest calls, oldest first."""


class VariantSource(Protocol):
    """The registry, as a router sees it. Reading is from memory, once it has loaded."""

    def serving(self, task: str) -> Serving | None:
        """How the task is served; None where the registry knows nothing of it."""
        ...

    def examples(self, dataset: str) -> Sequence[Example]:
        """The training examples of a dataset's version."""
        ...

    def follow(self, task: str, learn: Learn) -> None:
        """Have somebody told, now and then and not on this thread, what came of the task's calls."""
        ...

    def refresh(self) -> None:
        """Read the registry now."""
        ...
