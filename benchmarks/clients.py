"""A chat completion through the genuine OpenAI client over a fake transport, bare and wrapped; and a stream."""

from __future__ import annotations

import json
import tempfile

import httpx2
from openai import OpenAI

import loopkit
from benchmarks.measure import Cost, rounds
from loopkit import _assemble
from loopkit.config import Settings, settings
from loopkit.testing import chat_completion

CHUNKS = 500
MESSAGES = [{"role": "user", "content": "My card was declined. " * 20}]


def table() -> str:
    """The comparison."""
    made = settings("bench", environ={"LOOPKIT_HOME": tempfile.mkdtemp()})
    lines = [
        "## A call of the OpenAI client\n",
        "| case | bare, CPU µs | wrapped, CPU of all threads µs | ratio |",
        "|---|---|---|---|",
    ]
    for label, stream, calls in (("chat completion", False, 300), (f"stream of {CHUNKS} chunks", True, 10)):
        costs = _compare(made, stream, calls)
        ratio = costs["wrapped"].cpu / costs["bare"].cpu
        lines.append(f"| {label} | {costs['bare'].cpu:.0f} | {costs['wrapped'].cpu:.0f} | {ratio:.3f} |")
    return "\n".join(lines) + "\n"


def _compare(made: Settings, stream: bool, calls: int) -> dict[str, Cost]:
    bare, wrapped = _client(), loopkit.wrap(_client())
    running: list[bool] = []

    def recorded() -> None:
        if not running:
            _assemble.start(made)
            running.append(True)
        _call(wrapped, stream)

    def settle(name: str) -> None:
        if running:
            loopkit.shutdown(10)
            running.clear()

    return rounds({"bare": lambda: _call(bare, stream), "wrapped": recorded}, calls=calls, settle=settle, repeat=7)


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
