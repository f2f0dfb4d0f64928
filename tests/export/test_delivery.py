"""Spans over OTLP: to real receivers, to bad ones, and again when they come back."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

import loopkit
from loopkit.cli.demo.machinery import Receiver
from loopkit.errors import InvalidSetting
from loopkit.export.host import place_of
from loopkit.export.place import spools
from loopkit.wire.decode import decode_request


class Collector:
    """A receiver on loopback that answers as it is told: a status, headers, a body, or raw bytes for all of it."""

    def __init__(self) -> None:
        self.answers: Callable[[int], Any] = lambda number: (200, {})
        self.bodies: list[bytes] = []
        self.accepted: list[bytes] = []
        """The bodies that were answered with 200."""
        self.headers: list[dict[str, str]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                body = gzip.decompress(body) if self.headers["content-encoding"] == "gzip" else body
                collector.bodies.append(body)
                collector.headers.append({k.lower(): v for k, v in self.headers.items()})
                answer = collector.answers(len(collector.bodies))
                if isinstance(answer, bytes):
                    self.wfile.write(answer)
                    self.close_connection = True
                    return
                status, headers, *rest = answer
                if status == 200:
                    collector.accepted.append(body)
                said = rest[0] if rest else b""
                self.send_response(status)
                for name, value in {"content-length": str(len(said)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
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


def waiting() -> list[bytes]:
    return [batch.data for spool in loopkit.spools().values() for batch in spool.waiting()]


def letters() -> list[str]:
    return [reason for spool in loopkit.spools().values() for _, reason in spool.letters()]


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


@pytest.mark.parametrize(
    "answer",
    [
        (503, {"retry-after": "0.1"}),
        (429, {"retry-after": "0.1"}),
        (502, {"retry-after": "soon"}),
        b"",
        b"this is no HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nclosed in the mid",
    ],
    ids=["503", "429", "502 with a date", "closes at once", "garbage", "closes mid-body"],
)
def test_what_a_receiver_cant_take_now_is_sent_again_byte_for_byte(answer: Any, collector: Collector) -> None:
    collector.answers = lambda number: answer if number < 3 else (200, {})
    loopkit.init("svc", export=[collector.endpoint])
    record("one")
    until(lambda: len(collector.bodies) == 3 and not waiting())
    assert collector.bodies[0] == collector.bodies[1] == collector.bodies[2]


def test_a_receiver_that_hangs_is_tried_again(collector: Collector) -> None:
    def answer(number: int) -> Any:
        if number == 1:
            time.sleep(3)
        return 200, {}

    collector.answers = answer
    loopkit.init("svc", export=[loopkit.Destination(endpoint=collector.endpoint, timeout=0.3)])
    record("one")
    until(lambda: collector.names() == ["one", "one"] and not waiting())


@pytest.mark.parametrize("status", [400, 401, 413, 500])
def test_what_a_receiver_refuses_is_put_aside_and_can_be_sent_again(status: int, collector: Collector) -> None:
    collector.answers = lambda number: (status, {}, b"not like this") if number == 1 else (200, {})
    loopkit.init("svc", export=[collector.endpoint])
    record("poison")
    until(letters)
    assert letters() == [f"HTTP {status}: not like this"]
    record("after it")
    until(lambda: "after it" in collector.names() and not waiting())
    assert collector.names() == ["poison", "after it"]
    (spool,) = loopkit.spools().values()
    assert spool.replay() == 1
    record("wakes it")
    until(lambda: collector.names().count("poison") == 2)


def test_a_partial_success_is_not_sent_again_and_is_told(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    said = ExportTraceServiceResponse()
    said.partial_success.rejected_spans = 1
    said.partial_success.error_message = "too old"
    protobuf = {"content-type": "application/x-protobuf"}
    collector.answers = lambda number: (200, protobuf, said.SerializeToString())
    loopkit.init("svc", export=[collector.endpoint])
    record("one")
    until(lambda: collector.bodies and not waiting())
    until(lambda: "1 spans rejected: too old" in caplog.text)
    assert (len(collector.bodies), letters()) == (1, [])


def test_an_acknowledgement_that_cant_be_read_is_one_all_the_same(collector: Collector) -> None:
    collector.answers = lambda number: (200, {"content-type": "application/x-protobuf"}, b"\xff\xff\xff")
    loopkit.init("svc", export=[collector.endpoint])
    record("one")
    until(lambda: collector.bodies and not waiting())
    assert len(collector.bodies) == 1


def test_batches_can_be_zipped(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", collector.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    loopkit.init("svc")
    record("one")
    until(lambda: collector.names() == ["one"])
    assert collector.headers[0]["content-encoding"] == "gzip"


def test_a_grpc_receiver_gets_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[tuple[bytes, dict[str, str]]] = []

    def export(request: bytes, context: Any) -> bytes:
        got.append((request, {item.key: item.value for item in context.invocation_metadata()}))
        if len(got) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        if len(got) == 3:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not like this")
        return b""

    handler = grpc.method_handlers_generic_handler(
        "opentelemetry.proto.collector.trace.v1.TraceService",
        {"Export": grpc.unary_unary_rpc_method_handler(export)},
    )
    server = grpc.server(ThreadPoolExecutor(2), handlers=(handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "X-Team=a")
        loopkit.init("svc")
        record("one")
        until(lambda: len(got) == 2 and not waiting())
        record("two")
        until(letters)
    finally:
        loopkit.shutdown()
        server.stop(None).wait()
    assert got[0][0] == got[1][0]
    assert [span.name for span, _ in decode_request(got[1][0])] == ["one"]
    assert got[0][1]["x-team"] == "a"
    assert letters() == ["INVALID_ARGUMENT: not like this"]


def test_several_destinations_have_each_a_spool_and_a_policy(collector: Collector) -> None:
    closed = loopkit.Destination(endpoint="http://127.0.0.1:9/v1/traces", content=True)
    loopkit.init("svc", export=[collector.endpoint, closed])
    record("one")
    loopkit.flush()
    until(lambda: collector.names() == ["one"])
    assert b"of the user" not in collector.bodies[0]
    until(lambda: len(waiting()) == 1)
    assert b"of the user" in waiting()[0]


def test_what_one_process_left_the_next_one_delivers(collector: Collector, clean_environment: Path) -> None:
    left = f"""if True:
        import os, signal, loopkit
        loopkit.init("svc", export=[{collector.endpoint!r}])
        with loopkit.span("left behind"): pass
        loopkit.flush()
        print(flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    collector.answers = lambda number: (503, {"retry-after": "60"})
    subprocess.run([sys.executable, "-c", left], check=False, stdout=subprocess.PIPE)
    assert len(waiting()) == 1
    collector.answers = lambda number: (200, {})
    collector.bodies.clear()
    loopkit.init("svc", export=[collector.endpoint])
    until(lambda: collector.names() == ["left behind"] and not waiting())
    loopkit.shutdown()
    assert not list((clean_environment / "spool").glob("*/*.seg"))


def test_flush_keeps_its_promise_when_the_collector_is_dead() -> None:
    loopkit.init("svc", export=["http://127.0.0.1:9/v1/traces"])
    record("one")
    started = time.monotonic()
    assert loopkit.flush(2.0) is True
    assert time.monotonic() - started < 10.0
    assert len(waiting()) == 1


def test_flush_can_wait_until_all_is_delivered(collector: Collector) -> None:
    """As a function in the cloud needs it, which may be frozen when it has answered."""
    collector.answers = lambda number: (503, {"retry-after": "0.2"}) if number == 1 else (200, {})
    loopkit.init("svc", export=[collector.endpoint])
    for name in ("one", "two"):
        with loopkit.span(name):
            pass
        assert loopkit.flush(10, delivered=True)
        assert collector.names()[-1] == name
    collector.answers = lambda number: (503, {"retry-after": "30"})
    with loopkit.span("three"):
        pass
    started = time.monotonic()
    assert not loopkit.flush(0.5, delivered=True)
    assert time.monotonic() - started < 2.5
    assert loopkit.flush(5)  # it is on disk all the same


def test_what_was_refused_was_not_delivered(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    collector.answers = lambda number: (400, {}) if number == 1 else (200, {})
    loopkit.init("svc", export=[collector.endpoint])
    for name, taken in (("one", False), ("two", True)):
        with loopkit.span(name):
            pass
        assert loopkit.flush(10, delivered=True) == taken
    full = OSError(28, "No space left on device")

    def append(*_: object) -> None:
        raise full

    monkeypatch.setattr("loopkit.export.spool.DiskSpool.append", append)
    with loopkit.span("three"):
        pass
    assert not loopkit.flush(1, delivered=True)
    loopkit.shutdown(0.1)
    loopkit.init("svc", store=None)
    with loopkit.span("four"):
        pass
    assert not loopkit.flush(1, delivered=True)


def test_where_nothing_can_be_written_spans_are_delivered_from_memory(
    collector: Collector, clean_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere: the answer is what is faked
    loopkit.init("svc", store=None, export=[collector.endpoint])
    record("one")
    assert loopkit.flush() is False
    until(lambda: collector.names() == ["one"])
    assert not list((clean_environment / "spool").glob("*/*.seg"))


def test_a_spool_that_is_a_file_is_said_at_init(clean_environment: Path) -> None:
    clean_environment.mkdir()
    (clean_environment / "spool").write_text("")
    with pytest.raises(InvalidSetting, match="is a file: move it away, or point LOOPKIT_HOME elsewhere"):
        loopkit.init("svc", export=["http://127.0.0.1:9/v1/traces"])


def test_two_processes_drain_one_spool_without_sending_twice(collector: Collector) -> None:
    code = f"""if True:
        import loopkit, sys
        loopkit.init("svc", export=[{collector.endpoint!r}], store=None)
        for number in range(40):
            with loopkit.span(sys.argv[1] + str(number)): pass
            loopkit.flush()
        loopkit.shutdown(20)
    """
    running = [subprocess.Popen([sys.executable, "-c", code, name]) for name in ("a", "b", "c")]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    loopkit.init("svc", export=[collector.endpoint])
    until(lambda: not waiting())
    assert sorted(collector.names()) == sorted(f"{name}{number}" for name in "abc" for number in range(40))


def test_batches_are_no_larger_than_receivers_take(collector: Collector) -> None:
    loopkit.init("svc", export=[loopkit.Destination(endpoint=collector.endpoint, content=True)])
    for number in range(12):
        with loopkit.span(f"call {number}", input="word " * 100_000):
            pass
    until(lambda: len(collector.names()) == 12)
    assert len(collector.bodies) >= 3
    assert max(map(len, collector.bodies)) < 3 << 20


def test_a_header_that_cant_be_sent_is_said_at_once() -> None:
    with pytest.raises(InvalidSetting, match="header 'x-team' is 'é'"):
        loopkit.Destination(endpoint="http://127.0.0.1:9/v1/traces", headers={"x-team": "é"})


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


@pytest.mark.parametrize("asked", ["0", "-1"])
def test_a_receiver_does_not_say_how_often(asked: str, collector: Collector) -> None:
    collector.answers = lambda number: (503, {"retry-after": asked})
    loopkit.init("svc", export=[collector.endpoint])
    with loopkit.span("x"):
        pass
    assert not loopkit.flush(2, delivered=True)
    assert len(collector.bodies) < 20


@pytest.mark.parametrize("target", ["dns:collector:4317", "ipv4:127.0.0.1:4317", "localhost:port", "http://[::1:4317"])
def test_a_target_that_cant_be_read_is_no_place_of_ours(target: str) -> None:
    assert place_of(target, grpc=True)


def test_what_a_full_disk_left_of_a_spools_name_is_passed_over(clean_environment: Path, collector: Collector) -> None:
    for name, text in (("a", ""), ("b", "http://x/ many")):
        (clean_environment / "spool" / name).mkdir(parents=True)
        (clean_environment / "spool" / name / "endpoint").write_text(text)
    loopkit.init("svc", export=[collector.endpoint])
    assert list(spools()) == [collector.endpoint]
