"""LangSmith: runs and feedback, as its SDK, its command line and its bulk export write them.

Shapes: https://docs.smith.langchain.com/reference/data_formats/run_data_format
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from loopkit.capture.dialects._content import mapping, objects, sequence
from loopkit.capture.providers import provider_known_as
from loopkit.imports.values import (
    error_of,
    hashed,
    messages,
    nanoseconds,
    number,
    parsed,
    span_of,
    tags,
    trace_of,
    whole,
)
from loopkit.types import Feedback, Kind, Message, ModelCall, Part, Source, Span, Usage

_KINDS: Mapping[str, Kind] = {"llm": "llm", "tool": "tool", "retriever": "retrieval", "embedding": "embedding"}
_SOURCES: Mapping[str, Source] = {"app": "reviewer", "model": "judge", "evaluator": "judge", "api": "code"}
_ROLES = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant", "function": "tool"}
_FINISH = {"tool_calls": "tool_call", "tool_use": "tool_call", "end_turn": "stop", "max_tokens": "length"}
_PARAMETERS = {"max_completion_tokens": "max_tokens", "stop": "stop_sequences"}
_KEPT = ("temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "seed", "stop")
Row = dict[str, Any]


def read(rows: Iterable[Row], skip: Any) -> Iterator[Span | Feedback]:
    """Spans and feedback. `skip` is told of rows that are neither, with the reason."""
    runs: dict[str, Row] = {}
    said: list[Row] = []
    for row in _flat(rows):
        if "run_type" in row and (id := row.get("id") or row.get("run_id")):
            runs[str(id)] = row
        elif row.get("key") and (row.get("run_id") or row.get("trace_id")):
            said.append(row)
        else:
            skip("it is no run and no feedback on one")
    for id, row in runs.items():
        began = nanoseconds(row.get("start_time"))
        if began is None:
            skip("a run without a start")
        else:
            yield _run(id, row, began, runs)
    for row in said:
        yield _feedback(row, runs)


def _flat(rows: Iterable[Row]) -> Iterator[Row]:
    for row in rows:
        yield row
        yield from _flat(map(dict, objects(row.get("child_runs"))))


def _run(id: str, row: Row, began: int, runs: Mapping[str, Row]) -> Span:
    kind = _KINDS.get(str(row.get("run_type")), "task")
    inputs, outputs = parsed(row.get("inputs")), parsed(row.get("outputs"))
    extra = mapping(parsed(row.get("extra")))
    metadata = mapping(parsed(row.get("custom_metadata"))) or mapping(extra.get("metadata"))
    error = error_of(row.get("error"))
    call = _call(row, inputs, outputs, extra, metadata, began) if kind == "llm" else None
    trace, parent = _place(id, row, runs)
    own = {name: value for name, value in metadata.items() if not name.startswith(("LANGSMITH_", "ls_"))}
    session = next((own[name] for name in ("session_id", "thread_id", "conversation_id") if own.get(name)), None)
    return Span(
        trace_id=trace_of("langsmith", trace),
        span_id=span_of("langsmith", id),
        parent_id=None if parent is None else span_of("langsmith", parent),
        name=str(row.get("name") or kind),
        kind=kind,
        started_at=began,
        ended_at=max(nanoseconds(row.get("end_time")) or began, began),
        status="error" if error is not None or row.get("status") == "error" else "ok",
        error=error,
        input=None if call else inputs,
        output=None if call else _documents(outputs) if kind == "retrieval" else _single(outputs),
        model_call=call,
        user_id=None if own.get("user_id") is None else str(own["user_id"]),
        session_id=None if session is None else str(session),
        tags=tags(row.get("tags"), {}),
        metadata=own,
    )


def _place(id: str, row: Row, runs: Mapping[str, Row]) -> tuple[str, str | None]:
    """The trace and the parent: by their fields, else by the dotted order, else by going up."""
    parent = row.get("parent_run_id")
    order = [part[-36:] for part in str(row.get("dotted_order") or "").split(".") if len(part) > 36]
    if parent is None and len(order) > 1:
        parent = order[-2]
    trace = row.get("trace_id") or (order[0] if order else None)
    at: Row | None = row
    seen: set[str] = set()
    while trace is None and at is not None:
        above = str(at.get("parent_run_id") or "")
        if above not in runs or above in seen:
            trace = above or at.get("id") or id
        seen.add(above)
        at = runs.get(above)
    return str(trace), None if not parent else str(parent)


def _call(row: Row, inputs: Any, outputs: Any, extra: Mapping[str, Any], metadata: Any, began: int) -> ModelCall:
    asked = mapping(extra.get("invocation_params"))
    first = nanoseconds(row.get("first_token_time"))
    said, about = _answers(outputs)
    usage = mapping(metadata.get("usage_metadata")) or about["usage"]
    counted = mapping(row.get("token_usage"))
    details = mapping(usage.get("input_token_details")), mapping(usage.get("output_token_details"))
    model = (
        asked.get("model") or asked.get("model_name") or metadata.get("ls_model_name") or mapping(inputs).get("model")
    )
    reasons = tuple(message.finish_reason for message in said if message.finish_reason)
    given, made = ("input_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens")
    return ModelCall(
        provider=provider_known_as(str(metadata.get("ls_provider") or "_OTHER")),
        operation="chat",
        model=None if model is None else str(model),
        response_model=about["model"],
        response_id=about["id"],
        input=_asked(inputs),
        output=said,
        parameters={_PARAMETERS.get(name, name): asked[name] for name in _KEPT if asked.get(name) is not None},
        usage=Usage(
            input_tokens=_count(given, usage, row, counted),
            output_tokens=_count(made, usage, row, counted),
            cache_read_tokens=whole(details[0].get("cache_read")),
            cache_write_tokens=whole(details[0].get("cache_creation")),
            reasoning_tokens=whole(details[1].get("reasoning")),
            audio_input_tokens=whole(details[0].get("audio")),
            audio_output_tokens=whole(details[1].get("audio")),
        ),
        cost=next((c for c in map(number, (row.get("total_cost"), usage.get("total_cost"))) if c is not None), None),
        finish_reasons=reasons,
        time_to_first_token=None if first is None else max(first - began, 0) / 1e9,
        stream=first is not None,
    )


def _count(names: tuple[str, ...], *places: Mapping[str, Any]) -> int | None:
    found = (whole(place.get(name)) for place in places for name in names)
    return next((value for value in found if value is not None), None)


def _asked(inputs: Any) -> tuple[Message, ...]:
    given = mapping(inputs).get("messages", inputs)
    batch = sequence(given)
    if batch and sequence(batch[0]):  # one list a generation
        given = batch[0]
    prompts = mapping(inputs).get("prompts")
    return _messages(prompts if prompts else given, "user")


def _answers(outputs: Any) -> tuple[tuple[Message, ...], dict[str, Any]]:
    """What came out, with the usage, model and id that stand beside it: LangChain's generations, OpenAI's choices, or
    whatever a function gave."""
    whole_of = mapping(outputs)
    about: dict[str, Any] = {"usage": mapping(whole_of.get("usage_metadata")), "model": None, "id": None}
    generations = sequence(whole_of.get("generations"))
    if generations:
        first = sequence(generations[0]) or generations
        answers: list[Message] = []
        for generation in objects(first):
            given = _unwrapped(generation.get("message")) or {"content": generation.get("text"), "type": "ai"}
            told = mapping(given.get("response_metadata")) or mapping(generation.get("generation_info"))
            about["usage"] = about["usage"] or mapping(given.get("usage_metadata"))
            about["model"] = about["model"] or told.get("model_name")
            about["id"] = about["id"] or told.get("id")
            said = _messages([given], "assistant")
            answers += [_finished(message, told.get("finish_reason")) for message in said]
        return tuple(answers), about
    choices = objects(whole_of.get("choices"))
    if choices:
        about |= {"usage": mapping(whole_of.get("usage")), "model": whole_of.get("model"), "id": whole_of.get("id")}
        chosen = [
            _finished(message, choice.get("finish_reason"))
            for choice in choices
            for message in _messages([choice.get("message")], "assistant")
        ]
        return tuple(chosen), about
    kept = {name: value for name, value in whole_of.items() if name != "usage_metadata"}
    return _messages(_single(kept) if whole_of else outputs, "assistant"), about


def _finished(message: Message, reason: Any) -> Message:
    known = None if reason is None else _FINISH.get(str(reason), str(reason))
    return Message(role="assistant", parts=message.parts, name=message.name, finish_reason=known)


def _messages(given: Any, role: str) -> tuple[Message, ...]:
    items = sequence(given) or [given]
    found: list[Message] = []
    for item in items:
        fields = _unwrapped(item)
        found += [_langchain(fields)] if fields and "type" in fields and "role" not in fields else messages(item, role)
    return tuple(found)


def _unwrapped(item: Any) -> Mapping[str, Any]:
    """A message's own fields: LangChain serialises its constructor around them."""
    fields = mapping(item)
    return mapping(fields.get("kwargs")) if fields.get("type") == "constructor" else fields


def _langchain(fields: Mapping[str, Any]) -> Message:
    kind = str(fields.get("type"))
    role = str(fields.get("role") or _ROLES.get(kind, kind))
    content = fields.get("content")
    if role == "tool":
        answer = Part(type="tool_call_response", id=fields.get("tool_call_id"), content=content)
        return Message(role=role, parts=(answer,), name=fields.get("name"))
    parts: list[Part] = []
    for piece in [content] if isinstance(content, str) else sequence(content):
        text = piece if isinstance(piece, str) else mapping(piece).get("text")
        if isinstance(text, str):
            parts += [Part(type="text", content=text)] if text else []
        elif mapping(piece).get("type") not in ("tool_use", "tool_call", "function_call"):
            parts.append(Part(type=str(mapping(piece).get("type")), content=piece))
    for call in objects(fields.get("tool_calls")):
        parts.append(Part(type="tool_call", id=call.get("id"), name=call.get("name"), arguments=call.get("args")))
    return Message(role=role, parts=tuple(parts))


def _single(outputs: Any) -> Any:
    """What a function gave, out of the dict that it was put into; of a tool's message, the content."""
    inside = mapping(outputs)
    value = inside["output"] if set(inside) == {"output"} else outputs
    message = _unwrapped(value)
    return message.get("content") if message.get("type") == "tool" else value


def _documents(outputs: Any) -> Any:
    documents = objects(mapping(outputs).get("documents", _single(outputs)))
    if not documents:
        return _single(outputs)
    return [
        {"id": each.get("id"), "content": each.get("page_content"), "metadata": each.get("metadata")}
        for each in map(_unwrapped, documents)
    ]


def _feedback(row: Row, runs: Mapping[str, Row]) -> Feedback:
    run = str(row.get("run_id") or "")
    trace = str(row.get("trace_id") or (_place(run, runs[run], runs)[0] if run in runs else run))
    source = _SOURCES.get(str(mapping(parsed(row.get("feedback_source"))).get("type")), "code")
    score, value = row.get("score"), parsed(row.get("value"))
    said = score if score is not None else value if isinstance(value, (str, bool, int, float)) else None
    if isinstance(said, str):
        said = number(said) if score is not None else said
    at = nanoseconds(row.get("created_at") or row.get("modified_at")) or 0
    correction = parsed(row.get("correction"))
    id = row.get("id") or f"{run}:{row['key']}:{at}"
    more = {"value": value} if value is not None and value != said else {}
    target = f"trace:{trace_of('langsmith', trace)}"
    return Feedback(
        id=hashed("langsmith", id),
        target=f"{trace_of('langsmith', trace)}-{span_of('langsmith', run)}" if run else target,
        name=str(row["key"]),
        value=said if isinstance(said, (bool, str)) else number(said),
        correction=correction,
        source=source,
        kind="inferred" if source == "judge" else "explicit",
        comment=row.get("comment") or None,
        metadata=more,
        at=at,
        arrived_at=at,
        key=f"langsmith:{id}",
    )
