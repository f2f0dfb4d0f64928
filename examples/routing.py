"""A router that learns which variant answers what well, from what users said; and what it would have earned before.

The two variants are functions here, so that no model is needed: the small one is good at sums, and bad at poems.
"""

from __future__ import annotations

import os
import random
import tempfile

import loopkit
from loopkit import policies

GOOD = {("sum", "small"): 0.9, ("sum", "large"): 0.9, ("poem", "small"): 0.2, ("poem", "large"): 0.9}


def small(question: str) -> str:
    return f"small: {question}"


def large(question: str) -> str:
    return f"large: {question}"


def serve(router: loopkit.Router, users: int, draw: random.Random) -> None:
    """Each user asks once, and says whether the answer was good."""
    for user in range(users):
        kind = draw.choice(["sum", "poem"])
        words = f"w{draw.randrange(100)} and w{draw.randrange(100)}"
        question = f"what is the sum of {words}?" if kind == "sum" else f"write a poem about {words}"
        with loopkit.context(user_id=f"user-{user}"), loopkit.span("ask", task="ask") as span:
            span.set(input={"question": question})
            choice = router.choose(question=question)
            span.set(output=choice.call(question=question))
        loopkit.feedback(span.id, "thumbs", draw.random() < GOOD[kind, choice.name])


def main() -> None:
    """Explore, learn, look at what it would have earned, then serve."""
    draw = random.Random(0)
    variants = {name: loopkit.Variant(callable=f"{__name__}:{name}") for name in ("small", "large")}
    with tempfile.TemporaryDirectory() as home:
        os.environ["LOOPKIT_HOME"] = home
        loopkit.init("routing-example")
        registry = loopkit.Registry(loopkit.open_store())
        for name, variant in variants.items():
            registry.add("ask", variant, name=name)
        registry.promote("ask", "small", reason="it is cheap")
        registry.share("ask", {"small": 0.7, "large": 0.3}, reason="to learn what each is good at", salt="first")

        serve(loopkit.Router("ask", default=variants["small"]), 600, draw)
        loopkit.flush()
        learned = loopkit.fit_router("ask", costs={"small": 1.0, "large": 10.0})
        policy = policies.learned(learned, strong=0.5)

        serve(loopkit.Router("ask", default=variants["small"]), 600, draw)
        loopkit.flush()
        found = loopkit.simulate_router("ask", policy)  # on the calls that it was not fitted to
        earned = found.earned
        print(f"logged {earned.logged.value:.2f}; it would have earned {earned.dr.low:.2f} to {earned.dr.high:.2f}")
        assert earned.dr.low > earned.logged.value

        router = loopkit.Router("ask", default=variants["small"], policy=policy)
        print(router.call(question="what is the sum of w1 and w2?"))
        print(router.call(question="write a poem about w1 and w2"))
        loopkit.shutdown()


if __name__ == "__main__":
    main()
