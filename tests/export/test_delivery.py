"""Spans over OTLP: to real receivers, to bad ones, and again when they come back."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import loopkit
from loopkit.cli.demo.machinery import Receiver
from loopkit.export.spool import Spool
from loopkit.wire.decode import decode_request


class Collector:
    """A receiver on loopback that answers as it is told."""

    def __init__(self) -> None:
        self.answers: Callable[[int], tuple[int, dict[str, str]]] = lambda number: (200, {})
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.bodies.append(self.rfile.read(int(self.headers["content-length"])))
                collector.headers.append({k.lower(): v for k, v in self.headers.items()})
                status, headers = collector.answers(len(collector.bodies))
                self.send_response(status)
                for name, value in {"content-length": "0", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}/v1/traces"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def names(self) -> list[str]:
        return [span.name for body in self.bodies for span, _ in decode_request(body)]

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.stop()


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def record(name: str) -> None:
    with loopkit.span(name, task="t", input={"words": "of the user"}):
        pass


def waiting(home: Path) -> list[Path]:
    return list((home / "spool").glob("*/*.otlp"))


def test_spans_arrive_with_headers_and_without_content(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", collector.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc,x-team=a")
    loopkit.init("svc")
    record("one")
    until(lambda: collector.names() == ["one"])
    assert collector.headers[0]["authorization"] == "Bearer abc"
    assert collector.headers[0]["content-type"] == "application/x-protobuf"
    assert b"of the user" not in collector.bodies[0]


def test_content_goes_along_when_it_is_asked_for(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "SPAN_ONLY")
    loopkit.init("svc", export=[collector.endpoint])
    record("one")
    until(lambda: collector.bodies)
    assert b"of the user" in collector.bodies[0]


def test_what_a_receiver_cant_take_now_is_sent_again_byte_for_byte(
    collector: Collector, clean_environment: Path
) -> None:
    collector.answers = lambda number: (503, {"retry-after": "0.1"}) if number < 3 else (200, {})
    loopkit.init("svc", export=[collector.endpoint])
    record("one")
    until(lambda: len(collector.bodies) == 3 and not waiting(clean_environment))
    assert collector.bodies[0] == collector.bodies[1] == collector.bodies[2]


def test_what_a_receiver_refuses_is_put_aside_with_the_reason(collector: Collector, clean_environment: Path) -> None:
    collector.answers = lambda number: (400 if number == 1 else 200, {})
    loopkit.init("svc", export=[collector.endpoint])
    record("poison")
    until(lambda: list((clean_environment / "spool").glob("*/dead/*.otlp")))
    record("after it")
    until(lambda: "after it" in collector.names() and not waiting(clean_environment))
    (reason,) = (clean_environment / "spool").glob("*/dead/*.reason")
    assert reason.read_text().startswith("HTTP 400")


def test_what_one_process_left_the_next_one_delivers(collector: Collector, clean_environment: Path) -> None:
    loopkit.init("svc", export=["http://127.0.0.1:9/v1/traces"])
    record("left behind")
    assert loopkit.flush() is True
    loopkit.shutdown()
    (batch,) = waiting(clean_environment)
    loopkit.init("svc", export=[collector.endpoint], store=None)
    loopkit.shutdown()
    spool = next(path for path in (clean_environment / "spool").iterdir() if path != batch.parent)
    batch.rename(spool / batch.name)
    loopkit.init("svc", export=[collector.endpoint])
    until(lambda: collector.names() == ["left behind"])


def test_flush_keeps_its_promise_when_the_collector_hangs(clean_environment: Path) -> None:
    loopkit.init("svc", export=["http://127.0.0.1:9/v1/traces"])
    record("one")
    started = time.monotonic()
    assert loopkit.flush(2.0) is True
    assert time.monotonic() - started < 10.0
    assert len(waiting(clean_environment)) == 1


def test_the_spool_is_bounded_and_drops_the_oldest(tmp_path: Path) -> None:
    ticks = iter(range(1000))
    spool = Spool(tmp_path / "spool", limit=250, clock=lambda: next(ticks))
    for number in range(5):
        spool.append(bytes([number]) * 100)
    assert [batch.read_bytes()[0] for batch in spool.waiting()] == [3, 4]
    assert spool.dropped == 3


def test_only_one_holds_a_spool_at_a_time(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", limit=1000, clock=lambda: 0)
    code = (
        "import sys, pathlib; from loopkit.export.spool import Spool\n"
        "with Spool(pathlib.Path(sys.argv[1]), 1000, lambda: 0).held() as ours: print(ours)"
    )
    with spool.held() as ours:
        assert ours is True
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "spool")], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "False"


def test_a_receiver_by_others_reads_our_spans(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path)
    try:
        loopkit.init("svc", export=[receiver.endpoint])
        for number in range(50):
            record(f"call {number}")
        loopkit.flush()
        ids = receiver.wait_for(50, 20)
    finally:
        receiver.stop()
    assert set(ids) == {span.id for span in loopkit.open_store().spans()}
    assert len(ids) == 50
