"""Optional packages: imported when needed, and a missing one is a pip line."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from loopkit.errors import MissingExtra


def require(module: str, extra: str) -> ModuleType:
    """The module, or `MissingExtra` with the command that installs it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"{module.partition('.')[0]!r} is not installed: run  pip install 'loopkit-sdk[{extra}]'"
        ) from error
