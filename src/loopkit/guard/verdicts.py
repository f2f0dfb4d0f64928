"""Verdicts are kept: as a span, and as feedback on the call that they were about."""

from __future__ import annotations

from loopkit import _host
from loopkit.capture import slot
from loopkit.capture.decorator import live_span, span
from loopkit.types import Verdict
from loopkit.wire import names


def record(verdict: Verdict, on_error: str, seconds: float | None) -> None:
    """A span for the verdict, and, unless the check failed and lets pass, feedback on the call. Never raises."""
    recorder = slot.recorder
    if recorder is None:
        return
    with _host.Shielded("recording a verdict"):
        about = live_span()
        facts = {
            names.GUARD_NAME: verdict.check,
            names.GUARD_STAGE: verdict.stage,
            names.GUARD_OUTCOME: "error" if verdict.failed else verdict.action,
            names.GUARD_REASON: verdict.reason,
            names.GUARD_SCORE: verdict.score,
            names.GUARD_MODE: verdict.mode,
            names.GUARD_ON_ERROR: on_error,
            names.GUARD_SECONDS: seconds,
        }
        with span(f"guardrail {verdict.check}", kind="guardrail"):
            live = live_span()
            if live is not None:
                live.set_attributes({name: value for name, value in facts.items() if value is not None})
        if about is not None and verdict.action != "allow":
            recorder.say(
                about.id, f"guard.{verdict.check}", verdict.action, source="guardrail", kind="inferred",
                by=verdict.check, reason=verdict.reason,
                metadata={} if verdict.mode == "enforce" else {"mode": verdict.mode},
            )  # fmt: skip
