"""Several destinations at once, each with what it wants: filter, other names, shorter texts, preset, certificates."""

from __future__ import annotations

import base64
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import OpenAI
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

import loopkit
from loopkit import backends
from loopkit.config import settings
from loopkit.errors import InvalidSetting
from loopkit.export.spool import DiskSpool
from loopkit.testing import ScriptedProvider
from loopkit.wire.decode import attributes_of
from tests.export.test_delivery import Collector


@pytest.fixture
def collector() -> Iterator[Callable[[], Collector]]:
    made: list[Collector] = []

    def make() -> Collector:
        made.append(Collector())
        return made[-1]

    yield make
    for each in made:
        each.stop()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("LOOPKIT_HOME", str(tmp_path / "home"))
    yield tmp_path
    loopkit.shutdown(0.1)


def received(collector: Collector) -> list[dict[str, Any]]:
    """The attributes of each span that came, with the name and the resource's attributes."""
    found: list[dict[str, Any]] = []
    for body in collector.bodies:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = {item.key: item.value.string_value for item in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    own = dict(attributes_of(span))
                    found.append({**own, "name": span.name, "resource": about, "lost": span.dropped_attributes_count})
    return found


def test_each_destination_gets_what_it_wants(collector: Callable[[], Collector]) -> None:
    everything, models, words = collector(), collector(), collector()
    provider = ScriptedProvider(["a long answer"])
    client = OpenAI(api_key="k", http_client=httpx2.Client(transport=provider.transport(httpx2)))
    loopkit.init(
        "svc",
        export=[
            everything.endpoint,
            loopkit.Destination(endpoint=models.endpoint, filter=lambda span: span.kind == "llm"),
            loopkit.Destination(
                endpoint=words.endpoint,
                content=True,
                renames={"loopkit.task": "team.task"},
                resource={"deployment.environment.name": "test"},
            ),
        ],
    )
    with loopkit.span("outer", task="triage", input="a question"):
        loopkit.wrap(client).chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
    loopkit.shutdown(10)
    assert sorted(each["name"] for each in received(everything)) == ["chat m", "outer"]
    assert [each["name"] for each in received(models)] == ["chat m"]
    assert "input.value" not in received(everything)[1]
    outer = next(each for each in received(words) if each["name"] == "outer")
    assert (outer["team.task"], outer["input.value"]) == ("triage", "a question")
    assert "loopkit.task" not in outer
    assert outer["resource"]["deployment.environment.name"] == "test"
    assert "deployment.environment.name" not in received(everything)[0]["resource"]


def test_a_filter_that_fails_lets_nothing_pass(
    collector: Callable[[], Collector], caplog: pytest.LogCaptureFixture
) -> None:
    kept_in = collector()

    def broken(span: loopkit.Span) -> bool:
        raise RuntimeError("filter broke")

    loopkit.init("svc", export=[loopkit.Destination(endpoint=kept_in.endpoint, filter=broken)])
    with loopkit.span("one"):
        pass
    loopkit.shutdown(10)
    assert kept_in.bodies == []
    assert "filter broke" in caplog.text


def test_opentelemetrys_limits_hold_for_what_is_exported(
    collector: Callable[[], Collector], monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = collector()
    monkeypatch.setenv("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "10")
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "128")
    loopkit.init("svc", export=[loopkit.Destination(endpoint=limited.endpoint, content=True)])
    with loopkit.span("one", input="x" * 100):
        for number in range(500):
            from opentelemetry import trace

            trace.get_current_span().set_attribute(f"own.{number}", ["y" * 50])
    loopkit.shutdown(10)
    (span,) = received(limited)
    assert span["input.value"] == "x" * 10
    assert span["own.0"] == ["y" * 10]
    assert "own.499" not in span
    assert span["lost"] > 300
    assert len(span) - 3 <= 128
    (stored,) = loopkit.open_store().spans()
    assert stored.input == "x" * 100
    assert stored.attributes["own.499"] == ["y" * 50]


def test_few_attributes_are_few(collector: Callable[[], Collector]) -> None:
    limited = collector()
    loopkit.init("svc", export=[limited.endpoint], limits=loopkit.Limits(attributes=3))
    with loopkit.span("one", task="t"):
        pass
    loopkit.shutdown(10)
    (span,) = received(limited)
    assert len(span) - 3 == 3
    assert span["lost"] > 0


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "-1"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "absent.pem"),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "absent.pem"),
    ],
)
def test_a_variable_that_makes_no_sense_is_named(variable: str, value: str) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", variable: value}
    with pytest.raises(InvalidSetting, match=variable):
        settings("svc", environ=environ)


def test_opentelemetrys_queue_variables_are_limits() -> None:
    made = settings("svc", environ={"OTEL_BSP_MAX_QUEUE_SIZE": "100", "OTEL_BSP_SCHEDULE_DELAY": "50"})
    assert (made.limits.queue_items, made.limits.append_delay) == (100, 0.05)
    own = loopkit.Limits(queue_items=7)
    assert settings("svc", limits=own, environ={"OTEL_BSP_MAX_QUEUE_SIZE": "100"}).limits == own


@pytest.mark.parametrize("drop", ["newest", "oldest", "sampled"])
def test_a_full_queue_drops_by_its_policy_and_counts(drop: Any, collector: Callable[[], Collector]) -> None:
    limits = loopkit.Limits(queue_items=50, drop=drop, append_delay=30.0)
    loopkit.init("svc", limits=limits)
    for number in range(200):
        with loopkit.span(f"{number}"):
            pass
    loopkit.feedback("order:1", "helpful", True)
    health = loopkit.health()
    assert health is not None
    assert health.dropped >= 150
    assert health.queued <= 50
    loopkit.flush()
    store = loopkit.open_store()
    numbers = [int(span.name) for span in store.spans()]
    assert [event.target for event in store.feedback()] == ["order:1"]  # feedback goes before spans
    assert len(numbers) + health.dropped == 200
    if drop == "newest":
        assert max(numbers) < 60
    elif drop == "oldest":
        assert min(numbers) > 140
    else:
        assert min(numbers) < 140 < max(numbers)


def test_heavy_spans_do_not_push_out_light_ones() -> None:
    limits = loopkit.Limits(queue_bytes=15_000, drop="oldest", append_delay=30.0)
    loopkit.init("svc", limits=limits)
    for number in range(150):
        with loopkit.span(f"{number}", input="x" * 10_000 if number >= 100 else "x"):
            pass
    health = loopkit.health()
    assert health is not None
    assert (health.dropped, health.queued) == (49, 101)


def test_a_filter_may_read_the_store(collector: Callable[[], Collector]) -> None:
    reading = collector()
    destination = loopkit.Destination(
        endpoint=reading.endpoint, filter=lambda span: len(loopkit.open_store().spans()) >= 0
    )
    loopkit.init("svc", export=[destination])
    with loopkit.span("one"):
        pass
    started = time.monotonic()
    assert loopkit.flush(10)
    assert time.monotonic() - started < 2.5  # it waited for itself for five seconds
    loopkit.shutdown(10)
    assert [each["name"] for each in received(reading)] == ["one"]


def test_a_resource_attribute_of_ones_own_takes_the_place_of_ours(collector: Callable[[], Collector]) -> None:
    named = collector()
    loopkit.init("svc", export=[loopkit.Destination(endpoint=named.endpoint, resource={"service.name": "theirs"})])
    with loopkit.span("one"):
        pass
    loopkit.shutdown(10)
    (resource,) = ExportTraceServiceRequest.FromString(named.bodies[0]).resource_spans
    values = [item.value.string_value for item in resource.resource.attributes if item.key == "service.name"]
    assert values == ["theirs"]


def test_credentials_in_a_url_become_a_header_and_stand_nowhere(collector: Callable[[], Collector], home: Path) -> None:
    secured = collector()
    url = secured.endpoint.replace("127.0.0.1", "joe:pass%20word@127.0.0.1")
    loopkit.init("svc", export=[url])
    with loopkit.span("one"):
        pass
    loopkit.shutdown(10)
    assert secured.headers[0]["authorization"] == "Basic " + base64.b64encode(b"joe:pass word").decode()
    written = b"".join(file.read_bytes() for file in home.rglob("*") if file.is_file())
    assert b"pass%20word" not in written


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"headers": {"x-token": "abc\n"}}, "x-token"),
        ({"headers": {"bad name": "abc"}}, "bad name"),
        ({"headers": {"x-number": 5}}, "x-number"),
        ({"filter": "llm"}, "filter is 'llm'"),
        ({"client_key": __file__}, "client_certificate"),
        ({"certificate": __file__}, "certificates can't be used"),
    ],
)
def test_a_destination_that_could_never_be_reached_is_said_at_once(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        loopkit.Destination(endpoint="https://127.0.0.1:1/v1/traces", **given)


def test_a_spool_is_bounded_by_its_batches_too(tmp_path: Path) -> None:
    spool = DiskSpool(tmp_path / "spool", 1 << 20, time.time_ns, batches=80)
    for number in range(500):
        spool.append(b"%d" % number)
    waiting = [int(batch.data) for batch in spool.waiting()]
    assert 40 <= len(waiting) <= 80
    assert waiting[-1] == 499
    assert spool.dropped == 500 - len(waiting)
    again = DiskSpool(tmp_path / "spool", 1 << 20, time.time_ns, batches=80)
    again.append(b"500")
    assert len(list(again.waiting())) <= 80


PRESETS: list[tuple[Any, dict[str, Any], str, dict[str, str]]] = [
    (backends.collector, {}, "http://127.0.0.1:4318/v1/traces", {}),
    (backends.collector, {"endpoint": "http://c:1/v1/traces"}, "http://c:1/v1/traces", {}),
    (backends.phoenix, {"api_key": "k"}, "http://127.0.0.1:6006/v1/traces", {"authorization": "Bearer k"}),
    (
        backends.langfuse,
        {"public_key": "pk", "secret_key": "sk"},
        "https://cloud.langfuse.com/api/public/otel/v1/traces",
        {"authorization": "Basic " + base64.b64encode(b"pk:sk").decode(), "x-langfuse-ingestion-version": "4"},
    ),
    (backends.mlflow, {"experiment_id": "7"}, "http://127.0.0.1:5000/v1/traces", {"x-mlflow-experiment-id": "7"}),
    (backends.logfire, {"token": "t"}, "https://logfire-us.pydantic.dev/v1/traces", {"authorization": "t"}),
    (
        backends.datadog,
        {"api_key": "k"},
        "https://otlp.datadoghq.com/v1/traces",
        {"dd-api-key": "k", "dd-otlp-source": "llmobs"},
    ),
    (
        backends.honeycomb,
        {"api_key": "k", "dataset": "d"},
        "https://api.honeycomb.io/v1/traces",
        {"x-honeycomb-team": "k", "x-honeycomb-dataset": "d"},
    ),
]


@pytest.mark.parametrize(("preset", "given", "endpoint", "headers"), PRESETS)
def test_presets_know_their_backends(
    preset: Any, given: dict[str, Any], endpoint: str, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PHOENIX_COLLECTOR_ENDPOINT", "LANGFUSE_BASE_URL", "LANGFUSE_HOST", "MLFLOW_TRACKING_URI", "DD_SITE"):
        monkeypatch.delenv(name, raising=False)
    made = preset(**given, content=True, headers={"x-own": "1"}, renames={"user.id": "own"})
    assert (made.endpoint, made.content) == (endpoint, True)
    assert made.headers == {**headers, "x-own": "1"}
    assert made.renames["user.id"] == "own"


@pytest.mark.parametrize(
    ("preset", "variable"),
    [
        (backends.langfuse, "LANGFUSE_PUBLIC_KEY"),
        (backends.logfire, "LOGFIRE_TOKEN"),
        (backends.datadog, "DD_API_KEY"),
        (backends.honeycomb, "HONEYCOMB_API_KEY"),
    ],
)
def test_a_missing_key_is_named_with_its_variable(preset: Any, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(InvalidSetting, match=variable):
        preset()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made with openssl")
def test_certificates_of_ones_own(tmp_path: Path) -> None:
    """A receiver with a certificate of its own authority, which asks for ours."""
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    for name in ("server", "client"):
        files = ["-keyout", f"{tmp_path}/{name}.key", "-out", f"{tmp_path}/{name}.pem"]
        subprocess.run([*make, "-addext", "subjectAltName=IP:127.0.0.1", *files], check=True, capture_output=True)
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    context.load_verify_locations(tmp_path / "client.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    destination = loopkit.Destination(
        endpoint=f"https://127.0.0.1:{server.server_port}/v1/traces",
        certificate=str(tmp_path / "server.pem"),
        client_certificate=str(tmp_path / "client.pem"),
        client_key=str(tmp_path / "client.key"),
    )
    loopkit.init("svc", export=[destination])
    with loopkit.span("secret"):
        pass
    loopkit.shutdown(10)
    server.shutdown()
    server.server_close()
    assert len(bodies) == 1


def test_people_may_go_under_pseudonyms(collector: Callable[[], Collector]) -> None:
    there, plain = collector(), collector()
    loopkit.init(
        "svc",
        export=[loopkit.Destination(endpoint=there.endpoint, pseudonyms=True, renames={"user.id": "enduser.id"}),
                loopkit.Destination(endpoint=plain.endpoint)],
    )  # fmt: skip
    for _ in range(2):
        with loopkit.context(user_id="ana", session_id="s-1"), loopkit.span("answer", kind="llm"):
            pass
    event = loopkit.feedback("order:1", "ok", True, by="ana")
    assert loopkit.flush(10, delivered=True)
    assert "ana" not in str(spans_of(there))
    sent = [dict(attributes_of(span)) for span in spans_of(there) if span.name == "answer"]
    assert {span["enduser.id"] for span in sent} == {event.by}  # type: ignore[union-attr]
    assert len({span["session.id"] for span in sent}) == 1
    assert "ana" not in str(sent)
    assert {dict(attributes_of(span)).get("user.id") for span in spans_of(plain)} == {"ana", None}
    assert {span.user_id for span in loopkit.open_store().spans()} == {"ana"}


def spans_of(collector: Collector) -> list[Any]:
    requests = [ExportTraceServiceRequest.FromString(body) for body in collector.accepted]
    return [
        span
        for each in requests
        for resource in each.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
