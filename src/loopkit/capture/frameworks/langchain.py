"""LangChain and LangGraph: a callback handler that makes spans of their runs.

Callbacks run in other contexts than what they tell of, and can't put a context back, so none is attached in them: runs
find their parents by LangChain's own ids, the bodies of chains and nodes get their span as the current one where
LangChain makes a context for them, and a model's span is offered to the hook of the SDK below, which fills it in.
"""

from __future__ import annotations

import functools
import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from importlib import import_module
from typing import Any
from uuid import UUID

import wrapt
from opentelemetry import context as otel_context
from opentelemetry import trace as otel_trace

from loopkit import _host
from loopkit._extras import require
from loopkit.capture import slot
from loopkit.capture.ambient import Ambient, holding
from loopkit.capture.dialects._content import mapping, objects, sequence
from loopkit.capture.dialects.known import NEUTRAL
from loopkit.capture.exchange import Exchange
from loopkit.capture.live import LiveSpan
from loopkit.capture.offer import Offer, offered
from loopkit.capture.providers import provider_known_as
from loopkit.capture.sdks._protocol import Undo, all_undone, replace_method
from loopkit.capture.snapshot import snapshot
from loopkit.types import Kind
from loopkit.wire import names

_MOST_OPEN = 10_000
"""Runs without an end that are remembered: LangChain doesn't tell of a cancelled tool or retriever."""
_SESSION_KEYS = ("session_id", "thread_id", "conversation_id")
_ROLES = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant", "function": "tool"}
_NO_ERRORS = ("GraphInterrupt", "GraphBubbleUp", "ParentCommand")
_HIDDEN = "langsmith:hidden"

_shield = _host.Shielded("recording LangChain")


class _Run:
    """One run of LangChain's, and its span."""

    __slots__ = ("asked", "children", "live", "offer", "parent", "provider", "task", "thread")

    def __init__(self, live: LiveSpan | None, parent: UUID | None) -> None:
        self.live = live
        self.parent = parent
        self.asked: dict[str, Any] | None = None
        """Of a model call: what went in, in neutral shape."""
        self.provider = "_OTHER"
        self.children: set[UUID] = set()
        task = _task()
        self.task = None if task is None else weakref.ref(task)
        self.thread = threading.get_ident()
        self.offer: Offer | None = None


def _task() -> Any:
    """The asyncio task that runs here, where one does."""
    asyncio: Any = sys.modules.get("asyncio")
    try:
        return None if asyncio is None else asyncio.current_task()
    except RuntimeError:  # no loop
        return None


class Runs:
    """The runs under way, by id: what the handler's methods do, without LangChain's classes."""

    def __init__(self) -> None:
        self._runs: OrderedDict[UUID, _Run] = OrderedDict()
        self._lock = threading.RLock()

    def live(self, run_id: UUID | None) -> LiveSpan | None:
        """A run's span, or that of the nearest run above it that has one."""
        while run_id is not None:
            run = self._runs.get(run_id)
            if run is None:
                return None
            if run.live is not None:
                return run.live
            run_id = run.parent
        return None

    def start(
        self, kind: Kind, name: str, run_id: UUID, parent: UUID | None, about: Mapping[str, Any], given: Any
    ) -> _Run:
        """A run has begun. A hidden one has no span of its own, and those below it hang in the one above."""
        recorder = slot.recorder
        live = None
        if recorder is not None and _HIDDEN not in (about.get("tags") or ()):
            live = recorder.start(name, kind, under=self.live(parent))
        run = _Run(live, parent)
        with self._lock:
            self._runs[run_id] = run
            above = None if parent is None else self._runs.get(parent)
            if above is not None:
                above.children.add(run_id)
            oldest = next(iter(self._runs)) if len(self._runs) > _MOST_OPEN else None
        if oldest is not None:
            self.end(oldest, cancelled=True)
        if live is not None:
            _describe(live, mapping(about.get("metadata")), about.get("tags"))
            if given is not None and not live.bare:
                live.input = snapshot(given)
        return run

    def end(
        self, run_id: UUID, output: Any = None, error: BaseException | None = None, *, cancelled: bool = False
    ) -> None:
        """A run is over, with what it gave or with how it failed; what it left open ends with it."""
        with self._lock:
            run = self._runs.pop(run_id, None)
            above = None if run is None or run.parent is None else self._runs.get(run.parent)
            if above is not None:
                above.children.discard(run_id)
            children = () if run is None else tuple(run.children)
        if run is None:
            return
        for child in children:
            if not self._runs_on(child):
                self.end(child, cancelled=True)
        live = run.live
        if live is None:
            return
        if live.exchange is None and run.asked is not None:  # nobody has answered
            live.exchange = _exchange(live, run)
        if output is not None and not live.bare:
            live.output = snapshot(output)
        if error is not None and type(error).__name__ in _NO_ERRORS:
            live.set_attribute("langgraph.interrupted", True)
            error = None
        live.finish(error, cancelled=cancelled)

    def _runs_on(self, run_id: UUID) -> bool:
        """Whether a run outlives the one above: in a task of its own that isn't done, or in another thread."""
        run = self._runs.get(run_id)
        if run is None:
            return False
        task = None if run.task is None else run.task()
        if run.task is not None:
            return task is not None and task is not _task() and not task.done()
        return run.thread != threading.get_ident()

    def ask(self, run: _Run, serialized: Any, messages: list[dict[str, Any]], about: Mapping[str, Any]) -> None:
        """A model is about to be called."""
        live, metadata = run.live, mapping(about.get("metadata"))
        if live is None:
            return
        said = mapping(about.get("invocation_params"))
        model = metadata.get("ls_model_name") or said.get("model") or said.get("model_name")
        provider = str(metadata.get("ls_provider") or mapping(serialized).get("name") or "_OTHER")
        run.provider = provider_known_as(provider)
        settings = {"temperature": "ls_temperature", "max_tokens": "ls_max_tokens", "stop_sequences": "ls_stop"}
        run.asked = {
            "operation": "chat",
            "model": model,
            "messages": messages,
            "tools": list(objects(said.get("tools"))),
            "parameters": {ours: metadata[name] for ours, name in settings.items() if metadata.get(name) is not None},
        }
        live.name = f"chat {model}"
        run.offer = Offer(live)
        offered.set(run.offer)

    def answers(self, run_id: UUID) -> None:
        """The model has begun to answer: a hook below would have taken the offer by now."""
        run = self._runs.get(run_id)
        if run is not None and run.offer is not None:
            run.offer.take()

    def answer(self, run_id: UUID, result: Any) -> None:
        """The model has answered. Where a hook below has filled the span in, that knows better."""
        run = self._runs.get(run_id)
        if run is None or run.live is None:
            return
        live = run.live
        if live.exchange is None and run.asked is not None:
            exchange = _exchange(live, run)
            exchange.answer_with(_answer(result))
            live.exchange = exchange
        recorder = slot.recorder
        if recorder is not None:
            for generation in _generations(result):
                message = getattr(generation, "message", None)
                if message is not None:
                    recorder.identities.remember(message, live.id)


def _exchange(live: LiveSpan, run: _Run) -> Exchange:
    """What was asked, for a model that no hook has seen called."""
    exchange = Exchange(NEUTRAL, run.provider, bare=live.bare)
    exchange.ask(run.asked or {})
    return exchange


RUNS = Runs()


class _Callbacks:
    """Makes spans of what LangChain runs."""

    run_inline = True
    """Called where the model is called, not on another thread."""

    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **about: Any
    ) -> None:
        with _shield:
            name = about.get("name") or _name(serialized) or "chain"
            RUNS.start(_chain_kind(about), name, run_id, parent_run_id, about, inputs)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **_: Any) -> None:
        with _shield:
            RUNS.end(run_id, outputs)

    def on_chat_model_start(
        self, serialized: Any, messages: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **about: Any
    ) -> None:
        with _shield:
            run = RUNS.start("llm", "chat", run_id, parent_run_id, about, None)
            told = [_message(message) for message in (messages[0] if messages else ())]
            RUNS.ask(run, serialized, told, about)

    def on_llm_start(
        self, serialized: Any, prompts: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **about: Any
    ) -> None:
        with _shield:
            run = RUNS.start("llm", "chat", run_id, parent_run_id, about, None)
            told = [{"role": "user", "parts": [{"type": "text", "content": text}]} for text in prompts]
            RUNS.ask(run, serialized, told, about)

    def on_llm_new_token(self, token: Any, *, run_id: UUID, **_: Any) -> None:
        with _shield:
            RUNS.answers(run_id)

    def on_llm_end(self, response: Any, *, run_id: UUID, **_: Any) -> None:
        with _shield:
            RUNS.answer(run_id, response)
            RUNS.end(run_id)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **about: Any) -> None:
        with _shield:
            if about.get("response") is not None and _generations(about["response"]):
                RUNS.answer(run_id, about["response"])
            RUNS.end(run_id, error=error)

    def on_tool_start(
        self, serialized: Any, input_str: str, *, run_id: UUID, parent_run_id: UUID | None = None, **about: Any
    ) -> None:
        with _shield:
            name = about.get("name") or _name(serialized) or "tool"
            given = about.get("inputs") or input_str
            run = RUNS.start("tool", name, run_id, parent_run_id, about, given)
            if run.live is not None and about.get("tool_call_id"):
                run.live.set_attribute(names.TOOL_CALL_ID, about["tool_call_id"])

    def on_tool_end(self, output: Any, *, run_id: UUID, **_: Any) -> None:
        with _shield:
            live = RUNS.live(run_id)
            if live is not None and getattr(output, "status", None) == "error":
                live.set_status(otel_trace.StatusCode.ERROR, str(output.content))
            RUNS.end(run_id, getattr(output, "content", output))

    def on_retriever_start(
        self, serialized: Any, query: str, *, run_id: UUID, parent_run_id: UUID | None = None, **about: Any
    ) -> None:
        with _shield:
            name = about.get("name") or _name(serialized) or "retriever"
            RUNS.start("retrieval", name, run_id, parent_run_id, about, {"query": query})

    def on_retriever_end(self, documents: Any, *, run_id: UUID, **_: Any) -> None:
        with _shield:
            RUNS.end(run_id, [_document(document) for document in sequence(documents)])

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        with _shield:
            RUNS.end(run_id, error=error)

    on_tool_error = on_retriever_error = on_chain_error


@functools.cache
def handler_class() -> type[Any]:
    """The handler's class, made when LangChain is there to inherit from."""
    base: Any = require("langchain_core.callbacks.base", "langchain").BaseCallbackHandler
    return type("LoopkitHandler", (_Callbacks, base), {"__doc__": _Callbacks.__doc__})


class LangChain:
    """See `Instrumented`."""

    name = "langchain"
    module = "langchain_core.runnables.base"
    extra = "langchain"

    def patch(self, module: Any) -> Undo:
        """Have every run tell the handler, LangGraph's too."""
        context: Any = import_module("langchain_core.tracers.context")
        handler = handler_class()()
        variable: ContextVar[Any] = ContextVar("loopkit-langchain", default=handler)
        context.register_configure_hook(variable, inheritable=True)
        undos: list[Undo] = []
        is_on = [True]

        def patched(module_name: str, patch: Callable[[Any], Undo]) -> None:
            def now(module: Any) -> None:
                with _host.Shielded(f"instrumenting {module_name}"):
                    if is_on:
                        undos.append(patch(module))

            if module_name in sys.modules:
                now(sys.modules[module_name])
            else:
                wrapt.register_post_import_hook(now, module_name)

        patched("langchain_core.runnables.config", _give_bodies_their_span)
        patched("langgraph._internal._runnable", _give_bodies_their_span)
        patched("langchain_core.language_models.chat_models", _give_calls_their_offer)

        def undo() -> None:
            is_on.clear()
            hooks: list[Any] = context._configure_hooks
            hooks[:] = [hook for hook in hooks if hook[0] is not variable]
            for each in undos:
                each()

        return undo


def _give_bodies_their_span(module: Any) -> Undo:
    """Chains, tools and nodes run in a copy of the context, made by this function: nothing is to be put back there."""

    def make(original: Any, is_on: Callable[[], bool]) -> Any:
        def set_config_context(config: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(config, *args, **kwargs)
            with _shield:
                live = RUNS.live(getattr(mapping(config).get("callbacks"), "parent_run_id", None)) if is_on() else None
                if live is not None and live.is_recording():
                    otel_context.attach(holding(live.ambient, otel_trace.set_span_in_context(live)))
            return result

        return set_config_context

    return replace_method(module, "_set_config_context", make)


def _give_calls_their_offer(module: Any) -> Undo:
    """Of several calls at once each finds its own span; a cancelled one ends, which LangChain doesn't tell."""

    def whole(original: Any, is_on: Callable[[], bool]) -> Any:
        def generate(self: Any, *args: Any, **kwargs: Any) -> Any:
            offer = _offer_of(kwargs) if is_on() else None
            token = None if offer is None else offered.set(offer)
            try:
                return original(self, *args, **kwargs)
            finally:
                if token is not None:
                    offered.reset(token)

        return generate

    def awhole(original: Any, is_on: Callable[[], bool]) -> Any:
        async def agenerate(self: Any, *args: Any, **kwargs: Any) -> Any:
            offer = _offer_of(kwargs) if is_on() else None
            token = None if offer is None else offered.set(offer)
            try:
                return await original(self, *args, **kwargs)
            except BaseException as error:
                if not isinstance(error, Exception):
                    with _shield:
                        RUNS.end(kwargs["run_manager"].run_id, error=error)
                raise
            finally:
                if token is not None:
                    offered.reset(token)

        return agenerate

    model: Any = module.BaseChatModel
    methods = {"_generate_with_cache": whole, "_agenerate_with_cache": awhole}
    return all_undone([replace_method(model, name, make) for name, make in methods.items()])


def _offer_of(kwargs: Mapping[str, Any]) -> Offer | None:
    live = RUNS.live(getattr(kwargs.get("run_manager"), "run_id", None))
    return Offer(live) if live is not None and live.kind == "llm" else None


def _name(serialized: Any) -> str | None:
    about = mapping(serialized)
    return about.get("name") or next(iter(reversed(sequence(about.get("id")))), None)


def _chain_kind(about: Mapping[str, Any]) -> Kind:
    """A graph, or an agent made by LangChain, is an agent; its nodes are steps of the task."""
    metadata = mapping(about.get("metadata"))
    is_graph = metadata.get("ls_integration") == "langgraph" and "langgraph_node" not in metadata
    is_agent = metadata.get("lc_agent_name") is not None and metadata.get("lc_agent_name") == about.get("name")
    return "agent" if is_graph or is_agent else "task"


def _describe(live: LiveSpan, metadata: Mapping[str, Any], tags: Any) -> None:
    session = next((str(metadata[key]) for key in _SESSION_KEYS if metadata.get(key)), None)
    user = metadata.get("user_id")
    node = metadata.get("langgraph_node")
    if node is not None:
        live.set_attribute("langgraph.node", str(node))
    own = tuple(str(tag) for tag in sequence(tags) if not str(tag).startswith(("seq:step:", "graph:step:")))
    old = live.ambient or Ambient()
    if session or user or own:
        live.ambient = replace(
            old,
            user_id=str(user) if user else old.user_id,
            session_id=session or old.session_id,
            tags=tuple(dict.fromkeys((*old.tags, *own))),
        )


def _generations(result: Any) -> Sequence[Any]:
    lists = sequence(getattr(result, "generations", None))
    return sequence(lists[0]) if lists else ()


def _answer(result: Any) -> dict[str, Any]:
    generations = _generations(result)
    messages = [_generated(generation) for generation in generations]
    told = mapping(getattr(result, "llm_output", None))
    first = getattr(generations[0], "message", None) if generations else None
    about = mapping(getattr(first, "response_metadata", None))
    response_id = told.get("id") or about.get("id") or about.get("message_id")
    return {
        "id": response_id,
        "model": about.get("model_name") or about.get("model") or told.get("model_name"),
        "messages": messages,
        "usage": _usage(mapping(getattr(first, "usage_metadata", None)), mapping(told.get("token_usage"))),
    }


def _generated(generation: Any) -> dict[str, Any]:
    message = getattr(generation, "message", None)
    told = _message(message) if message is not None else None
    if told is None:
        told = {"role": "assistant", "parts": [{"type": "text", "content": generation.text}]}
    about = mapping(getattr(message, "response_metadata", None)) or mapping(generation.generation_info)
    reason = about.get("finish_reason") or about.get("stop_reason")
    finish = {"tool_calls": "tool_call", "tool_use": "tool_call", "end_turn": "stop", "max_tokens": "length"}
    return {**told, "role": "assistant", "finish_reason": finish.get(str(reason), reason)}


def _usage(usage: Mapping[str, Any], counted: Mapping[str, Any]) -> dict[str, Any]:
    given, made = mapping(usage.get("input_token_details")), mapping(usage.get("output_token_details"))
    return {
        "input_tokens": usage.get("input_tokens", counted.get("prompt_tokens")),
        "output_tokens": usage.get("output_tokens", counted.get("completion_tokens")),
        "cache_read_tokens": given.get("cache_read"),
        "cache_write_tokens": given.get("cache_creation"),
        "reasoning_tokens": made.get("reasoning"),
        "audio_input_tokens": given.get("audio"),
        "audio_output_tokens": made.get("audio"),
    }


def _message(message: Any) -> dict[str, Any]:
    """A LangChain message in neutral shape."""
    kind = str(getattr(message, "type", "user"))
    role = str(getattr(message, "role", "") or _ROLES.get(kind, kind))
    content: Any = message.content
    if role == "tool":
        answer = {"type": "tool_call_response", "id": getattr(message, "tool_call_id", None), "response": content}
        return {"role": role, "parts": [answer]}
    parts: list[dict[str, Any]] = []
    for piece in [content] if isinstance(content, str) else sequence(content):
        parts += _pieces(piece)
    for call in objects(getattr(message, "tool_calls", None)):
        parts.append(
            {"type": "tool_call", "id": call.get("id"), "name": call.get("name"), "arguments": call.get("args")}
        )
    return {"role": role, "parts": parts}


def _pieces(piece: Any) -> list[dict[str, Any]]:
    if isinstance(piece, str):
        return [{"type": "text", "content": piece}] if piece else []
    fields = mapping(piece)
    kind = fields.get("type")
    if kind == "text":
        return [{"type": "text", "content": fields.get("text")}]
    if kind in ("reasoning", "thinking"):
        return [{"type": "reasoning", "content": fields.get("reasoning") or fields.get("thinking")}]
    if kind in ("tool_use", "tool_call", "function_call"):
        return []  # told with the calls
    rest = {name: value for name, value in fields.items() if name != "type"}
    return [{"type": str(kind), "content": rest}]


def _document(document: Any) -> Any:
    if not hasattr(document, "page_content"):
        return document
    about = mapping(document.metadata)
    found = {"id": document.id or about.get("id"), "content": document.page_content, "score": about.get("score")}
    rest = {name: value for name, value in about.items() if name not in ("id", "score")}
    return {**{name: value for name, value in found.items() if value is not None}, "metadata": rest}
