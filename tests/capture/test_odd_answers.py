"""Answers in shapes that no documentation shows: they are recorded as far as they go, and stand in nobody's way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import OpenAI
from opentelemetry import trace
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

import loopkit
from loopkit import _host
from loopkit.testing import ScriptedProvider, chat_completion, recording

WHOLE = chat_completion("fine")


def ask(answer: Any, **more: Any) -> None:
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, content=json.dumps(answer)))
    client = loopkit.wrap(OpenAI(api_key="k", http_client=httpx2.Client(transport=transport)))
    arguments: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **more}
    client.chat.completions.create(**arguments)


@pytest.mark.parametrize("sampling", [{}, {"tail": 0.0}, {"tail": 0, "tokens": 1}])
@pytest.mark.parametrize(
    "odd",
    [
        {"id": {"a": 1}}, {"id": ["x"]}, {"id": 10**25}, {"id": 7}, {"id": None}, {"model": {"a": 1}},
        {"choices": [None]}, {"choices": 5}, {"choices": None}, {"usage": 5}, {"usage": {"prompt_tokens": "5"}},
        {"usage": {"prompt_tokens": True, "prompt_tokens_details": []}}, {"system_fingerprint": ["x"]},
        {"choices": [{"index": 0, "finish_reason": {"a": 1}, "message": {"role": "assistant", "content": "fine"}}]},
        {"choices": [{"index": 0, "finish_reason": "stop", "message": "fine"}]},
        {"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": [None, 5], "tool_calls": [None]}}]},
    ],
)  # fmt: skip
def test_one_odd_answer_costs_nothing_else(
    odd: dict[str, Any], sampling: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOPKIT_HOME", str(tmp_path))
    loopkit.init("svc", sample=loopkit.Sampling(**sampling))
    ask({**WHOLE, **odd})
    for number in range(3):
        with pytest.raises(ValueError, match="kept"), loopkit.span(f"{number}", task="t"):
            raise ValueError("kept")
    loopkit.feedback("order:1", "helpful", True)
    store = loopkit.open_store()
    for _ in range(2):  # a second reader finds what the first one left
        spans = store.spans()
        assert [span.name for span in spans if span.task == "t"] == ["0", "1", "2"]
    assert len(store.feedback()) == 1
    assert loopkit.figures("t")[0].errors == 3
    if not sampling:
        (call,) = (span.model_call for span in spans if span.model_call)
        assert call.response_id is None or isinstance(call.response_id, str)
        assert call.model == "m"
        assert call.usage.input_tokens in (12, 1, None)
    loopkit.shutdown()


def test_half_a_surrogate_pair_and_much_text_keep_the_answer() -> None:
    with recording() as recorded:
        ask({**WHOLE, "choices": [{**WHOLE["choices"][0], "message": {"role": "assistant", "content": "a\ud800b"}}]})
        ask(chat_completion("x" * 3_000_000))
        ask(chat_completion("fine"), messages=[{"role": "user", "content": "y" * 900}] * 2000)
        odd, long, many = recorded.spans()
    calls = [span.model_call for span in (odd, long, many)]
    assert all(call is not None and call.model == "m" and call.usage.input_tokens == 12 for call in calls)
    assert calls[0] is not None
    assert calls[0].output[0].text == "a?b"
    assert (long.content_status, many.content_status) == ("truncated", "truncated")
    assert len(json.dumps(calls[1] and calls[1].native_response)) < 1_200_000


def test_no_name_stands_twice_in_a_span() -> None:
    """Attributes of the application's own on a model call, some of which say content: where that may go, and once."""
    own = {
        "gen_ai.request.model": "theirs", "gen_ai.input.messages": "theirs", "input.value": "private words",
        "openinference.span.kind": "theirs", "team": "a",
    }  # fmt: skip

    class Setting:
        """Sets attributes on the model call's span, as an instrumentation below would."""

        def around(self, call: Any) -> Any:
            trace.get_current_span().set_attributes(own)
            return (yield call)

    with recording() as recorded:
        transport = ScriptedProvider([WHOLE]).transport(httpx2)
        openai = OpenAI(api_key="k", http_client=httpx2.Client(transport=transport))
        client = loopkit.wrap(openai, interceptors=[Setting()])
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
        with loopkit.span("block", input="ours"):
            trace.get_current_span().set_attributes(own)
        with loopkit.span("bare"):
            trace.get_current_span().set_attributes(own)
        call, block, bare = recorded.spans()
        encoded = [span for batch in recorded.batches for span in batch.spans]
    for span in encoded:
        for data in (span.stored(), span.exported(content=True), span.exported(content=False)):
            names = [item.key for item in OtlpSpan.FromString(data).attributes]
            assert sorted(names) == sorted(set(names))
        assert b"private words" not in span.exported(content=False)
    assert call.model_call is not None
    assert (call.model_call.model, call.attributes["team"]) == ("m", "a")
    assert (block.input, bare.input) == ("ours", "private words")


def test_a_translation_that_fails_is_told_as_what_it_is(caplog: pytest.LogCaptureFixture) -> None:
    _host.faults.clear()
    with recording() as recorded:
        ask({**WHOLE, "choices": [None]})
        (span,) = recorded.spans()
    assert span.content_status == "kept"
    assert span.model_call is not None
    assert span.model_call.response_id == "chatcmpl-1"
    assert "redact" not in caplog.text
