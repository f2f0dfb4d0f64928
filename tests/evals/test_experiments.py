"""Experiments with scores that are odd, missing or out of range: never a wrong "better"."""

from __future__ import annotations

import math
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI, OpenAI

import loopkit
from loopkit.errors import InvalidInput
from loopkit.testing import MemorySink, ScriptedProvider
from loopkit.tuning.adapters import _threshold
from loopkit.types import Example, Score, Variant

TASK = "t"


def one(q: str) -> str:
    return "a"


def two(q: str) -> str:
    return "b"


ONE, TWO = Variant(callable=f"{__name__}:one"), Variant(callable=f"{__name__}:two")


@pytest.fixture
def dataset(stored: MemorySink) -> loopkit.Dataset:
    with loopkit.span("call", task=TASK, input={"q": "x"}) as s:
        s.set(output="a")
    loopkit.feedback(s.id, "good", True)
    words = ("red", "blue", "green", "tall", "wide", "cold", "warm", "slow")
    golden = [
        Example(id=f"g{number}", input={"q": f"{word} {number} {word[::-1]}"}, expected="a", split="golden")
        for number, word in enumerate(words)
    ]
    return loopkit.Dataset.create(TASK, add=golden)


def compare(dataset: loopkit.Dataset, *evaluators: Any, **more: Any) -> Any:
    return loopkit.evaluate(
        TASK, {"one": ONE, "two": TWO}, dataset=dataset, baseline="one", evaluators=evaluators, **more
    )


def test_a_judge_that_fails_on_one_side_says_nothing(dataset: loopkit.Dataset) -> None:
    @loopkit.evaluator
    def judge(output: str) -> bool:
        if output == "a":
            raise TimeoutError("judge timed out")
        return True

    found = compare(dataset, judge)
    assert found.best() == "one"
    assert "can't be told" in found.comparisons[0].sentence
    assert [summary.unscored for summary in found.overall()] == [len(found.rows) // 2, 0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, Score(name="x", value=math.nan), {"score": math.nan}])
def test_what_is_no_number_is_the_evaluators_error(bad: Any, dataset: loopkit.Dataset) -> None:
    found = compare(dataset, loopkit.evaluator(name="odd")(lambda output: bad))
    assert {score.error is not None for row in found.rows for score in row.scores} == {True}
    assert found.best() == "one"


def test_ratings_beyond_one_have_a_students_interval(dataset: loopkit.Dataset) -> None:
    found = compare(dataset, loopkit.evaluator(name="stars")(lambda output, example: 4 + int(example.id[-1], 16) % 2))
    summary = found.overall()[0]
    assert 4 <= summary.low <= summary.mean <= summary.high <= 5.5


def test_an_evaluators_name_is_its_own_and_plain_functions_do(dataset: loopkit.Dataset) -> None:
    def short(output: str) -> Score:
        return Score(name="accuracy", value=1.0)

    assert compare(dataset, short).overall()[0].evaluator == "short"
    with pytest.raises(InvalidInput, match="two evaluators are named 'exact'"):
        compare(dataset, "exact", "exact")


def test_what_cant_run_is_refused_before_anything_runs(dataset: loopkit.Dataset) -> None:
    model = Variant(model="m", prompt="{q}")
    with pytest.raises(InvalidInput, match="variant 'm' has a model, but no client"):
        loopkit.evaluate(TASK, {"one": ONE, "m": model}, dataset=dataset, baseline="one")
    for limit in (1, 0, -1):
        with pytest.raises(InvalidInput, match="limit is"):
            compare(dataset, "exact", limit=limit)


def test_an_async_client_is_said_to_be_one() -> None:
    transport = ScriptedProvider(["x"]).transport(httpx2)
    client = AsyncOpenAI(api_key="k", http_client=httpx2.AsyncClient(transport=transport))
    with pytest.raises(InvalidInput, match=r"use acall\(\)"):
        loopkit.Router("t", default=Variant(model="m", prompt="{q}"), client=client).call(q="x")


def test_a_threshold_takes_all_of_one_confidence_or_none() -> None:
    assert _threshold([(True, 1.0)] + [(False, 1.0)] * 9, 0.9) > 1.0
    assert _threshold([(True, 0.9), (True, 0.9), (False, 0.1)], 0.9) == 0.9


def test_secrets_in_outputs_are_not_kept(stored: MemorySink, dataset: loopkit.Dataset) -> None:
    leaky = Variant(callable=f"{__name__}:leak")
    loopkit.evaluate(TASK, {"one": ONE, "leaky": leaky}, dataset=dataset, baseline="one")
    assert "joe@example.com" not in str(loopkit.open_store().documents("experiment"))


def leak(q: str) -> str:
    return "write to joe@example.com"


def test_tokens_are_those_of_a_variants_own_calls(stored: MemorySink, dataset: loopkit.Dataset) -> None:
    bare = OpenAI(api_key="k", http_client=httpx2.Client(transport=ScriptedProvider(["a"]).transport(httpx2)))
    variants = {"one": ONE, "asked": Variant(model="m", prompt="{q}")}

    def tokens(client: OpenAI) -> list[float | None]:
        found = loopkit.evaluate(TASK, variants, dataset=dataset, baseline="one", client=client)
        return [summary.tokens for summary in found.overall()]

    assert tokens(bare) == [0.0, None]
    with loopkit.span("nightly"):
        assert tokens(loopkit.wrap(bare)) == [0.0, 15.0]


def test_an_experiment_keeps_what_recording_would_keep(dataset: loopkit.Dataset) -> None:
    loopkit.init("test", redact=lambda text: text.replace("joe", "***"))
    loopkit.evaluate(TASK, {"one": ONE, "leaky": Variant(callable=f"{__name__}:leak")}, dataset=dataset, baseline="one")
    kept = str(loopkit.open_store().documents("experiment"))
    assert "***@example.com" in kept
    assert "joe" not in kept
    loopkit.init("test", content="off")
    loopkit.evaluate(TASK, {"one": ONE, "two": TWO}, dataset=dataset, baseline="one")
    assert {row.get("output") for row in loopkit.open_store().documents("experiment")[-1]["rows"]} == {None}
