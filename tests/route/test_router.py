"""Routers: which variant serves, with which probability, and that a call is always answered."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import anthropic
import httpx2
import pytest
from openai import AsyncOpenAI, BadRequestError, OpenAI

import loopkit
from loopkit import checks, policies
from loopkit.errors import InvalidInput
from loopkit.route.policy import Ask, Odds, hashed, pick
from loopkit.route.source import Learn, Serving
from loopkit.testing import MemorySink, ScriptedProvider, chat_completion
from loopkit.types import Example, Variant
from tests.providers.contract import ROWS

A = Variant(model="model-a", prompt="Which queue? {ticket}")
B = Variant(model="model-b", prompt="Queue for: {ticket}", system="You route tickets.")


class Fixed:
    """A registry that never changes."""

    def __init__(self, serving: Serving | None, examples: Sequence[Example] = ()) -> None:
        self._serving = serving
        self._examples = examples

    def serving(self, task: str) -> Serving | None:
        return self._serving

    def examples(self, dataset: str) -> Sequence[Example]:
        return self._examples

    def follow(self, task: str, learn: Learn) -> None: ...

    def refresh(self) -> None: ...


def by_model(body: Any) -> str:
    return f"answer of {body['model']}"


def client_of(answers: Any = by_model) -> tuple[OpenAI, ScriptedProvider]:
    provider = ScriptedProvider(answers)
    return loopkit.wrap(OpenAI(api_key="k", http_client=httpx2.Client(transport=provider.transport(httpx2)))), provider


def router(serving: Serving | None = None, **given: Any) -> loopkit.Router:
    return loopkit.Router("triage", default=A, client=client_of()[0], source=Fixed(serving), **given)


HALF = Serving(variants={"v1": A, "v2": B}, shares={"v1": 0.5, "v2": 0.5}, salt="r1")


def test_without_a_registry_the_default_serves_before_init_too() -> None:
    assert router().call(ticket="lost card") == "answer of model-a"


def test_the_choice_is_recorded_and_inherited(recorded: MemorySink) -> None:
    assert router(HALF).call(ticket="lost card").startswith("answer of model-")
    spans = {span.kind: span for span in recorded.spans()}
    assert spans["task"].name == "triage"
    assert (spans["task"].input, spans["task"].task) == ({"ticket": "lost card"}, "triage")
    assert spans["task"].variant in ("v1", "v2")
    assert (spans["llm"].variant, spans["llm"].propensity) == (spans["task"].variant, 0.5)
    assert len(spans["llm"].prompt_version or "") == 8
    assert spans["route"].attributes["loopkit.router.candidates"] == ["v1", "v2"]


def test_a_user_stays_with_a_variant_and_users_are_shared_out() -> None:
    route = router(HALF)
    chosen: dict[str, set[str]] = {}
    for user in range(400):
        for _ in range(2):
            with loopkit.context(user_id=f"u{user}"):
                chosen.setdefault(f"u{user}", set()).add(route.choose(ticket="x").name)
    assert all(len(names) == 1 for names in chosen.values())
    counts = Counter(next(iter(names)) for names in chosen.values())
    assert 160 < counts["v2"] < 240


def test_the_sticky_place_is_as_documented() -> None:
    digest = hashlib.sha256(b"r1:u7").digest()
    assert hashed("r1", "u7") == int.from_bytes(digest[:8], "big") / 2**64
    assert pick({"b": 0.5, "a": 0.5}, 0.49) == "a"
    assert pick({"b": 0.5, "a": 0.5}, 0.5) == "b"
    assert pick({"a": 0.0, "b": 1.0}, 0.0) == "b"


def test_rules_come_before_shares() -> None:
    serving = Serving(variants={"v1": A, "v2": B}, shares={"v1": 1.0}, rules=(("plan:pro", "v2"),))
    with loopkit.context(plan="pro"):
        choice = router(serving).choose(ticket="x")
    assert (choice.name, choice.propensity, choice.reason) == ("v2", 1.0, "rule plan:pro")


def test_weights_of_ones_own() -> None:
    route = router(HALF, policy=policies.weights({"v2": 3, "gone": 5}))
    assert {route.choose(ticket="x").name for _ in range(50)} == {"v2"}
    with pytest.raises(InvalidInput, match="weights are"):
        policies.weights({"v1": 0})
    by: Any = "shoe"
    with pytest.raises(InvalidInput, match="sticky_by is 'shoe'"):
        loopkit.Router("t", default=A, sticky_by=by)


def test_a_policy_that_raises_falls_back_to_the_default(recorded: MemorySink) -> None:
    class Broken:
        def odds(self, ask: Ask) -> Odds:
            raise RuntimeError("policy broke")

    assert router(HALF, policy=Broken()).call(ticket="x") == "answer of model-a"
    assert next(s for s in recorded.spans() if s.kind == "task").variant == "default"


@pytest.mark.parametrize("shares", [{"v1": 0.7}, {"v1": 0.5, "v9": 0.5}, {"v1": 1.5, "v2": -0.5}, {}])
def test_odds_that_are_none_fall_back_to_the_default(shares: dict[str, float], recorded: MemorySink) -> None:
    class Odd:
        def odds(self, ask: Ask) -> Odds:
            return Odds(shares, "odd")

    choice = router(HALF, policy=Odd()).choose(ticket="x")
    assert (choice.name, choice.propensity, choice.reason) == ("default", 1.0, "fallback")


def test_variants_in_code_serve_where_the_registry_is_silent(recorded: MemorySink) -> None:
    route = loopkit.Router(
        "triage", default=A, variants={"b": B}, client=client_of()[0], policy=policies.weights({"b": 1}),
        source=Fixed(None),
    )  # fmt: skip
    assert route.call(ticket="x") == "answer of model-b"
    spans = {span.kind: span for span in recorded.spans()}
    assert (spans["task"].variant, spans["task"].propensity) == ("b", 1.0)
    assert spans["route"].attributes["loopkit.router.candidates"] == ["b", "default"]
    assert spans["route"].attributes["loopkit.router.explore"] is False


def test_sessions_and_single_calls_may_be_the_unit() -> None:
    drawn: dict[str, Counter[str]] = {}
    for by in ("session", "user", "call"):
        route = router(HALF, sticky_by=by)
        with loopkit.context(user_id="u", session_id="s"):
            drawn[by] = Counter(route.choose(ticket="x").name for _ in range(100))
    assert (len(drawn["session"]), len(drawn["user"])) == (1, 1)
    assert 30 <= drawn["call"]["v1"] <= 70


def test_a_variant_that_fails_is_rescued_by_the_default(recorded: MemorySink) -> None:
    def only_a(body: Any) -> str:
        if body["model"] != "model-a":
            raise AssertionError("model-b is down")
        return "answer of model-a"

    serving = Serving(variants={"v2": B}, shares={"v2": 1.0})
    client, _ = client_of(only_a)
    route = loopkit.Router("triage", default=A, client=client.with_options(max_retries=0), source=Fixed(serving))
    assert route.call(ticket="x") == "answer of model-a"
    task = next(s for s in recorded.spans() if s.kind == "task")
    assert (task.variant, task.propensity, task.status) == ("v2", 1.0, "ok")
    assert task.attributes["loopkit.router.fallback"] is True


def test_the_providers_exception_passes_when_the_default_fails_too() -> None:
    row = ROWS[0]
    client = loopkit.wrap(row.make("sync", lambda request: httpx2.Response(400, json={"error": {"message": "no"}})))
    with pytest.raises(BadRequestError):
        loopkit.Router("triage", default=A, client=client).call(ticket="x")


def test_two_steps_with_ones_own_call(recorded: MemorySink) -> None:
    client, provider = client_of()
    serving = Serving(variants={"v2": B}, shares={"v2": 1.0})
    route = loopkit.Router("triage", default=A, client=client, source=Fixed(serving))
    with route.choose(ticket="lost card") as choice:
        client.chat.completions.create(**choice.request(ticket="lost card"))
    assert provider.requests[0]["messages"] == [
        {"role": "system", "content": "You route tickets."},
        {"role": "user", "content": "Queue for: lost card"},
    ]
    assert next(s for s in recorded.spans() if s.kind == "llm").variant == "v2"


def test_async_clients_and_callables() -> None:
    provider = ScriptedProvider(by_model)
    client = AsyncOpenAI(api_key="k", http_client=httpx2.AsyncClient(transport=provider.transport(httpx2)))
    assert asyncio.run(loopkit.Router("t", default=A, client=client).acall(ticket="x")) == "answer of model-a"
    slow = Variant(callable=f"{__name__}:answer_later")
    assert asyncio.run(loopkit.Router("t", default=slow).acall(ticket="x")) == "later x"


async def answer_later(ticket: str) -> str:
    await asyncio.sleep(0)
    return f"later {ticket}"


def test_anthropic_clients_get_their_own_shape() -> None:
    seen: list[Any] = []

    def answer(request: Any) -> Any:
        seen.append(request)
        return ROWS[3].answer(request)

    client: anthropic.Anthropic = ROWS[3].make("sync", answer)
    assert loopkit.Router("t", default=B, client=client).call(ticket="x") == "Hello there!"
    body = __import__("json").loads(seen[0].content)
    assert (body["system"], body["max_tokens"]) == ("You route tickets.", 1024)


def shout(ticket: str, mark: str = "!") -> str:
    return ticket.upper() + mark


def unsure(ticket: str) -> loopkit.Answer:
    return loopkit.Answer("unsure", 0.9 if "easy" in ticket else 0.1)


def test_callables_take_parameters_and_cascades_escalate() -> None:
    called = Variant(callable=f"{__name__}:shout", parameters={"mark": "?"})
    assert loopkit.Router("t", default=called).call(ticket="a") == "A?"
    cascade = Variant(stages=(Variant(callable=f"{__name__}:unsure"), called), threshold=0.5)
    route = loopkit.Router("t", default=cascade)
    assert (route.call(ticket="easy one"), route.call(ticket="hard")) == ("unsure", "HARD?")


def test_nearest_examples_are_shown_before_the_question() -> None:
    examples = [
        Example(id="1", input={"ticket": "my card was stolen"}, expected="cards"),
        Example(id="2", input={"ticket": "the app crashes"}, expected="tech"),
        Example(id="3", input={"ticket": "stolen card abroad"}, expected="cards"),
    ]
    client, provider = client_of()
    variant = Variant(model="m", prompt="{ticket}", retriever={"dataset": "d", "k": 2})
    loopkit.Router("t", default=variant, client=client, source=Fixed(None, examples)).call(ticket="card stolen")
    turns = [(m["role"], m["content"]) for m in provider.requests[0]["messages"]]
    assert {turns[0][1], turns[2][1]} == {"my card was stolen", "stolen card abroad"}
    assert turns[1] == turns[3] == ("assistant", "cards")
    assert turns[-1] == ("user", "card stolen")


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        (Variant(), "one of model, callable and stages; this one has none"),
        (Variant(model="m", callable="a:b"), r"this one has \['model', 'callable'\]"),
        (Variant(model="m"), "has no prompt"),
        (Variant(callable="no.such:thing"), "can't be found"),
        (Variant(callable="loopkit.types:JSON"), "can't be found|not a function"),
        ("small", "is no Variant"),
    ],
)
def test_variants_that_cant_be_served_are_refused(variant: Any, message: str) -> None:
    if variant == Variant(callable="loopkit.types:JSON"):
        variant = Variant(callable="loopkit.wire.names:TASK")
    with pytest.raises(InvalidInput, match=message):
        loopkit.Router("t", default=variant)


def test_missing_inputs_are_named() -> None:
    with pytest.raises(InvalidInput, match="the template needs 'ticket'; given: 'tocket'"):
        router().call(tocket="x")
    with pytest.raises(InvalidInput, match="needs a client"):
        loopkit.Router("t", default=A).call(ticket="x")
    with pytest.raises(InvalidInput, match="the task is ''"):
        loopkit.Router("", default=A)


# cascades of models


def told(answers: dict[str, list[str]], logprob: float | None = None) -> OpenAI:
    """A client whose models answer in turn, each token with that log-probability."""

    def handler(request: Any) -> Any:
        body = json.loads(request.content)
        model = body["model"]
        said = answers[model].pop(0) if len(answers[model]) > 1 else answers[model][0]
        answer = chat_completion(said)
        if body.get("logprobs") and logprob is not None:
            token = {"token": "x", "logprob": logprob, "bytes": None, "top_logprobs": []}
            answer["choices"][0]["logprobs"] = {"content": [token] * 3, "refusal": None}
        return httpx2.Response(200, json=answer)

    return OpenAI(api_key="k", http_client=httpx2.Client(transport=httpx2.MockTransport(handler)))


def cascade(**given: Any) -> Variant:
    first = Variant(model="cheap", prompt="{q}", **given)
    return Variant(stages=(first, Variant(model="dear", prompt="{q}")), threshold=0.7)


@pytest.mark.parametrize(("logprob", "answer"), [(-0.1, "cheap word"), (-2.0, "dear word"), (None, "dear word")])
def test_a_model_that_isnt_sure_of_its_tokens_gives_way(logprob: float | None, answer: str) -> None:
    client = told({"cheap": ["cheap word"], "dear": ["dear word"]}, logprob)
    assert loopkit.Router("t", default=cascade(confidence="logprobs"), client=client).call(q="x") == answer


@pytest.mark.parametrize(
    ("said", "answer"), [(["a", "a ", "b", "a"], "a"), (["a", "b", "c", "a"], "dear word"), (["a"], "a")]
)
def test_a_model_that_contradicts_itself_gives_way(said: list[str], answer: str) -> None:
    client = told({"cheap": [*said], "dear": ["dear word"]})
    variant = cascade(confidence="agreement", samples=4)
    assert loopkit.Router("t", default=variant, client=client).call(q="x").strip() == answer


def is_json(output: str, inputs: dict[str, Any]) -> bool:
    assert inputs == {"q": "x"}
    return output.startswith("{")


@pytest.mark.parametrize(("said", "answer"), [("{}", "{}"), ("no", "dear word")])
def test_a_function_may_say_how_good_it_is(said: str, answer: str, recorded: MemorySink) -> None:
    client = told({"cheap": [said], "dear": ["dear word"]})
    variant = cascade(confidence=f"{__name__}:is_json")
    assert loopkit.Router("t", default=variant, client=client).call(q="x") == answer
    escalated = [span for span in recorded.spans() if span.name == "escalate"]
    assert len(escalated) == (answer != said)


def test_a_stage_that_is_blocked_or_fails_gives_way(recorded: MemorySink) -> None:
    guard = loopkit.Guard(output=[checks.banned(["acme"])])
    client = loopkit.wrap(told({"cheap": ["acme"], "dear": ["fine"]}), guard=guard)
    assert loopkit.Router("t", default=cascade(), client=client).call(q="x") == "fine"
    both = loopkit.wrap(told({"cheap": ["acme"], "dear": ["acme"]}), guard=guard)
    with pytest.raises(loopkit.Blocked):
        loopkit.Router("t", default=cascade(), client=both).call(q="x")


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        (Variant(model="m", prompt="{q}", confidence="no.such:thing"), "can't be found"),
        (Variant(callable=f"{__name__}:shout", confidence="logprobs"), "confidence is of models' answers"),
        (Variant(model="m", prompt="{q}", samples=1), "samples is 1"),
    ],
)
def test_confidence_that_cant_be_had_is_refused(variant: Variant, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        loopkit.Router("t", default=variant)
