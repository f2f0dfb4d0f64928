"""Many at once, much in a short time, clocks that jump, ends in any order: nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import loopkit
from loopkit import _assemble, backends
from loopkit._ids import Clock
from loopkit.config import settings
from loopkit.export.spool import DiskSpool
from loopkit.store.sqlite import Store
from loopkit.wire.decode import decode_request
from tests.export.test_delivery import Collector


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("LOOPKIT_HOME", str(tmp_path / "home"))
    yield tmp_path / "home"
    loopkit.shutdown(0.1)


def run(code: str, home: Path, *arguments: str) -> str:
    """What a child process prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True, text=True, timeout=60, env={"LOOPKIT_HOME": str(home)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def arrived(collector: Collector) -> list[str]:
    return [span.name for body in collector.accepted for span, _ in decode_request(body)]


def test_32_threads(collector: Collector) -> None:
    loopkit.init("svc", export=[collector.endpoint], limits=loopkit.Limits(queue_items=200_000))
    traced = loopkit.trace(lambda thread, number: thread * 1000 + number)
    ready = threading.Barrier(32)

    def work(thread: int) -> None:
        ready.wait()
        for number in range(300):
            assert traced(thread, number) == thread * 1000 + number

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loopkit.flush(30)
    spans = loopkit.open_store().spans()
    loopkit.shutdown(30)
    assert sorted(span.output for span in spans) == [t * 1000 + n for t in range(32) for n in range(300)]  # type: ignore[type-var]
    assert len({span.id for span in spans}) == 32 * 300
    assert len(arrived(collector)) == 32 * 300


@pytest.mark.parametrize("seconds", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_5000_calls_a_second_are_all_delivered(seconds: int, collector: Collector, home: Path) -> None:
    code = """
        import sys, time, loopkit
        loopkit.init("svc", export=[sys.argv[1]])
        traced = loopkit.trace(lambda ticket: "x" * 500)
        start = time.monotonic()
        for burst in range(int(sys.argv[2]) * 1000):
            pause = start + burst / 1000 - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            for _ in range(5):
                traced({"subject": "card", "body": "declined"})
        loopkit.shutdown(30)
    """
    run(code, home, collector.endpoint, str(seconds))
    assert len(arrived(collector)) == seconds * 5000
    assert Store(home).stats()["spans"] == seconds * 5000


class Jumping(Clock):
    """A clock that is set back by an hour once."""

    def __init__(self) -> None:
        self.back = 0

    def now(self) -> int:
        return super().now() - self.back


def test_a_clock_that_jumps_back_costs_nothing(collector: Collector, tmp_path: Path, home: Path) -> None:
    clock = Jumping()
    _assemble.start(settings("svc", export=[collector.endpoint], strict=True), clock=clock)
    for name in ("before", "after"):
        with loopkit.span(name) as span:
            clock.back = 3600 * 10**9 if name == "after" else 0
        loopkit.feedback(span.id, "helpful", name == "before", key="k")
    assert loopkit.flush()
    spans = loopkit.open_store().spans()
    assert {span.name for span in spans} == {"before", "after"}
    assert all(span.ended_at >= span.started_at for span in spans)
    events = loopkit.open_store().feedback()
    assert [event.id for event in events] == sorted(event.id for event in events)
    loopkit.shutdown(10)
    assert sorted(name for name in arrived(collector) if name != "feedback helpful") == ["after", "before"]

    now = [10**18]
    for number in range(3):  # a segment each, whose names say when they began
        now[0] -= 10**12
        spool = DiskSpool(tmp_path / "spool", 1 << 20, lambda: now[0])
        spool.append(b"%d" % number)
        spool.close()
    assert sorted(batch.data for batch in spool.waiting()) == [b"0", b"1", b"2"]


def test_several_event_loops_and_none_is_blocked(collector: Collector) -> None:
    loopkit.init("svc", export=[collector.endpoint])

    @loopkit.trace
    async def answer(number: int) -> int:
        await asyncio.sleep(0)
        return number

    async def work() -> float:
        await asyncio.gather(*(answer(number) for number in range(100)))
        longest, last, flushing = 0.0, time.monotonic(), asyncio.create_task(loopkit.aflush(10))
        while not flushing.done():
            await asyncio.sleep(0.001)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        assert flushing.result()
        return longest

    for _ in range(3):
        assert asyncio.run(work()) < 1.0
    loopkit.shutdown(10)
    assert len(arrived(collector)) == 300


def test_spawned_processes_record_by_themselves(home: Path, tmp_path: Path) -> None:
    script = tmp_path / "spawning.py"
    script.write_text(
        textwrap.dedent("""
        import multiprocessing, loopkit

        def work(number):
            loopkit.init("child")
            with loopkit.span(f"child {number}"):
                pass

        if __name__ == "__main__":
            loopkit.init("parent")
            with loopkit.span("parent"):
                pass
            with multiprocessing.get_context("spawn").Pool(2) as pool:
                pool.map(work, range(4))
                pool.close()
                pool.join()
        """)
    )
    subprocess.run([sys.executable, str(script)], check=True, timeout=60, env={"LOOPKIT_HOME": str(home)})
    assert sorted(span.name for span in Store(home).spans()) == [*(f"child {n}" for n in range(4)), "parent"]


def test_the_end_may_come_in_any_order(collector: Collector, home: Path) -> None:
    """Exit handlers of the application's, before and after ours, a daemon thread that goes on, an open span."""
    code = """
        import atexit, sys, threading, time, loopkit

        def say(name):
            with loopkit.span(name):
                pass

        atexit.register(say, "after ours")
        loopkit.init("svc", export=[sys.argv[1]])
        atexit.register(say, "before ours")

        def go_on():
            while True:
                say("thread")
                time.sleep(0.001)

        threading.Thread(target=go_on, daemon=True).start()
        stream = loopkit.span("open")
        stream.__enter__()
        say("main")
    """
    run(code, home, collector.endpoint)
    names = {span.name for span in Store(home).spans()}
    assert {"main", "before ours"} <= names
    assert {"main", "before ours"} <= set(arrived(collector))


def test_greenlets(collector: Collector, home: Path) -> None:
    pytest.importorskip("gevent")
    code = """
        from gevent import monkey
        monkey.patch_all()
        import sys, gevent, loopkit
        loopkit.init("svc", export=[sys.argv[1]])

        @loopkit.trace
        def inner(number):
            gevent.sleep(0.001)
            return number

        @loopkit.trace
        def outer(number):
            return inner(number)

        gevent.joinall([gevent.spawn(outer, number) for number in range(50)], raise_error=True)
        print(loopkit.flush(10))
        loopkit.shutdown(10)
    """
    assert run(code, home, collector.endpoint).strip() == "True"
    spans = {span.span_id: span for span in Store(home).spans()}
    inner = [span for span in spans.values() if span.name.endswith("inner")]
    assert len(spans) == 100
    assert all(spans[span.parent_id or ""].output == span.output for span in inner)
    assert len(arrived(collector)) == 100


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_collector_by_others_reads_and_forwards_our_spans(protocol: Any, collector: Collector) -> None:
    """rotel, a collector in Rust: what it has read it sends on to our own receiver, encoded by itself."""
    rotel = importlib.util.find_spec("rotel")
    if rotel is None or rotel.origin is None:
        pytest.skip("rotel is not installed")
    http, grpc = free_port(), free_port()
    agent = Path(rotel.origin).parent / "rotel-agent"
    options = {
        "--otlp-http-endpoint": f"127.0.0.1:{http}", "--otlp-grpc-endpoint": f"127.0.0.1:{grpc}",
        "--exporter": "otlp", "--otlp-exporter-protocol": "http",
        "--otlp-exporter-endpoint": collector.endpoint.removesuffix("/v1/traces"),
    }  # fmt: skip
    arguments = [text for pair in options.items() for text in pair]
    server = subprocess.Popen([agent, "start", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{grpc}" if protocol == "grpc" else f"http://127.0.0.1:{http}/v1/traces"
    try:
        destination = loopkit.Destination(endpoint=endpoint, protocol=protocol, content=True, compression="gzip")
        loopkit.init("svc", export=[destination])
        for number in range(100):
            with loopkit.span(f"{number}", input={"ticket": "żółw 🐢"}):
                pass
        assert loopkit.flush(30, delivered=True)
        deadline = time.monotonic() + 30
        while len(arrived(collector)) < 100 and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        server.terminate()
        server.wait(10)
    assert sorted(arrived(collector), key=int) == [str(number) for number in range(100)]
    spans = [span for body in collector.accepted for span, _ in decode_request(body)]
    assert {json.dumps(span.input, ensure_ascii=False) for span in spans} == {'{"ticket": "żółw 🐢"}'}


@contextmanager
def serving(command: list[str], health: str, home: Path, **environment: str) -> Generator[None]:
    """A server of somebody else's, once it answers."""
    around = {"HOME": str(home), "PATH": "/usr/bin:/bin", **environment}
    program = [str(shutil.which(command[0])), *command[1:]]
    server = subprocess.Popen(program, env=around, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 240
        while True:
            try:
                if httpx.get(health, timeout=5).is_success:
                    break
            except httpx.TransportError:
                assert time.monotonic() < deadline, f"{command[0]} did not start"
            time.sleep(0.5)
        yield
    finally:
        server.terminate()
        server.wait(30)


@contextmanager
def phoenix(home: Path) -> Generator[str]:
    """Arize Phoenix's address."""
    port = str(free_port())
    environment = {
        "PHOENIX_WORKING_DIR": str(home), "PHOENIX_HOST": "127.0.0.1", "PHOENIX_PORT": port,
        "PHOENIX_GRPC_PORT": str(free_port()),
    }  # fmt: skip
    with serving(["phoenix", "serve"], f"http://127.0.0.1:{port}/healthz", home, **environment):
        yield f"http://127.0.0.1:{port}"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("phoenix") is None, reason="Arize Phoenix is not installed: pip install arize-phoenix")
def test_phoenix_shows_our_spans(tmp_path: Path) -> None:
    """A whole backend by others: kinds, messages, tokens and the project are where it looks for them."""
    with phoenix(tmp_path) as base:
        loopkit.init("svc", export=[backends.phoenix(base, project="helpdesk", content=True)])
        with loopkit.context(session_id="s-1"), loopkit.span("triage", task="triage", input={"ticket": "x"}) as outer:
            outer.set(output="cards")
            with loopkit.span("search", kind="retrieval", input={"query": "card"}) as search:
                search.set(output=[{"id": "d-1", "content": "about cards", "score": 0.5}])
            with loopkit.span("look_up", kind="tool", input={"word": "card"}) as tool:
                tool.set(output="plastic")
            with loopkit.span("helper", kind="agent"):
                _model_call()
            loopkit.record_model_call(provider="acme", model="e", operation="embeddings", input="card")
        loopkit.shutdown(30)
        found: list[dict[str, Any]] = []
        deadline = time.monotonic() + 60
        while len(found) < 6 and time.monotonic() < deadline:
            time.sleep(1)
            answer = httpx.get(f"{base}/v1/projects/helpdesk/spans", params={"limit": 10}, timeout=30)
            found = answer.json()["data"] if answer.is_success else []
    by_kind = {span["span_kind"]: span for span in found}
    assert set(by_kind) == {"CHAIN", "LLM", "TOOL", "RETRIEVER", "AGENT", "EMBEDDING"}
    assert by_kind["LLM"]["parent_id"] == by_kind["AGENT"]["context"]["span_id"]
    documents = by_kind["RETRIEVER"]["attributes"]
    assert documents["retrieval.documents.0.document.content"] == "about cards"
    assert by_kind["TOOL"]["attributes"]["output.value"] == "plastic"
    chain, call = by_kind["CHAIN"]["attributes"], by_kind["LLM"]["attributes"]
    assert json.loads(chain["input.value"]) == {"ticket": "x"}
    assert chain["output.value"] == "cards"
    assert chain["session.id"] == "s-1"
    assert call["llm.token_count.prompt"] == 12
    assert "yes" in {value for key, value in call.items() if key.startswith("llm.output_messages.0.message.")}


def _model_call() -> None:
    import httpx2
    from openai import OpenAI

    from loopkit.testing import ScriptedProvider

    transport = ScriptedProvider(["yes"]).transport(httpx2)
    client = loopkit.wrap(OpenAI(api_key="k", http_client=httpx2.Client(transport=transport)))
    client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
