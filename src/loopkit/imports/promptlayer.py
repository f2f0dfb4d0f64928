"""PromptLayer: requests, as its API gives and takes them, with their scores, and the spans of its traces.

Shapes: https://docs.promptlayer.com/reference
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from loopkit.capture.dialects._content import mapping, objects
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
from loopkit.types import Feedback, Message, ModelCall, Span, Usage

Row = dict[str, Any]


def read(rows: Iterable[Row], skip: Any) -> Iterator[Span | Feedback]:
    """Spans and feedback. `skip` is told of rows that are neither, with the reason."""
    requests: dict[str, Row] = {}
    spans: list[Row] = []
    scores: list[Row] = []
    for given in rows:
        row = dict(mapping(given.get("body")) or given)
        if "spans" in row:
            spans += [{"trace_id": row.get("trace_id"), **span} for span in objects(row["spans"])]
        elif _started(row) is not None:
            id = str(row.get("id") or row.get("request_id") or hashed("promptlayer", sorted(row.items(), key=str)))
            requests[id] = {**requests.get(id, {}), **row}
        elif row.get("request_id") and ("score" in row or "metadata" in row):
            scores.append(row)
        else:
            skip("it is no request, trace, score or metadata of one")
    more = {str(row["request_id"]): mapping(row.get("metadata")) for row in scores if "metadata" in row}
    placed = {str(span.get("request_log_id")): span for span in spans if span.get("request_log_id") is not None}
    targets: dict[str, tuple[str, int]] = {}
    for span in spans:
        if str(span.get("request_log_id")) not in requests:
            yield _span(span)
    for id, row in requests.items():
        made = _request(id, row, placed.get(id, {}), more.get(id, {}))
        targets[id] = made.id, made.ended_at
        yield made
        for score in _scores(row):
            yield _feedback(id, score, *targets[id])
    for row in scores:
        if "score" in row:
            id = str(row["request_id"])
            yield _feedback(id, row, *targets.get(id, (_target(id), 0)))


def _started(row: Mapping[str, Any]) -> int | None:
    return nanoseconds(row.get("request_start_time"))


def _target(id: str) -> str:
    return f"{hashed('promptlayer', id)}-{span_of('promptlayer', id)}"


def _request(id: str, row: Row, span: Mapping[str, Any], more: Mapping[str, Any]) -> Span:
    began = _started(row) or 0
    ended = nanoseconds(row.get("request_end_time")) or began
    metadata = {**_metadata(row.get("metadata")), **more}
    failed = str(row.get("status")) == "ERROR"
    trace = row.get("trace_id") or span.get("trace_id")
    parent = span.get("parent_id")
    call = _call(row)
    return Span(
        trace_id=hashed("promptlayer", id) if trace is None else trace_of("promptlayer", trace),
        span_id=span_of("promptlayer", span.get("span_id") or row.get("span_id") or id),
        parent_id=None if parent is None else span_of("promptlayer", parent),
        name=str(span.get("name") or f"{call.operation} {call.model}"),
        kind="llm",
        started_at=began,
        ended_at=max(ended, began),
        status="error" if failed else "ok",
        error=error_of(f"{row.get('error_type') or '_OTHER'}({row.get('error_message') or ''})") if failed else None,
        model_call=call,
        user_id=None if metadata.get("user_id") is None else str(metadata["user_id"]),
        session_id=None if metadata.get("session_id") is None else str(metadata["session_id"]),
        tags=(*tags(row.get("tags") or row.get("tags_array"), {}), f"promptlayer:{id}"),
        metadata={**metadata, **({"prompt_name": row["prompt_name"]} if row.get("prompt_name") else {})},
    )


def _metadata(given: Any) -> dict[str, Any]:
    """An object, or a list of objects of one."""
    value = parsed(given)
    found: dict[str, Any] = {}
    for each in (mapping(value), *objects(value)):
        found.update(each)
    return found


def _call(row: Row) -> ModelCall:
    blueprint = mapping(parsed(row.get("prompt_blueprint")))
    about = mapping(mapping(blueprint.get("metadata")).get("model"))
    arguments, answered = mapping(parsed(row.get("kwargs"))), mapping(parsed(row.get("request_response")))
    asked, said = _said(row.get("input"), "user"), _said(row.get("output"), "assistant")
    if blueprint and not asked:
        asked = _said(blueprint.get("prompt_template"), "user")
        if len(asked) > 1 and asked[-1].role == "assistant" and not said:
            asked, said = asked[:-1], asked[-1:]
    if arguments and not asked:
        asked = messages(arguments.get("messages") or arguments.get("prompt"), "user")
    for choice in objects(answered.get("choices")) if not said else ():
        said += messages(choice.get("message") or choice.get("text"), "assistant")
    counted = mapping(answered.get("usage"))
    parameters = mapping(parsed(row.get("parameters"))) or mapping(about.get("parameters"))
    provider = row.get("provider") or row.get("provider_type") or about.get("provider") or "_OTHER"
    is_text = str(mapping(parsed(row.get("input"))).get("type")) == "completion"
    model = row.get("model") or row.get("engine") or about.get("name") or arguments.get("model")
    return ModelCall(
        provider=provider_known_as(str(provider)),
        operation="text_completion" if is_text else "chat",
        model=None if model is None else str(model),
        response_id=answered.get("id"),
        input=asked,
        output=said,
        parameters={name: value for name, value in parameters.items() if value is not None},
        usage=Usage(
            input_tokens=whole(row.get("input_tokens", counted.get("prompt_tokens"))),
            output_tokens=whole(row.get("output_tokens", counted.get("completion_tokens"))),
        ),
        cost=number(row.get("price")),
    )


def _said(given: Any, role: str) -> tuple[Message, ...]:
    """Of a blueprint: its messages, or the pieces of a completion."""
    value = parsed(given)
    inside = mapping(value)
    if inside.get("type") == "completion":
        return messages({"role": role, "content": inside.get("content")}, role)
    return messages(inside.get("messages") if "messages" in inside else value, role)


def _span(row: Row) -> Span:
    began = nanoseconds(row.get("start_time")) or 0
    parent, id = row.get("parent_id"), row.get("span_id") or row.get("id")
    return Span(
        trace_id=trace_of("promptlayer", row.get("trace_id") or id),
        span_id=span_of("promptlayer", id),
        parent_id=None if not parent else span_of("promptlayer", parent),
        name=str(row.get("name") or "span"),
        started_at=began,
        ended_at=max(nanoseconds(row.get("end_time")) or began, began),
    )


def _scores(row: Row) -> list[Row]:
    found = [dict(each) for each in objects(parsed(row.get("scores")))]
    if row.get("score") is not None:
        found.append({"score": row["score"], "name": row.get("score_name")})
    return found


def _feedback(id: str, score: Mapping[str, Any], target: str, at: int) -> Feedback:
    name = str(score.get("name") or score.get("score_name") or "default")
    value = number(score.get("score", score.get("value")))
    key = f"promptlayer:{id}:{name}"
    return Feedback(
        id=hashed("promptlayer", key), target=target, name=name, value=value, source="code", at=at, arrived_at=at,
        key=key, metadata={"range": "0 to 100"},
    )  # fmt: skip
