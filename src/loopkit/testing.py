"""For tests of applications that use loopkit: recording into memory, a clock and ids that repeat, a scripted model.

    from loopkit.testing import recording

    def test_triage():
        with recording() as recorded:
            triage("my card was declined")
        assert recorded.spans()[0].output == "declined_card_payment"

Nothing here needs the network or a key.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from loopkit import _assemble, _host
from loopkit._ids import Clock, Ids
from loopkit.capture.dialects.known import with_messages
from loopkit.capture.sinks import Batch
from loopkit.config import settings
from loopkit.store.sqlite import Store
from loopkit.types import Feedback, Span
from loopkit.wire.decode import decode_span

__all__ = ["CountingIds", "MemorySink", "ScriptedProvider", "TickingClock", "recording"]

_START = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z


class TickingClock(Clock):
    """A clock that moves on by a fixed step whenever it is read, in nanoseconds."""

    def __init__(self, start: int = _START, step: int = 1_000_000) -> None:
        self._now = start
        self._step = step

    def now(self) -> int:
        """The next tick."""
        self._now += self._step
        return self._now


class CountingIds(Ids):
    """Trace ids 1, 2, 3, … and span ids 1, 2, 3, …"""

    def __init__(self) -> None:
        super().__init__()
        self._traces = self._spans = self._events = 0

    def trace_id(self) -> int:
        """The next trace id."""
        self._traces += 1
        return self._traces

    def span_id(self) -> int:
        """The next span id."""
        self._spans += 1
        return self._spans

    def event_id(self, now: int) -> str:
        """The next event id."""
        self._events += 1
        return f"{self._events:032x}"


class MemorySink:
    """Keeps every batch. `spans()` and `events()` flush first, so that what was recorded is there."""

    durable = True
    """As far as a test can tell."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def accept(self, batch: Batch) -> None:
        """See `Sink.accept`."""
        self.batches.append(batch)

    def sync(self) -> None:
        """See `Sink.sync`."""

    def close(self, timeout: float) -> None:
        """See `Sink.close`."""

    def after_fork(self) -> None:
        """See `Sink.after_fork`."""

    def spans(self, *, name: str | None = None) -> list[Span]:
        """The finished spans, in the order in which they ended; those of one name, if it is given."""
        _assemble.flush()
        found = [with_messages(decode_span(span.stored())) for batch in self.batches for span in batch.spans]
        return [span for span in found if name is None or span.name == name]

    def events(self) -> list[Feedback]:
        """The feedback events, in order."""
        _assemble.flush()
        return [event for batch in self.batches for event in batch.feedback]


@contextmanager
def recording(
    *, store: bool = False, clock: Clock | None = None, ids: Ids | None = None, **given: Any
) -> Generator[MemorySink]:
    """Record into memory while the block runs; with `store=True` into a store in a temporary LOOPKIT_HOME too.

    Recording's own faults are raised (`strict`). `given` are `init()`'s other arguments.
    """
    sink = MemorySink()
    before = os.environ.get("LOOPKIT_HOME")
    with tempfile.TemporaryDirectory(prefix="loopkit-test-") as home:
        os.environ["LOOPKIT_HOME"] = home
        try:
            arguments: dict[str, Any] = {"strict": True, **({} if store else {"store": None}), **given}
            made = settings("test", **arguments)
            _assemble.start(made, sinks=(sink,), clock=clock, ids=ids)
            if store:
                Store(home).close()
            yield sink
        finally:
            _assemble.shutdown()
            _host.strict = False
            if before is None:
                del os.environ["LOOPKIT_HOME"]
            else:
                os.environ["LOOPKIT_HOME"] = before


class ScriptedProvider:
    """A provider that answers from a script, below a genuine SDK client: give its `transport` to the client.

        provider = ScriptedProvider(["billing", "other"])
        client = OpenAI(api_key="test", http_client=httpx2.Client(transport=provider.transport(httpx2)))

    Answers are texts (as chat completions), ready bodies (dicts), or a function from the request's body to either.
    Every request's body is kept in `requests`.
    """

    def __init__(self, answers: Sequence[Any] | Callable[[Mapping[str, Any]], Any]) -> None:
        self._answers = answers
        self.requests: list[dict[str, Any]] = []

    def transport(self, library: Any) -> Any:
        """A mock transport of `httpx` or `httpx2`, whichever the SDK runs on; for sync and async clients."""

        def handle(request: Any) -> Any:
            body = json.loads(request.content)
            answer = self._next(body)
            if isinstance(answer, str):
                answer = chat_completion(answer, number=len(self.requests), model=body.get("model", "scripted"))
            return library.Response(200, json=answer)

        return library.MockTransport(handle)

    def _next(self, body: dict[str, Any]) -> Any:
        self.requests.append(body)
        if callable(self._answers):
            return self._answers(body)
        return self._answers[min(len(self.requests), len(self._answers)) - 1]


def chat_completion(text: str, *, number: int = 1, model: str = "scripted") -> dict[str, Any]:
    """A chat completion's body, in the shape of OpenAI's documentation."""
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": 1_767_225_600,
        "model": model,
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15},
    }
