"""Providers' streams under a guard: what passes is the same however it was cut, and the chunks stay the provider's."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import loopkit
from loopkit import checks
from loopkit.checks import Trip
from loopkit.testing import MemorySink

TEXT = "Write to ana@example.org or call (555) 234-5678, office; the code is 12, and that is all."
CLEAN = "Write to [EMAIL] or call [PHONE], office; the code is 12, and that is all."
KEY = "sk-proj-" + "q8Zr7LmK2vXw9TbN4cYd6HsJ3gFp5QaE1uRi"
ARGUMENTS = json.dumps({"to": "ana@example.org", "note": "call (555) 234-5678 or not"})
CLEAN_ARGUMENTS = json.dumps({"to": "[EMAIL]", "note": "call [PHONE] or not"})
PII = loopkit.Guard(output=[checks.pii()])


def cut(text: str, cuts: list[int]) -> list[str]:
    places = [0, *sorted({min(each, len(text)) for each in cuts}), len(text)]
    return [text[a:b] for a, b in pairwise(places)]


class Body(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """Server-sent events, of which it is known how many were read, and whether they were closed."""

    def __init__(self, events: list[Any], named: bool) -> None:
        self.events = [
            (f"event: {event['type']}\n" if named else "") + f"data: {json.dumps(event)}\n\n" for event in events
        ] + ([] if named else ["data: [DONE]\n\n"])
        self.read = 0
        self.is_closed = False
        self._left = iter(self.events)

    def __iter__(self) -> Any:
        for event in self._left:
            self.read += 1
            yield event.encode()

    async def __aiter__(self) -> Any:
        for each in self:
            yield each

    def close(self) -> None:
        self.is_closed = True

    async def aclose(self) -> None:
        self.is_closed = True


class Chat:
    """OpenAI's chat completions."""

    client, aclient, named = openai.OpenAI, openai.AsyncOpenAI, False

    @staticmethod
    def events(pieces: list[str], arguments: list[str]) -> list[Any]:
        def chunk(delta: Any, reason: str | None = None) -> dict[str, Any]:
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            if delta.get("content"):
                choice["logprobs"] = {
                    "content": [{"token": delta["content"], "logprob": -1.0, "bytes": None, "top_logprobs": []}]
                }
            return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}

        made = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": piece}) for piece in pieces)]
        if arguments:
            call = {"index": 0, "id": "t", "type": "function", "function": {"name": "mail", "arguments": ""}}
            made.append(chunk({"tool_calls": [call]}))
            made += [chunk({"tool_calls": [{"index": 0, "function": {"arguments": part}}]}) for part in arguments]
        usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
        return [*made, chunk({}, "stop"), {**chunk({}), "choices": [], "usage": usage}]

    @staticmethod
    def ask(client: Any) -> Any:
        return client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}], stream=True)

    @staticmethod
    def told(chunks: list[Any]) -> tuple[str, str]:
        deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
        calls = [call for delta in deltas for call in delta.tool_calls or ()]
        return "".join(d.content or "" for d in deltas), "".join(c.function.arguments or "" for c in calls)


class Messages:
    """Anthropic's messages."""

    client, aclient, named = anthropic.Anthropic, anthropic.AsyncAnthropic, True

    @staticmethod
    def events(pieces: list[str], arguments: list[str]) -> list[Any]:
        usage = {"input_tokens": 1, "output_tokens": 1}
        message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
                   "stop_sequence": None, "usage": usage}  # fmt: skip
        made: list[Any] = [{"type": "message_start", "message": message}]
        blocks: list[Any] = [({"type": "text", "text": ""}, [{"type": "text_delta", "text": each} for each in pieces])]
        if arguments:
            deltas = [{"type": "input_json_delta", "partial_json": each} for each in arguments]
            blocks.append(({"type": "tool_use", "id": "t", "name": "mail", "input": {}}, deltas))
        for index, (block, deltas) in enumerate(blocks):
            made.append({"type": "content_block_start", "index": index, "content_block": block})
            made += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
            made.append({"type": "content_block_stop", "index": index})
        end = {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": usage}
        return [*made, end, {"type": "message_stop"}]

    @staticmethod
    def ask(client: Any) -> Any:
        return client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}], stream=True)

    @staticmethod
    def told(chunks: list[Any]) -> tuple[str, str]:
        deltas = [chunk.delta for chunk in chunks if chunk.type == "content_block_delta"]
        return (
            "".join(getattr(delta, "text", "") for delta in deltas),
            "".join(getattr(delta, "partial_json", "") for delta in deltas),
        )


class Responses:
    """OpenAI's responses, which say everything twice."""

    client, aclient, named = openai.OpenAI, openai.AsyncOpenAI, True

    @staticmethod
    def events(pieces: list[str], arguments: list[str]) -> list[Any]:
        text, said = "".join(pieces), "".join(arguments)
        part = {"type": "output_text", "text": text, "annotations": []}
        item = {"type": "message", "id": "i", "role": "assistant", "status": "completed", "content": [part]}
        call = {
            "type": "function_call",
            "id": "f",
            "call_id": "t",
            "name": "mail",
            "arguments": said,
            "status": "completed",
        }
        body: Any = {"id": "r", "object": "response", "created_at": 1, "model": "m", "output": [], "tools": []}
        body |= {"parallel_tool_calls": True, "tool_choice": "auto", "status": "in_progress"}
        at = {"item_id": "i", "output_index": 0, "content_index": 0}
        made: list[Any] = [
            {"type": "response.created", "response": body},
            {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}},
            *({"type": "response.output_text.delta", **at, "delta": each, "logprobs": []} for each in pieces),
            {"type": "response.output_text.done", **at, "text": text, "logprobs": []},
            {"type": "response.content_part.done", **at, "part": part},
            {"type": "response.output_item.done", "output_index": 0, "item": item},
        ]
        if arguments:
            at = {"item_id": "f", "output_index": 1}
            made += [
                {"type": "response.output_item.added", "output_index": 1, "item": {**call, "arguments": ""}},
                *({"type": "response.function_call_arguments.delta", **at, "delta": each} for each in arguments),
                {"type": "response.function_call_arguments.done", **at, "name": "mail", "arguments": said},
                {"type": "response.output_item.done", "output_index": 1, "item": call},
            ]
        output = [item, *([call] if arguments else [])]
        made.append({"type": "response.completed", "response": {**body, "output": output, "status": "completed"}})
        return [{**event, "sequence_number": number} for number, event in enumerate(made)]

    @staticmethod
    def ask(client: Any) -> Any:
        return client.responses.create(model="m", input="x", stream=True)

    @staticmethod
    def told(chunks: list[Any]) -> tuple[str, str]:
        def joined(kind: str) -> str:
            return "".join(chunk.delta for chunk in chunks if chunk.type == f"response.{kind}.delta")

        return joined("output_text"), joined("function_call_arguments")


KINDS = [Chat, Messages, Responses]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def streamed(kind: Any, guard: Any, pieces: list[str], arguments: list[str], colour: str = "sync") -> tuple[Any, Body]:
    """What the application reads; as far as it comes, where it is blocked."""
    body = Body(kind.events(pieces, arguments), kind.named)
    transport = httpx2.MockTransport(
        lambda request: httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=body)
    )
    if colour == "sync":
        client = kind.client(api_key="k", max_retries=0, http_client=httpx2.Client(transport=transport))
        read: list[Any] = []
        stream = kind.ask(loopkit.wrap(client, guard=guard))
        assert type(stream).__name__ == "Stream"
        try:
            for chunk in stream:
                read.append(chunk)
        except loopkit.Blocked as blocked:
            read.append(blocked)
        return read, body

    async def aread() -> list[Any]:
        client = kind.aclient(api_key="k", max_retries=0, http_client=httpx2.AsyncClient(transport=transport))
        found: list[Any] = []
        stream = await kind.ask(loopkit.wrap(client, guard=guard))
        assert type(stream).__name__ == "AsyncStream"
        try:
            async for chunk in stream:
                found.append(chunk)
        except loopkit.Blocked as blocked:
            found.append(blocked)
        return found

    return asyncio.run(aread()), body


@each_kind
@settings(max_examples=25)
@given(st.lists(st.integers(0, 100), max_size=20), st.lists(st.integers(0, 90), max_size=12))
def test_what_passes_does_not_hang_on_the_cuts(kind: Any, cuts: list[int], others: list[int]) -> None:
    chunks, _ = streamed(kind, PII, cut(TEXT, cuts), cut(ARGUMENTS, others))
    assert kind.told(chunks) == (CLEAN, CLEAN_ARGUMENTS)
    assert "example.org" not in str(chunks)
    assert "234-5678" not in str(chunks)


@each_kind
def test_nor_on_the_colour(kind: Any) -> None:
    chunks, body = streamed(kind, PII, list(TEXT), list(ARGUMENTS), "async")
    assert kind.told(chunks) == (CLEAN, CLEAN_ARGUMENTS)
    assert body.read == len(body.events)


@each_kind
def test_chunks_that_say_nothing_wrong_are_passed_as_they_came(kind: Any) -> None:
    pieces, arguments = ["So ", "be ", "it."], ['{"a', '": 1}']
    plain, _ = streamed(kind, None, pieces, arguments)
    guarded, _ = streamed(kind, PII, pieces, arguments)
    assert [each.model_dump() for each in guarded] == [each.model_dump() for each in plain]


@each_kind
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_blocked_stream_is_closed_and_no_character_of_it_leaves(kind: Any, colour: str, recorded: MemorySink) -> None:
    guard = loopkit.Guard(output=[checks.secrets()])
    said = f"the key is {KEY} and now for something else" + " and more" * 50
    chunks, body = streamed(kind, guard, [said[at : at + 5] for at in range(0, len(said), 5)], [], colour)
    assert isinstance(chunks.pop(), loopkit.Blocked)
    assert "the key is ".startswith(kind.told(chunks)[0])
    assert kind.told(chunks)[0].startswith("the key")
    assert "sk-" not in str(chunks)
    assert body.is_closed
    assert body.read < 30 < len(body.events)
    (span,) = [span for span in recorded.spans() if span.kind == "llm"]
    assert (span.status, span.attributes["loopkit.interrupted"]) == ("error", True)
    assert [(event.value, event.by) for event in recorded.events()] == [("block", "secrets")]


@each_kind
def test_a_tool_call_is_held_until_its_checks_have_seen_it(kind: Any) -> None:
    class Allowed:
        name, on_error = "allowed", "closed"

        def check(self, text: str, seen: checks.Seen) -> Trip | None:
            return Trip("block", f"{seen.tool or 'it'} may not") if '"to"' in text else None

    guard = loopkit.Guard(tool_call=[Allowed()])
    chunks, _ = streamed(kind, guard, ["Mailing. "], list(ARGUMENTS))
    assert isinstance(chunks.pop(), loopkit.Blocked)
    assert kind.told(chunks) == ("Mailing. ", "")
    chunks, _ = streamed(kind, guard, ["Mailing. "], ['{"a', '": 1}'])
    assert kind.told(chunks) == ("Mailing. ", '{"a": 1}')


@each_kind
def test_a_check_of_the_whole_holds_all_of_it(kind: Any) -> None:
    def shouts(text: str) -> Trip | None:
        return Trip("replace", "loud", text.lower()) if text.isupper() else None

    guard = loopkit.Guard(output=[checks.passes(shouts)])
    chunks, _ = streamed(kind, guard, ["AND ", "SO ", "ON"], [])
    assert kind.told(chunks)[0] == "and so on"
    chunks, _ = streamed(kind, guard, ["And ", "so ", "on"], [])
    assert kind.told(chunks)[0] == "And so on"


@each_kind
def test_an_async_check_is_asked_in_a_stream_of_either_colour(kind: Any) -> None:
    async def looks(text: str) -> bool:
        await asyncio.sleep(0)
        return "so" not in text

    guard = loopkit.Guard(output=[checks.passes(looks)])
    for colour in ("sync", "async"):
        chunks, _ = streamed(kind, guard, ["And ", "so ", "on"], [], colour)
        assert isinstance(chunks.pop(), loopkit.Blocked)
        assert kind.told(chunks) == ("", "")


@each_kind
def test_what_is_known_of_tokens_goes_with_them(kind: Any) -> None:
    chunks, _ = streamed(kind, PII, ["mail ", "ana@example.org", " now"], [])
    assert "example" not in json.dumps([chunk.model_dump(mode="json") for chunk in chunks])


@each_kind
def test_one_verdict_a_check_however_much_it_finds(kind: Any, recorded: MemorySink) -> None:
    streamed(kind, PII, list(TEXT), [])
    assert [(event.value, event.reason) for event in recorded.events()] == [("redact", "found email, phone")]


def test_openais_helper_reads_a_guarded_stream() -> None:
    body = Body(Chat.events(list(TEXT), []), named=False)
    transport = httpx2.MockTransport(
        lambda request: httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=body)
    )
    client = loopkit.wrap(openai.OpenAI(api_key="k", http_client=httpx2.Client(transport=transport)), guard=PII)
    with client.chat.completions.stream(model="m", messages=[{"role": "user", "content": "x"}]) as stream:
        done = stream.get_final_completion()
    assert done.choices[0].message.content == CLEAN


def test_anthropics_helper_reads_a_guarded_stream() -> None:
    body = Body(Messages.events(list(TEXT), list(ARGUMENTS)), named=True)
    transport = httpx2.MockTransport(
        lambda request: httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=body)
    )
    client = loopkit.wrap(anthropic.Anthropic(api_key="k", http_client=httpx2.Client(transport=transport)), guard=PII)
    with client.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}]) as stream:
        done = stream.get_final_message()
    assert done.content[0].text == CLEAN  # type: ignore[union-attr]
    assert done.content[1].input == json.loads(CLEAN_ARGUMENTS)  # type: ignore[union-attr]
