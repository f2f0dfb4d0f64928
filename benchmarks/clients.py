"""A chat completion through the genuine OpenAI client over a fake transport, bare and wrapped; and a stream."""

from __future__ import annotations

import json
import statistics

import httpx2
from openai import OpenAI

import loopkit
from benchmarks.decorated import fresh, recorded
from benchmarks.measure import Case, ratio, rounds
from loopkit.testing import chat_completion

CHUNKS = 500
MESSAGES = [{"role": "user", "content": "My card was declined. " * 20}]


def rows() -> list[dict[str, object]]:
    """The comparison."""
    made = fresh()
    found: list[dict[str, object]] = []
    for label, stream, calls in (("chat completion", False, 400), (f"stream of {CHUNKS} chunks", True, 5)):
        bare, wrapped = _client(), loopkit.wrap(_client())
        cases = {
            "bare": Case(lambda client=bare, stream=stream: _call(client, stream)),
            "wrapped": recorded(made, lambda client=wrapped, stream=stream: _call(client, stream)),
        }
        costs = rounds(cases, calls=calls, repeat=15)
        found.append(
            {
                "case": label,
                "bare, CPU µs": round(statistics.median(costs["bare"].cpu)),
                "wrapped, CPU of all threads µs": round(statistics.median(costs["wrapped"].cpu)),
                "ratio": round(ratio(costs["wrapped"].cpu, costs["bare"].cpu), 3),
            }
        )
    return found


def _call(client: OpenAI, stream: bool) -> None:
    answer = client.chat.completions.create(model="m", messages=MESSAGES, stream=stream)  # type: ignore[call-overload]
    if stream:
        for _ in answer:
            pass


def _client() -> OpenAI:
    def answer(request: httpx2.Request) -> httpx2.Response:
        if json.loads(request.content).get("stream"):
            return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=_EVENTS)
        return httpx2.Response(200, json=chat_completion("It goes to cards. " * 20))

    return OpenAI(api_key="k", http_client=httpx2.Client(transport=httpx2.MockTransport(answer)))


def _events() -> bytes:
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    chunk = {**head, "choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}]}
    return f"data: {json.dumps(chunk)}\n\n".encode() * CHUNKS + b"data: [DONE]\n\n"


_EVENTS = _events()
