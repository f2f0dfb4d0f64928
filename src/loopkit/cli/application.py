"""The application that commands work for: the module named in pyproject.toml, loopkit.toml or by --app.

Importing it makes its callables, evaluators and clients known. Nothing has to be registered: commands look for
wrapped clients, routers and evaluators among the module's names.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from loopkit.capture.sdks.known import sdk_of
from loopkit.errors import InvalidSetting
from loopkit.evals.scoring import Evaluator
from loopkit.guard.guard import Guard
from loopkit.route.router import Router

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_FILES = (("loopkit.toml", ()), ("pyproject.toml", ("tool", "loopkit")))


class Application:
    """The application's module, or nothing where none is named."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name or configured_name()
        self.module: ModuleType | None = None if self.name is None else _import(self.name)

    def client(self) -> Any:
        """The first client of a known SDK among the module's names, or None."""
        return next((value for value in self._values() if sdk_of(value) is not None), None)

    def evaluators(self) -> list[Evaluator]:
        """The module's evaluators."""
        return [value for value in self._values() if isinstance(value, Evaluator)]

    def router(self, task: str) -> Router | None:
        """The module's router for a task."""
        found = (value for value in self._values() if isinstance(value, Router) and value.task == task)
        return next(found, None)

    def guard(self, name: str | None = None) -> Guard:
        """The module's guard of that name, or its only one. Raises `InvalidSetting`."""
        named = {} if self.module is None else {n: v for n, v in vars(self.module).items() if isinstance(v, Guard)}
        if name in named:
            return named[name]
        if name is None and len(named) == 1:
            return next(iter(named.values()))
        known = ", ".join(sorted(named)) or "none"
        raise InvalidSetting(
            f"which guard? The module {self.name!r} has {known}: name one by --guard, or another --app"
        )

    def _values(self) -> list[Any]:
        return [] if self.module is None else list(vars(self.module).values())


def read_toml(path: Path) -> dict[str, Any]:
    """What a TOML file says. Raises `InvalidSetting` for one that is none, or can't be read."""
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSetting(f"{path} is not valid TOML: {error}") from error
    except OSError as error:
        raise InvalidSetting(f"{path} can't be read: {error.strerror}") from error


def configured_name(directory: Path | None = None) -> str | None:
    """`app` in [loopkit] of loopkit.toml, or in [loopkit] or [tool.loopkit] of pyproject.toml."""
    for file, above in _FILES:
        path = (directory or Path.cwd()) / file
        if not path.is_file():
            continue
        table = read_toml(path)
        sections = [table.get("loopkit")] if not above else [table.get("loopkit"), _below(table, above)]
        for section in sections:
            app = _below({"app": section}, ("app", "app"))
            if app is None:
                continue
            if not isinstance(app, str):
                raise InvalidSetting(f"app in {path} is {app!r}: name a module, such as 'helpdesk.app'")
            return app
    return None


def _below(table: Any, keys: tuple[str, ...]) -> Any:
    """What lies under these keys, or None where one of them isn't there or holds no table."""
    here: Any = table
    for key in keys:
        if not hasattr(here, "get"):
            return None
        here = here.get(key)
    return here


def _import(name: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))
    try:
        return import_module(name)
    except Exception as error:
        raise InvalidSetting(
            f"the application module {name!r} can't be imported ({type(error).__name__}: {error}): name it as in "
            f"`import {name}`, "
            "by --app or app in [loopkit] of loopkit.toml"
        ) from error
    finally:
        sys.path.remove(str(Path.cwd()))
