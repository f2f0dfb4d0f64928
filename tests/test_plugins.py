"""A stranger's wheel: its tuner, its evaluator and its interceptor are used by name."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

MODULE = """
from dataclasses import replace
import loopkit

class Louder:
    def tune(self, variant, dataset):
        return replace(variant, system="LOUDER, from %d examples" % len(dataset.split("train")))

@loopkit.evaluator
def politeness(output):
    return "please" in output

class Stamp:
    def around(self, call):
        return (yield call.with_input(lambda text: text + " (stamped)"))
"""

USE = """
import httpx2, loopkit
from loopkit.testing import ScriptedProvider, recording
from openai import OpenAI

provider = ScriptedProvider(["yes please"])
client = loopkit.wrap(
    OpenAI(api_key="k", http_client=httpx2.Client(transport=provider.transport(httpx2))), interceptors=["stamp"]
)
with recording(store=True):
    variant = loopkit.Variant(model="m", prompt="{q}")
    for number in range(12):
        inputs = {"q": f"word{number} again"}
        with loopkit.context(user_id=f"u{number}"), loopkit.span("ask", task="ask", input=inputs) as s:
            s.set(output="no")
        loopkit.feedback(s.id, correction="yes please")
    dataset = loopkit.Dataset.create("ask")
    louder = loopkit.tune(variant, dataset, "louder")
    print(louder.system)
    found = loopkit.evaluate("ask", {"current": variant}, dataset=dataset, evaluators=["politeness"], client=client)
    print(found.overall()[0].mean)
    print(provider.requests[0]["messages"][-1]["content"].endswith("(stamped)"))
"""


def wheel(directory: Path) -> Path:
    """A wheel as a build tool would make it."""
    path = directory / "stranger-1.0-py3-none-any.whl"
    info = "stranger-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("stranger.py", MODULE)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(
            f"{info}/entry_points.txt",
            "[loopkit.tuners]\nlouder = stranger:Louder\n[loopkit.evaluators]\npoliteness = stranger:politeness\n"
            "[loopkit.interceptors]\nstamp = stranger:Stamp\n",
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


def test_a_strangers_tuner_evaluator_and_interceptor(tmp_path: Path) -> None:
    target = tmp_path / "site"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-index",
            "--no-deps",
            "--target",
            target,
            wheel(tmp_path),
        ],
        check=True,
    )
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(USE)],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(target)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    system, mean, stamped = done.stdout.split("\n")[:3]
    assert system.startswith("LOUDER, from ")
    assert (mean, stamped) == ("1.0", "True")
