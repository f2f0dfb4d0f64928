"""Which signals an application has declared, kept in the store, so that people at their desks are held to them too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, Protocol

from loopkit.config import Signal

_KIND = "signal"


class Documents(Protocol):
    """Where they lie. Provisional until a second store implements it."""

    def documents(self, kind: str) -> list[Any]:
        """The bodies of this kind, oldest first."""
        ...

    def put(self, kind: str, id: str, body: Any) -> None:
        """One more."""
        ...


def declare(store: Documents, signals: Iterable[Signal]) -> None:
    """Write down those that are new, or declared otherwise than before."""
    known = declared(store)
    for signal in signals:
        if known.get(signal.name) != signal:
            store.put(_KIND, signal.name, asdict(signal))


def declared(store: Documents) -> dict[str, Signal]:
    """Each as it was declared last, by name."""
    return {body["name"]: Signal(**body) for body in store.documents(_KIND)}
