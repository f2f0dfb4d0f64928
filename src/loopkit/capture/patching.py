"""`instrument`: every client of an SDK recorded, those of libraries above it too, where nothing calls `wrap`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import wrapt

from loopkit import _host
from loopkit.capture.frameworks.agents import OpenAIAgents
from loopkit.capture.frameworks.langchain import LangChain
from loopkit.capture.frameworks.mcp import Mcp
from loopkit.capture.sdks._protocol import Instrumented, Undo
from loopkit.capture.sdks.known import PATCHED
from loopkit.errors import InvalidInput, MissingExtra

_ALL: tuple[Instrumented, ...] = (*PATCHED, LangChain(), OpenAIAgents(), Mcp())
INSTRUMENTED: Mapping[str, Instrumented] = {each.name: each for each in _ALL}
"""By name."""

_undos: dict[str, Undo] = {}
_wanted: set[str] = set()
_hooked: set[str] = set()
_lock = threading.RLock()


def instrument(*names: str) -> None:
    """Record every client of these SDKs and frameworks, or of all that are known, from now on.

    What is imported already is patched now, what is not when it is imported. A client that was given to `wrap()` too is
    recorded once, and so is a call that passes a framework and then a client. Calling it again changes nothing;
    `uninstrument()` undoes it.

        loopkit.instrument("openai", "langchain")

    Raises `InvalidInput` for a name that isn't known, and `MissingExtra`, with the pip line, for what isn't installed.
    """
    for name in names:
        if not isinstance(name, str) or name not in INSTRUMENTED:
            raise InvalidInput(f"{name!r} can't be instrumented; known: {', '.join(INSTRUMENTED)}")
    for name in names:
        if not _is_installed(INSTRUMENTED[name]):
            raise MissingExtra(f"{name!r} is not installed: run  pip install 'loopkit-sdk[{INSTRUMENTED[name].extra}]'")
    with _lock:
        for name in names or [name for name, each in INSTRUMENTED.items() if _is_installed(each)]:
            _wanted.add(name)
            if INSTRUMENTED[name].module in sys.modules:
                _patch(name)
            elif name not in _hooked:  # wrapt has no way to take a hook back: it asks _wanted when it is called
                _hooked.add(name)
                wrapt.register_post_import_hook(_on_import(name), INSTRUMENTED[name].module)


def uninstrument(*names: str) -> None:
    """Take these patches back, or all of them. Clients given to `wrap()` go on being recorded."""
    with _lock:
        for name in names or tuple(_wanted):
            _wanted.discard(name)
            undo = _undos.pop(name, None)
            if undo is not None:
                undo()


def _patch(name: str) -> None:
    with _lock:
        if name in _wanted and name not in _undos:
            _undos[name] = INSTRUMENTED[name].patch(sys.modules[INSTRUMENTED[name].module])


def _on_import(name: str) -> Any:
    def imported(_: Any) -> None:
        with _host.Shielded(f"instrumenting {name}"):
            _patch(name)

    return imported


def _is_installed(each: Instrumented) -> bool:
    """Asked without importing it."""
    package, _, below = each.module.partition(".")
    if package in sys.modules:
        return True
    try:
        return find_spec(package if package != "google" else ".".join((package, below.partition(".")[0]))) is not None
    except (ImportError, ValueError):
        return False
