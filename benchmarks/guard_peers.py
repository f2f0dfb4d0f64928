"""Others' checks that run offline, on the same held-out texts as ours (`LOOPKIT_DATA/guard`), in the same run.

In an environment made with `pip install -e . -r benchmarks/guard_peers.txt`. Presidio runs with its pattern recognizers
and their context words on a blank pipeline, without the models that it would fetch for names and places, which are not
asked about; openai-guardrails' personal data are Presidio's too, with such a model. Checks that ask a model, or fetch
one at their first use, are not here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.guard import TYPES, benign, flagged, literals, microseconds, personal, scores, share
from loopkit import checks
from loopkit.detect.personal import KINDS, personal_in

Spans = Callable[[str], Iterable[tuple[int, int, str]]]


def rows() -> list[dict[str, Any]]:
    """See `benchmarks.__main__`."""
    texts = [text for each in benign(held_out=True).values() for text in each]
    told: list[dict[str, Any]] = []
    for name, find in {"loopkit": _ours, **_presidio()}.items():
        found = personal(find).values()
        counts = [sum(each[n] for each in found) for n in range(3)]
        told.append(_row(f"personal data, {name}", counts, lambda text, find=find: bool(list(find(text))), texts))
    secrets = checks.secrets()
    finders: dict[str, Callable[[str], bool]] = {
        "loopkit": lambda text: secrets.check(text) is not None,
        "detect-secrets": _detect_secrets(),
        **_openai_guardrails(),
    }
    for name, is_secret in finders.items():
        told.append(_row(f"secrets, {name}", list(literals(is_secret)), is_secret, texts))
    return told


def _row(what: str, counts: list[int], flags: Callable[[str], bool], texts: list[str]) -> dict[str, Any]:
    right, wrong, missed = counts
    found = flagged(flags).values()
    return {
        "what": what,
        "precision": share(right, right + wrong),
        "recall": share(right, right + missed),
        "F1": f"{scores(right, wrong, missed)['f1']:.3f}",
        "benign flagged": share(sum(each[0] for each in found), sum(each[1] for each in found)),
        "µs for 1,000 characters": f"{microseconds(flags, texts, rounds=2):.0f}",
    }


def _ours(text: str) -> Iterable[tuple[int, int, str]]:
    return [(each.start, each.end, each.kind) for each in personal_in(text, KINDS)]


def _presidio() -> dict[str, Spans]:
    import spacy
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    class WithoutModel(SpacyNlpEngine):
        def __init__(self) -> None:
            super().__init__()
            self.nlp = {"en": spacy.blank("en")}

        def load(self) -> None:
            pass

    logging.getLogger("tldextract").setLevel(logging.CRITICAL)  # it would fetch its list of domains, and has one
    engine = AnalyzerEngine(nlp_engine=WithoutModel(), supported_languages=["en"])
    kinds = {**TYPES, "URL": "domain"}

    def finder(least: float) -> Spans:
        def find(text: str) -> Iterable[tuple[int, int, str]]:
            said = engine.analyze(text, language="en", entities=list(kinds), score_threshold=least)
            return [(each.start, each.end, kinds[each.entity_type]) for each in said]

        return find

    del kinds["DOMAIN_NAME"]
    return {f"presidio, scores from {least:g}": finder(least) for least in (0.0, 0.5)}


def _detect_secrets() -> Callable[[str], bool]:
    """Through a file, as it is meant to be used: `scan_line` reports whatever it looks at."""
    from detect_secrets.core.scan import scan_file
    from detect_secrets.settings import default_settings

    file = Path(tempfile.mkdtemp()) / "text.txt"
    settings = contextlib.ExitStack()
    settings.enter_context(default_settings())  # for good: entering it costs more than a scan

    def is_secret(text: str) -> bool:
        file.write_text(text, "utf-8", "replace")
        assert settings is not None  # while it is referred to, they hold
        return any(True for _ in scan_file(str(file)))

    return is_secret


def _openai_guardrails() -> dict[str, Callable[[str], bool]]:
    from guardrails.checks.text.secret_keys import SecretKeysCfg, secret_keys

    def finder(threshold: Any) -> Callable[[str], bool]:
        config = SecretKeysCfg(threshold=threshold)
        loop = asyncio.new_event_loop()
        return lambda text: loop.run_until_complete(secret_keys(None, text, config)).tripwire_triggered

    return {f"openai-guardrails, {threshold}": finder(threshold) for threshold in ("balanced", "strict")}
