"""Streams under any chunking: what the application reads is what came, and what is recorded is the whole of it."""

from __future__ import annotations

import json
from typing import Any

import httpx2
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import OpenAI

import loopkit
from loopkit.capture.dialects.anthropic_messages import MessagesFold
from loopkit.capture.dialects.openai_chat import ChatFold
from loopkit.testing import recording
from loopkit.types import Usage


def chunk(**delta: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
    }  # fmt: skip


def client_streaming(events: list[dict[str, Any]]) -> OpenAI:
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    transport = httpx2.MockTransport(
        lambda request: httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=body.encode())
    )
    return loopkit.wrap(OpenAI(api_key="k", http_client=httpx2.Client(transport=transport)))


def stream_of(client: OpenAI) -> Any:
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}], stream=True)


texts = st.lists(st.text(st.characters(codec="utf-8"), max_size=8), max_size=12)


@settings(max_examples=40, deadline=None)
@given(texts, st.integers(0, 14))
def test_any_chunking_any_early_end(pieces: list[str], read: int) -> None:
    with recording(redact=lambda text: text) as recorded:
        stream = stream_of(client_streaming([chunk(content=piece) for piece in pieces]))
        got = []
        for each in stream:
            got.append(each.choices[0].delta.content)
            if len(got) == read:
                break
        else:
            assert got == pieces
        stream.close()
        (span,) = recorded.spans()
    assert span.model_call is not None
    assert "".join(message.text for message in span.model_call.output) == "".join(got)
    finished = read == 0 or len(got) < read or read > len(pieces)
    assert span.status == ("ok" if finished else "cancelled")


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=4), st.data())
def test_tool_call_arguments_survive_any_cut(arguments: dict[str, Any], data: st.DataObject) -> None:
    whole = json.dumps(arguments)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    events = [
        chunk(
            tool_calls=[{"index": 0, "id": "call_1", "type": "function", "function": {"name": "find", "arguments": ""}}]
        ),
        *(chunk(tool_calls=[{"index": 0, "function": {"arguments": part}}]) for part in parts),
    ]
    with recording(redact=lambda text: text) as recorded:
        list(stream_of(client_streaming(events)))
        (span,) = recorded.spans()
    assert span.model_call is not None
    (part,) = span.model_call.output[0].parts
    assert (part.type, part.id, part.name, part.arguments) == ("tool_call", "call_1", "find", arguments)


def test_a_fold_may_be_asked_before_anything_came() -> None:
    assert ChatFold().result() == {"choices": [], "usage": None}
    assert MessagesFold().result()["content"] == []


def test_usage_that_was_not_sent_stays_empty() -> None:
    with recording() as recorded:
        list(stream_of(client_streaming([chunk(content="hi")])))
        (span,) = recorded.spans()
    assert span.model_call is not None
    assert span.model_call.usage == Usage()
