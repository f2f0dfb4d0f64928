"""A decorated function, small dict in and 500 characters out, against the same span written by hand."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Coroutine

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import loopkit
from benchmarks.measure import Case, against, rounds
from benchmarks.receiver import receiver
from loopkit import _assemble
from loopkit.config import Destination, Settings, settings

ANSWER = "x" * 500
CALLS = 2000
TICKET = {"subject": "card", "body": "declined"}


def work(ticket: dict[str, str]) -> str:
    """What the application does."""
    return ANSWER


def by_hand(provider: TracerProvider) -> Callable[[], object]:
    """The same attributes and content as loopkit's span, by the OpenTelemetry SDK."""
    tracer = provider.get_tracer("benchmark")

    def call() -> object:
        inputs = {"ticket": {"subject": "card", "body": "declined"}}
        with tracer.start_as_current_span("work") as span:
            span.set_attributes(
                {
                    "gen_ai.operation.name": "invoke_workflow",
                    "gen_ai.workflow.name": "work",
                    "openinference.span.kind": "CHAIN",
                    "input.value": json.dumps(inputs),
                    "input.mime_type": "application/json",
                }
            )
            result = work(inputs["ticket"])
            span.set_attributes({"output.value": json.dumps(result), "output.mime_type": "application/json"})
        return result

    return call


def batching(endpoint: str) -> tuple[TracerProvider, BatchSpanProcessor]:
    """The OpenTelemetry SDK as its documentation sets it up."""
    provider = TracerProvider(shutdown_on_exit=False)
    processor = BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint), max_queue_size=CALLS * 50)
    provider.add_span_processor(processor)
    return provider, processor


def fresh(**given: object) -> Settings:
    """Settings with a home directory of their own."""
    return settings("bench", environ={"LOOPKIT_HOME": tempfile.mkdtemp()}, **given)  # type: ignore[arg-type]


def recorded(made: Settings, call: Callable[[], object]) -> Case:
    """With a recorder of these settings, which is there and warm when the round begins."""

    def start() -> None:
        _assemble.start(made)
        call()
        loopkit.flush(10)

    return Case(call, start=start, settle=lambda: loopkit.shutdown(30))


def driven(function: Callable[..., Coroutine[object, object, object]], *args: object) -> None:
    """Run a coroutine that never waits, without an event loop's own cost."""
    with contextlib.suppress(StopIteration):
        function(*args).send(None)


async def awork(ticket: dict[str, str]) -> str:
    """The same in the other colour."""
    return ANSWER


def rows() -> list[dict[str, object]]:
    """The comparison."""
    traced, atraced = loopkit.trace(work), loopkit.trace(awork)
    with receiver() as endpoint:
        provider, processor = batching(endpoint)
        to_collector = [Destination(endpoint=endpoint, content=True)]
        both = fresh(export=to_collector)
        costs = rounds(
            {
                "bare": Case(lambda: work(TICKET)),
                "otel-manual": Case(by_hand(provider), settle=processor.force_flush),
                "loopkit, OTLP only": recorded(fresh(store=None, export=to_collector), lambda: traced(TICKET)),
                "loopkit, OTLP and store": recorded(both, lambda: traced(TICKET)),
                "loopkit, store only": recorded(fresh(), lambda: traced(TICKET)),
                "loopkit, OTLP and store, async": recorded(both, lambda: driven(atraced, TICKET)),
                "loopkit, sampled out": recorded(fresh(sample=0.0), lambda: traced(TICKET)),
                "loopkit off": Case(lambda: traced(TICKET), start=loopkit.shutdown),
            },
            calls=CALLS,
        )
        provider.shutdown()
    return against(costs, "otel-manual")
