"""The demo, on the real model with fewer items; and its ways to fail, each one sentence."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.model


def demo(*words: str, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "loopkit", "demo", "--quick", *words],
        capture_output=True, text=True, cwd=directory, env={**os.environ, "COLUMNS": "160"},
    )  # fmt: skip


def test_the_whole_loop_on_the_real_model(tmp_path: Path, model_url: str) -> None:
    done = demo("--seed", "1", directory=tmp_path)
    assert done.returncode == 0, done.stderr
    screen = done.stdout
    for words in ("budget: at most", "spans in the local store", "expected against answered", "examples to learn from",
                  "stopped: blocked by 'injection'", "an A/A twin", "loopkit show", "loopkit lineage"):  # fmt: skip
        assert words in screen
    assert "all are in the store and at the receiver" in screen
    (run,) = (tmp_path / ".loopkit-demo").glob("seed1-*")
    assert (run / "report.html").stat().st_size > 3000
    span = screen.split("loopkit show ")[1].split()[0]
    shown = subprocess.run(
        [sys.executable, "-m", "loopkit", "show", span],
        capture_output=True, text=True, env={**os.environ, "LOOPKIT_HOME": str(run)},
    )  # fmt: skip
    assert "feedback" in shown.stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--model", "absent.gguf"], "no model file at absent.gguf"),
        (["--home", "/proc/none"], "/proc/none can't be written"),
        (["--prompt", "{headlin}"], "shows no headline: put {headline} in it"),
    ],
)
def test_a_mistake_is_one_sentence(words: list[str], sentence: str, tmp_path: Path, model_url: str) -> None:
    done = demo(*words, directory=tmp_path)
    assert done.returncode == 1
    assert sentence in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_file_that_is_no_model(tmp_path: Path, model_url: str) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"nonsense" * 1000)
    done = demo("--model", "bad.gguf", directory=tmp_path)
    assert "can't load bad.gguf" in done.stderr


def test_a_port_in_use(tmp_path: Path, model_url: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        done = demo("--port", str(other.getsockname()[1]), directory=tmp_path)
    assert "is in use: name another with --port" in done.stderr


def test_a_second_demo_at_once(tmp_path: Path, model_url: str) -> None:
    import fcntl

    (tmp_path / ".loopkit-demo").mkdir()
    with (tmp_path / ".loopkit-demo" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = demo(directory=tmp_path)
    assert "another demo is running" in done.stderr
