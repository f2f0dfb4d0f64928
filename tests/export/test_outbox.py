"""Feedback on its way out: as spans and log events over OpenTelemetry, and by the backends' own APIs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from openai import OpenAI

import loopkit
from loopkit import backends
from loopkit._ids import Clock
from loopkit.config import Destination, settings
from loopkit.errors import InvalidSetting
from loopkit.export.apis import Api, Statement
from loopkit.export.transport import NotNow, asked
from loopkit.observe.outbox import OutboxSink
from loopkit.store.sqlite import FILE, Store
from loopkit.testing import ScriptedProvider
from loopkit.types import Feedback
from tests.export.test_delivery import Collector
from tests.export.test_destinations import received
from tests.export.test_pressure import free_port, phoenix, serving

PRESETS: dict[str, Callable[[str], Destination]] = {
    "phoenix": lambda url: backends.phoenix(url, project="help desk", content=True),
    "langfuse": lambda url: backends.langfuse(url, public_key="pk", secret_key="sk", content=True),
    "langsmith": lambda url: backends.langsmith(url, api_key="k", project="p", content=True),
    "braintrust": lambda url: backends.braintrust(url, api_key="k", project_id="p-1", content=True),
    "mlflow": lambda url: backends.mlflow(url, content=True),
    "datadog": lambda url: backends.datadog(url, api_key="k", content=True, feedback_url=url),
}


class Backend:
    """A backend over loopback that keeps what it is told, takes OTLP, and says what a test wants it to say."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answers: list[tuple[int, Any]] = []
        """For the next requests; then 200 and nothing."""
        backend = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                status, said = 200, {}
                if not self.path.endswith("/v1/traces"):
                    backend.headers.append({name.lower(): value for name, value in self.headers.items()})
                    backend.asked.append((self.command, self.path, json.loads(body) if body else None))
                    status, said = backend.answers.pop(0) if backend.answers else (200, {})
                data = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = do_DELETE = _answer

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def wait_for(self, count: int) -> list[tuple[str, str, Any]]:
        """What it was asked, once it is so much."""
        deadline = time.monotonic() + 60
        while len(self.asked) < count:
            assert time.monotonic() < deadline, f"only {self.asked}"
            time.sleep(0.01)
        return self.asked

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def backend() -> Iterator[Backend]:
    made = Backend()
    yield made
    made.stop()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.stop()


def ask() -> Any:
    provider = ScriptedProvider(["cards"])
    client = loopkit.wrap(OpenAI(api_key="k", http_client=httpx2.Client(transport=provider.transport(httpx2))))
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])


# Over OpenTelemetry


def test_feedback_is_a_small_span_below_the_one_it_is_about(collector: Collector) -> None:
    loopkit.init("svc", export=[collector.endpoint])
    with loopkit.context(order="77"), loopkit.span("outer") as outer:
        response = ask()
    loopkit.feedback(outer, "helpful", True, by="ana", comment="my words")
    loopkit.feedback(response.id, "stars", 4)
    loopkit.feedback("resp_unknown", "stars", 4)
    loopkit.feedback("order:77", "resolved", False, source="code")
    loopkit.feedback(f"trace:{outer.trace_id}", "tone", "rude")
    loopkit.feedback("order:unknown", "helpful", True)
    assert loopkit.flush(10, delivered=True)
    spans = {(span["name"], span.get("loopkit.feedback.target")): span for span in received(collector)}
    by_name = {name: span for (name, _), span in spans.items()}
    helpful = spans["feedback helpful", outer.id]
    assert (helpful["gen_ai.evaluation.name"], helpful["gen_ai.evaluation.score.value"]) == ("helpful", 1.0)
    assert (helpful["gen_ai.evaluation.score.label"], helpful["openinference.span.kind"]) == ("true", "EVALUATOR")
    assert helpful["loopkit.feedback.by"].startswith("anon-")
    # words are content, which stays here unless it is asked for
    assert "gen_ai.evaluation.explanation" not in helpful
    assert "gen_ai.evaluation.score.label" not in by_name["feedback tone"]
    assert spans["feedback stars", "resp_unknown"]["gen_ai.response.id"] == "resp_unknown"
    places = {span["loopkit.feedback.target"]: (trace, parent) for span, trace, parent in placed(collector)}
    call = next(span for span in loopkit.open_store().spans() if span.kind == "llm")
    assert places[outer.id] == (outer.trace_id, outer.id[33:])
    assert places[response.id] == (outer.trace_id, call.span_id)
    assert places["order:77"] == places[f"trace:{outer.trace_id}"] == (outer.trace_id, outer.id[33:])
    assert places["order:unknown"][0] != outer.trace_id
    assert places["order:unknown"][1] == ""


def placed(collector: Collector) -> list[tuple[dict[str, Any], str, str]]:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    from loopkit.wire.decode import attributes_of

    return [
        (dict(attributes_of(span)), span.trace_id.hex(), span.parent_span_id.hex())
        for body in collector.bodies
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
        if span.name.startswith("feedback ")
    ]


def test_words_go_along_where_content_does_and_labels_that_are_declared_anyway(collector: Collector) -> None:
    other = Collector()
    try:
        tone = loopkit.Signal("tone", type="str", range=("rude", "kind"))
        whole = loopkit.Destination(endpoint=other.endpoint, content=True)
        quiet = loopkit.Destination(endpoint=f"{other.endpoint}?quiet", feedback=None, name="quiet")
        loopkit.init("svc", export=[collector.endpoint, whole, quiet], signals=[tone])
        with loopkit.span("s") as s:
            pass
        loopkit.feedback(s, "tone", "rude", comment="he said x")
        loopkit.feedback(s, correction={"queue": "cards"})
        assert loopkit.flush(10, delivered=True)
        near, far = ({span["name"]: span for span in received(each)} for each in (collector, other))
        assert near["feedback tone"]["gen_ai.evaluation.score.label"] == "rude"
        assert "gen_ai.evaluation.explanation" not in near["feedback tone"]
        assert "loopkit.feedback.correction" not in near["feedback correction"]
        assert far["feedback tone"]["gen_ai.evaluation.explanation"] == "he said x"
        assert json.loads(far["feedback correction"]["loopkit.feedback.correction"]) == {"queue": "cards"}
        # the quiet one got the span alone
        assert Counter(span["name"] for span in received(other))["s"] == 2
        assert Counter(span["name"] for span in received(other))["feedback tone"] == 1
    finally:
        other.stop()


HOST = """
    from opentelemetry import trace
    from opentelemetry._logs import set_logger_provider
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor, InMemoryLogRecordExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    import loopkit
    logs, spans = InMemoryLogRecordExporter(), InMemorySpanExporter()
"""
SAID = """
    with loopkit.span("s") as s:
        pass
    loopkit.feedback(s, "helpful", True, comment="words")
    loopkit.flush()
    for record in (each.log_record for each in logs.get_finished_logs()):
        print("log", record.event_name, f"{record.trace_id:032x}-{record.span_id:016x}" == s.id,
              record.attributes["gen_ai.evaluation.name"], record.attributes["gen_ai.evaluation.score.value"],
              "gen_ai.evaluation.explanation" in record.attributes)
    for span in spans.get_finished_spans():
        print("span", span.name, span.parent is not None and span.parent.span_id == int(s.id[33:], 16))
"""
LOGS = """
    provider = LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(logs))
    set_logger_provider(provider)
    """
TRACES = """
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(tracers)
    """


def run(*parts: str) -> list[str]:
    script = "".join(map(textwrap.dedent, parts))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


LOG = "log gen_ai.evaluation.result True helpful 1.0 False"


@pytest.mark.parametrize(
    ("parts", "printed"),
    [
        ((LOGS, TRACES), [LOG, "span s False", "span feedback helpful True"]),
        ((LOGS,), [LOG]),
        ((TRACES,), ["span s False", "span feedback helpful True"]),
    ],
)
def test_the_applications_own_opentelemetry_gets_an_evaluation_event_and_a_span(
    parts: tuple[str, ...], printed: list[str]
) -> None:
    assert run(HOST, *parts, 'loopkit.init("svc")\n', SAID) == printed


# By the backends' own APIs


def record_and_say(destination: Destination) -> tuple[Any, str]:
    loopkit.init("svc", export=[destination])
    with loopkit.context(session_id="s-1", order="77"), loopkit.span("triage") as s:
        s.set(output="cards")
    loopkit.feedback("order:77", "helpful", True, by="ana", comment="good", weight=0.5)
    assert loopkit.flush(10, delivered=True)
    return s, s.id[33:]


def test_phoenix_is_told_in_its_words(backend: Backend) -> None:
    s, span_id = record_and_say(PRESETS["phoenix"](backend.url))
    ((method, path, body),) = backend.asked
    (row,) = body["data"]
    assert (method, path) == ("POST", "/v1/span_annotations?sync=true")
    assert (row["span_id"], row["name"], row["annotator_kind"]) == (span_id, "helpful", "HUMAN")
    assert row["result"] == {"label": "true", "score": 1.0, "explanation": "good"}
    assert row["metadata"]["loopkit.feedback.weight"] == 0.5
    loopkit.feedback(f"trace:{s.trace_id}", "fast", 0.5, source="judge")
    event = loopkit.feedback("session:s-1", "resolved", False, source="code")
    assert event is not None
    assert loopkit.flush(10, delivered=True)
    assert [path for _, path, _ in backend.asked[1:]] == [
        "/v1/trace_annotations?sync=true",
        "/v1/session_annotations?sync=true",
    ]
    assert [body["data"][0]["annotator_kind"] for _, _, body in backend.asked[1:]] == ["LLM", "CODE"]
    identifier = backend.asked[-1][2]["data"][0]["identifier"]
    loopkit.retract(event)
    assert loopkit.flush(10, delivered=True)
    where = f"/v1/projects/help%20desk/session_annotations?identifier={identifier}&delete_all=true"
    assert backend.asked[-1][:2] == ("DELETE", where)


def test_langfuse_is_told_in_its_words(backend: Backend) -> None:
    s, span_id = record_and_say(PRESETS["langfuse"](backend.url))
    ((method, path, body),) = backend.asked
    assert (method, path) == ("POST", "/api/public/scores")
    assert backend.headers[0]["authorization"].startswith("Basic ")
    assert "x-langfuse-ingestion-version" not in backend.headers[0]
    assert (body["traceId"], body["observationId"]) == (s.trace_id, span_id)
    assert (body["name"], body["value"], body["dataType"], body["comment"]) == ("helpful", 1.0, "BOOLEAN", "good")
    loopkit.feedback(s, "helpful", False, by="ana")  # the same person's later word is the same score
    event = loopkit.feedback(s, correction="loans")
    assert event is not None
    assert loopkit.flush(10, delivered=True)
    scores = {body["id"]: body["value"] for _, _, body in backend.asked}
    assert sorted(map(str, scores.values())) == ["0.0", "loans"]
    assert scores[body["id"]] == 0.0
    loopkit.retract(event)
    assert loopkit.flush(10, delivered=True)
    gone = [path for method, path, _ in backend.asked if method == "DELETE"]
    assert [path.removeprefix("/api/public/scores/") in scores for path in gone] == [True]


def test_langsmith_is_told_in_its_words(backend: Backend) -> None:
    s, span_id = record_and_say(PRESETS["langsmith"](backend.url))
    ((method, path, body),) = backend.asked
    assert (method, path, backend.headers[0]["x-api-key"]) == ("POST", "/api/v1/feedback", "k")
    assert body["run_id"].replace("-", "").endswith(span_id)
    assert (body["trace_id"].replace("-", ""), body["key"], body["score"]) == (s.trace_id, "helpful", 1.0)
    backend.answers = [(409, {"detail": "it is there"})]
    loopkit.feedback(s, "helpful", False, by="ana")
    assert loopkit.flush(10, delivered=True)
    method, path, changed = backend.asked[-1]
    assert (method, path, changed["score"]) == ("PATCH", f"/api/v1/feedback/{body['id']}", 0.0)
    loopkit.feedback("session:s-1", "resolved", True)
    assert loopkit.flush(10, delivered=True)
    (left,) = loopkit.untold(loopkit.open_store())
    assert (left.target, left.is_refused) == ("session:s-1", True)


def test_mlflow_is_told_in_its_words(backend: Backend) -> None:
    s, span_id = record_and_say(PRESETS["mlflow"](backend.url))
    trace = f"/api/3.0/mlflow/traces/tr-{s.trace_id}"
    (looked, made) = backend.asked
    assert looked[:2] == ("GET", trace)
    assert made[:2] == ("POST", f"{trace}/assessments")
    assessment = made[2]["assessment"]
    assert (assessment["assessment_name"], assessment["feedback"]) == ("helpful", {"value": True})
    assert (assessment["span_id"], assessment["rationale"]) == (span_id, "good")
    assert assessment["source"]["source_type"] == "HUMAN"
    there = {"assessment_id": "a-1", "metadata": assessment["metadata"]}
    backend.answers = [(200, {"trace": {"trace_info": {"assessments": [there, {"assessment_id": "other"}]}}})]
    loopkit.feedback(s, "helpful", False, by="ana")
    assert loopkit.flush(10, delivered=True)
    method, path, changes = backend.asked[-1]
    assert (method, path, changes["assessment"]["feedback"]) == ("PATCH", f"{trace}/assessments/a-1", {"value": False})
    assert "feedback" in changes["update_mask"].split(",")


def test_braintrust_is_told_in_its_words(backend: Backend) -> None:
    s, span_id = record_and_say(PRESETS["braintrust"](backend.url))
    ((method, path, body),) = backend.asked
    (row,) = body["feedback"]
    assert (method, path) == ("POST", "/v1/project_logs/p-1/feedback")
    assert (row["id"], row["scores"], row["comment"]) == (span_id, {"helpful": 1.0}, "good")
    loopkit.feedback(s, "stars", 5)  # no score there
    loopkit.feedback(s, correction="loans", by="ana")
    assert loopkit.flush(10, delivered=True)
    rows = [body["feedback"][0] for _, _, body in backend.asked]
    assert {"value": 5.0}.items() <= next(row for row in rows if "stars" in str(row) or row["metadata"].get("value"))[
        "metadata"
    ].items()
    assert "loans" in [row.get("expected") for row in rows]


def test_datadog_is_told_in_its_words(backend: Backend) -> None:
    s, span_id = record_and_say(PRESETS["datadog"](backend.url))
    ((method, path, body),) = backend.asked
    (metric,) = body["data"]["attributes"]["metrics"]
    assert (method, path) == ("POST", "/api/intake/llm-obs/v2/eval-metric")
    assert metric["join_on"]["span"] == {"span_id": str(int(span_id, 16)), "trace_id": str(int(s.trace_id, 16))}
    assert (metric["metric_type"], metric["boolean_value"], metric["label"]) == ("boolean", True, "helpful")
    assert (metric["ml_app"], metric["reasoning"]) == ("svc", "good")


@pytest.mark.parametrize("name", PRESETS)
def test_words_stay_here_unless_content_goes_along(name: str, backend: Backend) -> None:
    from dataclasses import replace

    loopkit.init("svc", export=[replace(PRESETS[name](backend.url), content=False)])
    with loopkit.span("s") as s:
        pass
    loopkit.feedback(s, "tone", "a secret label", comment="a secret comment", metadata={"k": "a secret"})
    loopkit.feedback(s, correction="a secret correction")
    assert loopkit.flush(10, delivered=True)
    assert len(backend.asked) >= 2
    assert "secret" not in json.dumps(backend.asked)


@pytest.fixture
def looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loopkit.observe.outbox._LOOK_SECONDS", 0.3)


@pytest.mark.usefixtures("looking_often")
def test_early_feedback_goes_out_when_its_call_is_known(backend: Backend) -> None:
    loopkit.init("svc", export=[PRESETS["langfuse"](backend.url)])
    loopkit.feedback("order:88", "helpful", True)
    loopkit.feedback("order:never", "helpful", True)
    assert loopkit.flush(10, delivered=True)
    assert backend.asked == []
    waiting = loopkit.untold(loopkit.open_store())
    assert [(each.target, each.is_refused) for each in waiting] == [("order:88", False), ("order:never", False)]
    with loopkit.context(order="88"), loopkit.span("late") as s:
        pass
    ((_, _, body),) = backend.wait_for(1)
    assert body["observationId"] == s.id[33:]
    deadline = time.monotonic() + 10
    while [each.target for each in loopkit.untold(loopkit.open_store())] != ["order:never"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("trouble", [404, 429, 503])
def test_what_a_backend_cant_take_now_is_told_again(trouble: int, backend: Backend) -> None:
    backend.answers = [(trouble, {})]
    loopkit.init("svc", export=[PRESETS["langfuse"](backend.url)])
    with loopkit.span("s") as s:
        pass
    loopkit.feedback(s, "helpful", True)
    first, second = backend.wait_for(2)
    assert first == second
    assert loopkit.flush(10, delivered=True)
    deadline = time.monotonic() + 10
    while loopkit.untold(loopkit.open_store()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_is_refused_waits_until_somebody_resends_it(backend: Backend) -> None:
    backend.answers = [(400, {"why": "no such config"})]
    loopkit.init("svc", export=[PRESETS["langfuse"](backend.url)])
    with loopkit.span("s") as s:
        pass
    loopkit.feedback(s, "helpful", True)
    loopkit.feedback(s, "fast", True)
    assert loopkit.flush(10, delivered=True)
    assert len(backend.asked) == 2  # one statement's refusal is no other's
    store = loopkit.open_store()
    (left,) = loopkit.untold(store)
    assert left.is_refused
    assert "no such config" in left.reason
    assert loopkit.resend(store) == 1
    assert loopkit.flush(10, delivered=True)
    assert len(backend.asked) == 3  # what it has is not sent again
    assert loopkit.untold(store) == []


def test_a_backend_that_is_down_costs_nothing_and_is_told_by_the_next_process(backend: Backend, tmp_path: Path) -> None:
    port = free_port()
    script = f"""
        import loopkit, os, time
        from loopkit import backends
        loopkit.init("svc", export=[backends.langfuse("http://127.0.0.1:{port}", public_key="p", secret_key="s")])
        with loopkit.context(order="1"), loopkit.span("s"):
            pass
        for n in range(20):
            loopkit.feedback("order:1", f"name-{{n}}", True)
        assert loopkit.flush(10)
        time.sleep(1)  # so that it is not telling just now: what it had taken would be its own for 20 s
        os.kill(os.getpid(), 9)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    destination = backends.langfuse(
        f"http://127.0.0.1:{port}", public_key="p", secret_key="s", feedback_url=backend.url
    )
    loopkit.init("svc", export=[destination])
    backend.wait_for(20)
    names = {body["name"] for _, _, body in backend.asked}
    assert names == {f"name-{n}" for n in range(20)}


@pytest.mark.usefixtures("looking_often")
def test_another_processs_feedback_goes_out_too(backend: Backend, clean_environment: Path) -> None:
    s, _ = record_and_say(PRESETS["langfuse"](backend.url))
    environment = {**os.environ, "LOOPKIT_HOME": str(clean_environment)}
    command = [sys.executable, "-m", "loopkit", "feedback", "add", s.id, "--name", "stars", "--value", "2"]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
    asked = backend.wait_for(2)
    assert {body["name"] for _, _, body in asked} == {"helpful", "stars"}


def test_many_processes_tell_each_statement_of_one_store(backend: Backend, clean_environment: Path) -> None:
    script = f"""
        import loopkit, sys
        from loopkit import backends
        loopkit.init("svc", export=[backends.langfuse({backend.url!r}, public_key="p", secret_key="s")])
        for n in range(25):
            with loopkit.span("s") as s:
                pass
            loopkit.feedback(s, sys.argv[1], n)
        assert loopkit.flush(30, delivered=True)
        loopkit.shutdown(30)
    """
    started = [subprocess.Popen([sys.executable, "-c", textwrap.dedent(script), f"p{number}"]) for number in range(3)]
    assert [each.wait(120) for each in started] == [0, 0, 0]
    loopkit.init("svc", export=[PRESETS["langfuse"](backend.url)])
    deadline = time.monotonic() + 60
    while len({body["id"] for _, _, body in backend.asked}) < 75:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    scores = {body["id"]: (body["name"], body["value"]) for _, _, body in backend.asked}
    assert Counter(scores.values()) == Counter((f"p{number}", float(n)) for number in range(3) for n in range(25))
    assert loopkit.untold(loopkit.open_store()) == []


def test_without_a_store_feedback_goes_as_a_span(backend: Backend, collector: Collector) -> None:
    destination = backends.langfuse(collector.endpoint, public_key="p", secret_key="s", feedback_url=backend.url)
    loopkit.init("svc", store=None, export=[destination])
    with loopkit.span("s") as s:
        pass
    loopkit.feedback(s, "helpful", True)
    assert loopkit.flush(10, delivered=True) is True
    assert sorted(span["name"] for span in received(collector)) == ["feedback helpful", "s"]
    assert backend.asked == []


def spans(count: int) -> list[Any]:
    found = []
    for _ in range(count):
        with loopkit.span("s") as s:
            pass
        found.append(s)
    return found


def test_only_what_changed_is_told(backend: Backend) -> None:
    loopkit.init("svc", export=[PRESETS["langfuse"](backend.url)])
    (s,) = spans(1)
    for number in range(12):
        loopkit.feedback(s, "thumbs", True, by=f"user-{number}")
        assert loopkit.flush(10, delivered=True)
    assert len(backend.asked) == 12
    loopkit.feedback(s, "thumbs", False, by="user-3")
    assert loopkit.flush(10, delivered=True)
    assert [body["value"] for _, _, body in backend.asked[12:]] == [0.0]


def test_a_slow_backend_is_left_alone_and_what_it_took_stands(backend: Backend) -> None:
    backend.answers = [(200, {}), (200, {}), (429, {}), (200, {}), (429, {})]
    loopkit.init("svc", export=[PRESETS["langfuse"](backend.url)])
    (s,) = spans(1)
    for number in range(6):
        loopkit.feedback(s, f"n{number}", True)
    others = spans(30)
    for other in others:
        loopkit.feedback(other, "thumbs", True)
    assert loopkit.flush(30, delivered=True)
    assert len(backend.asked) == 36 + 2  # each once, and what was refused for the moment again
    assert len({body["id"] for _, _, body in backend.asked}) == 36


def test_statements_follow_what_takes_them_back_or_replaces_them_elsewhere(backend: Backend) -> None:
    loopkit.init("svc", export=[PRESETS["langfuse"](backend.url)])
    a, b = spans(2)
    first = loopkit.feedback(a, "thumbs", True)
    second = loopkit.feedback(a, "stars", 4)
    assert first is not None
    assert second is not None
    assert loopkit.flush(10, delivered=True)
    loopkit.supersede(first, target=b)
    loopkit.feedback(b, "retraction", retracts=second.id)
    assert loopkit.flush(10, delivered=True)
    there: dict[str, Any] = {}
    for method, path, body in backend.asked:
        if method == "DELETE":
            there.pop(path.rpartition("/")[2])
        else:
            there[body["id"]] = (body["observationId"], body["name"])
    assert list(there.values()) == [(b.id[33:], "thumbs")]


def test_who_is_forgotten_is_forgotten_there(backend: Backend) -> None:
    loopkit.init("svc", export=[PRESETS["langfuse"](backend.url)])
    with loopkit.context(user_id="ana"), loopkit.span("hers") as hers:
        pass
    (his,) = spans(1)
    loopkit.feedback(hers, "thumbs", True)
    loopkit.feedback(his, "thumbs", True, by="ana")
    loopkit.feedback(his, "stars", 3, by="bo")
    assert loopkit.flush(10, delivered=True)
    names = {body["id"]: body["name"] for _, _, body in backend.asked}
    loopkit.forget("ana")
    assert loopkit.flush(10, delivered=True)
    gone = [path.rpartition("/")[2] for method, path, _ in backend.asked if method == "DELETE"]
    assert sorted(names[id] for id in gone) == ["thumbs", "thumbs"]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("target", ["trace:../../../experiments/delete?x=", "trace:ab\n\0c", "trace:" + "g" * 32])
def test_what_is_no_trace_goes_nowhere(name: str, target: str, backend: Backend) -> None:
    loopkit.init("svc", export=[PRESETS[name](backend.url)])
    loopkit.feedback(target, "thumbs", True)
    (s,) = spans(1)
    loopkit.feedback(s, "thumbs", True)
    assert loopkit.flush(10, delivered=True)
    assert not any("experiments" in path or "ggg" in json.dumps([path, body]) for _, path, body in backend.asked)
    assert backend.asked  # the other one


def test_a_correction_is_a_right_answer_when_somebody_accepts_it(backend: Backend) -> None:
    loopkit.init("svc", export=[PRESETS["mlflow"](backend.url)])
    (s,) = spans(1)
    edited = loopkit.accepted(s, "an edited text", original="a text")
    loopkit.feedback(s, correction="BAD IDEA", correction_status="rejected", by="bo")
    assert loopkit.flush(10, delivered=True)
    made = [body["assessment"] for method, _, body in backend.asked if method == "POST"]
    assert [("expectation" in each, each["rationale"]) for each in made] == [
        (False, "an edited text"),
        (False, "BAD IDEA"),
    ]
    assert edited is not None
    loopkit.supersede(edited, correction_status="accepted")
    assert loopkit.flush(10, delivered=True)
    changed = [body["assessment"] for method, _, body in backend.asked if method == "POST"][-1]
    assert changed["expectation"] == {"value": "an edited text"}


def test_what_must_stay_here_stays_here(backend: Backend, collector: Collector) -> None:
    from dataclasses import replace

    near = replace(
        PRESETS["phoenix"](backend.url), content=False, pseudonyms=True, filter=lambda span: span.name != "private",
        endpoint=collector.endpoint, feedback_url=backend.url,
    )  # fmt: skip
    whole = loopkit.Destination(endpoint=collector.endpoint, name="whole", content=True)
    loopkit.init("svc", export=[near, whole])
    with loopkit.context(session_id="ana@sessions"), loopkit.span("search", kind="retrieval") as search:
        pass
    with loopkit.span("private", content="off") as private:
        pass
    loopkit.feedback(search, "relevant", True, document="Patient Lopez, HIV file")
    loopkit.feedback("session:ana@sessions", "resolved", True)
    loopkit.feedback(private, "tone", "secret words", comment="a secret")
    assert loopkit.flush(10, delivered=True)
    told = json.dumps(backend.asked)
    assert len(backend.asked) == 2
    assert not any(word in told for word in ("Lopez", "ana@sessions", "secret", private.id[33:]))
    assert [row["session_id"][:5] for _, _, body in backend.asked for row in body["data"] if "session_id" in row] == [
        "anon-"
    ]
    said = [span for span in received(collector) if span["name"] == "feedback tone"]
    assert said
    assert "secret" not in json.dumps(said)


def test_delivered_means_taken(backend: Backend) -> None:
    backend.answers = [(404, {})] * 500
    loopkit.init("svc", export=[PRESETS["langfuse"](backend.url)])
    (s,) = spans(1)
    loopkit.feedback(s, "thumbs", True)
    assert loopkit.flush(1, delivered=True) is False
    backend.answers = []
    assert loopkit.flush(20, delivered=True)


@pytest.mark.parametrize("status", [401, 408, 500])
def test_what_may_pass_is_told_later(status: int, backend: Backend) -> None:
    backend.answers = [(status, {})]
    loopkit.init("svc", export=[PRESETS["langfuse"](backend.url)])
    (s,) = spans(1)
    loopkit.feedback(s, "thumbs", True)
    assert loopkit.flush(20, delivered=True)
    assert len(backend.asked) == 2


@pytest.mark.usefixtures("looking_often")
def test_what_a_key_stands_for_may_become_known_later(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loopkit.observe.outbox._AGAIN_SECONDS", 0.5)
    loopkit.init("svc", export=[PRESETS["langfuse"](backend.url)])
    with loopkit.context(order="9"), loopkit.span("outer") as outer:
        with loopkit.span("inner") as inner:
            pass
        loopkit.feedback("order:9", "thumbs", True)
        assert loopkit.flush(10, delivered=True)
    (first, second, gone) = backend.wait_for(3)
    assert (first[2]["observationId"], second[2]["observationId"]) == (inner.id[33:], outer.id[33:])
    assert gone[:2] == ("DELETE", f"/api/public/scores/{first[2]['id']}")
    assert loopkit.untold(loopkit.open_store()) == []


def test_after_any_number_of_tries_it_goes_on(backend: Backend, clean_environment: Path) -> None:
    loopkit.init("svc", export=[PRESETS["langfuse"](backend.url)])
    loopkit.feedback("order:1", "thumbs", True)
    assert loopkit.flush(10, delivered=True)
    with loopkit.open_store().transaction() as connection:
        connection.execute("UPDATE untold SET tries = 5000, state = 'due', due = 0")
    (s,) = spans(1)
    loopkit.feedback(s, "thumbs", True)
    assert loopkit.flush(10, delivered=True)
    assert len(backend.asked) == 1


def test_closing_doesnt_wait_for_a_store_that_is_held(backend: Backend, clean_environment: Path) -> None:
    loopkit.init("svc", export=[PRESETS["langfuse"](backend.url)])
    (s,) = spans(1)
    loopkit.feedback(s, "thumbs", True)
    assert loopkit.flush(10, delivered=True)
    other = sqlite3.connect(clean_environment / FILE, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    loopkit.feedback(s, "stars", 3)
    began = time.monotonic()
    loopkit.shutdown(1)
    assert time.monotonic() - began < 10  # it promises one, and the store's own second
    other.execute("ROLLBACK")
    other.close()


def test_an_api_wants_http() -> None:
    with pytest.raises(InvalidSetting, match="give feedback_url"):
        loopkit.Destination(endpoint="http://h:4317", protocol="grpc", feedback="phoenix")


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["say", "say", "say", "retract", "supersede"]),
        st.sampled_from(["order:1", "resp-1", "span", "trace"]),
        st.sampled_from(["helpful", "stars"]),
        st.sampled_from(["ana", "bo"]),
        st.integers(0, 3),
        st.integers(0, 30),
    ),
    max_size=12,
)


@given(EVENTS, st.lists(st.booleans(), min_size=12, max_size=12))
@example(
    [
        ("say", "order:1", "helpful", "ana", 0, 0),
        ("retract", "order:1", "helpful", "ana", 0, 0),
        ("say", "order:1", "helpful", "ana", 0, 0),
        ("supersede", "order:1", "helpful", "ana", 1, 1),
    ],
    [False] * 12,
)
@example(
    [
        ("say", "resp-1", "helpful", "ana", 0, 0),
        ("say", "order:1", "helpful", "bo", 0, 0),
        ("retract", "order:1", "helpful", "ana", 0, 1),
    ],
    [False, True] + [False] * 10,
)
@example(
    [
        ("say", "order:1", "helpful", "ana", 0, 0),
        ("retract", "order:1", "helpful", "ana", 0, 0),
        ("supersede", "order:1", "helpful", "ana", 1, 1),
    ],
    [False] * 12,
)
def test_a_backend_holds_what_the_store_holds(steps: list[tuple[Any, ...]], pauses: list[bool]) -> None:
    """Whatever is said, taken back and replaced, in any order, however often it is told of meanwhile."""
    import tempfile

    held: dict[str, Any] = {}

    def take(request: httpx.Request) -> httpx.Response:
        if request.method == "DELETE":
            held.pop(request.url.path.rpartition("/")[2], None)
        else:
            body = json.loads(request.content)
            held[body["id"]] = (body["traceId"], body.get("observationId"), body["name"], body["value"])
        return httpx.Response(200, json={})

    with tempfile.TemporaryDirectory() as home:
        made = settings("svc", store=home, environ={"LOOPKIT_HOME": home})
        destination = PRESETS["langfuse"]("http://127.0.0.1:1")
        sink = OutboxSink(destination, made, Store(home), Clock(), httpx.MockTransport(take))
        store = loopkit.open_store(home)
        try:
            trace, span = "a" * 32, f"{'a' * 32}-{'b' * 16}"
            store.append(_span(trace, "b" * 16), [])
            said: list[Feedback] = []
            for number, ((what, target, name, by, value, which), pause) in enumerate(zip(steps, pauses, strict=False)):
                about = {"span": span, "trace": f"trace:{trace}"}.get(target, target)
                event = Feedback(
                    id=f"{number:032x}", target=about, name=name, value=float(value), by=by, at=1000 - which,
                    arrived_at=2000,
                )  # fmt: skip
                if what != "say" and said:
                    from dataclasses import replace

                    old = said[which % len(said)]
                    change = {"retracts": old.id} if what == "retract" else {"supersedes": old.id}
                    elsewhere = f"event:{old.id}" if what == "retract" else about
                    event = replace(event, target=old.target if value % 2 else elsewhere, **change)
                said.append(event)
                store.append(None, [event])
                if pause:
                    assert sink.drained(10)
            assert sink.drained(10)
            state = loopkit.held(store)
            expected = [
                (trace, "b" * 16 if slot[0] == span else None, slot[1], event.value)
                for slot, event in state.current.items()
                if not slot[0].startswith("event:")  # what is said of a statement has no place in a backend
            ]
            assert Counter(held.values()) == Counter(expected)
        finally:
            sink.close(1)


def _span(trace: str, span: str) -> bytes:
    from loopkit.types import ModelCall, Span
    from loopkit.wire.encode import encode_request, encode_resource, encode_span

    call = ModelCall(operation="chat", provider="acme", model="m", response_id="resp-1")
    made = Span(
        trace_id=trace, span_id=span, name="s", kind="llm", started_at=1, ended_at=2, model_call=call, tags=("order:1",)
    )
    return encode_request(encode_resource({"service.name": "svc"}), "loopkit", "1", [encode_span(made).stored()])


def _say_much() -> tuple[Any, Feedback]:
    with loopkit.context(session_id="s-1", order="77"), loopkit.span("triage") as s:
        s.set(output="cards")
    loopkit.feedback(s, "helpful", True, by="ana", comment="good")
    loopkit.feedback("order:77", "stars", 3, by="bo")
    tone = loopkit.feedback(f"trace:{s.trace_id}", "tone", "rude", source="reviewer", by="rev")
    loopkit.feedback(s, correction="loans", source="reviewer", by="rev")
    assert tone is not None
    return s, tone


def _until(look: Callable[[], Any], wanted: Any) -> None:
    deadline = time.monotonic() + 60
    while (found := look()) != wanted:
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("phoenix") is None, reason="Arize Phoenix is not installed: pip install arize-phoenix")
def test_phoenix_gives_our_feedback_back(tmp_path: Path) -> None:
    with phoenix(tmp_path) as base:
        loopkit.init("svc", export=[backends.phoenix(base, project="help desk", content=True)])
        s, tone = _say_much()
        loopkit.feedback("session:s-1", "resolved", True, by="ana")

        def there(kind: str, id: str) -> dict[str, Any]:
            answer = httpx.get(f"{base}/v1/projects/help%20desk/{kind}_annotations", params={f"{kind}_ids": id})
            rows = answer.json()["data"] if answer.is_success else []
            return {row["name"]: (row["result"]["label"], row["result"]["score"]) for row in rows}

        said = {"helpful": ("true", 1.0), "stars": (None, 3.0), "correction": (None, None)}
        _until(lambda: there("span", s.id[33:]), said)
        _until(lambda: there("trace", s.trace_id), {"tone": ("rude", None)})
        _until(lambda: there("session", "s-1"), {"resolved": ("true", 1.0)})
        loopkit.feedback(s, "helpful", False, by="ana")
        loopkit.retract(tone)
        _until(lambda: there("span", s.id[33:]), {**said, "helpful": ("false", 0.0)})
        _until(lambda: there("trace", s.trace_id), {})
        assert loopkit.untold(loopkit.open_store()) == []


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mlflow") is None, reason="MLflow is not installed: pip install mlflow")
def test_mlflow_gives_our_feedback_back(tmp_path: Path) -> None:
    port = str(free_port())
    command = [
        "mlflow", "server", "--host", "127.0.0.1", "--port", port, "--workers", "1",
        "--backend-store-uri", f"sqlite:///{tmp_path}/m.db", "--default-artifact-root", f"{tmp_path}/artifacts",
    ]  # fmt: skip
    base = f"http://127.0.0.1:{port}"
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with serving(command, f"{base}/health", tmp_path, **quiet):
        loopkit.init("svc", export=[backends.mlflow(base, content=True)])
        s, tone = _say_much()

        def there() -> dict[str, Any]:
            answer = httpx.get(f"{base}/api/3.0/mlflow/traces/tr-{s.trace_id}")
            rows = answer.json()["trace"]["trace_info"].get("assessments", []) if answer.is_success else []
            return {
                row["assessment_name"]: ((row.get("feedback") or row["expectation"])["value"], row.get("span_id"))
                for row in rows
            }

        span = s.id[33:]
        said = {"helpful": (True, span), "stars": (3.0, span), "correction": ("loans", span), "tone": ("rude", None)}
        _until(there, said)
        loopkit.feedback(s, "helpful", False, by="ana", comment="bad")
        loopkit.retract(tone)
        _until(there, {**{name: each for name, each in said.items() if name != "tone"}, "helpful": (False, span)})
        assert loopkit.untold(loopkit.open_store()) == []


# What hangs on a span that isn't in the store


def test_what_is_said_within_a_span_waits_until_its_filter_can_be_asked(backend: Backend) -> None:
    destination = backends.langfuse(
        backend.url, public_key="pk", secret_key="sk", content=True, filter=lambda span: span.name == "public"
    )
    loopkit.init("svc", export=[destination])
    for name in ("private", "public"):
        with loopkit.span(name) as s:
            loopkit.feedback(s, "helpful", False, comment=f"said of what is {name}")
            time.sleep(0.5)
            assert not any("private" in str(body) for _, _, body in backend.asked)
    assert loopkit.flush(10, delivered=True)
    backend.wait_for(1)
    assert [body["comment"] for _, _, body in backend.asked] == ["said of what is public"]


def test_words_about_a_span_whose_content_stays_here_stay_too(backend: Backend) -> None:
    loopkit.init("svc", export=[PRESETS["langfuse"](backend.url)])
    with loopkit.span("private", content="off") as s:
        loopkit.feedback(s, "helpful", True, comment="said inside")
        time.sleep(0.5)
    assert loopkit.flush(10, delivered=True)
    assert [body["comment"] for _, _, body in backend.wait_for(1)] == [None]
    loopkit.open_store().prune(days=0)
    loopkit.feedback(s, "helpful", False, comment="said when it had gone")
    assert loopkit.flush(10, delivered=True)
    assert [body["comment"] for _, _, body in backend.wait_for(2)] == [None, None]


def test_what_was_told_is_taken_back_when_its_span_has_gone(backend: Backend) -> None:
    loopkit.init("svc", export=[PRESETS["langfuse"](backend.url)])
    response = ask()
    event = loopkit.feedback(response.id, "helpful", True, by="ana", comment="my words")
    assert loopkit.flush(10, delivered=True)
    (_, _, told), *_ = backend.wait_for(1)
    loopkit.open_store().prune(days=0)
    loopkit.retract(event)
    assert loopkit.flush(10, delivered=True)
    assert backend.wait_for(2)[1][:2] == ("DELETE", f"/api/public/scores/{told['id']}")


def test_who_is_forgotten_is_taken_back_under_whatever_name_it_was_told(backend: Backend) -> None:
    loopkit.init("svc", export=[PRESETS["langfuse"](backend.url)])
    response = ask()
    loopkit.flush(5)
    (span,) = loopkit.open_store().spans()
    loopkit.feedback(span.id, "helpful", True, by="bob")
    loopkit.feedback(response.id, "helpful", False, by="ana", comment="ana's own words")
    assert loopkit.flush(10, delivered=True)
    told = {body["value"]: body["id"] for _, _, body in backend.wait_for(2)}
    loopkit.forget("ana")
    assert loopkit.flush(10, delivered=True)
    assert backend.wait_for(3)[2][:2] == ("DELETE", f"/api/public/scores/{told[0.0]}")
    assert len(backend.asked) == 3


def test_an_assessment_of_another_kind_is_made_anew(backend: Backend) -> None:
    s, _ = record_and_say(PRESETS["mlflow"](backend.url))
    made = backend.asked[1][2]["assessment"]
    there = {"assessment_id": "a-1", "metadata": made["metadata"], "feedback": {"value": True}}
    backend.answers = [(200, {"trace": {"trace_info": {"assessments": [there]}}})]
    loopkit.feedback(s, "helpful", correction="loans", by="ana", source="reviewer")
    loopkit.feedback(s, "helpful", correction="loans", by="ana")
    assert loopkit.flush(10, delivered=True)
    assert {method for method, _, _ in backend.asked[2:]} <= {"GET", "DELETE", "POST", "PATCH"}
    changed = [body["assessment"] for method, _, body in backend.asked[2:] if method in ("PATCH", "POST")]
    assert all(each["rationale"] for each in changed)


STATEMENT = Statement(
    "0" * 32, Feedback(id="f", target="trace:" + "1" * 32, name="helpful", value=True, at=1, arrived_at=1),
    "trace:" + "1" * 32, holds=True,
)  # fmt: skip


def test_a_page_is_no_answer(backend: Backend) -> None:
    pages = httpx.MockTransport(lambda request: httpx.Response(200, html="<h1>Sign in</h1>"))
    api = Api(PRESETS["langfuse"](backend.url), {"service.name": "svc"}, pages)
    with pytest.raises(NotNow, match="HTTP 200 with a page"):
        api.tell(STATEMENT)


@pytest.mark.parametrize("status", [301, 502, 507, 529])
def test_what_may_pass_is_tried_again(status: int, backend: Backend) -> None:
    answers = httpx.MockTransport(lambda request: httpx.Response(status, headers={"location": "/login"}))
    api = Api(PRESETS["langfuse"](backend.url), {"service.name": "svc"}, answers)
    with pytest.raises(NotNow):
        api.tell(STATEMENT)


def test_the_longest_answer_and_the_slowest_are_bounded() -> None:
    def drip() -> Iterator[bytes]:
        while True:
            time.sleep(0.05)
            yield b" "

    with httpx.Client(
        transport=httpx.MockTransport(lambda _: httpx.Response(200, content=drip())), timeout=0.2
    ) as slow:
        began = time.monotonic()
        with pytest.raises(NotNow, match="took too long"):
            asked(slow, "POST", "http://127.0.0.1/")
        assert time.monotonic() - began < 5 * 0.4
    much = httpx.MockTransport(lambda _: httpx.Response(200, content=iter([b"x" * 65536] * 20)))
    with httpx.Client(transport=much, timeout=5) as large, pytest.raises(NotNow, match="more than 1048576 bytes"):
        asked(large, "POST", "http://127.0.0.1/")


def test_what_lies_beside_a_held_store_is_not_delivered(backend: Backend, clean_environment: Path) -> None:
    loopkit.init("svc", export=[PRESETS["langfuse"](backend.url)])
    with loopkit.span("x") as s:
        pass
    assert loopkit.flush(10, delivered=True)
    other = sqlite3.connect(clean_environment / "loopkit.db", isolation_level=None, timeout=5)
    other.execute("BEGIN EXCLUSIVE")
    loopkit.feedback(s, "helpful", True)
    assert not loopkit.flush(4, delivered=True)
    other.execute("ROLLBACK")
    other.close()
    loopkit.feedback(s, "tone", True)
    assert loopkit.flush(20, delivered=True)
    assert {body["name"] for _, _, body in backend.wait_for(2)} == {"helpful", "tone"}
