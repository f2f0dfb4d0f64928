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
    "import opentelemetry.trace": "import opentelemetry.trace",
    "import, init() with the local store": "import loopkit; loopkit.init('bench')",
}


def rows() -> list[dict[str, object]]:
    """Medians of eleven, in turn."""
    times: dict[str, list[float]] = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory() as home:
        for _ in range(11):
            for name, code in CASES.items():
                before = _children()
                subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "LOOPKIT_HOME": home})
                times[name].append(_children() - before)
    bare = statistics.median(times["bare interpreter"])
    return [
        {
            "case": name,
            "CPU, ms": round(statistics.median(found) * 1000),
            "over bare, ms": round((statistics.median(found) - bare) * 1000),
        }
        for name, found in times.items()
    ]


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
