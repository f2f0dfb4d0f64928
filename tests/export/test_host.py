"""The application's own OpenTelemetry: real processors, by others, take our spans as they take their own.

A tracer provider is set once in a process, so every row is a process. Whatever the row sets up exports over OTLP to a
receiver here, by the official encoder, which asks for everything that a span of the SDK has.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from loopkit.export.host import place_of
from tests.export.test_delivery import Collector

HOSTS = {
    "batch processor": """
        provider = TracerProvider(resource=Resource.create({"service.name": "host"}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=ENDPOINT)))
        trace.set_tracer_provider(provider)
    """,
    "simple processor": """
        provider = TracerProvider(resource=Resource.create({"service.name": "host"}))
        provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=ENDPOINT)))
        trace.set_tracer_provider(provider)
    """,
    "concurrent processors": """
        provider = TracerProvider(
            resource=Resource.create({"service.name": "host"}),
            active_span_processor=ConcurrentMultiSpanProcessor(num_threads=2),
            shutdown_on_exit=False,  # its threads are gone by then, and it says so with a traceback
        )
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=ENDPOINT)))
        provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=open(os.devnull, "w"))))
        trace.set_tracer_provider(provider)
    """,
    "phoenix": """
        from phoenix.otel import register
        register(
            endpoint=ENDPOINT, protocol="http/protobuf", batch=True, verbose=False, set_global_tracer_provider=True,
            resource=Resource.create({"service.name": "host"}),
        )
    """,
    "logfire": """
        import logfire
        logfire.configure(service_name="host", send_to_logfire=False, console=False)  # it reads OTEL_* by itself
    """,
    "langfuse": """
        from langfuse._client.span_processor import LangfuseSpanProcessor
        exporter = OTLPSpanExporter(endpoint=ENDPOINT)
        processor = LangfuseSpanProcessor(
            public_key="pk", secret_key="sk", base_url="http://127.0.0.1:9", span_exporter=exporter,
            should_export_span=lambda span: True,
        )
        provider = TracerProvider(resource=Resource.create({"service.name": "host"}))
        provider.add_span_processor(processor)
        trace.set_tracer_provider(provider)
    """,
}

PREAMBLE = """
import os, sys
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ConcurrentMultiSpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
import loopkit
ENDPOINT = sys.argv[1]
"""

APPLICATION = """
tracer = trace.get_tracer("app")
with tracer.start_as_current_span("outer"):
    with loopkit.span("ours", task="t", input="words of the user") as ours:
        with tracer.start_as_current_span("inner"):
            pass
        ours.set(tags=["a", "b"], output={"n": 1})
try:
    with loopkit.span("failing"):
        raise ValueError("words of the user")
except ValueError:
    pass
loopkit.flush()
trace.get_tracer_provider().force_flush()
print(ours.id)
"""


def run(collector: Collector, *parts: str, **environment: str) -> str:
    """The parts as one program; what it printed."""
    code = PREAMBLE + "".join(map(textwrap.dedent, parts))
    done = subprocess.run(
        [sys.executable, "-c", code, collector.endpoint], env={**os.environ, **environment}, text=True,
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout.strip()


def arrived(collector: Collector) -> dict[str, list[dict[str, Any]]]:
    """The spans by name, each with what the tests ask of it."""
    found: dict[str, list[dict[str, Any]]] = {}
    for body in collector.accepted:
        for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = {item.key: item.value.string_value for item in resource_spans.resource.attributes}
            for scope_spans in resource_spans.scope_spans:
                for span in scope_spans.spans:
                    found.setdefault(span.name, []).append(
                        {
                            "scope": scope_spans.scope.name, "service": resource.get("service.name"), "span": span,
                            "attributes": {item.key: item.value for item in span.attributes},
                        }
                    )  # fmt: skip
    return found


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.stop()


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("first", ["host", "loopkit"])
def test_its_processors_get_our_spans_once_and_whole(host: str, first: str, collector: Collector) -> None:
    init = '\nloopkit.init("svc", strict=True)\n'
    parts = (HOSTS[host], init) if first == "host" else (init, HOSTS[host])
    id = run(collector, *parts, APPLICATION, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=collector.endpoint)
    spans = arrived(collector)
    assert {name: len(found) for name, found in spans.items()} == {"outer": 1, "ours": 1, "inner": 1, "failing": 1}
    outer, ours, inner, failing = (spans[name][0] for name in ("outer", "ours", "inner", "failing"))
    assert (ours["scope"], ours["service"]) == ("loopkit", "host")
    assert f"{ours['span'].trace_id.hex()}-{ours['span'].span_id.hex()}" == id
    assert ours["span"].parent_span_id == outer["span"].span_id
    assert inner["span"].parent_span_id == ours["span"].span_id
    assert ours["span"].trace_id == outer["span"].trace_id == inner["span"].trace_id
    assert outer["span"].start_time_unix_nano <= ours["span"].start_time_unix_nano
    assert ours["span"].end_time_unix_nano <= outer["span"].end_time_unix_nano
    assert ours["attributes"]["loopkit.task"].string_value == "t"
    assert [item.string_value for item in ours["attributes"]["tag.tags"].array_value.values] == ["a", "b"]
    assert ours["span"].status.code == 0
    assert failing["span"].status.code == 2
    assert failing["attributes"]["error.type"].string_value == "ValueError"
    assert b"words of the user" not in b"".join(collector.bodies)


def test_the_console_exporter_prints_our_spans(collector: Collector) -> None:
    console = """
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
        trace.set_tracer_provider(provider)
        loopkit.init("svc", strict=True)
    """
    printed = run(collector, console, 'with loopkit.span("ours", task="t"): pass\nloopkit.shutdown()\n')
    told = json.loads(printed)
    assert (told["name"], told["attributes"]["loopkit.task"], told["status"]) == ("ours", "t", {"status_code": "UNSET"})


def test_content_goes_along_when_it_is_asked_for(collector: Collector) -> None:
    init = 'loopkit.init("svc", content="export")\n'
    run(collector, HOSTS["batch processor"], init, APPLICATION)
    assert arrived(collector)["ours"][0]["attributes"]["input.value"].string_value == "words of the user"


SAMPLED_OUT = """
provider = TracerProvider(sampler=ParentBased(ALWAYS_OFF))
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=ENDPOINT)))
trace.set_tracer_provider(provider)
loopkit.init("svc", strict=True)
"""


def test_the_hosts_sampling_governs_its_processors_and_not_our_store(collector: Collector) -> None:
    printed = run(
        collector, SAMPLED_OUT, APPLICATION,
        "print(*sorted(span.name for span in loopkit.open_store().spans()))\n",
    )  # fmt: skip
    assert printed.splitlines()[-1] == "failing ours"
    assert arrived(collector) == {}


def test_a_destination_named_in_init_is_served_beside_the_host(collector: Collector) -> None:
    other = Collector()
    try:
        init = f'loopkit.init("svc", export=[{other.endpoint!r}, ENDPOINT])\n'
        run(collector, HOSTS["batch processor"], init, APPLICATION, "loopkit.shutdown(5)\n")
        assert sorted(arrived(other)) == ["failing", "ours"]
        assert len(arrived(collector)["ours"]) == 1  # the host's exporter sends there already
    finally:
        other.stop()


def test_what_was_recorded_last_reaches_the_host_before_it_shuts_down(collector: Collector) -> None:
    init = 'loopkit.init("svc")\n'
    run(collector, init, HOSTS["batch processor"], 'with loopkit.span("last"): pass\n')
    assert list(arrived(collector)) == ["last"]


def test_a_processor_that_hangs_or_fails_holds_up_nothing_of_ours(collector: Collector) -> None:
    bad = """
        import time
        class Bad(SimpleSpanProcessor):
            def on_end(self, span):
                if span.name == "ours":
                    time.sleep(8)
                raise RuntimeError("broken")
        provider = TracerProvider()
        provider.add_span_processor(Bad(ConsoleSpanExporter()))
        trace.set_tracer_provider(provider)
        loopkit.init("svc")
        for name in ("first", "ours", "after"):
            with loopkit.span(name): pass
        started = time.monotonic()
        print(loopkit.flush(5), time.monotonic() - started < 5)
        print(len(loopkit.open_store().spans()))
        loopkit.shutdown(1)
        os._exit(0)
    """
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(bad), "none"], env=os.environ, text=True, capture_output=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["True", "True", "3"], done.stderr


def test_a_sampler_that_fails_does_not_reach_the_application(collector: Collector) -> None:
    bad = """
        from opentelemetry.sdk.trace.sampling import Sampler
        class Bad(Sampler):
            def should_sample(self, *args, **kwargs):
                raise RuntimeError("broken")
            def get_description(self):
                return "bad"
        provider = TracerProvider(sampler=Bad())
        provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=ENDPOINT)))
        trace.set_tracer_provider(provider)
        loopkit.init("svc")
        with loopkit.span("ours"): pass
        loopkit.flush()
    """
    run(collector, bad)
    assert list(arrived(collector)) == ["ours"]


def test_flush_says_what_is_kept_where_only_the_host_exports(collector: Collector) -> None:
    init = 'loopkit.init("svc", store=None)\nwith loopkit.span("ours"): pass\nprint(loopkit.flush())\n'
    endpoint = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": collector.endpoint}
    assert run(collector, HOSTS["batch processor"], init, **endpoint) == "False"


@pytest.mark.parametrize(
    ("one", "other", "grpc"),
    [
        ("http://h:4318/v1/traces", "http://h:4318/v1/traces/", False),
        ("https://h/v1/traces", "https://h:443/v1/traces", False),
        ("h:4317", "http://h:4317", True),
        ("h", "https://h:4317/", True),
    ],
)
def test_one_place_may_be_written_in_several_ways(one: str, other: str, grpc: bool) -> None:
    assert place_of(one, grpc=grpc) == place_of(other, grpc=grpc)


def test_our_own_sending_is_not_the_applications_work(collector: Collector) -> None:
    instrumented = """
        from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
        HTTPXClientInstrumentor().instrument()
    """
    other = Collector()
    try:
        init = f'loopkit.init("svc", export=[{other.endpoint!r}])\n'
        run(collector, HOSTS["batch processor"], instrumented, init, APPLICATION, "loopkit.shutdown(5)\n")
        assert arrived(other)
        assert sorted(arrived(collector)) == ["failing", "inner", "ours", "outer"]
    finally:
        other.stop()


def test_a_provider_whose_processors_cant_be_reached_is_said_and_we_export_by_ourselves(collector: Collector) -> None:
    foreign = """
        class Foreign(trace.TracerProvider):
            def get_tracer(self, *args, **kwargs):
                return trace.NoOpTracer()
        trace.set_tracer_provider(Foreign())
        import logging
        logging.basicConfig(stream=sys.stdout, format="%(message)s")
        loopkit.init("svc")
        with loopkit.span("ours"): pass
        loopkit.shutdown(5)
    """
    printed = run(collector, foreign, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=collector.endpoint)
    assert "Foreign) has no processors that can be reached: loopkit exports by itself" in printed
    assert list(arrived(collector)) == ["ours"]
