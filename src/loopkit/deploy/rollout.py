"""`Rollout`: a candidate gets a share of real calls until the evidence says promote, stop, or not yet.

Looking is free: every test is anytime-valid, so `decide` may be called after each call. Three questions, in this
order: is it too slow (the share of calls over 1.2 times the 95 % quantile of the current one's first 100, and more
often than the current one's calls of the same time), does it fail more often than allowed, and is its outcome better.
The unit is the user or session that the router is sticky by: of each the first call counts, and the first outcome.
"""

from __future__ import annotations

import secrets
import time
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

from loopkit._json import from_dict, to_dict
from loopkit._words import duration
from loopkit.capture.sampling import tail_takes
from loopkit.deploy.decisions import has_failed
from loopkit.deploy.registry import Registry
from loopkit.errors import InvalidInput, NotFound
from loopkit.signals.calls import calls_and_statements, first_outcome
from loopkit.signals.state import held
from loopkit.statistics.paired import quantile
from loopkit.statistics.sequential import ArmsResult, Exposure, compare_arms, detectable_difference, exceeds, unbalanced
from loopkit.store.locate import open_store
from loopkit.store.sqlite import Store
from loopkit.types import Feedback, Span

_KIND = "rollout"
SLOW_FACTOR = 1.2
SLOW_LIMIT = 0.1
"""A candidate may be slow (over 1.2 times the current one's p95) in at most this share of its calls."""
FAILURE_LIMIT = 0.05
UNEVEN_ALPHA = 0.01
"""The sample-ratio check's own level: its alarm only makes a rollout wait, so it may be rare."""
_BASELINE_CALLS = 100


Action = Literal["promote", "stop", "wait"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutDecision:
    """What the evidence says now."""

    action: Action
    sentence: str
    """In plain words, with the figures."""
    quality: ArmsResult
    slow_p: float
    """Anytime-valid p-value against "slow in at most a tenth of the units' first calls"."""
    failure_p: float
    """The same against "fails in at most a twentieth of them"."""
    uneven_p: float
    """Anytime-valid p-value against "judged calls fall on the arms as they were drawn"."""
    calls: int
    """Of both arms, since the start."""
    detectable: float
    """The difference that would probably have been found by now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One rollout, as it was started."""

    id: str
    task: str
    current: str
    candidate: str
    share: float
    alpha: float
    slow_over: float | None
    """Seconds; None where the current one had too few calls to say."""
    started_at: int
    twin: bool = False
    """Both arms are the same variant: an A/A test of the rollout itself."""

    @classmethod
    def start(
        cls,
        task: str,
        candidate: str,
        *,
        share: float = 0.5,
        alpha: float = 0.05,
        twin: bool = False,
        store: Store | None = None,
    ) -> Rollout:
        """Give the candidate its share of the calls, drawn anew by user or session.

        `twin=True` registers a copy of the current variant as the candidate: what is then found is what chance
        alone finds. Raises `InvalidInput` or `NotFound` before anything is changed.
        """
        if not isinstance(share, (int, float)) or not 0 < share < 1:
            raise InvalidInput(f"share is {share!r}: it is a number between 0 and 1")
        if not 0 < alpha < 0.5:
            raise InvalidInput(f"alpha is {alpha!r}: it is a small probability, such as 0.05")
        store = store or open_store()
        registry = Registry(store)
        current = registry.current(task)
        name = _add_twin(registry, task, current) if twin else registry.resolve(task, candidate)
        if name == current:
            raise InvalidInput(f"{name!r} is what serves {task!r} already: start a rollout of another variant")
        open_one = cls.running(task, store=store)
        if open_one is not None:
            raise InvalidInput(f"rollout {open_one.id} of {open_one.candidate!r} is still running: stop it first")
        made = cls(
            id=secrets.token_hex(4),
            task=task,
            current=current,
            candidate=name,
            share=share,
            alpha=alpha,
            slow_over=_slow_over(store, task, current),
            started_at=time.time_ns(),
            twin=twin,
        )
        store.put(_KIND, made.id, {"state": "running", "rollout": to_dict(made)}, task=task)
        registry.share(task, {current: 1 - share, name: share}, reason=f"rollout {made.id}", salt=made.id)
        return made

    @classmethod
    def running(cls, task: str, *, store: Store | None = None) -> Rollout | None:
        """The task's open rollout, if there is one. A promotion by hand, of either arm, ends what was running."""
        store = store or open_store()
        documents = store.documents(_KIND, task=task)
        if not documents or documents[-1]["state"] != "running":
            return None
        found = from_dict(cls, documents[-1]["rollout"])
        return found if {found.candidate, found.current} <= set(Registry(store).shares(task)) else None

    @classmethod
    def load(cls, id: str, *, store: Store | None = None) -> Rollout:
        """A rollout by its id. Raises `NotFound`."""
        found = (store or open_store()).documents(_KIND, id=id)
        if not found:
            raise NotFound(f"no rollout {id!r}")
        return from_dict(cls, found[-1]["rollout"])

    def decide(self, *, store: Store | None = None) -> RolloutDecision:
        """What the evidence says now. Changes nothing."""
        store = store or open_store()
        calls, said = self._calls(store)
        firsts = _first_calls([call for call in calls if _was_drawn(call)])
        exposures = self._exposures(calls, said)
        evidence = _Evidence(
            quality=compare_arms(exposures, alpha=self.alpha),
            slow_p=self._slow_p(firsts),
            failure_p=exceeds([has_failed(span) for span in firsts if span.variant == self.candidate], FAILURE_LIMIT),
            uneven_p=unbalanced([e.treated for e in exposures], self.share),
        )
        action, sentence = self._verdict(evidence)
        rate = sum(e.outcome for e in exposures if not e.treated) / max(sum(not e.treated for e in exposures), 1)
        rate = min(max(rate, 0.05), 0.95)
        return RolloutDecision(
            action=action,
            sentence=sentence,
            quality=evidence.quality,
            slow_p=evidence.slow_p,
            failure_p=evidence.failure_p,
            uneven_p=evidence.uneven_p,
            calls=len(calls),
            detectable=detectable_difference(len(exposures), rate=rate, share=self.share, alpha=self.alpha),
        )

    def step(self, *, store: Store | None = None) -> RolloutDecision:
        """Decide, and do it: promote the candidate, or take it away, or let it run on.

        Raises `InvalidInput` for a rollout that has ended.
        """
        store = store or open_store()
        self._check_running(store)
        decision = self.decide(store=store)
        if decision.action != "wait":
            self.end(decision.action == "promote", decision.sentence, evidence=to_dict(decision), store=store)
        return decision

    def end(
        self,
        promote: bool,
        reason: str,
        *,
        evidence: dict[str, Any] | None = None,
        store: Store | None = None,
    ) -> None:
        """End the rollout: the candidate serves all calls, or none. Raises `InvalidInput` where it has ended."""
        store = store or open_store()
        self._check_running(store)
        # What is served comes first: from then on nothing is running, even if the second line is never reached.
        Registry(store).promote(
            self.task,
            self.candidate if promote else self.current,
            reason=f"rollout {self.id}: {reason}",
            evidence={"rollout": self.id, **(evidence or {})},
        )
        state = "promoted" if promote else "stopped"
        store.put(_KIND, self.id, {"state": state, "rollout": to_dict(self), "reason": reason}, task=self.task)

    def _check_running(self, store: Store) -> None:
        running = Rollout.running(self.task, store=store)
        if running is None or running.id != self.id:
            raise InvalidInput(f"rollout {self.id} has ended: start another one")

    def _calls(self, store: Store) -> tuple[list[Span], dict[str, list[Feedback]]]:
        """Both arms' calls since the start, and what was said of them.

        Calls that a rule decided were not drawn: their propensity is 1, and they don't count. Calls that the default
        rescued stay in the arm that was drawn, as failures.
        """
        spans = store.spans(task=self.task, since=self.started_at)
        calls, said = calls_and_statements(self.task, spans, held(store))
        arms = (self.current, self.candidate)
        return [s for s in calls if s.variant in arms and s.propensity is not None and s.propensity < 1], said

    def _slow_p(self, calls: Sequence[Span]) -> float:
        """Both must hold: slow in too many of its calls, and slower than the current one's calls of the same time.

        The second keeps a busy hour, or a provider that has become slower for everybody, from costing the candidate.
        """
        limit = self.slow_over
        if limit is None:
            return 1.0
        pairs = [(span, span.propensity if span.propensity is not None else self.share) for span in calls]
        side_by_side = [
            Exposure(
                treated=span.variant == self.candidate,
                propensity=drawn if span.variant == self.candidate else 1 - drawn,
                outcome=float(span.duration > limit),
            )
            for span, drawn in pairs
        ]
        own = exceeds([each.outcome > 0 for each in side_by_side if each.treated], SLOW_LIMIT)
        return max(own, compare_arms(side_by_side, alpha=self.alpha).p_better)

    def _exposures(self, calls: Sequence[Span], said: Mapping[str, Sequence[Feedback]]) -> list[Exposure]:
        """One a unit: the outcome that was known first, in the order in which outcomes became known.

        What is said of a call later doesn't change its outcome here: a later look only adds to what an earlier one
        saw, which is what makes looking free.
        """
        answered = [call for call in calls if not has_failed(call)]
        judged = [(*found, call) for call in answered if (found := first_outcome(call, said.get(call.id, ())))]
        failed = [call for call in calls if has_failed(call)]
        known = judged + [(call.ended_at, 0.0, call) for call in _as_often(failed, judged, answered)]
        first: dict[str, Exposure] = {}
        for _, value, call in sorted(known, key=lambda item: (item[0], item[2].id)):
            treated = call.variant == self.candidate
            drawn = call.propensity if call.propensity is not None else self.share
            share = drawn if treated else 1 - drawn
            first.setdefault(_unit(call), Exposure(treated=treated, propensity=share, outcome=value))
        return list(first.values())

    def _verdict(self, evidence: _Evidence) -> tuple[Action, str]:
        """The first case that holds."""
        quality, alpha, new, old = evidence.quality, self.alpha, self.candidate, self.current
        points = (
            f"{quality.difference * 100:+.0f} points, {1 - 2 * alpha:.0%} interval {quality.low * 100:+.0f} to "
            f"{quality.high * 100:+.0f}, {quality.exposures} outcomes"
        )
        more = "far more outcomes than these" if quality.more is None else f"about {quality.more} more outcomes"
        better, worse = quality.p_better <= alpha, quality.p_worse <= alpha
        turned = (better and (worse or quality.difference <= 0)) or (worse and quality.difference >= 0)
        slow = f"more than {SLOW_LIMIT:.0%} of its calls take over {duration(self.slow_over or 0.0)}"
        cases: tuple[tuple[bool, Action, str], ...] = (
            (evidence.slow_p <= alpha, "stop", f"{new} is too slow: {slow} (p {evidence.slow_p:.2g})"),
            (
                evidence.failure_p <= alpha,
                "stop",
                f"{new} fails in more than {FAILURE_LIMIT:.0%} of its calls (p {evidence.failure_p:.2g})",
            ),
            (
                evidence.uneven_p <= UNEVEN_ALPHA,
                "wait",
                f"the two arms are judged unequally (p {evidence.uneven_p:.2g}), so their outcomes can't be compared: "
                f"see to it that feedback comes as often for {new} as for {old}",
            ),
            (
                turned,
                "wait",
                f"{new} was {'better' if better else 'worse'} than {old} for a time and isn't any more "
                f"({quality.difference * 100:+.0f} points over all {quality.exposures} outcomes): find out what "
                "changed, then stop this rollout and start another",
            ),
            (better, "promote", f"{new} is better than {old}: {points} (p {quality.p_better:.2g})"),
            (worse, "stop", f"{new} is worse than {old}: {points} (p {quality.p_worse:.2g})"),
            (quality.exposures == 0, "wait", f"no outcome of {new} or {old} is known yet"),
            (True, "wait", f"can't tell {new} from {old} yet: {points}; needs {more}"),
        )
        return next((action, sentence) for holds, action, sentence in cases if holds)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Evidence:
    quality: ArmsResult
    slow_p: float
    failure_p: float
    uneven_p: float


def _unit(call: Span) -> str:
    return call.user_id or call.session_id or call.id


def _first_calls(calls: Sequence[Span]) -> list[Span]:
    """Each unit's first: the calls of one user are not independent of each other."""
    first: dict[str, Span] = {}
    for call in calls:
        first.setdefault(_unit(call), call)
    return list(first.values())


def _as_often(
    failed: Sequence[Span], judged: Sequence[tuple[int, float, Span]], answered: Sequence[Span]
) -> list[Span]:
    """As many of the failures as would have been judged, had they been answers.

    A failure is known without anybody's word. Where few answers are judged, counting every failure would weigh them
    too much, and counting none would compare survivors. The share is that of the time of the failure, so that a
    later look doesn't change it; the draw is the span id's own.
    """
    arrivals = _Weighed((at, call) for at, _, call in judged)
    ends = _Weighed((call.ended_at, call) for call in answered)

    def share(at: int) -> float:
        return (arrivals.until(at) + 1) / (ends.until(at) + 1)

    return [call for call in failed if int(call.span_id, 16) / 2**64 < share(call.ended_at)]


class _Weighed:
    """How many calls there were until a time: each stands for one over the probability with which it is here."""

    def __init__(self, found: Iterable[tuple[int, Span]]) -> None:
        pairs = sorted(((at, call.weight) for at, call in found))
        self._times = [at for at, _ in pairs]
        self._sums = [0.0, *accumulate(weight for _, weight in pairs)]

    def until(self, at: int) -> float:
        return self._sums[bisect_right(self._times, at)]


def _was_drawn(call: Span) -> bool:
    """Whether the call is here by the tail's draw: among these, slow and failed calls are as frequent as they are."""
    return call.tail_probability == 1.0 or tail_takes(call.tail_probability, int(call.trace_id, 16))


def _add_twin(registry: Registry, task: str, current: str) -> str:
    from dataclasses import replace

    variant = registry.variant(task, current)
    mark = {**variant.provenance, "twin": f"{current} {secrets.token_hex(4)}"}
    twin = replace(variant, provenance={**mark, "tuner": f"twin of {current}"})
    return registry.add(task, twin, name=f"twin-{secrets.token_hex(2)}")


def _slow_over(store: Store, task: str, current: str) -> float | None:
    spans = store.spans(task=task, variant=current, local_roots=True)
    calls = [span for span in spans if span.kind != "route"][:_BASELINE_CALLS]
    if len(calls) < 20:
        return None
    return SLOW_FACTOR * quantile([span.duration for span in calls], 0.95)
