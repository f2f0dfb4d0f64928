"""Checks on real data (`LOOPKIT_DATA/guard`): what they find, what they should not have, and what it costs.

Half of each set was looked at while the checks were written; the figures are of the other half, by a hash of the text.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from loopkit import checks
from loopkit.detect.personal import KINDS, personal_in
from loopkit.statistics.paired import wilson

TYPES = {
    "EMAIL_ADDRESS": "email", "CREDIT_CARD": "card", "IBAN_CODE": "iban", "US_SSN": "ssn", "IP_ADDRESS": "ip",
    "PHONE_NUMBER": "phone", "DOMAIN_NAME": "domain",
}  # fmt: skip
"""What presidio-research calls the kinds that have a structure."""


def data(name: str) -> list[dict[str, Any]]:
    """The rows of one file."""
    folder = os.environ.get("LOOPKIT_DATA")
    if not folder:
        sys.exit("set LOOPKIT_DATA to the folder that has guard/ in it")
    with (Path(folder) / "guard" / f"{name}.jsonl").open() as file:
        return [json.loads(line) for line in file]


def is_held_out(text: str) -> bool:
    """Whether nobody looked at this text while the checks were written."""
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()[0] % 2 == 1


def benign(*, held_out: bool | None = None) -> dict[str, list[str]]:
    """Texts with which nothing is wrong, by set."""
    found = {
        "alpacaeval prompts": [row["text"] for row in data("alpacaeval_805_benign")],
        "alpacaeval outputs": [row["output"] for row in data("alpacaeval_805_benign")],
        "bipia contexts": [row["text"] for row in data("bipia_contexts_benign")],
        "cyberseceval frr": [row["text"] for row in data("cyberseceval_frr_benign_even")],
    }
    return {name: [t for t in texts if held_out is None or is_held_out(t) == held_out] for name, texts in found.items()}


def personal(
    find: Callable[[str], Iterable[tuple[int, int, str]]], *, held_out: bool | None = True
) -> dict[str, tuple[int, int, int]]:
    """By kind what was found rightly, found wrongly and missed: of the same kind, and overlapping."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for row in data("presidio_synth_v2"):
        if held_out is not None and is_held_out(row["text"]) != held_out:
            continue
        true = [(start, end, TYPES[kind]) for start, end, kind in row["spans"] if kind in TYPES]
        said = list(find(row["text"]))
        for start, end, kind in said:
            hit = any(kind == k and start < e and s < end for s, e, k in true)
            counts[kind][0 if hit else 1] += 1
        for start, end, kind in true:
            counts[kind][2] += not any(kind == k and start < e and s < end for s, e, k in said)
    return {kind: (each[0], each[1], each[2]) for kind, each in counts.items()}


def scores(right: int, wrong: int, missed: int) -> dict[str, float]:
    """Precision, recall and F1."""
    precision = right / (right + wrong) if right + wrong else float("nan")
    recall = right / (right + missed) if right + missed else float("nan")
    return {"precision": precision, "recall": recall, "f1": 2 * precision * recall / (precision + recall or 1)}


def literals(is_secret: Callable[[str], bool], *, held_out: bool | None = True) -> tuple[int, int, int]:
    """Of gitleaks' own examples: found rightly, found wrongly, missed."""
    counts = [0, 0, 0]
    for row in data("gitleaks_literals"):
        text = base64.b64decode(row["text_base64"]).decode("utf-8", "replace")
        if held_out is not None and is_held_out(text) != held_out:
            continue
        found = is_secret(text)
        if row["label"]:
            counts[0 if found else 2] += 1
        else:
            counts[1] += found
    return counts[0], counts[1], counts[2]


def flagged(flags: Callable[[str], bool], *, held_out: bool | None = True) -> dict[str, tuple[int, int]]:
    """Of each benign set how many are flagged, and of how many."""
    return {name: (sum(map(flags, texts)), len(texts)) for name, texts in benign(held_out=held_out).items()}


def microseconds(check: Callable[[str], object], texts: list[str]) -> float:
    """Processor time for 1,000 characters, the best of five rounds over these texts."""
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        for text in texts:
            check(text)
        best = min(best, time.process_time() - began)
    return best * 1e6 / sum(map(len, texts)) * 1000


def share(count: int, n: int) -> str:
    """With its interval, in per cent."""
    low, high = wilson(count, n)
    return f"{count / n:.2%} [{low:.2%}, {high:.2%}]" if n else "none"


def rows() -> list[dict[str, Any]]:
    """See `benchmarks.__main__`."""
    pii, secrets = checks.pii(), checks.secrets()
    texts = [text for each in benign(held_out=True).values() for text in each]
    found = personal(lambda text: [(each.start, each.end, each.kind) for each in personal_in(text, KINDS)])
    kinds = {**found, "all": (*(sum(each[n] for each in found.values()) for n in range(3)),)}
    told = [_row(f"personal data, {kind}", kinds[kind]) for kind in sorted(kinds)]
    told.append(_row("secrets", literals(lambda text: secrets.check(text) is not None)))
    for check in (pii, secrets):
        for name, (count, n) in flagged(lambda text, check=check: check.check(text) is not None).items():
            told.append({"what": f"{check.name}: benign texts flagged, {name}", "share": share(count, n)})
        cost = microseconds(check.check, texts)
        told.append({"what": f"{check.name}: µs for 1,000 characters", "share": f"{cost:.0f}"})
    return told


def _row(what: str, counts: tuple[int, ...]) -> dict[str, Any]:
    right, wrong, missed = counts
    return {
        "what": what,
        "precision": share(right, right + wrong),
        "recall": share(right, right + missed),
        "F1": f"{scores(right, wrong, missed)['f1']:.3f}",
        "share": "",
    }
