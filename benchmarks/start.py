"""What importing the package and `init()` cost, over a bare interpreter: CPU of whole processes."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile

CASES = {
    "bare interpreter": "pass",
    "import loopkit": "import loopkit",
    "import, init() with the local store": "import loopkit; loopkit.init('bench')",
}


def table() -> str:
    """The comparison: medians of nine, in turn."""
    times: dict[str, list[float]] = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory() as home:
        for _ in range(9):
            for name, code in CASES.items():
                before = _children()
                subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "LOOPKIT_HOME": home})
                times[name].append(_children() - before)
    bare = statistics.median(times["bare interpreter"])
    lines = ["## Starting\n", "| case | CPU, ms | over bare, ms |", "|---|---|---|"]
    for name, found in times.items():
        middle = statistics.median(found)
        lines.append(f"| {name} | {middle * 1000:.0f} | {(middle - bare) * 1000:.0f} |")
    return "\n".join(lines) + "\n"


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
