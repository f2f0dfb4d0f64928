"""Writes names.md from the module of wire names: `python docs/names.py`. A test holds that it is up to date."""

from __future__ import annotations

import re
from pathlib import Path

from loopkit.wire import names

HEAD = """# Names on the wire

Every attribute that loopkit writes or reads. Made from `loopkit/wire/names.py`; don't edit by hand.

| attribute | meaning |
|---|---|
"""


def page() -> str:
    """The page's text."""
    source = Path(names.__file__).read_text()
    rows = re.findall(r'^[A-Z_]+ = "([^"]+)"  # (.+)$', source, re.MULTILINE)
    return HEAD + "".join(f"| `{name}` | {meaning.replace('|', chr(92) + '|')} |\n" for name, meaning in rows)


if __name__ == "__main__":
    Path(__file__).with_name("names.md").write_text(page())
