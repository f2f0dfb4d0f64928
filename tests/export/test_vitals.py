"""How recording itself is: in the program, as metrics of the application's own, and for `loopkit doctor`."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import loopkit
from loopkit import checks
from loopkit.cli.diagnosis import diagnose
from loopkit.export.vitals import healths
from tests.export.test_delivery import Collector


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.stop()


def test_health_says_what_became_of_spans(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOPKIT_HOME", str(tmp_path))
    assert loopkit.health() is None
    loopkit.init("svc", export=[collector.endpoint])
    traced = loopkit.trace(lambda word: word)
    for number in range(200):
        traced("joe@example.com" if number < 3 else "fine")
    loopkit.flush()
    deadline = time.monotonic() + 10
    while True:
        health = loopkit.health()
        assert health is not None
        if health.destinations[0].delivered == 200 or time.monotonic() > deadline:
            break
        time.sleep(0.01)
    (destination,) = health.destinations
    assert (health.recorded, health.queued, health.dropped, health.redacted) == (200, 0, 0, 6)
    assert (destination.spooled, destination.delivered, destination.refused) == (200, 200, 0)
    assert health.calling_us > 0
    assert health.own_us > 0
    loopkit.shutdown()
    assert loopkit.health() is None


def test_refused_and_rejected_spans_are_counted(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    partial = ExportTraceServiceResponse()
    partial.partial_success.rejected_spans = 2
    said = partial.SerializeToString()
    collector.answers = lambda number: (
        (400, {}) if number == 1 else (200, {"content-type": "application/x-protobuf"}, said)
    )
    monkeypatch.setenv("LOOPKIT_HOME", str(tmp_path))
    loopkit.init("svc", export=[collector.endpoint])
    for _ in range(2):
        for name in ("one", "two", "three"):
            with loopkit.span(name):
                pass
        loopkit.flush()
    loopkit.shutdown(10)
    (health,) = healths(tmp_path)
    assert (health.destinations[0].delivered, health.destinations[0].refused) == (1, 5)


def test_doctor_shows_every_process_with_what_to_do(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOPKIT_HOME", str(tmp_path))
    code = """
        import loopkit
        loopkit.init("web")
        with loopkit.span("one"):
            pass
        loopkit.shutdown()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
    (finding,) = [each for each in diagnose() if each.station == "process"]
    assert finding.good
    assert finding.text.startswith("web (process ")
    assert "1 spans" in finding.text
    (file,) = (tmp_path / "health").glob("*.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "dropped": 7, "level": 1}))
    (finding,) = [each for each in diagnose() if each.station == "process"]
    assert not finding.good
    assert "7 dropped" in finding.text
    assert "over its budget" in finding.text
    file.write_text("{")
    assert [each for each in diagnose() if each.station == "process"] == []


def test_the_applications_meter_provider_reads_it(collector: Collector, tmp_path: Path) -> None:
    code = f"""
        import json, time, loopkit
        from opentelemetry.metrics import set_meter_provider
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader

        loopkit.init("web", export=["{collector.endpoint}"])
        with loopkit.span("one"):
            pass
        loopkit.flush()
        reader = InMemoryMetricReader()
        set_meter_provider(MeterProvider(metric_readers=[reader]))
        with loopkit.span("two"):
            pass
        loopkit.flush()
        while loopkit.health().destinations[0].delivered < 2:
            time.sleep(0.01)
        found = json.loads(reader.get_metrics_data().to_json())
        loopkit.init("web", store=None)  # the second one's figures take the place of the first one's
        with loopkit.span("three"):
            pass
        loopkit.flush()
        again = json.loads(reader.get_metrics_data().to_json())
        loopkit.shutdown()
        print(json.dumps([found, again]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], check=True, capture_output=True, text=True,
        env={"LOOPKIT_HOME": str(tmp_path)},
    )  # fmt: skip
    found, again = json.loads(done.stdout)

    def values(data: object) -> dict[str, list[tuple[object, object]]]:
        metrics = data["resource_metrics"][0]["scope_metrics"][0]["metrics"] if data else []  # type: ignore[index]
        return {
            metric["name"]: [(point["value"], point["attributes"]) for point in metric["data"]["data_points"]]
            for metric in metrics
        }

    name = {"otel.component.name": collector.endpoint}
    assert values(found)["otel.sdk.processor.span.processed"] == [(2, {}), (0, {"error.type": "queue_full"})]
    assert values(found)["otel.sdk.exporter.span.exported"] == [(2, name), (0, {**name, "error.type": "rejected"})]
    assert values(found)["otel.sdk.processor.span.queue.capacity"] == [(20_000, {})]
    assert values(again)["otel.sdk.processor.span.processed"][0] == (1, {})
    assert "otel.sdk.exporter.span.exported" not in values(again)
    assert "Traceback" not in done.stderr


def test_what_a_call_costs_is_counted_however_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOPKIT_HOME", str(tmp_path))

    def fail() -> None:
        raise ValueError("no")

    def give() -> Iterator[int]:
        yield 1

    failing, giving = loopkit.trace(fail), loopkit.trace(give)
    guarded = loopkit.trace(guard=loopkit.Guard(output=[checks.secrets()]))(lambda: "fine")
    for function in (failing, guarded, lambda: list(giving())):
        loopkit.init("svc")
        for _ in range(1000):
            with contextlib.suppress(ValueError):
                function()
        health = loopkit.health()
        assert health is not None
        assert 0 < health.calling_us < 1000  # it was 1,300 to 6,300 where only calls that returned were counted
        loopkit.shutdown()
