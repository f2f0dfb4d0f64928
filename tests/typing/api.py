"""The documented calls under mypy and pyright in strict mode. Checked, never run."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator

from openai import AsyncOpenAI, OpenAI

import loopkit
from loopkit import checks, evaluators, frameworks, policies, tuners, web
from loopkit.testing import ScriptedProvider, recording

loopkit.init("svc", store=None, export=["http://127.0.0.1:4318/v1/traces"], content="local", sample=0.5)
client: OpenAI = loopkit.wrap(OpenAI())
aclient: AsyncOpenAI = loopkit.wrap(AsyncOpenAI(), guard=loopkit.Guard(output=[checks.secrets()]))


@loopkit.trace
def plain(ticket: str, times: int = 1) -> str:
    return ticket * times


@loopkit.trace(task="triage", kind="agent", tags=["a"], guard=loopkit.Guard(input=[checks.pii()]))
async def coloured(ticket: str) -> int:
    return len(ticket)


@loopkit.trace
def generator() -> Iterator[str]:
    yield "a"


@loopkit.trace(task="t")
async def async_generator() -> AsyncIterator[str]:
    yield "a"


text: str = plain("x", times=2)


async def use() -> int:
    async with loopkit.span("block", kind="retrieval") as s:
        s.set(output=["a"], hits=1)
    async for piece in async_generator():
        text.join(piece)
    await loopkit.aflush()
    return await coloured("x")


with loopkit.context(user_id="u", session_id="s", tags=["a"], order="4432"), loopkit.span("x") as handle:
    identity: str = handle.id

event = loopkit.feedback(identity, "helpful", True, by="ana")
if event is not None:
    loopkit.retract(event)
loopkit.feedback(identity, correction={"queue": "cards"})

small = loopkit.Variant(model="m", prompt="{ticket}")
router = loopkit.Router("triage", default=small, client=client, policy=policies.weights({"v1": 1}), sticky_by="session")
share: float = router.choose(ticket="x").propensity


@loopkit.evaluator
def right(output: str, expected: str) -> bool:
    return output == expected


dataset: loopkit.Dataset = loopkit.Dataset.create("triage", golden=0.1)
tuned: loopkit.Variant = loopkit.tune(small, dataset, tuners.FewShot(per_label=2))
for comparison in loopkit.evaluate(
    "triage", {"current": small, "tuned": tuned}, dataset=dataset, evaluators=[right, evaluators.exact, "contains"]
).comparisons:
    sentence: str = comparison.sentence
registry = loopkit.Registry(loopkit.open_store())
registry.promote("triage", registry.add("triage", small), reason="first")
rollout = loopkit.Rollout.start("triage", "candidate", share=0.5)
action: str = rollout.step().action
page: str = loopkit.report("triage")

loopkit.instrument("openai", "langchain")
loopkit.uninstrument()
told: str = loopkit.record_model_call(
    provider="acme", model="m", input="x", output=[{"role": "assistant", "content": "y"}], usage={"input_tokens": 1}
).id


@loopkit.trace(kind="tool", redact={"card": len}, exclude=["token"], content="off")
def pay(card: str, token: str) -> bool:
    return bool(card)


paid: bool = loopkit.carried(pay)("c", token="t")
with loopkit.context(content="local", user_id="u"), loopkit.span("x", content="off"):
    headers: dict[str, str] = web.outgoing_headers("https://api.internal", baggage_to=[".internal"])
loopkit.annotate(identity, tags=["a"], metadata={"k": 1})
loopkit.set_price("acme", "m", input=1, output=2.5)
dollars: float | None = loopkit.cost(loopkit.open_store().spans()[0])
forgotten: int = loopkit.forget("u", store="elsewhere").spans
got: int = loopkit.import_traces("langfuse", "export.json", task="triage").spans
picture: bytes = loopkit.open_store().media("ni:///sha-256;x")
pruned: int = loopkit.open_store().prune(days=7, bytes=1 << 20).spans
logging.getLogger().addFilter(loopkit.LogIds())
handler_of_langchain = frameworks.langchain_handler()

with recording() as recorded:
    spans: list[loopkit.Span] = recorded.spans()
provider = ScriptedProvider(["a"])
