"""Extension points by name: our own registries first, then what installed packages offer as entry points."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from loopkit.errors import NotFound


def named(group: str, name: str, own: Mapping[str, Any]) -> Any:
    """The object of this name in `loopkit.<group>`. Raises `NotFound` with the known names.

    A package offers one in its pyproject.toml: [project.entry-points."loopkit.tuners"] mine = "package:Mine".
    """
    if name in own:
        return own[name]
    offered = {entry.name: entry for entry in entry_points(group=f"loopkit.{group}")}
    if name in offered:
        return offered[name].load()
    known = ", ".join(sorted({*own, *offered})) or "none"
    kind = f"{group[:-3]}y" if group.endswith("ies") else group.removesuffix("s")
    raise NotFound(f"no {kind} named {name!r} is installed; known: {known}")
