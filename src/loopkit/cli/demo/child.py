"""The demo's service as a process of its own, to be killed: it acknowledges a call when its span is on disk.

python -m loopkit.cli.demo.child BASE_URL ENDPOINT PROMPT < items.jsonl
"""

from __future__ import annotations

import json
import sys

import loopkit
from loopkit.cli.demo.newsroom import Item, readers
from loopkit.cli.demo.service import Newsdesk, base_variant


def main(base_url: str, endpoint: str, prompt: str) -> None:
    """Handle each item on standard input; print a call's id once `flush()` has promised it."""
    loopkit.init(service="newsdesk", export=[endpoint])
    desk = Newsdesk(base_url, base_variant(prompt))
    for line, reader in zip(sys.stdin, readers("child"), strict=False):
        reply = desk.handle(Item(**json.loads(line)), reader)
        if loopkit.flush(10):
            sys.stdout.write(f"{reply.span_id}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:4])
