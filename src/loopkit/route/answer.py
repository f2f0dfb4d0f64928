"""Serving one variant: the plan of what to call, written once and driven in both colours."""

from __future__ import annotations

import inspect
import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib import import_module
from typing import Any

from loopkit import _host
from loopkit.capture.decorator import live_span, span
from loopkit.capture.dialects._content import mapping
from loopkit.capture.dialects._protocol import Conversation
from loopkit.capture.sdks.known import sdk_of
from loopkit.errors import InvalidInput
from loopkit.prompts.nearest import NearestIndex, text_of
from loopkit.prompts.template import render
from loopkit.route.deployments import LONGEST, Deployment, Pool, Retries, is_the_places, is_transient, status_of
from loopkit.types import Example, Variant
from loopkit.wire import names

Examples = Callable[[str], Sequence[Example]]
"""From a dataset's id to its training examples."""

_WAITS = 3
"""Attempts before which one waits for a deployment that is left alone."""
Plan = Generator[Any, Any, "Answer"]
"""Yields what to call (perhaps awaitable), or `Wait`; receives what it gave, or what it raised; returns the answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a variant gave. A callable variant may return one itself, to say how sure it is."""

    output: Any
    confidence: float | None = None
    """Between 0 and 1; None where the variant can't say."""


class Kitchen:
    """What it takes to serve variants: a client for models, and where examples lie."""

    def __init__(
        self, client: Any = None, examples: Examples | None = None, *, pools: Mapping[str, Pool] | None = None,
        retries: Retries | None = None,
    ) -> None:  # fmt: skip
        self._pools = pools or {"": Pool([Deployment(client=client, name="client")])}
        self._retries = retries or Retries(None)
        self._examples = examples
        self._indexes: dict[tuple[Any, ...], tuple[NearestIndex, Sequence[Example]]] = {}

    def request(self, variant: Variant, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call that serves a model variant."""
        dialect = _dialect_of(self._pool(variant).clients[0])
        return dialect.render(variant, self.messages(variant, inputs))

    def health(self) -> dict[str, str]:
        """Of each deployment: "ok", or why it is being left alone."""
        return {name: state for pool in self._pools.values() for name, state in pool.health().items()}

    def serve(self, variant: Variant, inputs: Mapping[str, Any]) -> Answer:
        """The variant's answer to these inputs. The provider's exceptions pass untouched."""
        plan = self._plan(variant, inputs)
        try:
            step = next(plan)
            while True:
                try:
                    given = _made(step)
                except Exception as error:  # noqa: BLE001  # the plan decides what becomes of it
                    step = plan.throw(error)
                else:
                    step = plan.send(given)
        except StopIteration as done:
            answer: Answer = done.value
            return answer

    async def aserve(self, variant: Variant, inputs: Mapping[str, Any]) -> Answer:
        """`serve`, awaiting what is awaitable."""
        plan = self._plan(variant, inputs)
        try:
            step = next(plan)
            while True:
                try:
                    given = await _amade(step)
                except Exception as error:  # noqa: BLE001  # the plan decides what becomes of it
                    step = plan.throw(error)
                else:
                    step = plan.send(given)
        except StopIteration as done:
            answer: Answer = done.value
            return answer

    def messages(self, variant: Variant, inputs: Mapping[str, Any]) -> list[dict[str, str]]:
        """The turns a model variant sends: system, demonstrations as earlier turns, then the question."""
        turns = [] if variant.system is None else [{"role": "system", "content": render(variant.system, inputs)}]
        shown = list(variant.demonstrations)
        if variant.retriever is not None:
            # the most similar one last, next to the question
            shown += [example for example, _ in reversed(self.nearest(variant, inputs))]
        for example in shown:
            turns.append({"role": "user", "content": _question(variant, example.input)})
            turns.append({"role": "assistant", "content": str(example.expected)})
        turns.append({"role": "user", "content": _question(variant, inputs)})
        return turns

    def nearest(self, variant: Variant, inputs: Mapping[str, Any]) -> list[tuple[Example, float]]:
        """The variant's nearest training examples with their similarity, best first."""
        assert variant.retriever is not None
        dataset, fields = str(variant.retriever["dataset"]), tuple(variant.retriever.get("fields", ()))
        index, examples = self._index(dataset, fields)
        found = index.nearest(text_of(inputs, fields), int(variant.retriever.get("k", 4)))
        return [(examples[position], similarity) for position, similarity in found]

    def _plan(self, variant: Variant, inputs: Mapping[str, Any]) -> Plan:
        if variant.stages:
            return (yield from self._cascade(variant, inputs))
        if variant.callable is not None:
            extra: dict[str, Any] = dict(variant.parameters)
            if variant.retriever is not None:
                extra["nearest"] = self.nearest(variant, inputs)
            function = resolve_callable(variant.callable)
            given = yield lambda: function(**inputs, **extra)
            return given if isinstance(given, Answer) else Answer(given)
        if variant.model is None:
            raise InvalidInput("a variant has neither model, callable nor stages: nothing can serve it")
        return (yield from self._sure(variant, inputs))

    def _sure(self, variant: Variant, inputs: Mapping[str, Any]) -> Plan:
        """The model's answer, and how sure it is."""
        messages, how = self.messages(variant, inputs), variant.confidence
        if how == "agreement":
            said: list[str] = []
            for _ in range(variant.samples):
                answer = yield from self._asked(variant, messages)
                said.append(answer.output)
            most, count = Counter(each.strip() for each in said).most_common(1)[0]
            return Answer(next(each for each in said if each.strip() == most), count / len(said))
        answer = yield from self._asked(variant, messages)
        if how is None or how == "logprobs":
            return answer
        judge = resolve_callable(how)
        found = yield partial(judge, answer.output, dict(inputs))
        return Answer(answer.output, _number(found))

    def _asked(self, variant: Variant, messages: Sequence[Mapping[str, str]]) -> Plan:
        """The model's answer, from whoever gives one."""
        pool, began, tried = self._pool(variant), time.monotonic(), set[str]()
        failure: Exception | None = None
        self._retries.begun()
        for attempt in itertools.count(1):
            deployment = pool.take(tried) or pool.take()
            if deployment is None and self._retries.may_wait and attempt <= _WAITS and pool.rests() <= LONGEST:
                yield Wait(pool.rests() + 0.01)
                deployment = pool.take()
            if deployment is None:
                raise failure or pool.none_left()
            dialect, client = _dialect_of(deployment.client), deployment.client
            called = replace(variant, model=deployment.models.get(variant.model or "", variant.model))
            arguments = dialect.render(called, messages)
            if variant.confidence == "logprobs":
                arguments = {"logprobs": True, **arguments}
            try:
                response = yield partial(dialect.send, client, arguments)
            except Exception as error:
                tried.add(deployment.name)
                is_elsewhere = pool.has_another(tried)
                if not is_transient(error) and not is_the_places(error):
                    if status_of(error) is not None:  # it has answered
                        pool.worked(deployment)
                    raise
                pool.failed(deployment, error)
                if is_the_places(error):
                    seconds = 0.0 if is_elsewhere else None
                else:
                    seconds = self._retries.wait(error, attempt, began, elsewhere=is_elsewhere)
                if seconds is None:
                    raise
                failure = error
                if seconds:
                    yield Wait(seconds)
                continue
            pool.worked(deployment)
            if attempt > 1 or len(pool.clients) > 1:
                _tell(deployment, attempt)
            return Answer(dialect.text(response), _likelihood(dialect, response) if "logprobs" in arguments else None)
        raise AssertionError("attempts are counted without an end")

    def _pool(self, variant: Variant) -> Pool:
        name = variant.client or next(iter(self._pools))
        if name not in self._pools:
            raise InvalidInput(f"a variant is served by the client {name!r}; this router's are {sorted(self._pools)}")
        return self._pools[name]

    def _cascade(self, variant: Variant, inputs: Mapping[str, Any]) -> Plan:
        """Stage after stage until one is confident; the last one's word stands. A stage that fails, or whose answer a
        guard stops, isn't."""
        last = len(variant.stages) - 1
        for number, stage in enumerate(variant.stages[:last]):
            why, confidence = "not sure", None
            try:
                answer = yield from self._plan(stage, inputs)
            except InvalidInput:  # the cascade itself is wrong
                raise
            except Exception as error:  # noqa: BLE001  # the next stage is there for that
                why = type(error).__name__
            else:
                confidence = answer.confidence
                if confidence is not None and confidence >= variant.threshold:
                    return answer
            with span("escalate", kind="route") as mark:
                mark.set(stage=number, confidence=confidence, threshold=variant.threshold, why=why)
        return (yield from self._plan(variant.stages[last], inputs))

    def _index(self, dataset: str, fields: tuple[str, ...]) -> tuple[NearestIndex, Sequence[Example]]:
        key = (dataset, fields)
        if key not in self._indexes:
            if self._examples is None:
                raise InvalidInput(
                    f"a variant retrieves from dataset {dataset!r}, but no registry is at hand: call init()"
                )
            examples = self._examples(dataset)
            self._indexes[key] = (NearestIndex([text_of(e.input, fields) for e in examples]), examples)
        return self._indexes[key]


@dataclass(frozen=True, slots=True)
class Wait:
    """Yielded by a plan that goes on after so many seconds."""

    seconds: float


def _made(step: Any) -> Any:
    if isinstance(step, Wait):
        return time.sleep(step.seconds)
    given = step()
    if inspect.isawaitable(given):
        _close(given)
        raise InvalidInput("the client or callable is async: use acall(), or give a sync client")
    return given


async def _amade(step: Any) -> Any:
    if isinstance(step, Wait):
        import asyncio  # takes long, and whoever awaits this has it

        return await asyncio.sleep(step.seconds)
    given = step()
    return await given if inspect.isawaitable(given) else given


def _dialect_of(client: Any) -> Conversation:
    """How a client is spoken to."""
    sdk = None if client is None else sdk_of(client)
    if sdk is None or sdk.conversation is None:
        raise InvalidInput(
            f"a variant with a model needs a client that wrap() knows, of openai, say; this one is {client!r}"
        )
    return sdk.conversation


def _likelihood(dialect: Any, response: Any) -> float | None:
    """The geometric mean of the tokens' probabilities; None where the provider doesn't give them."""
    dump = getattr(response, "model_dump", None)
    messages = dialect.answered(mapping(response if dump is None else dump(warnings=False)))
    logprobs = [each for message in messages for each in message.logprobs]
    return math.exp(math.fsum(logprobs) / len(logprobs)) if logprobs else None


def _number(found: Any) -> float:
    """What a judge of answers gives, as a confidence."""
    value = getattr(found, "value", found)
    if not isinstance(value, (bool, int, float)):
        raise InvalidInput(f"the confidence of an answer is {found!r}: give a number from 0 to 1, or a yes or no")
    return float(value)


def _tell(deployment: Deployment, attempts: int) -> None:
    """Write down who answered, and how many had to be asked."""
    with _host.Shielded("recording an attempt"):
        live = live_span()
        if live is not None:
            live.set_attributes({names.ROUTE_DEPLOYMENT: deployment.name, names.ROUTE_ATTEMPTS: attempts})


def check_variant(variant: Variant) -> Variant:
    """The variant, if it can be served at all. Raises `InvalidInput`."""
    if not isinstance(variant, Variant):
        raise InvalidInput(f"{variant!r} is no Variant: make one with loopkit.Variant(model=..., prompt=...)")
    shapes = [name for name in ("model", "callable", "stages") if getattr(variant, name)]
    if len(shapes) != 1:
        raise InvalidInput(f"a variant has one of model, callable and stages; this one has {shapes or 'none'}")
    if variant.model is not None and not variant.prompt:
        raise InvalidInput(f"the variant with model {variant.model!r} has no prompt: give prompt='... {{input}} ...'")
    if variant.callable is not None:
        resolve_callable(variant.callable)
    if variant.confidence not in (None, "logprobs", "agreement"):
        resolve_callable(str(variant.confidence))
    if variant.confidence is not None and variant.model is None:
        raise InvalidInput("confidence is of models' answers: a callable gives loopkit.Answer(output, confidence)")
    if not isinstance(variant.samples, int) or variant.samples < 2:
        raise InvalidInput(f"samples is {variant.samples!r}: agreement takes two answers or more")
    for stage in variant.stages:
        check_variant(stage)
    return variant


@lru_cache(maxsize=256)
def resolve_callable(path: str) -> Callable[..., Any]:
    """The function named `module:function`. Raises `InvalidInput` where it isn't there."""
    module, colon, name = path.partition(":")
    try:
        found = import_module(module) if colon else None
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise InvalidInput(f"the callable {path!r} can't be found ({error}): write it as module:function") from error
    if not callable(found):
        raise InvalidInput(f"{path!r} is a {type(found).__name__}, not a function: write it as module:function")
    return found


def _close(awaitable: Any) -> None:
    """A coroutine that nobody will await must not warn about it."""
    close = getattr(awaitable, "close", None)
    if close is not None:
        close()


def _question(variant: Variant, inputs: Mapping[str, Any]) -> str:
    return render(variant.prompt or "", inputs)
