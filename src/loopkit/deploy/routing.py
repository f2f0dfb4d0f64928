"""Routers, looked at from the desk: fitted to what was logged, simulated on it, and how they are doing."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from loopkit.capture.ambient import Ambient
from loopkit.deploy.decisions import logged
from loopkit.deploy.registry import Registry
from loopkit.errors import InvalidInput
from loopkit.prompts.nearest import text_of
from loopkit.route.fitting import FEWEST, Case, fit_head, fit_quality, logit_of
from loopkit.route.policy import Ask, Policy, learner, odds_of
from loopkit.route.quality import UNTIL, Quality, buckets_of
from loopkit.route.source import Logged, Serving
from loopkit.statistics.logistic import logistic
from loopkit.statistics.offpolicy import Draw, Estimate, OffPolicy, off_policy, weighted_mean
from loopkit.statistics.paired import quantile
from loopkit.store.locate import open_store
from loopkit.store.sqlite import Store
from loopkit.types import Variant

CLIP: Final = 50.0
"""The largest ratio of two policies' probabilities that counts as it is."""
_NOBODY: Final = Variant(model="not served", prompt="{input}")


def fit_router(
    task: str,
    *,
    costs: Mapping[str, float] | None = None,
    fields: Sequence[str] = (),
    since: int | None = None,
    store: Store | None = None,
) -> Quality:
    """A learned router from what was logged of a task's calls, and said of them: `Quality.save` it, and give the file
    to `policies.learned`.

    `costs` are by variant, in any one unit; without them what a call of each cost on average, in US dollars. `fields`
    are the inputs that are read (all). `since` is in nanoseconds since the epoch. The log must hold at least 50 judged
    calls of each variant, drawn by a router and not picked by what they say: see `policies.explore`. Raises
    `InvalidInput`.
    """
    calls = logged(task, since=since, store=store)
    judged = [call for call in calls if call.reward is not None and call.inputs]
    if not judged:
        raise InvalidInput(f"{len(calls)} calls of {task!r} were decided by a router, and nothing was said of any")
    unknown = next((name for name in fields if not any(name in call.inputs for call in judged)), None)
    if unknown is not None:
        raise InvalidInput(f"no call has an input {unknown!r}: those of the last are {sorted(judged[-1].inputs)}")
    prices = _mean_costs(judged) if costs is None else dict(costs)
    cases = [
        Case(
            text=text_of(call.inputs, fields),
            rewards={call.variant: call.reward or 0.0},
            propensity=call.propensity,
            group=call.user_id or call.session_id,
        )
        for call in judged
        if call.variant in prices
    ]
    return fit_quality(cases, prices, fields=fields, about={"task": task, UNTIL: max(call.at for call in judged)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """What another policy would have earned on the calls of the past."""

    task: str
    earned: OffPolicy
    shares: Mapping[str, float]
    """How it would have shared out the calls, by variant."""
    untried: float
    """Of its choices the share for variants that the log has no judged call of: of those nothing can be said."""
    left_out: Mapping[str, int]
    """Calls that can't be used, by reason."""

    @property
    def difference(self) -> float:
        """How much more it would have earned a call, by the doubly robust estimate."""
        return self.earned.dr.value - self.earned.logged.value


def simulate_router(
    task: str, policy: Policy, *, since: int | None = None, clip: float | None = CLIP, store: Store | None = None
) -> Simulated:
    """What a policy would have earned on logged calls, before anybody is served by it.

    Needs calls with the probability of their decision, and a reward. A policy that learns is given the first half of
    them, and judged on the second; one that was fitted (`policies.learned`), on calls since then alone. The rewards
    that the doubly robust estimate expects come from heads fitted to the half of the users that a call isn't of.
    Raises `InvalidInput` where the calls tell as much as fewer than 100 of its own would.
    """
    store = store or open_store()
    calls = logged(task, since=since, store=store)
    usable, left_out = _usable(calls, policy)
    if hasattr(learner(policy), "learn"):
        policy = deepcopy(policy)  # what it learns here is not for those whom it serves
        half = len(usable) // 2
        learner(policy).learn(usable[:half])
        left_out["that it learnt from"] = half
        usable = usable[half:]
    if not usable:
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "none was decided by a router"
        raise InvalidInput(f"no call of {task!r} can be used of {len(calls)}: {why}")
    tried = sorted({call.variant for call in usable})
    serving = _serving(task, tried, store)
    targets = [odds_of(policy, _ask(call, serving)).shares for call in usable]
    shares: Counter[str] = Counter()
    for target in targets:
        shares.update(target)
    return Simulated(
        task=task,
        earned=off_policy(_draws(usable, targets, tried), clip=clip),
        shares={name: share / len(targets) for name, share in sorted(shares.items())},
        untried=sum(share for name, share in shares.items() if name not in tried) / len(targets),
        left_out=left_out,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """How one variant of a task is doing."""

    task: str
    variant: str
    share: float | None
    """Of the registry; None where it knows nothing of the variant."""
    calls: int
    drawn: float
    """Its share of the calls."""
    judged: int
    reward: float
    """Mean, from 0 to 1; NaN where nothing is known."""
    low: float
    high: float
    """Of its 95 % interval."""
    failed: float
    """The share of its calls in which it failed, whoever then answered."""
    seconds: float
    """Median of a call; NaN where there are none."""
    cost: float | None
    """US dollars a call, on average; None where a price isn't known."""


def routes(task: str | None = None, *, since: int | None = None, store: Store | None = None) -> list[Route]:
    """The variants of a task, or of all, as their calls went."""
    store = store or open_store()
    registry = Registry(store)
    found: list[Route] = []
    for name in [task] if task is not None else store.tasks():
        calls = logged(name, since=since, store=store)
        shares = registry.shares(name)
        of: dict[str, list[Logged]] = defaultdict(list)
        for call in calls:
            of[call.variant].append(call)
        total = math.fsum(call.weight for call in calls)
        found += [_route(name, variant, of[variant], total, shares) for variant in sorted({*of, *shares})]
    return found


def _route(task: str, variant: str, calls: Sequence[Logged], total: float, shares: Mapping[str, float]) -> Route:
    """Each call counts as often as it stands for others."""
    judged = [call for call in calls if call.reward is not None]
    weights = [call.weight for call in calls]
    nothing = Estimate(math.nan, math.nan, math.nan)
    reward = (
        weighted_mean(
            [call.reward or 0.0 for call in judged],
            [call.weight for call in judged],
            [call.user_id or call.session_id or call.id for call in judged],
        )
        if judged
        else nothing
    )
    costs = [call.cost for call in calls if call.cost is not None]
    is_known = bool(costs) and len(costs) == len(calls)
    return Route(
        task=task,
        variant=variant,
        share=shares.get(variant),
        calls=len(calls),
        drawn=math.fsum(weights) / total if total else 0.0,
        judged=len(judged),
        reward=reward.value,
        low=reward.low,
        high=reward.high,
        failed=math.fsum(call.weight for call in calls if call.failed) / math.fsum(weights) if calls else math.nan,
        seconds=quantile([call.seconds for call in calls], 0.5, weights),
        cost=math.fsum(w * c for w, c in zip(weights, costs, strict=True)) / math.fsum(weights) if is_known else None,
    )


def _mean_costs(calls: Sequence[Logged]) -> dict[str, float]:
    found: dict[str, list[float | None]] = defaultdict(list)
    for call in calls:
        found[call.variant].append(call.cost)
    means: dict[str, float] = {}
    for name, costs in found.items():
        known = [cost for cost in costs if cost is not None]
        if len(known) < len(costs):
            raise InvalidInput(
                f"what {name!r} costs isn't known: give costs={{{name!r}: 0.2, ...}}, or --cost {name}=0.2"
            )
        means[name] = math.fsum(known) / len(known)
    return means


def _usable(calls: Sequence[Logged], policy: Policy) -> tuple[list[Logged], dict[str, int]]:
    until = int(getattr(learner(policy), "until", 0))
    left_out: Counter[str] = Counter()
    usable: list[Logged] = []
    for call in calls:
        if call.propensity is None:
            left_out["without the probability of their decision"] += 1
        elif call.reward is None:
            left_out["of which nothing was said"] += 1
        elif call.at <= until:
            left_out["that it was fitted to"] += 1
        else:
            usable.append(call)
    return usable, dict(left_out)


def _draws(calls: Sequence[Logged], targets: Sequence[Mapping[str, float]], tried: Sequence[str]) -> list[Draw]:
    return [
        Draw(
            reward=call.reward or 0.0,
            propensity=call.propensity or 1.0,
            target=target.get(call.variant, 0.0),
            unit=call.user_id or call.session_id,
            weight=call.weight,
            predicted=means[call.variant],
            expected=sum(share * means.get(name, 0.0) for name, share in target.items()),
        )
        for call, target, means in zip(calls, targets, expected_rewards(calls, tried), strict=True)
    ]


def _serving(task: str, tried: Collection[str], store: Store) -> Serving:
    """As the registry has it now; where it knows nothing of the task, what was tried."""
    registry = Registry(store)
    known = registry.serving(task)
    if known is not None:
        return known
    return Serving(variants=dict.fromkeys(tried, _NOBODY), shares={name: 1 / len(tried) for name in tried}, salt=task)


def _ask(call: Logged, serving: Serving) -> Ask:
    around = Ambient(user_id=call.user_id, session_id=call.session_id, tags=call.tags, metadata=call.metadata)
    return Ask(inputs=call.inputs, serving=serving, around=around)


def expected_rewards(calls: Sequence[Logged], names: Sequence[str]) -> list[dict[str, float]]:
    """Of each call the reward that each variant was to be expected to get, by those of the other half of the users."""
    halves = [crc32((call.user_id or call.session_id or call.id).encode()) % 2 for call in calls]
    rows = [buckets_of(text_of(call.inputs)) for call in calls]
    found: list[dict[str, float]] = [{} for _ in calls]
    for half in (0, 1):
        for name in names:
            others = [at for at, call in enumerate(calls) if halves[at] != half and call.variant == name]
            predict = _predictor([rows[at] for at in others], [calls[at].reward or 0.0 for at in others])
            for at, own in enumerate(halves):
                if own == half:
                    found[at][name] = predict(rows[at])
    return found


def _predictor(rows: Sequence[Sequence[int]], rewards: Sequence[float]) -> Callable[[Sequence[int]], float]:
    """From a text's buckets to the reward to be expected: by a head where there is enough to fit one, else the mean."""
    if len(rows) < FEWEST or not all(0 <= reward <= 1 for reward in rewards):
        mean = math.fsum(rewards) / len(rewards) if rewards else 0.0
        return lambda _: mean
    weights, bias = fit_head(rows, rewards)
    return lambda row: logistic(bias + logit_of(weights, row))
