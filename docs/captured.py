"""Writes capture/providers.md from the contract suite's snapshots: `python docs/captured.py`. A test holds it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SNAPSHOTS = Path(__file__).parent.parent / "tests" / "providers" / "snapshots"

HEAD = """# What is captured, per provider and operation

Made from the contract suite's snapshots (`tests/providers/snapshots`: whole spans, one a provider and operation, each
read by eye) by `docs/captured.py`; don't edit by hand. A cell is empty where that call's provider doesn't say it, or
where it makes no sense.

"""
COLUMNS = {
    "operation": "gen_ai.operation.name",
    "model asked, answered": ("gen_ai.request.model", "gen_ai.response.model"),
    "id": "gen_ai.response.id",
    "messages in, out": ("gen_ai.input.messages", "gen_ai.output.messages"),
    "tools": "gen_ai.tool.definitions",
    "finish": "gen_ai.response.finish_reasons",
    "tokens in, out": ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"),
    "cached": ("gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_write.input_tokens"),
    "reasoning": "gen_ai.usage.reasoning.output_tokens",
    "by modality": "gen_ai.usage.",
    "parameters": "gen_ai.request.",
}
_MODALITIES = ("audio", "image")
_KINDS = {"text": "text", "uri": "links", "blob": "pictures or sound", "tool_call": "tool calls",
          "tool_call_response": "tool results", "reasoning": "reasoning", "moderation": "verdicts"}  # fmt: skip


def page() -> str:
    """The page's text."""
    names = list(COLUMNS)
    rows = [f"| call | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}\n"]
    for file in sorted(SNAPSHOTS.glob("*.json")):
        found = json.loads(file.read_text())["attributes"]
        cells = " | ".join(_cell(name, COLUMNS[name], found) for name in names)
        rows.append(f"| {file.stem.replace('_', ' ')} | {cells} |\n")
    return HEAD + "".join(rows)


def _cell(name: str, where: Any, found: dict[str, Any]) -> str:
    if name == "operation":
        return str(found[where])
    if name == "messages in, out":
        return "; ".join(", ".join(_parts(found.get(each))) or "–" for each in where)
    if name == "by modality":
        return ", ".join(each for each in _MODALITIES if any(f"usage.{each}." in key for key in found))
    if name == "parameters":
        known = sorted(key.removeprefix(where) for key in found if key.startswith(where) and not key.endswith(".model"))
        return ", ".join(known + (["others"] if "loopkit.request.parameters" in found else []))
    if isinstance(where, tuple):
        return ", ".join("yes" if each in found else "–" for each in where) if any(e in found for e in where) else ""
    return "yes" if where in found else ""


def _parts(messages: Any) -> list[str]:
    kinds = [part["type"] for message in messages or () for part in message["parts"]]
    return list(dict.fromkeys(_KINDS.get(kind, kind) for kind in kinds))


if __name__ == "__main__":
    (Path(__file__).parent / "capture" / "providers.md").write_text(page())
