"""The command line: parse, call one public function, show it."""

from __future__ import annotations

import sys
from typing import NoReturn

from loopkit.errors import LoopkitError


def main() -> NoReturn:
    """Run the command line. A user's mistake ends in one sentence and status 1, never in a traceback."""
    try:
        from loopkit.cli.app import app
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        sys.exit("the command line needs two more packages: run  pip install 'loopkit-sdk[cli]'")
    try:
        app()
    except LoopkitError as error:
        sys.exit(f"loopkit: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)
