"""Trains the toxicity weights that ship, and says how good they are: `python -m benchmarks.train_toxicity [--write]`.

On surge-ai's comments and OpenAI's moderation set (both MIT), whose own benign texts are those that are hard to tell,
and, as ordinary texts, AlpacaEval's prompts (Apache-2.0), CyberSecEval's borderline prompts and BIPIA's contexts (MIT).
All figures are of texts that the weights at hand were not fitted to; see `benchmarks.parts`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import loopkit.guard
from benchmarks.guard import data, share
from benchmarks.parts import flagged_by_part, lowest
from loopkit.guard.weights import Weights
from loopkit.statistics.ranking import area

LABELLED = ("surge_toxicity_even", "openai_moderation_even")
ORDINARY = ("alpacaeval_805_benign", "bipia_contexts_benign", "cyberseceval_frr_benign_even")
MOST_FLAGGED = 0.01
FEWEST = 3
WHERE = Path(loopkit.guard.__file__).parent / "toxicity.weights"


def main() -> None:
    """See the module."""
    rows = [(name, row["text"], str(row["label"]) == "1") for name in LABELLED for row in data(name)]
    rows += [(name, row["text"], False) for name in ORDINARY for row in data(name)]
    texts, labels = [text for _, text, _ in rows], [label for *_, label in rows]
    sets = [name for name, *_ in rows]
    flagged, told = flagged_by_part(texts, labels, sets, ORDINARY, most_flagged=MOST_FLAGGED, fewest=FEWEST)
    for name in LABELLED:
        own = [n for n in range(len(rows)) if sets[n] == name]
        ranked = area([told[n] for n in own], [labels[n] for n in own])
        print(f"{name}: AUC {ranked.value:.3f} [{ranked.low:.3f}, {ranked.high:.3f}]")
        for which in (True, False):
            hits = [flagged[n] for n in own if labels[n] is which]
            print(f"  {'toxic' if which else 'not'}: flagged {share(sum(hits), len(hits))}")
    for name in ORDINARY:
        hits = [flagged[n] for n in range(len(rows)) if sets[n] == name]
        print(f"{name}: flagged {share(sum(hits), len(hits))}")
    threshold = lowest(told, sets, ORDINARY, MOST_FLAGGED)
    print(f"threshold {threshold:.3f}")
    if "--write" in sys.argv:
        Weights.fit(texts, labels, threshold=threshold, fewest=FEWEST).save(WHERE)
        print(f"wrote {WHERE} ({WHERE.stat().st_size} bytes)")


if __name__ == "__main__":
    main()
