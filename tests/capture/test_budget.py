"""The budget: what recording costs is measured, and where it is too much, content goes first, then traces."""

from __future__ import annotations

import os
import time
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import OpenAI

import loopkit
from loopkit import _host
from loopkit.capture import budget as budget_module
from loopkit.capture import slot
from loopkit.capture.budget import Budget
from loopkit.errors import InvalidSetting
from loopkit.testing import ScriptedProvider, recording


class Machine:
    """A clock, and the processor time that recording has taken."""

    def __init__(self) -> None:
        self.time = self.spent = 0.0

    def spend(self, share: float, seconds: float = 2.0) -> None:
        self.time += seconds
        self.spent += share * seconds


def test_levels_rise_while_too_much_is_spent_and_fall_when_there_is_room() -> None:
    machine = Machine()
    budget = Budget(0.5, lambda: machine.spent, lambda: machine.time)
    levels = []
    for share in (0.4, 0.6, 0.55, 0.3, 0.3, 0.1, 0.05, 0.05):
        machine.spend(share)
        budget.look()
        levels.append((budget.level, budget.sampling))
    assert levels == [(0, 1.0), (1, 1.0), (2, 0.5), (2, 0.5), (2, 0.5), (1, 1.0), (0, 1.0), (0, 1.0)]
    assert budget.share == pytest.approx(0.05)


def test_a_long_quiet_time_brings_everything_back() -> None:
    machine = Machine()
    budget = Budget(0.1, lambda: machine.spent, lambda: machine.time)
    for _ in range(5):
        machine.spend(1.0)
        budget.look()
    assert budget.level == 5
    machine.spend(0.0, seconds=60.0)
    budget.look()
    assert budget.level == 0


@given(st.lists(st.tuples(st.floats(0, 4), st.floats(0, 10)), max_size=60))
def test_the_level_stays_in_its_bounds(steps: list[tuple[float, float]]) -> None:
    machine = Machine()
    budget = Budget(0.5, lambda: machine.spent, lambda: machine.time)
    for share, seconds in steps:
        machine.spend(share, seconds)
        before = budget.level
        budget.look()
        assert 0 <= budget.level <= 8
        assert budget.level - before <= 1
        assert 0 < budget.sampling <= 1


def test_content_goes_first_then_traces_and_figures_stay_true(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(budget_module, "_PERIOD", 0.001)
    _host._last.clear()
    provider = ScriptedProvider(["a secret answer"])
    client = loopkit.wrap(OpenAI(api_key="k", http_client=httpx2.Client(transport=provider.transport(httpx2))))
    traced = loopkit.trace(lambda word: word * 2)
    with recording(limits=loopkit.Limits(budget=1e-9)) as recorded:
        while slot.recorder is not None and slot.recorder.budget.level < 1:
            traced("first")
            loopkit.flush()
            time.sleep(0.002)
        assert recorded.spans()[0].output == "firstfirst"
        if slot.recorder is not None:
            slot.recorder.budget.level = 1
        traced("second")
        answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "a secret question"}])
        *_, bare, call = recorded.spans()
        assert (bare.input, bare.output, bare.content_status) == (None, None, "shed")
        assert call.model_call is not None
        assert (call.model_call.input, call.model_call.output) == ((), ())
        assert (call.model_call.usage.input_tokens, call.model_call.response_id) == (12, answer.id)
        assert b"secret" not in b"".join(s.stored() for batch in recorded.batches for s in batch.spans)
        while slot.recorder is not None and slot.recorder.budget.level < 3:
            traced("third")
            loopkit.flush()
            time.sleep(0.002)
        for _ in range(200):
            traced("fourth")
        probabilities = {span.sampling_probability for span in recorded.spans()}
    assert len(probabilities) > 1
    assert min(probabilities) < 1.0
    assert "more than its budget" in caplog.text


def test_the_budget_acts_while_the_worker_has_no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_module, "_PERIOD", 0.05)

    def slow(text: str) -> str:
        end = time.perf_counter() + 0.001
        while time.perf_counter() < end:
            pass
        return text

    traced = loopkit.trace(lambda word: word)
    with recording(redact=slow, limits=loopkit.Limits(budget=0.01)):
        deadline = time.monotonic() + 10
        while slot.recorder is not None and slot.recorder.budget.level < 1 and time.monotonic() < deadline:
            for _ in range(20):
                traced("word")
            time.sleep(0.001)
        assert slot.recorder is not None
        assert slot.recorder.budget.level >= 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_begins_within_its_budget() -> None:
    with recording():
        assert slot.recorder is not None
        slot.recorder.budget.level = 8
        pid = os.fork()
        if pid == 0:
            os._exit(slot.recorder.budget.level)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_what_is_left_out_first_is_what_was_said_and_no_fact() -> None:
    transport = ScriptedProvider(["a secret answer"]).transport(httpx2)
    client = loopkit.wrap(OpenAI(api_key="k", http_client=httpx2.Client(transport=transport)))
    with recording() as recorded:
        assert slot.recorder is not None
        slot.recorder.budget.level = 1
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}], temperature=0.5)
        (span,) = recorded.spans()
    assert span.model_call is not None
    assert (span.model_call.finish_reasons, span.model_call.model) == (("stop",), "m")
    assert span.model_call.parameters == {"temperature": 0.5}


@pytest.mark.parametrize("given", [{"budget": 0}, {"budget": "much"}, {"exit_timeout": -1}, {"queue_items": 0}])
def test_bad_limits_are_said_at_once(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidSetting, match="give a number above 0"):
        loopkit.Limits(**given)
