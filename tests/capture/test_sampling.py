"""Sampling: what the head leaves out, what the tail keeps, what comes back, and figures that stay true."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import OpenAI
from opentelemetry import trace
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

import loopkit
from loopkit import _assemble, checks
from loopkit._ids import Clock
from loopkit.capture.sampling import head_takes, tail_takes
from loopkit.config import Sampling, settings
from loopkit.errors import InvalidSetting
from loopkit.statistics.paired import quantile
from loopkit.store.ring import Ring
from loopkit.store.sqlite import Store
from loopkit.testing import MemorySink, ScriptedProvider

NONE = 1e-12
"""A tail that keeps no ordinary trace."""


class MovingClock(Clock):
    """The wall clock, moved on by hand."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> int:
        return super().now() + int(self.ahead * 1e9)


@contextmanager
def sampled(home: Path, sampling: Sampling, clock: Clock | None = None) -> Generator[Store]:
    """Recording into a store with this sampling."""
    made = settings("svc", sample=sampling, environ={"LOOPKIT_HOME": str(home)}, strict=True)
    _assemble.start(made, clock=clock)
    try:
        yield Store(home, before_read=loopkit.flush)
    finally:
        _assemble.shutdown()


def names(store: Store) -> list[str]:
    loopkit.flush()
    return [span.name for span in store.spans()]


@given(st.integers(1, (1 << 128) - 1), st.floats(0, 1))
def test_the_head_draws_as_opentelemetry_does(trace_id: int, probability: float) -> None:
    theirs = TraceIdRatioBased(probability).should_sample(None, trace_id, "x").decision.is_sampled()
    ours = head_takes(Sampling(), probability, trace_id, None)
    # Theirs rounds the bound to an integer, half to even; ids exactly there are one in 2^63.
    assert ours == theirs or abs((trace_id & (1 << 64) - 1) - probability * 2**64) < 4096


def test_head_and_tail_draw_apart() -> None:
    draw = random.Random(1)
    ids = [draw.getrandbits(128) for _ in range(20_000)]
    heads = [head_takes(Sampling(), 0.3, each, None) for each in ids]
    tails = [tail_takes(0.3, each) for each in ids]
    both = sum(a and b for a, b in zip(heads, tails, strict=True)) / len(ids)
    assert abs(sum(heads) / len(ids) - 0.3) < 0.02
    assert abs(sum(tails) / len(ids) - 0.3) < 0.02
    assert abs(both - 0.09) < 0.01


def test_the_head_by_task(tmp_path: Path) -> None:
    with sampled(tmp_path, Sampling(head=0.0, tasks={"kept": 1.0})) as store:
        for task in ("kept", "dropped"):
            with loopkit.span(task, task=task), loopkit.span(f"below {task}"):
                pass
        with loopkit.span("without a task"):
            pass
        assert sorted(names(store)) == ["below kept", "kept"]


def test_the_head_by_user_records_all_of_a_user_or_nothing(tmp_path: Path) -> None:
    with sampled(tmp_path, Sampling(head=0.5, by="user")) as store:
        for number in range(200):
            for _ in range(3):
                with loopkit.context(user_id=f"user {number}"), loopkit.span(f"user {number}"):
                    pass
        found = names(store)
        probabilities = {span.sampling_probability for span in store.spans()}
    counts = {name: found.count(name) for name in found}
    assert set(counts.values()) == {3}
    assert 60 < len(counts) < 140
    assert probabilities == {0.5}


def ordinary() -> str:
    with loopkit.span("outer") as outer, loopkit.span("inner"):
        pass
    return outer.id


def test_ordinary_traces_wait_and_what_matters_is_kept_whole(tmp_path: Path) -> None:
    with sampled(tmp_path, Sampling(tail=NONE, slow=30.0)) as store:
        ordinary()
        assert names(store) == []

        def fail() -> None:
            with loopkit.span("outer"):
                with loopkit.span("before"):
                    pass
                with loopkit.span("fails"):
                    raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            fail()
        assert sorted(names(store)) == ["before", "fails", "outer"]
        assert {span.kept_for for span in store.spans()} == {None, "error"}
        assert {span.inclusion_probability for span in store.spans()} == {1.0}
        assert {span.sampling_probability for span in store.spans()} == {NONE}


def test_an_error_brings_back_what_waited_and_what_comes_later(tmp_path: Path) -> None:
    with sampled(tmp_path, Sampling(tail=NONE)) as store:
        with loopkit.span("outer"):
            with loopkit.span("first"):
                pass
            assert names(store) == []
            with pytest.raises(ValueError, match="no"), loopkit.span("fails"):
                raise ValueError("no")
            assert sorted(names(store)) == ["fails", "first"]
        assert sorted(names(store)) == ["fails", "first", "outer"]


def test_slow_local_roots_are_kept(tmp_path: Path) -> None:
    clock = MovingClock()
    with sampled(tmp_path, Sampling(tail=NONE, slow=2.0), clock) as store:
        with loopkit.span("quick"), loopkit.span("child"):
            pass
        with loopkit.span("slow"), loopkit.span("slow child"):
            clock.ahead += 3
        assert sorted(names(store)) == ["slow", "slow child"]
        assert [span.kept_for for span in store.spans() if span.name == "slow"] == ["slow"]


def chat(tokens_in: int = 12) -> tuple[OpenAI, Callable[[], object]]:
    def answer(body: object) -> dict[str, object]:
        return {
            "id": f"chatcmpl-{tokens_in}", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}],
            "usage": {"prompt_tokens": tokens_in, "completion_tokens": 3, "total_tokens": tokens_in + 3},
        }  # fmt: skip

    provider = ScriptedProvider(answer)
    client = OpenAI(api_key="k", http_client=httpx2.Client(transport=provider.transport(httpx2)))
    wrapped = loopkit.wrap(client)
    return wrapped, lambda: wrapped.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])


def test_large_model_calls_and_guardrail_trips_are_kept(tmp_path: Path) -> None:
    with sampled(tmp_path, Sampling(tail=NONE, tokens=1000)) as store:
        chat(12)[1]()
        chat(5000)[1]()
        assert [span.kept_for for span in store.spans()] == ["tokens"]

        @loopkit.trace(guard=loopkit.Guard(output=[checks.secrets()]))
        def leaky(word: str) -> str:
            return "sk-" + "q8Zr7LmK2vXw9TbN4cYd6HsJ3gFp5QaE" if word == "leak" else "fine"

        leaky("nothing")
        assert len(store.spans()) == 1  # the large one
        with pytest.raises(loopkit.Blocked):
            leaky("leak")
        found = store.spans()[1:]
        assert "guardrail" in {span.kept_for for span in found}
        assert any("leaky" in span.name for span in found)
        assert "error" in {span.kept_for for span in found}


@pytest.mark.parametrize("by", ["span", "trace", "response", "response id", "session", "join key", "ranking"])
def test_feedback_brings_a_trace_back(by: str, tmp_path: Path) -> None:
    with sampled(tmp_path, Sampling(tail=NONE)) as store:
        with loopkit.context(session_id="s-1", order="4432"), loopkit.span("outer", task="t") as outer:
            response = chat()[1]()
        assert names(store) == []
        targets: dict[str, object] = {
            "span": outer.id,
            "trace": f"trace:{outer.trace_id}",
            "response": response,
            "response id": response.id,  # type: ignore[attr-defined]
            "session": "session:s-1",
            "join key": "order:4432",
        }
        if by == "ranking":
            loopkit.feedback("order:1", ranking=["order:4432", "order:1"])
        else:
            loopkit.feedback(targets[by], "helpful", False)
        assert names(store) == ["outer", "chat m"]
        (call,) = store.spans(kind="llm")
        assert call.model_call is not None
        assert call.model_call.output[0].text == "yes"
        assert {span.inclusion_probability for span in store.spans()} == {1.0}


def test_feedback_that_comes_first_is_remembered(tmp_path: Path) -> None:
    with sampled(tmp_path, Sampling(tail=NONE)) as store:
        with loopkit.context(order="4432"), loopkit.span("outer") as outer:
            loopkit.feedback("order:4432", "helpful", False)
            loopkit.flush()
            with loopkit.span("inner"):
                pass
        assert sorted(names(store)) == ["inner", "outer"]
        with loopkit.span("another") as other:
            loopkit.feedback(other.id, "helpful", True)
        assert sorted(names(store)) == ["another", "inner", "outer"]
        assert outer.id != other.id


def test_feedback_from_another_process_brings_a_trace_back_as_it_was(tmp_path: Path) -> None:
    with sampled(tmp_path, Sampling(tail=NONE)) as store:
        id = ordinary()
        loopkit.flush()
        code = f"""
            import loopkit
            loopkit.init("web", sample=loopkit.Sampling(tail={NONE}))
            loopkit.feedback("{id}", "helpful", False)
            loopkit.shutdown()
        """
        environment = {"LOOPKIT_HOME": str(tmp_path)}
        subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, env=environment)
        assert sorted(names(store)) == ["inner", "outer"]
        assert {span.service for span in store.spans()} == {"svc"}


def test_time_and_room_are_bounded(tmp_path: Path) -> None:
    clock = MovingClock()
    sampling = Sampling(tail=NONE, ring_seconds=60.0, ring_bytes=200_000)
    with sampled(tmp_path, sampling, clock) as store:
        late = ordinary()
        loopkit.flush()
        clock.ahead += 61
        in_time = ordinary()
        loopkit.flush()
        loopkit.feedback(late, "helpful", False)
        loopkit.feedback(in_time, "helpful", False)
        assert sorted(names(store)) == ["inner", "outer"]
        first = ordinary()
        for number in range(300):
            with loopkit.span("large", input="x" * 2000, number=number):
                pass
        loopkit.flush()
        health = loopkit.health()
        assert health is not None
        assert 100 < health.not_held < 300
        assert (tmp_path / "ring.db").stat().st_size < 3_000_000  # a batch of all 300, before most of them go
        loopkit.feedback(first, "helpful", False)
        assert len(names(store)) == 2


def test_where_nothing_can_wait_the_draw_alone_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Ring, "hold", full)
    with sampled(tmp_path, Sampling(tail=0.5)) as store:
        ids = [ordinary() for _ in range(100)]
        found = {span.trace_id for span in store.spans()}
    assert found == {id[:32] for id in ids if tail_takes(0.5, int(id[:32], 16))}


def test_figures_are_unbiased(tmp_path: Path) -> None:
    """One call in five is bad; users complain about a third of the bad ones and of none else; a tenth is kept."""
    draw = random.Random(7)
    with sampled(tmp_path, Sampling(tail=0.1)) as store:

        @loopkit.trace(task="t")
        def answer(quality: str) -> str:
            return quality

        for _ in range(6000):
            quality = "bad" if draw.random() < 0.2 else "good"
            with loopkit.context(**{quality: None}):
                with loopkit.span("call", task="t") as call:
                    pass
                if quality == "bad" and draw.random() < 1 / 3:
                    loopkit.feedback(call.id, "helpful", False)
        spans = store.spans(task="t")
        by_tag = {row.segment: row for row in loopkit.figures("t", by="all", store=store)}

    def share(weight: Callable[[loopkit.Span], float]) -> float:
        bad = sum(weight(span) for span in spans if "bad" in span.tags)
        return bad / sum(weight(span) for span in spans)

    weighed = share(lambda span: 1 / span.inclusion_probability)
    by_probability_alone = share(lambda span: 1 / span.sampling_probability)
    assert abs(weighed - 0.2) < 0.067  # five standard errors: 80 bad calls are kept by chance, each for ten
    assert by_probability_alone > 0.3
    assert abs(by_tag["all"].calls - 6000) < 1000
    assert by_tag["all"].recorded == len(spans)


@given(st.lists(st.tuples(st.floats(-100, 100), st.integers(1, 5)), min_size=1, max_size=12), st.floats(0, 1))
def test_a_weight_stands_for_as_many_values(pairs: list[tuple[float, int]], q: float) -> None:
    repeated = [value for value, weight in pairs for _ in range(weight)]
    weighed = quantile([value for value, _ in pairs], q, [weight for _, weight in pairs])
    assert weighed == pytest.approx(quantile(repeated, q), abs=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"head": 2}, "head is 2"),
        ({"tail": "much"}, "tail is 'much'"),
        ({"tasks": {"triage": -1}}, "triage is -1"),
        ({"by": "cookie"}, "by is 'cookie'"),
        ({"slow": -1}, "slow is -1"),
        ({"ring_seconds": 0}, "ring_seconds is 0"),
    ],
)
def test_bad_sampling_is_said_at_once(given: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        Sampling(**given)  # type: ignore[arg-type]


def total(store: Store) -> float:
    loopkit.flush()
    return sum(span.weight for span in store.spans())


@pytest.mark.parametrize(
    ("case", "true"),
    [
        ("shared key", 300), ("later calls with the key", 200), ("bare tag", 200), ("trace of a span", 100),
        ("session", 100), ("feedback too late", 100), ("old session", 200),
    ],
)  # fmt: skip
def test_what_feedback_asks_for_and_what_figures_take_it_for_are_the_same(case: str, true: int, tmp_path: Path) -> None:
    clock = MovingClock()
    with sampled(tmp_path, Sampling(tail=0.2, ring_seconds=600), clock) as store:

        def call(**around: Any) -> str:
            with loopkit.context(**around), loopkit.span("call") as span:
                pass
            return span.id

        for number in range(100):
            key = f"order:{number}"
            if case == "shared key":
                for _ in range(3):
                    call(order=number)
                loopkit.feedback(key, "helpful", False)
            elif case == "later calls with the key":
                call(order=number)
                loopkit.feedback(key, "helpful", False)
                loopkit.flush()
                call(order=number)
            elif case == "bare tag":
                call(tags=["vip"])
                call()
            elif case == "trace of a span":
                loopkit.feedback(f"trace:{call()}", "helpful", False)
            elif case == "session":
                call(session_id=f"s-{number}")
                loopkit.feedback(f"session:s-{number}", "helpful", False)
            else:
                call(session_id=f"s-{number}")
        if case == "bare tag":
            loopkit.feedback("vip", "helpful", False)
        if case in ("feedback too late", "old session"):
            loopkit.flush()
            clock.ahead += 700
            for number in range(100):
                loopkit.feedback(f"session:s-{number}", "helpful", False)
            loopkit.flush()
        if case == "old session":
            clock.ahead += 700
            for number in range(100):
                call(session_id=f"s-{number}")
        estimate = total(store)
    error = 4 * (true * 5) ** 0.5  # four standard errors, were all of them left to the draw
    assert abs(estimate - true) < (error if case in ("bare tag", "feedback too late", "old session") else 1e-6)


def test_a_process_that_samples_nothing_brings_back_what_another_holds(tmp_path: Path) -> None:
    with sampled(tmp_path, Sampling(tail=0.0)) as store:
        id = ordinary()
        loopkit.flush()
        code = f"""
            import loopkit
            loopkit.init("web")
            loopkit.feedback("{id}", "helpful", False)
            loopkit.shutdown()
        """
        environment = {"LOOPKIT_HOME": str(tmp_path)}
        subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, env=environment)
        assert sorted(names(store)) == ["inner", "outer"]
        assert {span.inclusion_probability for span in store.spans()} == {1.0}


def test_nothing_below_a_dropped_span_is_recorded(tmp_path: Path) -> None:
    with sampled(tmp_path, Sampling(tasks={"health": 0.0})) as store:
        with loopkit.span("probe", task="health"):
            with loopkit.span("inner"):
                pass
            chat()[1]()
        with loopkit.span("other"):
            pass
        assert names(store) == ["other"]


def test_a_tail_of_zero_and_whole_numbers(tmp_path: Path) -> None:
    with sampled(tmp_path, Sampling(head=1, tail=0, ring_seconds=60)) as store:
        with loopkit.span("ordinary", task="t") as span:
            pass
        loopkit.feedback(span.id, "helpful", False)
        with pytest.raises(ValueError, match="no"), loopkit.span("fails", task="t"):
            raise ValueError("no")
        assert {(span.inclusion_probability, span.weight) for span in store.spans()} == {(1.0, 1.0)}
        assert {span.rescue_seconds for span in store.spans()} == {60.0}
        assert loopkit.figures("t", by="all", store=store)[0].calls == 2


def test_the_ring_holds_no_secrets_and_failing_redactors_cost_no_trace(tmp_path: Path) -> None:
    with sampled(tmp_path, Sampling(tail=0.0)):
        with loopkit.context(email="ana@example.com", key="sk-proj-" + "a1B2" * 8), loopkit.span("a"):
            pass
        loopkit.flush()
        written = b"".join(file.read_bytes() for file in tmp_path.glob("ring.db*"))
    assert b"trace:" in written
    assert b"ana@example.com" not in written
    assert b"sk-proj-" not in written


def test_an_error_is_kept_even_where_it_cant_be_redacted(tmp_path: Path) -> None:
    def redact(text: str) -> str:
        raise RuntimeError("redactor broke")

    made = settings("svc", sample=Sampling(tail=0.0), redact=redact, environ={"LOOPKIT_HOME": str(tmp_path)})
    _assemble.start(made)
    with pytest.raises(ValueError, match="no"), loopkit.span("fails"):
        raise ValueError("no")
    loopkit.shutdown()
    (span,) = Store(tmp_path).spans()
    assert (span.status, span.content_status, span.kept_for) == ("error", "failed", "error")


def test_one_odd_target_costs_no_other_its_rescue(tmp_path: Path) -> None:
    with sampled(tmp_path, Sampling(tail=0.0)) as store:
        id = ordinary()
        loopkit.flush()
        loopkit.feedback("half \ud800", "helpful", True)
        loopkit.feedback(id, "helpful", False)
        assert sorted(names(store)) == ["inner", "outer"]


def test_own_attributes_survive_the_ring_once(tmp_path: Path) -> None:
    """On a model call, where facts stand in the core beside them: no name may be there twice when it comes back."""

    class Setting:
        def around(self, call: Any) -> Any:
            trace.get_current_span().set_attribute("openinference.span.kind", "AGENT")
            return (yield call)

    sink = MemorySink()
    made = settings("svc", sample=Sampling(tail=0.0), environ={"LOOPKIT_HOME": str(tmp_path)}, strict=True)
    _assemble.start(made, sinks=(sink,))
    try:
        transport = ScriptedProvider(["yes"]).transport(httpx2)
        openai = OpenAI(api_key="k", http_client=httpx2.Client(transport=transport))
        client = loopkit.wrap(openai, interceptors=[Setting()])
        response = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
        assert sink.spans() == []
        loopkit.feedback(response, "helpful", True)
        (span,) = sink.spans()
        (encoded,) = [each for batch in sink.batches for each in batch.spans]
    finally:
        _assemble.shutdown()
    assert span.model_call is not None
    assert (span.model_call.model, span.model_call.output[0].text) == ("m", "yes")
    for data in (encoded.stored(), encoded.exported(content=True)):
        names = [item.key for item in OtlpSpan.FromString(data).attributes]
        assert sorted(names) == sorted(set(names))


def test_an_init_that_fails_changes_nothing_and_rings_are_given_back(tmp_path: Path) -> None:
    with sampled(tmp_path, Sampling()) as store:
        (tmp_path / "ring.db").write_bytes(b"garbage " * 1000)
        made = settings("svc", sample=Sampling(tail=0.5), environ={"LOOPKIT_HOME": str(tmp_path)})
        with pytest.raises(loopkit.LoopkitError, match=r"ring\.db"):
            _assemble.start(made)
        with loopkit.span("still recorded"):
            pass
        assert names(store) == ["still recorded"]
        (tmp_path / "ring.db").unlink()
    for _ in range(5):
        with sampled(tmp_path, Sampling(tail=0.5)):
            ordinary()
    assert not [link for link in Path("/proc/self/fd").glob("*") if "ring.db" in str(link.resolve())]


def test_a_forked_child_shares_the_ring(tmp_path: Path) -> None:
    code = """
        import os, loopkit
        loopkit.init("svc", sample=loopkit.Sampling(tail=0.0))
        with loopkit.span("parent") as parent:
            pass
        loopkit.flush()
        children = []
        for number in range(5):
            pid = os.fork()
            if pid == 0:
                with loopkit.span(f"child {number}") as child:
                    pass
                loopkit.flush()
                loopkit.feedback(child.id, "helpful", False)
                os._exit(0 if loopkit.flush(10) else 1)
            children.append(pid)
        assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
        loopkit.feedback(parent.id, "helpful", False)
        assert loopkit.flush(10)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, env={"LOOPKIT_HOME": str(tmp_path)})
    assert sorted(span.name for span in Store(tmp_path).spans()) == [*(f"child {n}" for n in range(5)), "parent"]
