"""Sphinx's settings. `make docs` builds with warnings as errors."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from loopkit import __version__

project = "loopkit"
author = "the loopkit contributors"
copyright = "the loopkit contributors"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"loopkit {release}"
myst_heading_anchors = 3
exclude_patterns = ["_build"]
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
default_role = "code"


def literal_blocks(app: object, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Our docstrings indent their examples and drawings; reStructuredText wants a `::` above them."""
    made: list[str] = []
    inside = False
    for line in lines:
        if line.startswith("    ") and not inside and (not made or not made[-1].strip()):
            made += ["::", ""]
            inside = True
        elif line.strip() and not line.startswith("    "):
            inside = False
        made.append(line)
    lines[:] = made


def setup(app: object) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", literal_blocks)  # type: ignore[attr-defined]
