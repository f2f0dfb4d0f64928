"""The house holds: floors, no cycles, doors that don't collide with rooms, and a light import."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import loopkit

ROOT = Path(loopkit.__file__).parent

FLOORS = {
    "errors": 0, "types": 0, "_version": 0, "_json": 0,
    "config": 1, "_host": 1, "_extras": 1, "_ids": 1, "_plugins": 1, "_words": 1, "_pseudonyms": 1, "_secrets": 0,
    "_prices": 1, "wire": 1, "detect": 1, "prompts": 1, "statistics": 1,
    "capture": 2,
    "signals": 3, "guard": 3, "route": 3, "store": 3, "export": 3,
    "observe": 4, "datasets": 4, "imports": 4,
    "evals": 5,
    "tuning": 6, "deploy": 6,
    "_assemble": 7, "cli": 7, "testing": 8, "checks": 8, "policies": 8, "tuners": 8, "evaluators": 8, "backends": 8,
    "frameworks": 8, "web": 8,
    "__main__": 8,
}  # fmt: skip
"""DESIGN: a module imports from lower floors and its own folder. Floors 7 and up are the roof."""

MAY_SHARE_A_FLOOR = {("cli", "_assemble")}
DEMO = "cli/demo"
"""The demo is an application: it may use the public names, and nothing inside."""


def rooms() -> set[str]:
    return {path.stem if path.is_file() else path.name for path in ROOT.iterdir() if is_code(path)} - {"__init__"}


def is_code(path: Path) -> bool:
    return path.suffix == ".py" or (path.is_dir() and (path / "__init__.py").exists())


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, *, at_import_time_only: bool = False) -> list[str]:
    """The modules of the package that a file imports, those for type checkers left out."""
    found: list[str] = []

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                for other in child.orelse:
                    visit(other)
                continue
            if at_import_time_only and isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                continue
            if isinstance(child, ast.ImportFrom) and child.module and child.module.split(".")[0] == "loopkit":
                for alias in child.names:
                    whole = f"{child.module}.{alias.name}"
                    found.append(whole if is_module(whole) else child.module)
            if isinstance(child, ast.Import):
                found.extend(alias.name for alias in child.names if alias.name.split(".")[0] == "loopkit")
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def is_module(name: str) -> bool:
    path = ROOT.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or path.is_dir()


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def test_every_room_has_a_floor() -> None:
    assert rooms() == set(FLOORS)


@pytest.mark.parametrize("path", modules(), ids=lambda path: name_of(path))
def test_imports_go_down_the_floors(path: Path) -> None:
    here = room_of(name_of(path))
    if not here or DEMO in path.as_posix():
        return
    for module in imports(path):
        there = room_of(module)
        if there == here or (here, there) in MAY_SHARE_A_FLOOR:
            continue
        assert there, f"{name_of(path)} imports the package itself: import from where the name lives"
        assert FLOORS[there] < FLOORS[here], f"{name_of(path)} (floor {FLOORS[here]}) imports {module}"


@pytest.mark.parametrize("path", sorted((ROOT / DEMO).glob("*.py")), ids=lambda path: path.stem)
def test_the_demo_uses_public_names_only(path: Path) -> None:
    public = {"loopkit", "loopkit.errors", "loopkit.types", "loopkit._extras", "loopkit._words"}
    doors = {
        f"loopkit.{name}" for name in ("checks", "policies", "tuners", "evaluators", "backends", "frameworks", "web")
    }
    for module in imports(path):
        assert module in public | doors or module.startswith("loopkit.cli"), f"{path.name} imports {module}"


def test_there_are_no_import_cycles() -> None:
    graph = {name_of(path): set(imports(path, at_import_time_only=True)) for path in modules()}
    done: set[str] = set()

    def walk(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, f"import cycle: {' -> '.join((*above, module))}"
        if module in done:
            return
        for other in graph.get(module, ()):
            if other != module:
                walk(other, (*above, module))
        done.add(module)

    for module in graph:
        walk(module, ())


def test_no_room_or_module_bears_a_public_name() -> None:
    names = {part for path in modules() for part in path.relative_to(ROOT).with_suffix("").parts}
    assert names & set(loopkit.__all__) == set()


def test_public_names_are_what_the_package_has() -> None:
    declared = set()
    for node in ast.parse((ROOT / "__init__.py").read_text()).body:
        if isinstance(node, ast.If):
            declared |= {alias.asname for item in node.body if isinstance(item, ast.ImportFrom) for alias in item.names}
    assert declared | {"__version__"} == set(loopkit.__all__)
    assert set(dir(loopkit)) == set(loopkit.__all__)


def test_every_public_name_works_twice_after_every_module_was_imported() -> None:
    for module in pkgutil.walk_packages([str(ROOT)], "loopkit."):
        if module.name not in ("loopkit.__main__", "loopkit.cli.demo.child"):
            importlib.import_module(module.name)
    for _ in range(2):
        for name in loopkit.__all__:
            assert not isinstance(getattr(loopkit, name), type(loopkit)), f"loopkit.{name} became a module"
    for _ in range(2):
        with pytest.raises(loopkit.LoopkitError):
            loopkit.feedback("target")
        assert loopkit.feedback(loopkit.current_span().id, "helpful", True) is None
        with loopkit.span("twice"), loopkit.context(tags=["a"]):
            assert loopkit.current_span().id == "unrecorded"
        assert loopkit.trace(abs)(-1) == 1
        assert loopkit.evaluator(lambda output: True)("x") is True
        assert loopkit.flush() is False
        assert loopkit.shutdown() is True


def test_public_objects_have_docstrings() -> None:
    for name in loopkit.__all__:
        thing = getattr(loopkit, name)
        if callable(thing):
            assert (thing.__doc__ or "").strip(), f"loopkit.{name} has no docstring"


HEAVY = ("openai", "anthropic", "httpx", "pydantic", "grpc", "torch", "numpy", "google.protobuf", "typer", "rich")


def loaded(code: str, home: Path) -> set[str]:
    """The modules that are loaded after this code ran in a new process."""
    environment = {**os.environ, "LOOPKIT_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(' '.join(sys.modules))"],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy(tmp_path: Path) -> None:
    assert loaded("import loopkit", tmp_path) & {*HEAVY, "opentelemetry", "sqlite3"} == set()


def test_init_with_the_local_store_loads_nothing_heavy(tmp_path: Path) -> None:
    code = "import loopkit; loopkit.init('light')\nwith loopkit.span('one'): pass"
    assert loaded(code, tmp_path) & {*HEAVY, "opentelemetry.sdk"} == set()
