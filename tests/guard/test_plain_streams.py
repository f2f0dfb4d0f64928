"""The other providers' streams under a guard: chunk by chunk too, of their own types, however they were cut."""

from __future__ import annotations

import asyncio
import copy
import json
from itertools import pairwise
from typing import Any

import pytest
from huggingface_hub import ChatCompletionStreamOutput
from hypothesis import given, settings
from hypothesis import strategies as st

import loopkit
from loopkit import checks
from loopkit.capture.dialects.hugging_face import HuggingFaceChat
from loopkit.testing import MemorySink
from tests.colours import collect, value
from tests.providers.contract import ROWS, Row, aws_event

TEXT = "Write to ana@example.org or call (555) 234-5678, office; the code is 12, and that is all."
CLEAN = "Write to [EMAIL] or call [PHONE], office; the code is 12, and that is all."
PII = loopkit.Guard(output=[checks.pii()])
OTHERS = [row for row in ROWS if row.name.split()[0] in ("google", "mistral", "cohere", "ollama", "bedrock")]
PLACES = [pytest.param(row, colour, id=f"{row.name} {colour}") for row in OTHERS for colour in row.colours]


WORDS = ('"Hello"', '" "', '" there"', '" there!"', '"there"', '"there!"', '"!"')


def cut(text: str, cuts: list[int]) -> list[str]:
    places = [0, *sorted({min(each, len(text)) for each in cuts}), len(text)]
    return [text[a:b] for a, b in pairwise(places)]


def text_of(row: Row, chunk: Any) -> str:
    if "google" in row.name:
        return chunk.text or ""
    if "mistral" in row.name:
        return "".join(each.delta.content or "" for each in chunk.data.choices)
    if "cohere" in row.name:
        content = getattr(getattr(getattr(chunk, "delta", None), "message", None), "content", None)
        return getattr(content, "text", None) or ""
    if "ollama" in row.name:
        return chunk.message.content or ""
    return chunk.get("contentBlockDelta", {}).get("delta", {}).get("text", "")


def saying(row: Row, pieces: list[str]) -> list[Any]:
    """The recorded stream, with these words in the place of its own."""
    events: list[Any] = []
    for event in row.recorded["stream"]:
        told = json.dumps(event)
        word = next((word for word in WORDS if word in told), None)
        if word is None:
            events.append(event)
        elif word == '"Hello"':
            events += [json.loads(told.replace(word, json.dumps(piece))) for piece in pieces]
    return events


def answering(row: Row, events: list[Any]) -> Any:
    if "bedrock" in row.name:
        body = b"".join(aws_event(*each) for each in events)
        return lambda _: (200, {"content-type": "application/vnd.amazon.eventstream"}, body)
    return lambda _: row.events(events)


def run(row: Row, colour: str, events: list[Any], guard: Any) -> tuple[list[Any], Any]:
    """The chunks that came, and what ended them."""

    async def go() -> tuple[list[Any], Any]:
        client = loopkit.wrap(row.make(colour, answering(row, events)), guard=guard)
        came: list[Any] = []
        try:
            stream = await value(row.stream(client))
            if hasattr(stream, "__aiter__"):
                async for chunk in stream:
                    came.append(chunk)
            else:
                came.extend(iter(stream))
        except loopkit.Blocked as blocked:
            return came, blocked
        return came, None

    return asyncio.run(go())


@pytest.mark.parametrize(("row", "colour"), PLACES)
def test_what_is_clean_passes_as_it_came(row: Row, colour: str) -> None:
    async def plainly() -> list[Any]:
        client = row.make(colour, answering(row, events))
        return await collect(await value(row.stream(client)))

    events = saying(row, ["Hel", "lo the", "re", "!"])
    came, error = run(row, colour, events, PII)
    bare = asyncio.run(plainly())
    assert error is None
    assert [type(chunk) for chunk in came] == [type(chunk) for chunk in bare]
    assert "".join(text_of(row, chunk) for chunk in came) == "Hello there!"
    if "google" not in row.name:  # which keeps the headers' order to itself
        assert came == bare


@pytest.mark.parametrize("row", OTHERS, ids=lambda row: row.name)
@settings(max_examples=15)
@given(cuts=st.lists(st.integers(1, len(TEXT) - 1), max_size=12))
def test_what_passes_is_the_same_for_all_cuts(row: Row, cuts: list[int]) -> None:
    came, error = run(row, row.colours[0], saying(row, cut(TEXT, cuts)), PII)
    assert error is None
    assert "".join(text_of(row, chunk) for chunk in came) == CLEAN


@pytest.mark.parametrize(("row", "colour"), PLACES)
def test_a_block_ends_it_and_what_was_settled_has_left(row: Row, colour: str) -> None:
    guard = loopkit.Guard(output=[checks.banned(["acme"])])
    came, error = run(row, colour, saying(row, ["All is well so far. ", "And ac", "me is ", "bad"]), guard)
    assert error is not None
    assert "".join(text_of(row, chunk) for chunk in came) == "All is well so far. And "


CALLED = {"to": "ana@example.org", "note": "call (555) 234-5678 or not"}
SAID = json.dumps(CALLED)
NOON = "2025-10-17T12:00:00.1Z"
USES: dict[str, list[Any]] = {
    "google": [
        {"candidates": [
            {"index": 0, "content": {"role": "model", "parts": [{"functionCall": {"name": "mail", "args": CALLED}}]}}]},
        {"candidates": [{"index": 0, "content": {"role": "model", "parts": [{"text": ""}]}, "finishReason": "STOP"}]},
    ],
    "mistral": [
        {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [
            {"index": 0, "delta": {"tool_calls": [
                {"id": "t", "index": 0, "function": {"name": name, "arguments": piece}}]}, "finish_reason": reason}]}
        for name, piece, reason in (("mail", SAID[:20], None), ("", SAID[20:], None), ("", "", "tool_calls"))
    ],
    "cohere": [
        {"type": "message-start", "id": "c", "delta": {"message": {"role": "assistant"}}},
        {"type": "tool-call-start", "index": 0, "delta": {"message": {"tool_calls": {
            "id": "t", "type": "function", "function": {"name": "mail", "arguments": ""}}}}},
        *({"type": "tool-call-delta", "index": 0,
           "delta": {"message": {"tool_calls": {"function": {"arguments": piece}}}}}
          for piece in (SAID[:20], SAID[20:])),
        {"type": "tool-call-end", "index": 0},
    ],
    "ollama": [
        {"model": "m", "created_at": NOON, "done": False, "message": {
            "role": "assistant", "content": "", "tool_calls": [{"function": {"name": "mail", "arguments": CALLED}}]}},
        {"model": "m", "created_at": NOON, "done": True, "message": {"role": "assistant", "content": ""}},
    ],
    "bedrock": [
        ["messageStart", {"role": "assistant"}],
        ["contentBlockStart", {"contentBlockIndex": 0, "start": {"toolUse": {"toolUseId": "t", "name": "mail"}}}],
        *(["contentBlockDelta", {"contentBlockIndex": 0, "delta": {"toolUse": {"input": piece}}}]
          for piece in (SAID[:20], SAID[20:])),
        ["contentBlockStop", {"contentBlockIndex": 0}], ["messageStop", {"stopReason": "tool_use"}],
    ],
}  # fmt: skip


def arguments_of(row: Row, chunks: list[Any]) -> Any:
    if "google" in row.name:
        return next(
            part.function_call.args for c in chunks for part in c.candidates[0].content.parts if part.function_call
        )
    if "ollama" in row.name:
        return next(c.message.tool_calls[0].function.arguments for c in chunks if c.message.tool_calls)
    if "mistral" in row.name:
        said = [
            call.function.arguments for c in chunks for each in c.data.choices for call in each.delta.tool_calls or ()
        ]
    elif "cohere" in row.name:
        calls = [getattr(getattr(getattr(c, "delta", None), "message", None), "tool_calls", None) for c in chunks]
        said = [call.function.arguments or "" for call in calls if call]
    else:
        said = [c.get("contentBlockDelta", {}).get("delta", {}).get("toolUse", {}).get("input", "") for c in chunks]
    return json.loads("".join(said))


@pytest.mark.parametrize(("row", "colour"), PLACES)
def test_tools_arguments_are_cleaned_too(row: Row, colour: str) -> None:
    came, error = run(row, colour, USES[row.name.split()[0]], PII)
    assert error is None
    assert arguments_of(row, came) == {"to": "[EMAIL]", "note": "call [PHONE] or not"}


@pytest.mark.parametrize(("row", "colour"), PLACES)
def test_no_tool_is_called_that_may_not_be(row: Row, colour: str) -> None:
    guard = loopkit.Guard(tool_call=[checks.tools(["look"])])
    came, error = run(row, colour, USES[row.name.split()[0]], guard)
    assert error is not None
    with pytest.raises((StopIteration, ValueError)):
        arguments_of(row, came)
    allowed = loopkit.Guard(tool_call=[checks.tools(["mail"])])
    came, error = run(row, colour, USES[row.name.split()[0]], allowed)
    assert (error, arguments_of(row, came)) == (None, CALLED)


@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize("row", [row for row in OTHERS if row.name.startswith("google")], ids=lambda row: row.name)
def test_a_tool_that_takes_nothing_is_known_too(row: Row, is_stream: bool) -> None:
    body = copy.deepcopy(USES["google"][0])
    del body["candidates"][0]["content"]["parts"][0]["functionCall"]["args"]
    client = row.make("sync", lambda _: row.events([body]) if is_stream else row.library.Response(200, json=body))
    loopkit.wrap(client, guard=loopkit.Guard(tool_call=[checks.tools(["look"])]))
    with pytest.raises(loopkit.Blocked, match="mail is not on the list"):
        list(row.stream(client)) if is_stream else row.call(client)


def test_mistrals_chunks_need_no_logprobs(recorded: MemorySink) -> None:
    row = next(row for row in OTHERS if row.name == "mistral chat")
    events = saying(row, ["it is ", "fine"])
    for event in events:
        for choice in event["choices"]:
            choice.pop("logprobs", None)
    came, error = run(row, "sync", events, loopkit.Guard(output=[checks.required(["fine"])]))
    assert (error, "".join(text_of(row, chunk) for chunk in came)) == (None, "it is fine")
    (call,) = [span.model_call for span in recorded.spans() if span.kind == "llm"]
    assert call is not None
    assert call.output[0].text == "it is fine"


def test_hugging_faces_chunks_are_changed_in_place_of_their_own_type() -> None:
    choice = {"index": 0, "delta": {"role": "assistant", "content": "mail ana@example.org"}, "finish_reason": "stop"}
    choice = {"index": 0, "delta": {"role": "assistant", "content": "mail ana@example.org"}, "finish_reason": "stop"}
    given: Any = {"id": "c", "created": 1, "model": "m", "system_fingerprint": "f", "choices": [choice]}
    chunk = ChatCompletionStreamOutput.parse_obj_as_instance(given)
    dialect = HuggingFaceChat()
    assert [piece.text for piece in dialect.pieces(chunk)] == ["mail ana@example.org"]
    changed = dialect.with_pieces(chunk, ["mail [EMAIL]"])
    assert type(changed) is ChatCompletionStreamOutput
    assert (changed.choices[0].delta.content, chunk.choices[0].delta.content) == (
        "mail [EMAIL]",
        "mail ana@example.org",
    )
    assert dialect.ended(chunk) == [0]
