"""The OpenAI Agents SDK: a trace processor that makes spans of its spans.

Its callbacks run where the work runs, so a span can be current while it lasts; a model's span is then filled in by the
hook of the client below.
"""

from __future__ import annotations

import functools
import json
from collections import OrderedDict
from dataclasses import replace
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace as otel_trace

from loopkit import _host
from loopkit._extras import require
from loopkit.capture import slot
from loopkit.capture.ambient import Ambient, holding
from loopkit.capture.dialects._content import json_or_text, mapping, objects
from loopkit.capture.dialects.known import CHAT, RESPONSES
from loopkit.capture.exchange import Exchange, without
from loopkit.capture.live import LiveSpan
from loopkit.capture.sdks._protocol import Undo
from loopkit.capture.snapshot import plain_copy, snapshot
from loopkit.types import Kind

_KINDS: dict[str, Kind] = {
    "agent": "agent",
    "response": "llm",
    "generation": "llm",
    "function": "tool",
    "guardrail": "guardrail",
    "handoff": "task",
    "custom": "task",
    "mcp_tools": "task",
    "transcription": "llm",
    "speech": "llm",
    "speech_group": "task",
}
"""By the SDK's type; those of other types (turns, runs) have no span: what is below hangs in the one above."""
_ELSEWHERE = frozenset(("transcription", "speech", "speech_group"))
"""Begun and ended in different tasks: never current."""
_MOST_OPEN = 10_000

_shield = _host.Shielded("recording the Agents SDK")


class _Open:
    __slots__ = ("before", "live", "mine", "parent")

    def __init__(self, live: LiveSpan | None, parent: str | None) -> None:
        self.live = live
        self.parent = parent
        self.mine: Any = None
        """The context in which its span is current."""
        self.before: Any = None


class Spans:
    """What is under way, by the SDK's ids."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, _Open] = OrderedDict()

    def start_trace(self, trace: Any) -> None:
        """A workflow begins."""
        recorder = slot.recorder
        if recorder is None:
            return
        live = recorder.start(str(trace.name), "task")
        if live is not None:
            old = live.ambient or Ambient()
            group = getattr(trace, "group_id", None)
            live.ambient = replace(
                old,
                session_id=str(group) if group else old.session_id,
                metadata={**old.metadata, **plain_copy(mapping(getattr(trace, "metadata", None)))},
            )
        self._keep(trace.trace_id, _Open(live, None), current=True)

    def start(self, span: Any) -> None:
        """A span begins. It knows little yet."""
        recorder = slot.recorder
        if recorder is None:
            return
        kind = _KINDS.get(span.span_data.type)
        above = span.parent_id or span.trace_id
        live = None
        if kind is not None:
            data = span.span_data
            name = str(getattr(data, "name", None) or data.type)
            live = recorder.start(name, kind, under=self._live(above))
        self._keep(span.span_id, _Open(live, above), current=span.span_data.type not in _ELSEWHERE)

    def end(self, id: str, span: Any = None) -> None:
        """It is over, and knows all."""
        opened = self._open.pop(id, None)
        if opened is None:
            return
        if opened.mine is not None and otel_context.get_current() is opened.mine:
            otel_context.attach(_still_running(opened.before))
        live = opened.live
        if live is None:
            return
        if span is not None:
            with _shield:
                _describe(live, span.span_data)
            failed = mapping(span.error)
            if failed:
                about = failed.get("data")
                said = failed.get("message") or ""
                live.set_status(otel_trace.StatusCode.ERROR, f"{said}: {about}" if about else str(said))
        live.finish()

    def _keep(self, id: str, opened: _Open, *, current: bool) -> None:
        if current and opened.live is not None:
            opened.before = otel_context.get_current()
            opened.mine = holding(opened.live.ambient, otel_trace.set_span_in_context(opened.live, opened.before))
            otel_context.attach(opened.mine)
        self._open[id] = opened
        while len(self._open) > _MOST_OPEN:
            self._open.popitem(last=False)

    def _live(self, id: str | None) -> LiveSpan | None:
        while id is not None:
            opened = self._open.get(id)
            if opened is None:
                return None
            if opened.live is not None:
                return opened.live
            id = opened.parent
        return None


SPANS = Spans()


class _Processor:
    """Makes spans of what the Agents SDK traces."""

    def on_trace_start(self, trace: Any) -> None:
        with _shield:
            SPANS.start_trace(trace)

    def on_trace_end(self, trace: Any) -> None:
        with _shield:
            SPANS.end(trace.trace_id)

    def on_span_start(self, span: Any) -> None:
        with _shield:
            SPANS.start(span)

    def on_span_end(self, span: Any) -> None:
        with _shield:
            SPANS.end(span.span_id, span)

    def shutdown(self, timeout: float | None = None) -> None:
        """Nothing is kept here."""

    def force_flush(self) -> None:
        """Nothing is kept here."""


@functools.cache
def processor_class() -> type[Any]:
    """The processor's class, made when the SDK is there to inherit from."""
    base: Any = require("agents.tracing", "agents").TracingProcessor
    return type("LoopkitProcessor", (_Processor, base), {"__doc__": _Processor.__doc__})


class OpenAIAgents:
    """See `Instrumented`."""

    name = "agents"
    module = "agents"
    extra = "agents"

    def patch(self, module: Any) -> Undo:
        """Beside the SDK's own processor, which goes on sending traces to OpenAI unless it was told not to."""
        processor = processor_class()()
        module.add_trace_processor(processor)

        def undo() -> None:
            provider: Any = module.tracing.get_trace_provider()
            kept = [each for each in provider._multi_processor._processors if each is not processor]
            module.set_trace_processors(kept)

        return undo


def _still_running(context: Any) -> Any:
    """The context, unless its span has ended meanwhile: then one with none."""
    span = otel_trace.get_current_span(context)
    if isinstance(span, LiveSpan) and not span.is_recording():
        return otel_trace.set_span_in_context(otel_trace.INVALID_SPAN, context)
    return context


def _describe(live: LiveSpan, data: Any) -> None:
    kind = data.type
    if kind in ("response", "generation"):
        _describe_call(live, data)
    elif kind == "function":
        _say(live, json_or_text(data.input), data.output)
        if data.mcp_data:
            live.set_attribute("mcp.server", str(mapping(data.mcp_data).get("server")))
    elif kind == "handoff":
        live.name = f"handoff {data.from_agent} to {data.to_agent}"
    elif kind == "guardrail":
        live.set_attribute("agents.guardrail.triggered", bool(data.triggered))
    elif kind == "mcp_tools":
        _say(live, {"server": data.server}, data.result)
    elif kind == "custom":
        _say(live, plain_copy(mapping(data.data)), None)


def _say(live: LiveSpan, input: Any, output: Any) -> None:
    if live.bare:
        return
    if input is not None:
        live.input = snapshot(input)
    if output is not None:
        live.output = snapshot(output)


def _describe_call(live: LiveSpan, data: Any) -> None:
    """A model call: what the client's hook has recorded below, else what the SDK tells."""
    is_response = data.type == "response"
    told = data.response if is_response else data.input
    if live.exchange is not None:
        if told is None:  # trace_include_sensitive_data=False: what was said is not to be in traces
            _forget_words(live.exchange)
        return
    dialect = RESPONSES if is_response else CHAT
    exchange = Exchange(dialect, "openai", bare=live.bare)
    if is_response:
        response = data.response
        exchange.ask({"model": getattr(response, "model", None), "input": data.input})
        if response is not None:
            exchange.answer(response)
    else:
        exchange.ask({"model": data.model, "messages": data.input, **mapping(data.model_config)})
        usage = mapping(data.usage)
        exchange.answer_with(
            {
                "choices": [{"message": message} for message in objects(data.output)],
                "usage": {
                    "prompt_tokens": usage.get("input_tokens"), "completion_tokens": usage.get("output_tokens"),
                    "prompt_tokens_details": usage.get("input_tokens_details"),
                    "completion_tokens_details": usage.get("output_tokens_details"),
                },
            }
        )  # fmt: skip
    live.exchange = exchange
    model = getattr(data.response, "model", None) if is_response else data.model
    live.name = f"chat {model}"


def _forget_words(exchange: Exchange) -> None:
    words = exchange.dialect.words
    exchange.request = snapshot(without(mapping(json.loads(exchange.request)), words))
    if exchange.response is not None:
        exchange.response = snapshot(without(mapping(json.loads(exchange.response)), words))
