"""Resident memory of an application after 20,000 traced calls, over one that has imported openai and does nothing."""

from __future__ import annotations

import subprocess
import sys
import tempfile

_SIZE = "print(int(open('/proc/self/statm').read().split()[1]) * 4096)"
_CALLS = """
import loopkit
loopkit.init("bench")
@loopkit.trace
def work(ticket):
    return "x" * 500
for _ in range(20_000):
    work({"subject": "card", "body": "declined"})
loopkit.flush(30)
"""
CASES = {
    "import openai": "import openai; ",
    "import openai, import loopkit": "import openai, loopkit; ",
    "the same, init()": "import openai, loopkit; loopkit.init('bench')\n",
    "the same, 20,000 traced calls": "import openai\n" + _CALLS,
}


def rows() -> list[dict[str, object]]:
    """One process each."""
    found: list[dict[str, object]] = []
    bare = 0
    for name, code in CASES.items():
        with tempfile.TemporaryDirectory() as home:
            run = subprocess.run(
                [sys.executable, "-c", code + _SIZE],
                check=True, capture_output=True, text=True, env={"LOOPKIT_HOME": home},
            )  # fmt: skip
        size = int(run.stdout)
        bare = bare or size
        found.append({"case": name, "MB": round(size / 1e6, 1), "over openai, MB": round((size - bare) / 1e6, 1)})
    return found
