"""What is kept, dropped, refused or held is what is said of it, at every bound and across processes."""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import certifi
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import loopkit
from loopkit import _assemble
from loopkit._ids import Clock
from loopkit.capture import slot
from loopkit.capture.dialects.known import CHAT, facts
from loopkit.capture.exchange import Exchange
from loopkit.capture.redact import redacted
from loopkit.capture.sampling import Held
from loopkit.config import Destination, Limits, Sampling, settings
from loopkit.detect.patterns import redact
from loopkit.errors import InvalidSetting
from loopkit.store import sqlite
from loopkit.store.ring import Ring
from loopkit.testing import recording
from loopkit.wire.encode import EncodedSpan
from tests.export.test_delivery import Collector

KEY = "sk-" + "abcdEFGH1234" * 3


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("LOOPKIT_HOME", str(tmp_path / "home"))
    yield tmp_path / "home"
    loopkit.shutdown(0.1)


class AheadClock(Clock):
    def __init__(self, seconds: float = 0) -> None:
        self.ahead = int(seconds * 1e9)

    def now(self) -> int:
        return super().now() + self.ahead


def test_a_huge_answer_keeps_its_facts_and_no_secret() -> None:
    choices = [
        {"index": i, "message": {"role": "assistant", "content": f"k:\n{KEY}\n{'y' * 40_000}"}} for i in range(30)
    ]
    body = {"id": "r", "model": "m", "usage": {"prompt_tokens": 1, "completion_tokens": 2}, "choices": choices}
    exchange = Exchange(CHAT, "openai", bare=False)
    exchange.answer_with(body)
    text = redacted(exchange.response or "", redact)
    assert KEY not in text
    call = facts(CHAT, "openai", exchange.request, text)
    assert (call.response_id, call.usage.input_tokens, call.usage.output_tokens) == ("r", 1, 2)


def test_a_huge_input_of_many_texts_keeps_no_secret() -> None:
    with recording() as recorded:
        with loopkit.span("a") as s:
            s.set(input=[f"line\n{KEY}", *["y" * 30_000] * 60])
        (span,) = recorded.spans()
    assert span.content_status == "truncated"
    assert "[KEY]" in str(span.input)
    assert KEY not in str(span.input)


def test_a_sender_that_could_not_start_is_started_again(home: Path, tmp_path: Path) -> None:
    pem = tmp_path / "ca.pem"
    pem.write_bytes(Path(certifi.where()).read_bytes())
    loopkit.init("svc", export=[Destination(endpoint="https://127.0.0.1:1", protocol="grpc", certificate=str(pem))])
    pem.unlink()
    seen: set[int] = set()
    for _ in range(20):
        with loopkit.span("a"):
            pass
        loopkit.flush()
        seen |= {thread.ident or 0 for thread in threading.enumerate() if thread.name == "loopkit-otlp"}
        (sink,) = (s for s in slot.recorder.worker.sinks if hasattr(s, "destination"))  # type: ignore[union-attr]
        thread: Any = sink._thread
        thread.join(5)
        seen.add(id(thread))
    assert len(seen) > 2


@pytest.mark.parametrize(("drop", "kept"), [("oldest", "s19"), ("newest", "s00")])
def test_what_goes_when_the_bytes_are_full_is_as_asked(drop: str, kept: str) -> None:
    limits = Limits(queue_bytes=100_000, drop=drop, append_delay=5.0)  # type: ignore[arg-type]
    with recording(limits=limits) as recorded:
        for number in range(20):
            with loopkit.span(f"s{number:02}") as s:
                s.set(input="x" * 20_000)
        names = [span.name for span in recorded.spans()]
    assert kept in names
    assert len(names) == 4


def test_feedback_goes_before_spans_even_behind_feedback() -> None:
    with recording(limits=Limits(queue_items=4, append_delay=5.0)) as recorded:
        for number in range(2):
            loopkit.feedback("order:1", f"f{number}", True)
        for name in ("a", "b"):
            with loopkit.span(name):
                pass
        loopkit.feedback("order:1", "f2", True)
        assert [event.name for event in recorded.events()] == ["f0", "f1", "f2"]


def test_all_who_wait_for_delivery_hear_of_a_refusal() -> None:
    refusing = Collector()
    refusing.answers = lambda number: (400, {})
    try:
        loopkit.init("svc", export=[refusing.endpoint])
        with loopkit.span("c"):
            pass
        told: list[bool] = []
        threads = [threading.Thread(target=lambda: told.append(loopkit.flush(delivered=True))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert told == [False, False, False]
    finally:
        loopkit.shutdown()
        refusing.stop()


def test_the_applications_attributes_go_before_ours_in_its_own_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    with recording():
        with loopkit.span("a", task="t"):
            for number in range(200):
                trace.get_current_span().set_attribute(f"app.{number}", number)
        loopkit.flush()
    attributes = exporter.get_finished_spans()[0].attributes or {}
    assert (attributes["loopkit.task"], attributes["app.0"]) == ("t", 0)
    assert len(attributes) == 128


@pytest.mark.parametrize(
    "name",
    ["gen_ai.system_instructions", "gen_ai.tool.call.arguments", "llm.input_messages.0.message.content",
     "gen_ai.prompt", "gen_ai.prompt.0.content", "retrieval.documents.0.document.content"],
)  # fmt: skip
def test_what_others_say_of_content_is_content(name: str) -> None:
    with recording(content="off") as recorded:
        with loopkit.span("a", kind="llm"):
            trace.get_current_span().set_attribute(name, "SECRET")
        (span,) = recorded.spans()
    assert "SECRET" not in str(span)


def test_a_ring_of_many_short_processes_goes_on_holding(tmp_path: Path) -> None:
    sampling, clock = Sampling(tail=0.1, ring_seconds=60, ring_bytes=1 << 20), AheadClock()
    for _ in range(12):
        ring = Ring(tmp_path, sampling, clock)
        clock.ahead += int(120e9)
        for _ in range(4):
            ring.hold(
                [
                    Held(
                        trace_id := secrets.token_hex(16),
                        frozenset({f"trace:{trace_id}", f"session:{secrets.token_hex(16)}", secrets.token_hex(12)}),
                        b"r" * 50,
                        (EncodedSpan(b"c" * 150, b"", b"", b"l" * 100),),
                    )
                    for _ in range(100)
                ]
            )
        dropped = ring.dropped
        ring.close()
    assert dropped == 0


def test_a_trace_waits_as_long_as_its_own_process_said(home: Path) -> None:
    env = {"LOOPKIT_HOME": str(home)}
    week = Sampling(tail=0.0, ring_seconds=7 * 86_400)
    _assemble.start(settings("web", sample=week, environ=env))
    with loopkit.context(order="1"), loopkit.span("answer"):
        pass
    loopkit.shutdown()
    _assemble.start(settings("reviews", environ=env), clock=AheadClock(2 * 86_400))
    loopkit.feedback("order:1", "ok", False)
    loopkit.flush()
    assert [span.name for span in loopkit.open_store().spans()] == ["answer"]


def test_two_accounts_at_one_endpoint_have_a_spool_each(home: Path) -> None:
    url = "://{}@127.0.0.1:1/v1/traces"
    for who in ("alice:a", "bob:b"):
        loopkit.init("svc", export=["http" + url.format(who)])
        with loopkit.span(who):
            pass
        loopkit.shutdown(0.2)
    assert len(loopkit.spools()) == 2


def test_a_fault_that_may_pass_puts_nothing_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    with recording(store=True):
        with loopkit.span("a"):
            pass
        loopkit.flush()
        store = loopkit.open_store()
        real = sqlite._insert
        with monkeypatch.context() as patch:

            def full(*_: Any) -> None:
                raise MemoryError

            patch.setattr(sqlite, "_insert", full)
            with pytest.raises(MemoryError):
                store.spans()
        assert sqlite._insert is real
        assert [span.name for span in store.spans()] == ["a"]


def test_what_was_started_while_the_budget_was_spent_is_recorded_after_it() -> None:
    async def run() -> None:
        again = asyncio.Event()

        async def background() -> None:
            await again.wait()
            with loopkit.span("job"):
                pass

        recorder = slot.recorder
        assert recorder is not None
        recorder.budget.level = 60
        with loopkit.span("request"):
            task = asyncio.create_task(background())
            await asyncio.sleep(0)
        recorder.budget.level = 0
        again.set()
        await task

    with recording() as recorded:
        asyncio.run(run())
        assert [span.name for span in recorded.spans()] == ["job"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_child_does_not_tell_of_its_parents_losses() -> None:
    with recording(limits=Limits(queue_items=2, append_delay=5.0)):
        for _ in range(9):
            with loopkit.span("a"):
                pass
        here = loopkit.health()
        assert here is not None
        assert here.dropped > 0
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            health = loopkit.health()
            os.write(write, str(health.dropped if health else -1).encode())
            os._exit(0)
        os.waitpid(child, 0)
        assert os.read(read, 9) == b"0"


def test_limits_from_the_environment_are_numbers() -> None:
    for value in ("inf", "nan", "-1"):
        with pytest.raises(InvalidSetting, match="OTEL_BSP_MAX_QUEUE_SIZE"):
            settings("svc", environ={"OTEL_BSP_MAX_QUEUE_SIZE": value})
    with pytest.raises(InvalidSetting, match="ring_seconds"):
        Sampling(ring_seconds=None)  # type: ignore[arg-type]


def test_a_header_of_ones_own_goes_before_the_urls_credentials() -> None:
    made = Destination(endpoint="http://ana:pw@127.0.0.1:1/", headers={"Authorization": "Bearer T"})
    assert dict(made.headers) == {"Authorization": "Bearer T"}
    assert (made.endpoint, made.name) == ("http://127.0.0.1:1/", "ana")
