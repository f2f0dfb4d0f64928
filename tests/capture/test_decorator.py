"""@trace and span: every colour of function, once, with its inputs, output and failure."""

from __future__ import annotations

import asyncio
import inspect
import threading
from contextvars import copy_context
from typing import Any

import pytest
from opentelemetry import trace as otel_trace
from opentelemetry.sdk.trace import TracerProvider

import loopkit
from loopkit.errors import InvalidInput
from loopkit.testing import CountingIds, MemorySink, TickingClock, recording


@loopkit.trace
def double(number: int, factor: int = 2) -> int:
    """Twice the number."""
    return number * factor


def test_a_whole_span_as_it_is_kept() -> None:
    with recording(clock=TickingClock(), ids=CountingIds()) as recorded:
        with loopkit.context(user_id="u1", session_id="s1", tags=["beta"], order="4432"):
            double(21)
        (span,) = recorded.spans()
    assert span == loopkit.Span(
        trace_id="0" * 31 + "1",
        span_id="0" * 15 + "1",
        name="double",
        kind="task",
        started_at=1767225600001000000,
        ended_at=1767225600002000000,
        input={"number": 21},
        output=42,
        user_id="u1",
        session_id="s1",
        tags=("beta", "order:4432"),
        metadata={"order": "4432"},
    )


def test_signature_and_docstring_stay() -> None:
    assert double.__doc__ == "Twice the number."
    assert str(inspect.signature(double)) == "(number: 'int', factor: 'int' = 2) -> 'int'"


def test_positional_keyword_and_extra_arguments_are_named(recorded: MemorySink) -> None:
    @loopkit.trace
    def many(a: int, /, b: int, *rest: int, c: int = 0, **others: int) -> None: ...

    many(1, 2, 3, 4, c=5, d=6)
    assert recorded.spans()[0].input == {"a": 1, "b": 2, "args": [3, 4], "c": 5, "d": 6}


def test_async_functions_stay_async(recorded: MemorySink) -> None:
    @loopkit.trace(task="answer")
    async def answer(question: str) -> str:
        await asyncio.sleep(0)
        return question.upper()

    assert inspect.iscoroutinefunction(answer)
    assert asyncio.run(answer("why")) == "WHY"
    (span,) = recorded.spans()
    assert (span.name, span.task, span.output) == ("answer", "answer", "WHY")


def test_methods_of_every_sort(recorded: MemorySink) -> None:
    class Desk:
        @loopkit.trace
        def method(self, x: int) -> int:
            return x

        @loopkit.trace
        @classmethod
        def of_class(cls, x: int) -> int:
            return x

        @loopkit.trace
        @staticmethod
        def static(x: int) -> int:
            return x

        def __call__(self, x: int) -> int:
            return x

    desk = Desk()
    assert [desk.method(1), Desk.of_class(2), desk.of_class(2), Desk.static(3), loopkit.trace(desk)(4)] == [
        1,
        2,
        2,
        3,
        4,
    ]
    assert [span.input for span in recorded.spans()] == [{"x": n} for n in (1, 2, 2, 3, 4)]


def test_generators_end_when_they_are_exhausted(recorded: MemorySink) -> None:
    @loopkit.trace
    def words() -> Any:
        got = yield "a"
        yield f"b{got}"
        return "done"

    generator = words()
    assert inspect.isgeneratorfunction(words)
    assert next(generator) == "a"
    assert generator.send(1) == "b1"
    assert recorded.spans() == []
    with pytest.raises(StopIteration) as done:
        next(generator)
    assert done.value.value == "done"
    (span,) = recorded.spans()
    assert (span.output, span.status) == ("ab1", "ok")


def test_a_generator_left_early_is_cancelled_with_what_it_gave(recorded: MemorySink) -> None:
    @loopkit.trace
    def words() -> Any:
        yield from ("a", "b", "c")

    for word in words():
        if word == "b":
            break
    (span,) = recorded.spans()
    assert (span.status, span.output) == ("cancelled", "ab")


def test_exceptions_thrown_into_a_generator_reach_it(recorded: MemorySink) -> None:
    @loopkit.trace
    def patient() -> Any:
        try:
            yield 1
        except KeyError:
            yield 2

    generator = patient()
    next(generator)
    assert generator.throw(KeyError("k")) == 2


def test_async_generators(recorded: MemorySink) -> None:
    @loopkit.trace
    async def words() -> Any:
        for word in "abc":
            yield word

    async def run(most: int) -> list[str]:
        found = []
        stream = words()
        async for word in stream:
            found.append(word)
            if len(found) == most:
                break
        await stream.aclose()
        return found

    assert asyncio.run(run(9)) == ["a", "b", "c"]
    assert asyncio.run(run(1)) == ["a"]
    assert [(span.status, span.output) for span in recorded.spans()] == [("ok", "abc"), ("cancelled", "a")]


def test_spans_below_a_generator_hang_under_it_and_the_consumers_dont(recorded: MemorySink) -> None:
    @loopkit.trace(name="source")
    def source() -> Any:
        for number in range(2):
            with loopkit.span(f"step {number}"):
                yield number

    with loopkit.span("consumer"):
        for number in source():
            with loopkit.span(f"use {number}"):
                pass
    spans = {span.name: span for span in recorded.spans()}
    assert spans["step 0"].parent_id == spans["source"].span_id
    assert spans["use 0"].parent_id == spans["consumer"].span_id


def test_the_functions_exception_passes_untouched(recorded: MemorySink) -> None:
    error = ValueError("no such desk: joe@example.com")

    @loopkit.trace
    def fails() -> None:
        raise error

    with pytest.raises(ValueError, match="no such desk") as raised:
        fails()
    assert raised.value is error
    (span,) = recorded.spans()
    assert span.status == "error"
    assert span.error is not None
    assert (span.error.type, span.error.message) == ("ValueError", "no such desk: [EMAIL]")


def test_a_base_exception_ends_the_span_with_its_name(recorded: MemorySink) -> None:
    with pytest.raises(KeyboardInterrupt), loopkit.span("interrupted"):
        raise KeyboardInterrupt
    (span,) = recorded.spans()
    assert span.status == "cancelled"
    assert span.error is not None
    assert span.error.type == "KeyboardInterrupt"


def test_excluded_arguments_are_not_recorded(recorded: MemorySink) -> None:
    @loopkit.trace(exclude=["password"])
    def login(user: str, password: str) -> None: ...

    login("joe", password="hunter2")
    assert recorded.spans()[0].input == {"user": "joe"}


def test_later_changes_dont_show(recorded: MemorySink) -> None:
    @loopkit.trace
    def fill(rows: list[int]) -> list[int]:
        rows.append(2)
        return rows

    rows = [1]
    fill(rows)
    rows.append(3)
    (span,) = recorded.spans()
    assert (span.input, span.output) == ({"rows": [1]}, [1, 2])


def test_what_has_no_json_form_is_named_and_never_asked_for_its_repr(recorded: MemorySink) -> None:
    class Secretive:
        def __repr__(self) -> str:
            raise AssertionError("asked for its repr")

    circular: list[Any] = [1]
    circular.append(circular)
    double_trace = loopkit.trace(lambda thing: None)
    double_trace(Secretive())
    double_trace(circular)
    double_trace({(1, 2): {3}, "b": b"bytes"})
    first, second, third = (span.input["thing"] for span in recorded.spans())
    assert first == f"<{__name__}.{Secretive.__qualname__}>"
    assert second[0] == 1
    assert third == {"(1, 2)": [3], "b": {"bytes": 5}}


def test_a_huge_argument_is_cut_and_marked(recorded: MemorySink) -> None:
    loopkit.trace(lambda text: None)("x" * 3_000_000)
    (span,) = recorded.spans()
    assert span.content_status == "truncated"
    assert len(str(span.input)) < 1_100_000


def test_context_follows_into_tasks_and_threads_that_copy_it(recorded: MemorySink) -> None:
    async def in_task() -> None:
        double(1)

    async def run() -> None:
        with loopkit.context(session_id="s"):
            await asyncio.create_task(in_task())
            await asyncio.to_thread(double, 2)

    asyncio.run(run())
    with loopkit.context(session_id="s"):
        thread = threading.Thread(target=copy_context().run, args=(double, 3))
        thread.start()
        thread.join()
    assert [span.session_id for span in recorded.spans()] == ["s", "s", "s"]


def test_nested_context_adds_to_the_outer_one(recorded: MemorySink) -> None:
    with loopkit.context(user_id="u", tags=["a"], plan="pro"), loopkit.context(session_id="s", tags=["b"], flag=None):
        double(1)
    (span,) = recorded.spans()
    assert (span.user_id, span.session_id, span.tags) == ("u", "s", ("a", "plan:pro", "b", "flag"))


def test_spans_nest_with_opentelemetry_in_both_directions(recorded: MemorySink) -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("host")
    with tracer.start_as_current_span("host") as host:
        with loopkit.span("ours") as ours, tracer.start_as_current_span("inner") as inner:
            assert f"{inner.parent.span_id:016x}" == ours.id[-16:]
        assert otel_trace.get_current_span() is host
    (span,) = recorded.spans()
    assert span.parent_id == f"{host.get_span_context().span_id:016x}"
    assert span.trace_id == f"{host.get_span_context().trace_id:032x}"


def test_a_span_takes_input_output_tags_and_metadata_while_it_runs(recorded: MemorySink) -> None:
    with loopkit.span("retrieve", kind="retrieval", input={"q": "cards"}, corpus="faq") as handle:
        handle.set(output=["doc-1"], tags=["cached"], hits=1)
    handle.set(output="too late")
    (span,) = recorded.spans()
    assert (span.kind, span.input, span.output) == ("retrieval", {"q": "cards"}, ["doc-1"])
    assert span.tags == ("corpus:faq", "cached", "hits:1")
    assert handle.id == span.id


def test_async_with_span(recorded: MemorySink) -> None:
    async def run() -> None:
        async with loopkit.span("block"):
            pass

    asyncio.run(run())
    assert [span.name for span in recorded.spans()] == ["block"]


def test_head_sampling_drops_whole_traces_and_keeps_their_probability() -> None:
    with recording(sample=0.0) as recorded, loopkit.span("outer") as outer:
        assert outer.id == "unrecorded"
        assert loopkit.feedback(outer.id, "helpful", True) is None
        assert loopkit.feedback(loopkit.current_span(), "helpful", True) is None
        double(1)
        assert recorded.spans() == []
    with recording(sample=0.5) as recorded:
        for _ in range(400):
            with loopkit.span("outer"):
                double(1)
        spans = recorded.spans()
    by_name = [span.name for span in spans]
    assert by_name.count("outer") == by_name.count("double")
    assert 120 < by_name.count("outer") < 280
    assert {span.sampling_probability for span in spans} == {0.5}


def test_bad_arguments_to_trace_and_span_are_said_at_once() -> None:
    with pytest.raises(InvalidInput, match=r"kind is 'chain': choose one of task, llm"):
        loopkit.trace(kind="chain")  # type: ignore[call-overload]
    with pytest.raises(InvalidInput, match="kind is 'x'"):
        loopkit.span("a", kind="x")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="can't be called"):
        loopkit.trace(3)  # type: ignore[type-var]
    with pytest.raises(InvalidInput, match="no interceptor"):
        loopkit.trace(guard=object())  # type: ignore[call-overload]


def test_disabled_by_the_environment_nothing_is_recorded(
    monkeypatch: pytest.MonkeyPatch, clean_environment: Any
) -> None:
    monkeypatch.setenv("LOOPKIT_DISABLED", "1")
    loopkit.init("off")
    assert double(2) == 4
    assert loopkit.flush() is False
    assert not clean_environment.exists()
