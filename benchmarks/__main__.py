"""`python -m benchmarks`: every benchmark, as Markdown on standard output."""

from __future__ import annotations

import platform
from datetime import date
from importlib.metadata import version

from benchmarks import clients, decorated, start


def main() -> None:
    """Run and print."""
    print(f"Measured {date.today()} on {platform.machine()}, Python {platform.python_version()}, ", end="")
    print(f"opentelemetry-sdk {version('opentelemetry-sdk')}, openai {version('openai')}.\n")
    for part in (decorated, clients, start):
        print(part.table())


if __name__ == "__main__":
    main()
