"""`record_model_call`: a call that no dialect knows, told by who made it, when it is over."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from loopkit import _host
from loopkit.capture import slot
from loopkit.capture.dialects.known import NEUTRAL
from loopkit.capture.dialects.neutral import told_messages
from loopkit.capture.exchange import Exchange
from loopkit.capture.live import Handle, NoSpan
from loopkit.errors import InvalidInput
from loopkit.types import JSON, Message, Usage

Told = str | Message | Mapping[str, Any] | Iterable[str | Message | Mapping[str, Any]]

_shield = _host.Shielded("record_model_call()")


def record_model_call(
    *,
    provider: str,
    model: str,
    input: Told | None = None,
    output: Told | None = None,
    operation: str = "chat",
    usage: Usage | Mapping[str, int | None] | None = None,
    parameters: Mapping[str, JSON] | None = None,
    tools: Iterable[Mapping[str, JSON]] = (),
    response_id: str | None = None,
    response_model: str | None = None,
    cost: float | None = None,
    time_to_first_token: float | None = None,
    started_at: datetime | int | None = None,
    error: BaseException | None = None,
    stream: bool = False,
    task: str | None = None,
) -> Handle:
    """Record a model call that no client of ours made, below the current span; it ends now.

    `input` and `output` are texts or messages: dicts with role and content, as OpenAI's API has them, or
    `loopkit.Message`s. `usage` has the names of `loopkit.types.Usage`. `started_at` is a datetime or nanoseconds since
    the epoch, `time_to_first_token` in seconds, `cost` in US dollars. `task` is whose call it is, where that isn't the
    task of the span around it. Gives the span's handle, for feedback.

        loopkit.record_model_call(
            provider="acme", model="acme-1", input="How are you?", output="Fine.", usage={"input_tokens": 4}
        )

    Raises `InvalidInput` for what can't be a provider, model, message, number or time.
    """
    for name, value in (("provider", provider), ("model", model), ("operation", operation), ("task", task)):
        if (value is not None or name != "task") and (not isinstance(value, str) or not value):
            raise InvalidInput(f"record_model_call's {name} is {value!r}: give a non-empty string")
    for name, number in (("cost", cost), ("time_to_first_token", time_to_first_token)):
        is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
        if number is not None and not (is_number and 0 <= number < math.inf):
            raise InvalidInput(f"record_model_call's {name} is {number!r}: give a number, 0 or more")
    if not isinstance(usage, (Usage, Mapping)) and usage is not None:
        raise InvalidInput(
            f"record_model_call's usage is {usage!r}: give a loopkit.types.Usage, or a dict of its names"
        )
    if not isinstance(parameters, Mapping) and parameters is not None:
        raise InvalidInput(f"record_model_call's parameters is {parameters!r}: give a dict")
    if isinstance(tools, (str, bytes)) or not isinstance(tools, Iterable):
        raise InvalidInput(f"record_model_call's tools is {tools!r}: give a list of dicts")
    try:
        asked, said = told_messages(input, "user"), told_messages(output, "assistant")
    except TypeError as fault:
        raise InvalidInput(f"record_model_call's messages can't be read: {fault}") from fault
    began = _nanoseconds(started_at)
    recorder = slot.recorder
    if recorder is None:
        return NoSpan()
    with _shield:
        live = recorder.start(f"{operation} {model}", "embedding" if operation == "embeddings" else "llm", task)
        if live is None:
            return NoSpan()
        if began is not None:
            live.started_at = began
        exchange = Exchange(NEUTRAL, provider, bare=live.bare)
        exchange.ask(
            {
                "operation": operation,
                "model": model,
                "messages": asked,
                "tools": list(tools or ()),
                "parameters": dict(parameters or {}),
                "stream": stream,
            }
        )
        exchange.answer_with(
            {
                "id": response_id,
                "model": response_model,
                "messages": said,
                "usage": usage if isinstance(usage, Mapping) else _counted(usage),
                "cost": cost,
            }
        )
        exchange.time_to_first_token = time_to_first_token
        live.exchange = exchange
        live.finish(error)
        return Handle(live)
    return NoSpan()


def _counted(usage: Usage | None) -> dict[str, int | None]:
    return {} if usage is None else {name: getattr(usage, name) for name in Usage.__slots__}


def _nanoseconds(at: datetime | int | None) -> int | None:
    if isinstance(at, datetime) and 1970 <= at.year < 2262:
        return int(at.timestamp() * 1_000_000) * 1000
    if at is None or (isinstance(at, int) and not isinstance(at, bool) and 0 <= at < 2**63):
        return at
    raise InvalidInput(f"started_at is {at!r}: give a datetime, or nanoseconds since the epoch")
