"""The dialects by name, and recorded requests and responses read with them.

What a provider was asked and answered is kept as it was; messages are made of it when somebody reads them, which costs
the application nothing and lets a dialect that has learned something read old calls better.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from loopkit import _host
from loopkit.capture.dialects._content import json_object
from loopkit.capture.dialects._protocol import Dialect
from loopkit.capture.dialects.anthropic_messages import Messages
from loopkit.capture.dialects.openai_chat import Chat
from loopkit.capture.dialects.openai_responses import Responses
from loopkit.types import ModelCall, Span

CHAT, RESPONSES, MESSAGES = Chat(), Responses(), Messages()
DIALECTS: Mapping[str, Dialect] = {dialect.name: dialect for dialect in (CHAT, RESPONSES, MESSAGES)}


def with_facts(span: Span) -> Span:
    """The span, with what is to be known of its model call but the messages, as far as nobody has read it yet."""
    call = span.model_call
    if call is None or call.native_format is None:
        return span
    return replace(span, model_call=_read(call, messages=False))


def with_messages(span: Span) -> Span:
    """The same with messages and tools too."""
    call = span.model_call
    if call is None or call.native_format is None:
        return span
    return replace(span, model_call=translated(call))


def translated(call: ModelCall) -> ModelCall:
    """A call with facts and messages read from its provider's own shapes; as it is where they can't be read."""
    return _read(call, messages=True)


def _read(call: ModelCall, *, messages: bool) -> ModelCall:
    dialect = DIALECTS.get(call.native_format or "")
    if dialect is None:
        unknown = call.native_format
        _host.warn_once(f"dialect {unknown}", f"calls recorded as {unknown!r} can't be read here: upgrade loopkit")
        return call
    with _reading:
        asked, answered = json_object(call.native_request), json_object(call.native_response)
        return replace(
            dialect.facts(call.provider, asked, answered),
            input=dialect.asked(asked) if messages else (),
            output=dialect.answered(answered) if messages else (),
            tools=tuple(asked.get("tools") or ()) if messages else (),
            cost=call.cost,
            time_to_first_token=call.time_to_first_token,
            native_format=call.native_format,
            native_request=call.native_request,
            native_response=call.native_response,
        )
    return call


_reading = _host.Shielded("reading a recorded call")
