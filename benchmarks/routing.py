"""Routers on public data, in the folder that `LOOPKIT_DATA` names: whose answers were right, and what routing makes of
it.

`route/routellm_mmlu_half.csv` (lm-sys/RouteLLM, evals/mmlu/responses, Apache-2.0): questions, and whether Mixtral-8x7B
and GPT-4-1106 answered them right. `route/llmrouter_train.csv` (ulab-uiuc/LLMRouter, MIT): questions, and the scores of
nine open models. Every figure is of questions that had no part in what it is a figure of: five folds, three shuffles.
"""

from __future__ import annotations

import csv
import math
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from loopkit import policies
from loopkit.capture.ambient import Ambient
from loopkit.deploy.routing import expected_rewards
from loopkit.route.fitting import Case, fit_head, fit_quality, logit_of, pick
from loopkit.route.policy import Ask, decide
from loopkit.route.quality import buckets_of
from loopkit.route.source import Logged, Serving
from loopkit.statistics.logistic import logistic
from loopkit.statistics.offpolicy import Draw, off_policy
from loopkit.statistics.paired import mean_interval, paired_difference
from loopkit.types import Variant

FOLDS = 5
SHUFFLES = (1, 2, 3)
SIZES = {
    "chatqa-8b": 8, "qwen-7b": 7, "chatqa-70b": 70, "nemotron-51b": 51, "mistral-7b": 7, "gemma-9b": 9, "llama-8b": 8,
    "codegemma-7b": 7, "nemotron-49b": 49,
}  # fmt: skip
"""Billions of parameters, in the order of the file's columns."""
STRONG = 0.3
EPSILON = 0.2
REPLAYS = 500
SEEDS = 50
DELAY, BATCH = 200, 100
Row = dict[str, Any]


@lru_cache
def questions(name: str) -> tuple[list[str], list[tuple[float, ...]]]:
    """Texts, and of each model how good its answer was."""
    folder = os.environ.get("LOOPKIT_DATA")
    if not folder:
        raise SystemExit("LOOPKIT_DATA names no folder with route/*.csv")
    csv.field_size_limit(10**9)
    with (Path(folder) / "route" / name).open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    if name.startswith("routellm"):
        return [row[0] for row in rows], [(float(row[1] == "True"), float(row[2] == "True")) for row in rows]
    return [row[0] for row in rows], [tuple(map(float, row[1:])) for row in rows]


MMLU, NINE = "routellm_mmlu_half.csv", "llmrouter_train.csv"


def rows() -> list[Row]:
    """All of it: about a quarter of an hour."""
    with ProcessPoolExecutor(2) as pool:
        return [*decision_rows(), *strong_rows(pool), *target_rows(pool), *nine_rows(pool), *replay_rows(pool),
                *bandit_rows(pool)]  # fmt: skip


def row(figure: str, aim: str, value: str) -> Row:
    return {"figure": figure, "aim": aim, "measured": value}


def folds(n: int, shuffle: int) -> list[tuple[list[int], list[int]]]:
    order = list(range(n))
    random.Random(shuffle).shuffle(order)
    parts = [order[part::FOLDS] for part in range(FOLDS)]
    return [(sorted(set(order) - set(part)), part) for part in parts]


# decisions


def decision_rows() -> list[Row]:
    texts, right = questions(MMLU)
    any_variant = Variant(model="m", prompt="{q}")
    of = Serving(variants={"weak": any_variant, "strong": any_variant}, shares={"weak": 0.7, "strong": 0.3}, salt="s",
                 rules=(("plan:pro", "strong"),))  # fmt: skip
    around = Ambient(user_id="user-4711", tags=("plan:free",))
    plain = Ask(inputs={"q": "x"}, serving=of, around=around)
    tagged = policies.weights({"weak": 2, "strong": policies.Arm(1, exclude=["region:eu"])})
    began = time.process_time()
    quality = fit_quality(
        [Case(text=t, rewards={"weak": w, "strong": s}) for t, (w, s) in zip(texts, right, strict=True)],
        {"weak": 0.0, "strong": 1.0},
    )
    fitted = time.process_time() - began
    with tempfile.TemporaryDirectory() as folder:
        quality.save(Path(folder) / "m.router")
        size = (Path(folder) / "m.router").stat().st_size
    learned = policies.learned(quality, strong=STRONG)
    asks = [Ask(inputs={"q": text}, serving=of) for text in texts if 900 < len(text) < 1100]
    length = statistics.fmean(len(ask.inputs["q"]) for ask in asks)

    def each() -> None:
        for ask in asks:
            decide(learned, ask)

    return [
        row("decision: weights, sticky by user", "<= 5 us", f"{fastest(partial(decide, tagged, plain), 2000):.1f} us"),
        row("decision: the registry's shares and rules", "<= 5 us",
            f"{fastest(partial(decide, policies.policy_of({'policy': 'shares'}), plain), 2000):.1f} us"),
        row("decision: learned, two variants, 1,000 characters", "<= 150 us",
            f"{fastest(each, 1) / len(asks) / length * 1000:.0f} us"),
        row("learned: the file", "<= 1 MB", f"{size / 1e3:.0f} kB"),
        row(f"learned: the fit on {len(texts):,} texts", "< 15 s", f"{fitted:.1f} s"),
        row("learned: probabilities off by (weak, strong)", "-",
            ", ".join(f"{quality.about['off'][name]:.3f}" for name in ("weak", "strong"))),
    ]  # fmt: skip


def fastest(call: Callable[[], object], calls: int) -> float:
    """Microseconds a call, of the best of nine rounds."""
    found = math.inf
    for _ in range(9):
        began = time.perf_counter()
        for _ in range(calls):
            call()
        found = min(found, (time.perf_counter() - began) / calls * 1e6)
    return found


# two models


def scores(shuffle: int, most: int | None) -> list[float]:
    """P(strong right) - P(weak right) of each question, by heads fitted to the other folds, or to so many of them."""
    texts, right = questions(MMLU)
    buckets = [buckets_of(text) for text in texts]
    found = [0.0] * len(texts)
    for inside, outside in folds(len(texts), shuffle):
        kept = random.Random(shuffle).sample(inside, most) if most else inside
        heads = [fit_head([buckets[at] for at in kept], [right[at][which] for at in kept]) for which in (0, 1)]
        for at in outside:
            weak, strong = (logistic(bias + logit_of(weights, buckets[at])) for weights, bias in heads)
            found[at] = strong - weak
    return found


def recovered(found: Sequence[float]) -> tuple[float, float, float]:
    """APGR, CPT50 and CPT80, as RouteLLM defines them, over all shares."""
    _, right = questions(MMLU)
    order = sorted(range(len(found)), key=lambda at: -found[at])
    least, gap = sum(weak for weak, _ in right), sum(strong - weak for weak, strong in right)
    curve, now = [0.0], least
    for at in order:
        now += right[at][1] - right[at][0]
        curve.append((now - least) / gap)
    area = sum((a + b) / 2 for a, b in pairwise(curve)) / len(found)
    reach = [next(at for at, part in enumerate(curve) if part >= wanted) / len(found) for wanted in (0.5, 0.8)]
    return area, reach[0], reach[1]


def strong_rows(pool: ProcessPoolExecutor) -> list[Row]:
    made: list[Row] = []
    for most, aims in ((None, (">= .655", "<= 29 %", "<= 63 %")), (500, (">= .605", "-", "-"))):
        told = list(pool.map(recovered, pool.map(scores, SHUFFLES, [most] * len(SHUFFLES))))
        labels = "all labels" if most is None else f"{most} labels"
        for name, aim, values in zip(("APGR", "CPT50", "CPT80"), aims, zip(*told, strict=True), strict=True):
            shown = [
                f"{v:.3f}" if name == "APGR" else f"{v:.1%}"
                for v in (statistics.fmean(values), min(values), max(values))
            ]
            made.append(
                row(f"MMLU, Mixtral and GPT-4: {name}, {labels}", aim, f"{shown[0]} ({shown[1]} to {shown[2]})")
            )
    return made


def met(shuffle: int) -> list[float]:
    """How far off targets of the strong one's share are on questions held out, for each fold and target."""
    texts, right = questions(MMLU)
    found: list[float] = []
    for inside, outside in folds(len(texts), shuffle):
        cases = [Case(text=texts[at], rewards={"weak": right[at][0], "strong": right[at][1]}) for at in inside]
        quality = fit_quality(cases, {"weak": 0.0, "strong": 1.0})
        told = [quality.probabilities(texts[at]) for at in outside]
        for target in (0.1, 0.2, 0.3, 0.5):
            prices = quality.prices_for(strong=target)
            shares = [sum(pick(each, quality.costs, price) == "strong" for each in told) for price, _ in prices]
            share = sum(part * count for (_, part), count in zip(prices, shares, strict=True)) / len(told)
            found.append(abs(share - target))
    return found


def target_rows(pool: ProcessPoolExecutor) -> list[Row]:
    off = [each for part in pool.map(met, SHUFFLES[:2]) for each in part]
    return [
        row("MMLU: a share of 10, 20, 30, 50 % strong, off by", "<= 2 points",
            f"{statistics.fmean(off) * 100:.1f} points on average, {max(off) * 100:.1f} at most"),
    ]  # fmt: skip


# nine models


def routed(shuffle: int, budget: float) -> tuple[list[float], list[float], list[float]]:
    """Of each question held out: the score of the model that was picked, its size, and the best single one's score."""
    texts, scored = questions(NINE)
    names = list(SIZES)
    best = max(range(len(names)), key=lambda which: sum(each[which] for each in scored))
    draw = random.Random(shuffle)
    got: list[float] = []
    spent: list[float] = []
    single: list[float] = []
    for inside, outside in folds(len(texts), shuffle):
        cases = [Case(text=texts[at], rewards=dict(zip(names, scored[at], strict=True))) for at in inside]
        quality = fit_quality(cases, SIZES)
        prices = quality.prices_for(cost=budget * SIZES[names[best]])
        for at in outside:
            price = draw.choices([price for price, _ in prices], [part for _, part in prices])[0]
            chosen = pick(quality.probabilities(texts[at]), quality.costs, price)
            got.append(scored[at][names.index(chosen)])
            spent.append(SIZES[chosen])
            single.append(scored[at][best])
    return got, spent, single


def nine_rows(pool: ProcessPoolExecutor) -> list[Row]:
    made: list[Row] = []
    budgets = (0.35, 0.5)
    for budget, (got, spent, single) in zip(budgets, pool.map(routed, (1, 1), budgets), strict=True):
        gain = paired_difference(single, got)
        size = statistics.fmean(spent) / SIZES["nemotron-51b"]
        made.append(
            row(f"nine models: quality at {budget:.0%} of the best one's size", ">= its own" if budget == 0.35 else "-",
                f"{statistics.fmean(got):.4f} at {size:.1%}; the best alone {statistics.fmean(single):.4f}: "
                f"{gain.difference:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]")
        )  # fmt: skip
    return made


# off-policy


@lru_cache
def better() -> tuple[list[int], float]:
    """Of each question whether the policy that is asked about sends it to the strong one, and what it earns."""
    _, right = questions(MMLU)
    found = scores(1, None)
    line = sorted(found, reverse=True)[int(STRONG * len(found))]
    chosen = [int(each > line) for each in found]
    return chosen, statistics.fmean(right[at][which] for at, which in enumerate(chosen))


def replayed(seed: int) -> tuple[float, ...]:
    """One log of epsilon-greedy on the weak one, and how far off each estimate is, and whether its interval holds."""
    texts, right = questions(MMLU)
    chosen, truth = better()
    draw = random.Random(seed)
    shares = (1 - EPSILON / 2, EPSILON / 2)
    taken = [int(draw.random() < shares[1]) for _ in texts]
    names = ("weak", "strong")
    log = [
        Logged(id=str(at), at=at, variant=names[which], propensity=shares[which], inputs={"q": texts[at]},
               reward=right[at][which], user_id=f"{seed}-{at}")
        for at, which in enumerate(taken)
    ]  # fmt: skip
    means = expected_rewards(log, names)
    found = off_policy([
        Draw(reward=right[at][which], propensity=shares[which], target=float(which == chosen[at]), unit=at,
             predicted=means[at][names[which]], expected=means[at][names[chosen[at]]])
        for at, which in enumerate(taken)
    ])  # fmt: skip
    three = (found.ips, found.snips, found.dr)
    off = (each.value - truth for each in (found.logged, *three))
    return (*off, *(float(each.low <= truth <= each.high) for each in three), found.effective)


def replay_rows(pool: ProcessPoolExecutor) -> list[Row]:
    told = list(zip(*pool.map(replayed, range(REPLAYS), chunksize=10), strict=True))
    naive = statistics.fmean(map(abs, told[0]))
    made = [row(f"off-policy, {REPLAYS} replays: the naive mean, off by", "-", f"{naive:.4f}")]
    for at, name in enumerate(("IPS", "SNIPS", "doubly robust")):
        off, held = told[1 + at], told[4 + at]
        aim = "-" if name == "IPS" else "<= .012; 90 to 98 %"
        shown = f"{statistics.fmean(map(abs, off)):.4f} ({statistics.fmean(off):+.4f}); {statistics.fmean(held):.1%}"
        made.append(row(f"off-policy: {name}, off by (bias); 95 % intervals that hold", aim, shown))
    count = len(questions(MMLU)[0])
    made.append(row("off-policy: effective sample", "-", f"{statistics.fmean(told[7]):.0f} of {count:,}"))
    return made


# bandits


def regret(seed: int, make: Callable[[], Any]) -> tuple[float, float]:
    """What was lost a call against the best single model, and the share of calls that weren't its own best guess."""
    texts, scored = questions(NINE)
    names = list(SIZES)
    any_variant = Variant(model="m", prompt="{q}")
    of = Serving(variants=dict.fromkeys(names, any_variant), shares={name: 1 / len(names) for name in names})
    draw = random.Random(seed)
    order = draw.sample(range(len(texts)), len(texts))
    best = max(statistics.fmean(each[which] for each in scored) for which in range(len(names)))
    policy, log, lost, tried = make(), [], 0.0, 0
    for step, at in enumerate(order):
        if step % BATCH == 0 and hasattr(policy, "learn"):
            known = step - DELAY
            policy.learn([each if n < known else quiet(each) for n, each in enumerate(log)])
        decision = decide(policy, Ask(inputs={"q": texts[at]}, serving=of), "call", draw.random)
        reward = scored[at][names.index(decision.variant)]
        lost, tried = lost + best - reward, tried + decision.explore
        inputs = {"q": texts[at]}
        log.append(Logged(
            id=str(step), at=step, variant=decision.variant, propensity=decision.propensity, reward=reward,
            inputs=inputs,
        ))  # fmt: skip
    return lost / len(order), tried / len(order)


def quiet(call: Logged) -> Logged:
    return Logged(id=call.id, at=call.at, variant=call.variant, propensity=call.propensity, inputs=call.inputs)


def greedy_of(share: float) -> Any:
    return policies.best(explore=min(share * len(SIZES) / (len(SIZES) - 1), 1.0))


def fixed_split() -> Any:
    return policies.weights(dict.fromkeys(SIZES, 1))


def bandit_rows(pool: ProcessPoolExecutor) -> list[Row]:
    seeds = range(SEEDS)
    made: list[Row] = []
    split = [lost for lost, _ in pool.map(partial(regret, make=fixed_split), seeds)]
    made.append(row("bandits, nine models, rewards 200 calls late: fixed split, lost a call", "-", interval(split)))
    for name, make in (("Thompson", policies.thompson), ("LinUCB", policies.linucb)):
        told = list(pool.map(partial(regret, make=make), seeds))
        lost, tried = [each for each, _ in told], statistics.fmean(share for _, share in told)
        greedy = [each for each, _ in pool.map(partial(regret, make=partial(greedy_of, tried)), seeds)]
        gain = paired_difference(lost, greedy)
        made += [
            row(f"bandits: {name}, lost a call", "less than greedy", f"{interval(lost)}, exploring {tried:.1%}"),
            row("bandits: epsilon-greedy that explores as much", "-",
                f"{interval(greedy)}; {gain.difference:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}] more"),
        ]  # fmt: skip
    return made


def interval(values: Sequence[float]) -> str:
    low, high = mean_interval([each + 10 for each in values])  # no shares: Student's
    return f"{statistics.fmean(values):.4f} [{low - 10:.4f}, {high - 10:.4f}]"
