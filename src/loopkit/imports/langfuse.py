"""Langfuse: traces, observations and scores, from its API, its tables or its blob exports.

Shapes: https://langfuse.com/docs/api-and-data-platform
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from loopkit.capture.dialects._content import mapping, objects
from loopkit.imports.values import (
    error_of,
    hashed,
    messages,
    nanoseconds,
    number,
    parsed,
    snake,
    span_of,
    tags,
    trace_of,
    whole,
)
from loopkit.types import Feedback, Kind, ModelCall, Source, Span, SpanError, Usage

_KINDS: Mapping[str, Kind] = {
    "GENERATION": "llm", "EMBEDDING": "embedding", "AGENT": "agent", "TOOL": "tool", "RETRIEVER": "retrieval",
    "EVALUATOR": "evaluation", "GUARDRAIL": "guardrail",
}  # fmt: skip
_SOURCES: Mapping[str, Source] = {"ANNOTATION": "reviewer", "EVAL": "judge", "API": "code"}
_PARAMETERS = {"max_completion_tokens": "max_tokens", "maxTokens": "max_tokens", "stop": "stop_sequences"}
Row = dict[str, Any]


def read(rows: Iterable[Row], skip: Any) -> Iterator[Span | Feedback]:
    """Spans and feedback. `skip` is told of rows that are neither, with the reason."""
    traces: dict[str, Row] = {}
    observations: dict[str, dict[str, Row]] = {}
    scores: dict[str, Row] = {}
    for row in _flat(rows):
        if not row.get("id"):
            skip("it has no id")
        elif "data_type" in row:
            scores[str(row["id"])] = row
        elif row.get("start_time") and nanoseconds(row["start_time"]) is None:
            skip("its start is no time between 1970 and 2262")
        elif row.get("start_time"):
            trace = str(row.get("trace_id") or row["id"])
            observations.setdefault(trace, {})[str(row["id"])] = row
        elif row.get("timestamp"):
            traces[str(row["id"])] = {**traces.get(str(row["id"]), {}), **row}
        else:
            skip("it is no trace, observation or score")
    roots: dict[str, str] = {}
    for id in {**traces, **observations}:
        for span in _trace(id, traces.get(id, {}), list(observations.get(id, {}).values())):
            if span.parent_id is None:
                roots.setdefault(span.trace_id, span.id)
            yield span
    for row in scores.values():
        event = _score(row, roots)
        if event is None:
            skip("a score without a value or a target")
        else:
            yield event


def _flat(rows: Iterable[Row]) -> Iterator[Row]:
    """Rows by themselves: an API's trace and a downloaded one hold their observations and scores."""
    for given in rows:
        row = snake(given)
        inner = mapping(row.get("trace"))
        if "observations" in row and inner:
            held = [*objects(row["observations"]), *objects(row.get("scores"))]
            yield from _flat(map(dict, (inner, *held)))
            continue
        yield {name: value for name, value in row.items() if name not in ("observations", "scores")}
        for name in ("observations", "scores"):
            yield from _flat(map(dict, objects(parsed(row.get(name)))))


def _trace(id: str, trace: Row, observations: list[Row]) -> Iterator[Span]:
    """The observations, below a span for the trace itself where they are not below one of their own."""
    none: Row = {}
    about = trace or next((row for row in observations if row.get("user_id") or row.get("session_id")), none)
    known = {str(row["id"]) for row in observations}
    roots = [row for row in observations if str(row.get("parent_observation_id") or "") not in known]
    above = None
    is_call = len(roots) == 1 and _KINDS.get(str(roots[0].get("type"))) in ("llm", "embedding")
    says_more = is_call and (trace.get("input") is not None or trace.get("output") is not None)
    if trace and (len(roots) != 1 or says_more):
        above = span_of("langfuse", f"trace:{id}")
        starts = [at for row in observations if (at := nanoseconds(row["start_time"])) is not None]
        ends = [at for row in observations if (at := nanoseconds(row.get("end_time"))) is not None]
        began = min([nanoseconds(trace["timestamp"]) or 0, *starts])
        seconds = number(trace.get("latency")) or 0.0
        yield Span(
            trace_id=trace_of("langfuse", id),
            span_id=above,
            name=str(trace.get("name") or "trace"),
            started_at=began,
            ended_at=max([began + int(seconds * 1e9), *ends]),
            input=parsed(trace.get("input")),
            output=parsed(trace.get("output")),
            **_surroundings(trace, {}),
        )
    for row in observations:
        parent = str(row.get("parent_observation_id") or "")
        yield _observation(id, row, span_of("langfuse", parent) if parent in known else above, about)


def _observation(trace: str, row: Row, parent: str | None, about: Row) -> Span:
    kind = _KINDS.get(str(row.get("type")), "task")
    began = nanoseconds(row["start_time"]) or 0
    failed = row.get("level") == "ERROR"
    call = _call(row, kind, began) if kind in ("llm", "embedding") else None
    error = error_of(row.get("status_message")) or SpanError(type="_OTHER")
    return Span(
        trace_id=trace_of("langfuse", trace),
        span_id=span_of("langfuse", row["id"]),
        parent_id=parent,
        name=str(row.get("name") or kind),
        kind=kind,
        started_at=began,
        ended_at=max(nanoseconds(row.get("end_time")) or began, began),
        status="error" if failed else "ok",
        error=error if failed else None,
        input=None if call else parsed(row.get("input")),
        output=None if call else parsed(row.get("output")),
        model_call=call,
        **_surroundings(about, mapping(parsed(row.get("metadata")))),
    )


def _call(row: Row, kind: Kind, began: int) -> ModelCall:
    metadata = mapping(parsed(row.get("metadata")))
    attributes = mapping(metadata.get("attributes"))
    first = nanoseconds(row.get("completion_start_time"))
    parameters = mapping(parsed(row.get("model_parameters")))
    costs = (
        mapping(parsed(row.get("cost_details"))).get("total"),
        row.get("calculated_total_cost"),
        row.get("total_cost"),
    )
    cost = next((each for each in map(number, costs) if each is not None), None)
    return ModelCall(
        provider=str(attributes.get("gen_ai.provider.name") or metadata.get("ls_provider") or "_OTHER"),
        operation="embeddings" if kind == "embedding" else "chat",
        model=row.get("provided_model_name") or row.get("model") or None,
        input=messages(row.get("input"), "user"),
        output=messages(row.get("output"), "assistant") if kind == "llm" else (),
        parameters={_PARAMETERS.get(name, name): value for name, value in parameters.items() if value is not None},
        usage=_usage(row),
        cost=cost,
        time_to_first_token=None if first is None else max(first - began, 0) / 1e9,
        stream=first is not None,
    )


def _usage(row: Row) -> Usage:
    """The newer details count each kind of token apart: input tokens are the sum of those whose name begins so."""
    details = {name: whole(value) for name, value in mapping(parsed(row.get("usage_details"))).items()}
    known = {name: value for name, value in details.items() if value is not None}

    def total(side: str) -> int | None:
        found = [value for name, value in known.items() if name.startswith(side)]
        return sum(found) if found else None

    def named(*names: str) -> int | None:
        return next((known[name] for name in names if name in known), None)

    usage = snake(mapping(parsed(row.get("usage"))))
    given, made = (
        whole(usage.get("input", usage.get("prompt_tokens"))),
        whole(usage.get("output", usage.get("completion_tokens"))),
    )
    return Usage(
        input_tokens=total("input") if known else whole(row.get("input_usage")) if given is None else given,
        output_tokens=total("output") if known else whole(row.get("output_usage")) if made is None else made,
        cache_read_tokens=named("input_cached_tokens", "input_cache_read", "cache_read_input_tokens"),
        cache_write_tokens=named("input_cache_creation", "cache_creation_input_tokens"),
        reasoning_tokens=named("output_reasoning_tokens", "output_reasoning", "reasoning_tokens"),
        audio_input_tokens=named("input_audio_tokens", "input_audio"),
        audio_output_tokens=named("output_audio_tokens", "output_audio"),
    )


def _surroundings(row: Row, own: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {**mapping(parsed(row.get("metadata"))), **own}
    return {
        "user_id": row.get("user_id") or None,
        "session_id": row.get("session_id") or None,
        "tags": tags(row.get("tags"), {}),
        "metadata": metadata,
    }


def _score(row: Row, roots: Mapping[str, str]) -> Feedback | None:
    """What is said of a trace is said of its outermost span, where that is known."""
    subject = mapping(parsed(row.get("subject")))
    if subject:
        kind = str(subject.get("kind"))
        row = {**row, **({f"{kind}_id": subject.get("id")} if kind in ("observation", "trace", "session") else {})}
        row["trace_id"] = row.get("trace_id") or subject.get("trace_id") or subject.get("traceId")
    said = str(row.get("string_value") or "")
    kind, value = str(row.get("data_type")), row.get("value")
    correction = (said or value) if kind == "CORRECTION" else None
    if kind == "BOOLEAN":
        value = str(value).lower() in ("1", "1.0", "true")
    elif kind in ("CATEGORICAL", "TEXT", "CORRECTION"):
        value = said or value
    else:
        value = number(value)
    trace, observation, session = (row.get(name) for name in ("trace_id", "observation_id", "session_id"))
    target = f"session:{session}" if session else None
    if trace:
        known = trace_of("langfuse", trace)
        target = f"{known}-{span_of('langfuse', observation)}" if observation else roots.get(known, f"trace:{known}")
    at = nanoseconds(row.get("timestamp") or row.get("created_at")) or 0
    if target is None or value is None:
        return None
    source = _SOURCES.get(str(row.get("source")), "code")
    return Feedback(
        id=hashed("langfuse", row["id"]),
        target=target,
        name="correction" if correction is not None else str(row.get("name") or "score"),
        value=None if correction is not None else value,
        correction=correction,
        source=source,
        kind="inferred" if source == "judge" else "explicit",
        by=row.get("author_user_id") or None,
        comment=row.get("comment") or None,
        metadata=mapping(parsed(row.get("metadata"))),
        at=at,
        arrived_at=at,
        key=f"langfuse:{row['id']}",
    )
