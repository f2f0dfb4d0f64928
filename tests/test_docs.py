"""README, docs and examples are true: their code runs, their commands work, their tables are complete."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import loopkit
from loopkit.testing import chat_completion

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Provider(ThreadingHTTPServer):
    """An OpenAI-shaped endpoint on loopback for pages and examples: quick, and the same every time."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        question = str(request.get("messages", [{}])[-1].get("content", ""))
        words = ("card", "loan", "app")
        answer = next((word for word in words if word in question), "card") if len(request["messages"]) > 2 else "loan"
        body = chat_completion(answer + "s", number=id(request))
        kind = "application/json"
        payload = json.dumps(body).encode()
        if request.get("stream"):
            kind, payload = "text/event-stream", _events(body)
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_: object) -> None: ...


def _events(body: dict[str, Any]) -> bytes:
    message = body["choices"][0]["message"]["content"]
    head = {**body, "object": "chat.completion.chunk"}
    del head["usage"]
    chunks = [
        {**head, "choices": [{"index": 0, "delta": {"role": "assistant", "content": message}, "finish_reason": None}]},
        {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {**head, "choices": [], "usage": body["usage"]},
    ]
    return b"".join(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks) + b"data: [DONE]\n\n"


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    server = Provider()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def environment(provider: Provider, clean_environment: Path, tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "OPENAI_BASE_URL": provider.url,
        "OPENAI_API_KEY": "none",
        "LOOPKIT_HOME": str(clean_environment),
        "PYTHONPATH": str(tmp_path),
        "COLUMNS": "200",
    }


def run(code: str, environment: dict[str, str], directory: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", code],
        capture_output=True, text=True, env=environment, cwd=directory,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("page", [page for page in PAGES if BLOCK.search(page.read_text())], ids=lambda page: page.stem)
def test_every_block_of_a_page_runs(page: Path, environment: dict[str, str], tmp_path: Path) -> None:
    run("\n".join(BLOCK.findall(page.read_text())), environment, tmp_path)


@pytest.mark.model
def test_the_readme_runs_as_it_stands(environment: dict[str, str], tmp_path: Path, model_url: str) -> None:
    """On the real model. The blocks are the application; before the commands it serves some users."""
    environment["OPENAI_BASE_URL"] = model_url
    readme = (ROOT / "README.md").read_text()
    see, say, learn = BLOCK.findall(readme)
    (tmp_path / "helpdesk.py").write_text(see + learn)
    (tmp_path / "loopkit.toml").write_text('[loopkit]\napp = "helpdesk"\n')
    run(f"from helpdesk import *\n{say}", environment, tmp_path)
    users = """
from helpdesk import *
for number in range(42):
    word = ("card", "loan", "app")[number % 3]
    with loopkit.context(user_id=f"u{number}"), loopkit.span("request"):
        triage(f"my {word} number {number} broke on day{number * 7} near place{number * 13}")
    call = loopkit.open_store().spans(task="triage", kind="task", newest=1)[0]
    loopkit.feedback(call.id, correction=word + "s")
"""
    run(users, environment, tmp_path)
    lines = [line[2:] for block in CONSOLE.findall(readme) for line in block.splitlines() if line.startswith("$ ")]
    assert len(lines) == 5
    for line in lines:
        done = subprocess.run(
            [sys.executable, "-m", *line.split()], capture_output=True, text=True, env=environment, cwd=tmp_path
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"
        assert done.stdout.strip()


def test_the_readme_names_the_makefiles_verbs() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        word
        for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md")
        for word in re.findall(r"make ([a-z-]+)", page.read_text())
    }
    assert named <= targets
    assert {"setup", "demo", "test", "test-all", "lint", "types", "docs", "bench", "clean"} <= targets


EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_runs(example: Path, environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(example), "--check"], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_notebook_runs(environment: dict[str, str], tmp_path: Path) -> None:
    notebook = json.loads((ROOT / "examples" / "notebook.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert "right" in run("\n".join(cells), environment, tmp_path)


def test_every_command_is_in_the_table() -> None:
    from loopkit.cli.app import app

    def names(group: Any, prefix: str) -> set[str]:
        found = {prefix + (c.name or c.callback.__name__.replace("_", "-")) for c in group.registered_commands}
        for sub in group.registered_groups:
            found |= names(sub.typer_instance, f"{prefix}{sub.name} ")
        return found

    table = (ROOT / "docs" / "commands.md").read_text()
    listed = {re.sub(r" [A-Z].*| --.*", "", name) for name in re.findall(r"^\| `loopkit ([^`]+)`", table, re.MULTILINE)}
    assert listed == names(app, "")


def test_every_public_name_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference.md").read_text()
    nouns = {name for name in loopkit.__all__ if getattr(getattr(loopkit, name), "__module__", "") == "loopkit.types"}
    errors = {"Blocked", "Held", "LoopkitError"}
    for name in set(loopkit.__all__) - nouns - errors - {"__version__"}:
        assert f"loopkit.{name}\n" in text, f"{name} is missing from docs/reference.md"


@pytest.mark.parametrize(("script", "made"), [("names.py", "names.md"), ("captured.py", "capture/providers.md")])
def test_pages_that_are_made_are_up_to_date(script: str, made: str) -> None:
    spec = importlib.util.spec_from_file_location("made_page", ROOT / "docs" / script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / made).read_text() == module.page(), f"run: python docs/{script}"


def test_the_changelog_has_an_unreleased_head() -> None:
    assert re.search(r"^## Unreleased$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
