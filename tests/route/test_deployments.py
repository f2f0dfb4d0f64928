"""Several clients behind one router: who is asked, who is left alone, and what is said when nobody is left."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import anthropic
import httpx2
import pytest
import tenacity
from anthropic import Anthropic
from hypothesis import given
from hypothesis import strategies as st
from openai import (
    APIConnectionError,
    AsyncOpenAI,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    OpenAI,
    RateLimitError,
)

import loopkit
from loopkit.capture.breaker import Breaker
from loopkit.errors import InvalidInput, NoDeployment
from loopkit.route.deployments import Deployment, Pool, is_transient, pools_of, retry_after
from loopkit.testing import MemorySink, chat_completion
from loopkit.types import Variant
from tests.providers.contract import ROWS

SMALL = Variant(model="small", prompt="{q}")
LARGE = Variant(model="large", prompt="{q}")
NOW = tenacity.Retrying(
    stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_none(), retry=tenacity.retry_if_exception(is_transient)
)
"""As by default, without the waits."""


class Place:
    """A provider at one place: it answers as it is told to, and knows what it was asked."""

    def __init__(self, *answers: Any, kind: Any = OpenAI) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

        def handler(request: Any) -> Any:
            self.asked.append(__import__("json").loads(request.content)["model"])
            told = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if isinstance(told, Exception):
                raise told
            if isinstance(told, str):
                return httpx2.Response(200, json=chat_completion(told))
            status, headers = told if isinstance(told, tuple) else (told, {})
            return httpx2.Response(status, headers=headers, json={"error": {"message": f"status {status}"}})

        web = httpx2.AsyncClient if kind is AsyncOpenAI else httpx2.Client
        self.client = kind(api_key="k", http_client=web(transport=httpx2.MockTransport(handler)))
        loopkit.wrap(self.client)


def router(client: Any, **given: Any) -> loopkit.Router:
    return loopkit.Router("ask", default=SMALL, client=client, **{"retry": NOW, **given})


def test_another_place_is_asked_where_one_fails(recorded: MemorySink) -> None:
    broken, fine = Place(503), Place("hello")
    route = router(
        [Deployment(client=broken.client, name="eu", weight=1000), Deployment(client=fine.client, name="us")]
    )
    assert route.call(q="x") == "hello"
    assert (len(broken.asked), len(fine.asked)) == (1, 1)
    (task,) = [span for span in recorded.spans() if span.kind == "task"]
    assert task.attributes["loopkit.router.deployment"] == "us"
    assert task.attributes["loopkit.router.attempts"] == 2
    assert [span.status for span in recorded.spans() if span.kind == "llm"] == ["error", "ok"]


def test_async_too() -> None:
    broken, fine = Place(529, kind=AsyncOpenAI), Place("hello", kind=AsyncOpenAI)
    route = router([Deployment(client=broken.client, weight=1000), fine.client])
    assert asyncio.run(route.acall(q="x")) == "hello"
    with pytest.raises(InvalidInput, match="async"):
        router(fine.client).call(q="x")


def test_the_sdks_own_retries_dont_multiply_ours() -> None:
    place = Place(500)
    with pytest.raises(InternalServerError):
        router(place.client).call(q="x")
    assert len(place.asked) == 3
    assert place.client.max_retries == 2


@pytest.mark.parametrize("failure", [httpx2.ConnectError("gone"), httpx2.ReadTimeout("slow")])
def test_lost_connections_and_timeouts_are_tried_again(failure: Exception) -> None:
    place = Place(failure, failure, "hello")
    assert router(place.client).call(q="x") == "hello"
    with pytest.raises(APIConnectionError):
        router(Place(failure).client, retry=None).call(q="x")


def test_what_is_the_callers_fault_is_his_at_once() -> None:
    place, other = Place(400), Place("hello")
    with pytest.raises(BadRequestError):
        router([Deployment(client=place.client, weight=1000), other.client]).call(q="x")
    assert (len(place.asked), len(other.asked)) == (1, 0)


def test_who_keeps_failing_is_left_alone_and_then_tried_once() -> None:
    now = [0.0]
    pool = Pool([Deployment(client=1, name="a"), Deployment(client=2, name="b")], now=lambda: now[0], draw=lambda: 0.0)
    for _ in range(5):
        taken = pool.take()
        assert taken is not None
        assert taken.name == "a"
        pool.failed(taken, RuntimeError("down"))
    second = pool.take()
    assert second is not None
    assert second.name == "b"
    assert pool.health() == {"a": "left alone after RuntimeError: down", "b": "ok"}
    now[0] = 31.0
    tried = pool.take()
    assert tried is not None
    assert tried.name == "a"
    after = pool.take()  # the one trial is under way
    assert after is not None
    assert after.name == "b"
    pool.worked(tried)
    assert pool.health() == {"a": "ok", "b": "ok"}


def test_nobody_left_is_said_with_what_each_did_last() -> None:
    place, spare = Place(500), Place(503)
    route = router([Deployment(client=place.client, name="eu"), Deployment(client=spare.client, name="us")])
    for _ in range(4):
        with pytest.raises((InternalServerError, NoDeployment)):
            route.call(q="x")
    with pytest.raises(NoDeployment, match=r"eu: left alone after InternalServerError.*us: left alone after Internal"):
        route.call(q="x")
    assert len(place.asked) <= 6
    assert set(route.health()) == {"eu", "us"}


def test_whoever_says_when_to_come_again_is_left_alone_until_then() -> None:
    busy, fine = Place((429, {"retry-after": "60"})), Place("hello")
    route = router([Deployment(client=busy.client, weight=1000), fine.client])
    assert [route.call(q="x") for _ in range(5)] == ["hello"] * 5
    assert len(busy.asked) == 1
    alone = Place((429, {"retry-after": "60"}), "late")
    with pytest.raises(RateLimitError):  # nobody waits for a minute
        router(alone.client).call(q="x")


def test_calls_at_the_same_time_wait_for_a_busy_place_that_says_how_long() -> None:
    place = Place((429, {"retry-after-ms": "300"}), "hello")
    route = router(place.client)
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(route.call(q="x"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["hello"] * 6


def test_nobody_waits_for_who_keeps_failing_or_where_there_is_no_retry() -> None:
    busy, spare = Place((429, {"retry-after": "3"})), Place("spare")
    route = loopkit.Router(
        "ask", default=SMALL, client={"a": busy.client, "b": spare.client}, retry=None, fallbacks=["b"],
        variants={"b": Variant(model="b", prompt="{q}", client="b")},
    )  # fmt: skip
    began = time.monotonic()
    assert [route.call(q="x") for _ in range(3)] == ["spare"] * 3
    assert time.monotonic() - began < 3
    now = [0.0]
    pool = Pool([Deployment(client=1, name="a")], now=lambda: now[0])
    for _ in range(5):
        pool.failed(Deployment(client=1, name="a"), RuntimeError("down"))
    now[0] = 29.0
    assert pool.rests() == math.inf


def test_what_a_provider_said_goes_before_that_nobody_is_left() -> None:
    place = Place((429, {"retry-after": "120"}))
    with pytest.raises(RateLimitError):
        router(place.client).call(q="x")
    route = router(place.client)
    with contextlib.suppress(RateLimitError):
        route.call(q="x")
    with pytest.raises(NoDeployment, match="RateLimitError"):
        route.call(q="x")


def test_a_key_that_isnt_let_in_is_left_alone_and_another_is_asked() -> None:
    shut, fine = Place(401), Place("hello")
    route = router([Deployment(client=shut.client, weight=1000), fine.client])
    assert [route.call(q="x") for _ in range(8)] == ["hello"] * 8
    assert len(shut.asked) == 5
    alone = Place(401)
    with pytest.raises(AuthenticationError):
        router(alone.client).call(q="x")
    assert len(alone.asked) == 1


def test_a_place_that_answers_no_is_well() -> None:
    now = [0.0]
    breaker = Breaker(2, 30.0, now=lambda: now[0])
    breaker.rest(200)
    breaker.rest(1)
    breaker.worked()
    breaker.failed()
    now[0] = 150.0
    assert breaker.is_open()
    now[0] = 201.0
    assert not breaker.is_open()


def test_fallbacks_are_asked_in_turn_across_providers(recorded: MemorySink) -> None:
    row = ROWS[3]
    claude = loopkit.wrap(row.make("sync", row.answer))
    assert isinstance(claude, Anthropic)
    down = Place(500)
    route = loopkit.Router(
        "ask", default=SMALL, retry=None, client={"openai": down.client, "anthropic": claude},
        variants={"large": LARGE, "claude": Variant(model="claude", prompt="{q}", client="anthropic")},
        fallbacks=["large", "claude"],
    )  # fmt: skip
    assert route.call(q="x") == "Hello there!"
    assert down.asked == ["small", "large"]
    (task,) = [span for span in recorded.spans() if span.kind == "task"]
    assert (task.variant, task.attributes["loopkit.router.answered_by"]) == ("default", "claude")
    assert task.attributes["loopkit.router.fallback"] is True
    with pytest.raises(
        InvalidInput, match=r"served by the client 'nobody'; this router's are \['anthropic', 'openai'\]"
    ):
        loopkit.Router("ask", default=Variant(model="m", prompt="{q}", client="nobody"),
                       client={"openai": down.client, "anthropic": claude}).call(q="x")  # fmt: skip


def test_a_place_may_call_a_model_otherwise() -> None:
    azure = Place("hello")
    route = router(Deployment(client=azure.client, models={"small": "our-small-eu"}))
    assert (route.call(q="x"), azure.asked) == ("hello", ["our-small-eu"])


def test_a_provider_in_need_isnt_flooded() -> None:
    """Ten attempts beside the first, and one more for five calls."""
    places = [Place(500) for _ in range(40)]
    route = router([place.client for place in places])
    for _ in range(20):
        with pytest.raises((InternalServerError, NoDeployment)):
            route.call(q="x")
    asked = sum(len(place.asked) for place in places)
    assert 30 <= asked <= 20 + 10 + 20 // 5


def test_a_policy_of_tenacitys_own_is_followed() -> None:
    place = Place(500, 500, 500, 500, "hello")
    patient = tenacity.Retrying(stop=tenacity.stop_after_attempt(6), wait=tenacity.wait_none())
    route = router([place.client], retry=patient)
    with pytest.raises((InternalServerError, NoDeployment)):
        router([Place(500).client], retry=tenacity.Retrying(stop=tenacity.stop_after_attempt(1))).call(q="x")
    assert route.call(q="x") == "hello"


def test_threads_share_what_is_known_of_places() -> None:
    fine = [Place("hello") for _ in range(3)]
    broken = Place(500)
    route = router([*(place.client for place in fine), broken.client])
    answers: list[str] = []

    def work() -> None:
        answers.extend(route.call(q="x") for _ in range(25))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["hello"] * 200
    assert len(broken.asked) <= 5 + 8


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=4), st.integers(0, 1000))
def test_places_are_asked_by_their_weights(weights: list[float], seed: int) -> None:
    places = iter([(at + 0.5) / 300 for at in range(300)])
    made = [Deployment(client=number, name=str(number), weight=weight) for number, weight in enumerate(weights)]
    pool = Pool(made, draw=lambda: next(places))
    taken = Counter(one.name for _ in range(300) if (one := pool.take()) is not None)
    for each in made:
        assert taken[each.name] / 300 == pytest.approx(each.weight / sum(weights), abs=0.02)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: pools_of([]), "give one or more"),
        (lambda: pools_of({"a": [Deployment(client=1, weight=0)]}), "weights above 0"),
        (lambda: pools_of([Deployment(client=1, name="eu"), Deployment(client=2, name="eu")]), "have the name 'eu'"),
        (lambda: router(Place("x").client, retry=3), "retry is 3: give tenacity.Retrying"),
        (lambda: router(Place("x").client, fallbacks="large"), "fallbacks is 'large': give a list"),
    ],
)
def test_clients_that_are_none_are_refused(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        make()


class _Told(Exception):
    def __init__(self, status: Any = None, **headers: str) -> None:
        self.status_code = status
        self.response = httpx2.Response(500, headers={name.replace("_", "-"): text for name, text in headers.items()})


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (_Told(503), True),
        (_Told(429), True),
        (_Told(404), False),
        (_Told(401), False),
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (ValueError("x"), False),
        (anthropic.APIConnectionError(request=httpx2.Request("GET", "http://x")), True),
        (type("ClientError", (Exception,), {"response": {"ResponseMetadata": {"HTTPStatusCode": 503}}})(), True),
        (type("ClientError", (Exception,), {"response": {"ResponseMetadata": {"HTTPStatusCode": 400}}})(), False),
        (type("APIError", (Exception,), {"code": 503})(), True),
    ],
)
def test_what_may_go_well_another_time(error: Exception, is_one: bool) -> None:
    assert is_transient(error) is is_one


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "3"}, 3.0),
        ({"retry_after_ms": "1500"}, 1.5),
        ({"retry_after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "inf"}, None),
        ({"retry_after": "Fri, 31 Dec 99999 23:59:59 GMT"}, None),
        ({"retry_after": "Fri, 31 Dec 999999999999999999 23:59:59 GMT"}, None),
        ({"retry_after": "-5"}, 0.0),
        ({}, None),
    ],
)
def test_when_to_come_again(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(_Told(429, **headers)) == seconds


def test_a_breaker_rests_when_told_to() -> None:
    now = [0.0]
    breaker = Breaker(5, 30.0, now=lambda: now[0])
    breaker.rest(10)
    assert (breaker.is_open(), breaker.may_be_asked()) == (True, False)
    now[0] = 10.5
    assert breaker.may_be_asked()
    assert not breaker.is_open()
    breaker.worked()
    assert not breaker.is_open()
