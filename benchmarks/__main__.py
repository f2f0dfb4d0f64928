"""`python -m benchmarks [--json FILE] [PART ...]`: the benchmarks, as Markdown on standard output."""

from __future__ import annotations

import argparse
import json
import platform
from datetime import date
from importlib import import_module
from importlib.metadata import version

from benchmarks.measure import markdown

PARTS = {
    "decorated": "A decorated call",
    "rate": "5,000 calls a second",
    "clients": "A call of the OpenAI client",
    "feedback": "Feedback",
    "guarding": "A guarded call",
    "start": "Starting",
    "memory": "Memory",
    "peers": "Others",
    "guard": "Checks on real data",
    "guard_peers": "Checks on real data, and others'",
    "grounding": "Answers and their sources",
    "routing": "Routers on real data",
}
ON_REQUEST = ("peers", "guard", "guard_peers", "grounding", "routing")


def main() -> None:
    """Run and print; some only where asked for: they need other packages, or data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="write the figures here too")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    asked = parser.parse_args()
    about = {
        "date": str(date.today()),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "opentelemetry-sdk": version("opentelemetry-sdk"),
        "openai": version("openai"),
    }
    print("Measured: " + ", ".join(f"{name} {value}" for name, value in about.items()) + ".\n")
    found: dict[str, object] = {"about": about}
    for part in asked.parts or [name for name in PARTS if name not in ON_REQUEST]:
        rows = import_module(f"benchmarks.{part}").rows()
        found[part] = rows
        print(markdown(PARTS[part], rows), flush=True)
    if asked.json:
        with open(asked.json, "w") as file:
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
