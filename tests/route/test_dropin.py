"""A router in the place of a model's name."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
from anthropic import Anthropic
from openai import AsyncOpenAI, InternalServerError, OpenAI

import loopkit
from loopkit import checks, policies
from loopkit.deploy.decisions import logged
from loopkit.testing import MemorySink
from loopkit.types import Variant
from tests.guard.test_chunks import Body, Chat
from tests.route.test_deployments import LARGE, SMALL, Place

TURNS: Any = [{"role": "user", "content": "which queue?"}]


def router(**given: Any) -> loopkit.Router:
    given = {"default": SMALL, "variants": {"large": LARGE}, "policy": policies.weights({"large": 1}), **given}
    return loopkit.Router("ask", **given)


def ask(client: Any, route: loopkit.Router, **more: Any) -> Any:
    return client.chat.completions.create(model=route.model, messages=TURNS, **more)


def test_the_call_is_made_with_the_variants_model_before_init_too() -> None:
    place = Place("hello")
    assert ask(place.client, router()).choices[0].message.content == "hello"
    assert place.asked == ["large"]
    assert router().model == "loopkit/ask"


def test_the_decision_is_on_the_call_and_on_the_task_around_it(recorded: MemorySink) -> None:
    place = Place("hello")
    with loopkit.span("ask", task="ask", input={"q": "x"}):
        ask(place.client, router())
    ask(place.client, router())
    calls = [span for span in recorded.spans() if span.kind == "llm"]
    assert [(call.variant, call.propensity, call.task) for call in calls] == [("large", 1.0, "ask")] * 2
    assert all(call.model_call is not None and call.model_call.model == "large" for call in calls)
    (task,) = [span for span in recorded.spans() if span.kind == "task"]
    assert (task.variant, task.propensity) == ("large", 1.0)
    assert len([span for span in recorded.spans() if span.kind == "route"]) == 2


def test_async_calls_and_parameters() -> None:
    place = Place("hello", kind=AsyncOpenAI)
    cold = Variant(model="cold", prompt="{q}", parameters={"temperature": 0})
    route = router(variants={"large": cold})

    async def go() -> Any:
        return await ask(place.client, route, temperature=1)

    assert asyncio.run(go()).choices[0].message.content == "hello"
    assert place.asked == ["cold"]


def test_streams_and_guards_go_with_it() -> None:
    bodies: list[Any] = []

    def handler(request: Any) -> Any:
        bodies.append(__import__("json").loads(request.content))
        events = Chat.events(["write to ana@", "example.org"], [])
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Body(events, Chat.named))

    made = OpenAI(api_key="k", http_client=httpx2.Client(transport=httpx2.MockTransport(handler)))
    client = loopkit.wrap(made, guard=loopkit.Guard(output=[checks.pii()]))
    assert Chat.told(list(ask(client, router(), stream=True)))[0] == "write to [EMAIL]"
    assert bodies[0]["model"] == "large"


def test_the_next_is_asked_where_one_fails_and_the_last_ones_error_passes(recorded: MemorySink) -> None:
    place = Place(500, "hello")
    client = place.client.with_options(max_retries=0)
    route = router()
    assert ask(client, route).choices[0].message.content == "hello"
    assert place.asked == ["large", "small"]
    (call,) = [span for span in recorded.spans() if span.kind == "llm"]
    assert (call.variant, call.attributes["loopkit.router.answered_by"]) == ("large", "default")
    down = Place(500).client.with_options(max_retries=0)
    with pytest.raises(InternalServerError):
        ask(down, route)


def test_anthropics_clients_take_it_too() -> None:
    asked: list[Any] = []

    def handler(request: Any) -> Any:
        asked.append(__import__("json").loads(request.content)["model"])
        content = [{"type": "text", "text": "hello"}]
        usage = {"input_tokens": 1, "output_tokens": 1}
        body = {"id": "m", "type": "message", "role": "assistant", "model": "x", "content": content, "usage": usage}
        return httpx2.Response(200, json={**body, "stop_reason": "end_turn", "stop_sequence": None})

    made = Anthropic(api_key="k", http_client=httpx2.Client(transport=httpx2.MockTransport(handler)))
    loopkit.wrap(made)
    made.messages.create(model=router().model, max_tokens=9, messages=TURNS)
    assert asked == ["large"]


def test_a_policy_sees_the_words_and_the_log_has_them(clean_environment: Any) -> None:
    loopkit.init("svc")
    seen: list[str] = []

    class Sees:
        def odds(self, ask: policies.Ask) -> policies.Odds:
            seen.append(ask.text())
            return policies.Odds({"large": 0.5, "default": 0.5}, "seen")

    route = router(policy=Sees())
    ask(Place("hello").client, route)
    assert seen == ["which queue?"]
    loopkit.flush()
    (call,) = logged("ask")
    assert (call.inputs, call.propensity) == ({"input": "which queue?"}, 0.5)


def test_a_variant_without_a_model_gives_way_to_one_that_has(recorded: MemorySink) -> None:
    place = Place("hello")
    route = router(variants={"large": Variant(callable=f"{__name__}:ask")})
    assert ask(place.client, route).choices[0].message.content == "hello"
    assert place.asked == ["small"]
