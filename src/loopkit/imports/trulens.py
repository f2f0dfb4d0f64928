"""TruLens: its database, or its tables as JSON; events of its OpenTelemetry mode, and records of the one before.

Shapes: https://www.trulens.org/otel/semantic_conventions/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from loopkit.capture.dialects._content import mapping, objects, sequence
from loopkit.imports.files import TABLE
from loopkit.imports.values import error_of, hashed, messages, nanoseconds, number, parsed, span_of, whole
from loopkit.types import Feedback, Kind, ModelCall, Span, SpanError, Usage

_KINDS: Mapping[str, Kind] = {
    "retrieval": "retrieval", "reranking": "retrieval", "generation": "llm", "agent": "agent", "tool": "tool",
    "MCP": "tool", "guardrail": "guardrail",
}  # fmt: skip
_AI = "ai.observability."
Row = dict[str, Any]


def read(rows: Iterable[Row], skip: Any) -> Iterator[Span | Feedback]:
    """Spans and feedback. `skip` is told of rows that are neither, with the reason.

    TruLens writes times without their zone: they are read as this machine's.
    """
    events: list[Row] = []
    records: dict[str, Row] = {}
    results: list[Row] = []
    for row in rows:
        table = str(row.get(TABLE, ""))
        if "record_attributes" in row:
            events.append(row)
        elif "feedback_result_id" in row:
            results.append(row)
        elif record := _record_in(row):
            records[str(record["record_id"])] = record
            results += _columns(row)
        elif not table or table.endswith(("_events", "_records", "_feedbacks")):
            skip("it is no event, record or feedback result")
    yield from _events(events)
    for record in records.values():
        yield from _record(record)
    for row in results:
        event = _result(row)
        if event is None:
            skip("a feedback result without a value")
        else:
            yield event


# Events


def _events(events: list[Row]) -> Iterator[Span | Feedback]:
    roots: dict[str, str] = {}
    read_events = [(mapping(parsed(row["record_attributes"])), row) for row in events]
    for attributes, row in read_events:
        if attributes.get(f"{_AI}span_type") == "record_root":
            roots[str(attributes.get(f"{_AI}record_id"))] = _event(attributes, row, "record_root").id
    for attributes, row in read_events:
        kind = str(attributes.get(f"{_AI}span_type"))
        if kind == "eval_root":
            event = _evaluation(attributes, row, roots)
            if event is not None:
                yield event
        elif not kind.startswith("eval"):
            yield _event(attributes, row, kind)


def _event(attributes: Mapping[str, Any], row: Row, kind: str) -> Span:
    about, place = mapping(parsed(row.get("record"))), mapping(parsed(row.get("trace")))
    arguments = _below(attributes, "call.kwargs.")
    given = attributes.get(f"{_AI}record_root.input", arguments or None)
    made = parsed(attributes.get(f"{_AI}record_root.output", attributes.get(f"{_AI}call.return")))
    began = nanoseconds(row.get("start_timestamp"), local=True) or 0
    failed = about.get("status") == "STATUS_CODE_ERROR"
    known = _KINDS.get(kind, "task")
    if known == "retrieval":
        given = {"query": attributes.get(f"{_AI}retrieval.query_text", attributes.get("gen_ai.retrieval.query.text"))}
        texts = sequence(attributes.get(f"{_AI}retrieval.retrieved_contexts")) or sequence(made)
        made = [mapping(each) or {"content": each} for each in texts]
    call = _call(attributes, arguments, made) if known == "llm" else None
    parent = place.get("parent_id")
    conversation = attributes.get(f"{_AI}conversation_id")
    return Span(
        trace_id=_hex(place.get("trace_id"), 32),
        span_id=_hex(place.get("span_id", row.get("event_id")), 16),
        parent_id=_hex(parent, 16) if parent else None,
        name=str(about.get("name") or kind),
        kind=known,
        started_at=began,
        ended_at=max(nanoseconds(row.get("timestamp"), local=True) or began, began),
        status="error" if failed else "ok",
        error=_failure(attributes, about) if failed else None,
        input=None if call else given,
        output=None if call else made,
        model_call=call,
        session_id=str(conversation) if conversation else None,
        metadata={
            name: attributes[f"{_AI}{name}"]
            for name in ("app_name", "app_version", "record_id", "run.name")
            if attributes.get(f"{_AI}{name}")
        },
    )


def _below(attributes: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    start = f"{_AI}{prefix}"
    return {name[len(start) :]: parsed(value) for name, value in attributes.items() if name.startswith(start)}


def _failure(attributes: Mapping[str, Any], about: Mapping[str, Any]) -> SpanError:
    for event in objects(about.get("events")):
        told = mapping(event.get("attributes"))
        if told.get("exception.type"):
            return SpanError(type=str(told["exception.type"]), message=str(told.get("exception.message") or ""))
    said = attributes.get(f"{_AI}record_root.error", attributes.get(f"{_AI}call.error"))
    return error_of(said) or SpanError(type="_OTHER")


def _call(attributes: Mapping[str, Any], arguments: dict[str, Any], made: Any) -> ModelCall:
    cost = _below(attributes, "cost.")
    model = attributes.get("gen_ai.request.model") or cost.get("model")
    first = number(attributes.get(f"{_AI}generation.time_to_first_token_ms"))
    prompt = arguments.get("messages") or arguments.get("prompt") or arguments
    is_dollars = str(cost.get("cost_currency") or "USD") == "USD"
    return ModelCall(
        provider=str(attributes.get("gen_ai.provider.name") or attributes.get("gen_ai.system") or "_OTHER"),
        operation="chat",
        model=None if model is None else str(model),
        response_model=attributes.get("gen_ai.response.model"),
        input=messages(prompt, "user"),
        output=messages(made, "assistant"),
        usage=Usage(
            input_tokens=whole(attributes.get("gen_ai.usage.input_tokens", cost.get("num_prompt_tokens"))),
            output_tokens=whole(attributes.get("gen_ai.usage.output_tokens", cost.get("num_completion_tokens"))),
            reasoning_tokens=whole(cost.get("num_reasoning_tokens")),
        ),
        cost=number(cost.get("cost")) if is_dollars else None,
        time_to_first_token=None if first is None else first / 1000,
        stream=bool(attributes.get(f"{_AI}generation.is_streaming")),
    )


def _evaluation(attributes: Mapping[str, Any], row: Row, roots: Mapping[str, str]) -> Feedback | None:
    score = number(attributes.get(f"{_AI}eval_root.score"))
    record = str(attributes.get(f"{_AI}eval.target_record_id") or attributes.get(f"{_AI}record_id"))
    name = attributes.get(f"{_AI}eval_root.metric_name") or attributes.get(f"{_AI}eval.metric_name")
    if score is None or record not in roots:
        return None
    at = nanoseconds(row.get("timestamp"), local=True) or 0
    reason = attributes.get(f"{_AI}eval_root.explanation") or attributes.get(f"{_AI}eval.explanation")
    better = attributes.get(f"{_AI}eval_root.higher_is_better")
    return Feedback(
        id=hashed("trulens", row.get("event_id")),
        target=roots[record],
        name=str(name),
        value=score,
        source="judge",
        kind="inferred",
        by=str(name),
        reason=None if reason is None else str(reason),
        metadata={} if better is None else {"higher_is_better": better},
        at=at,
        arrived_at=at,
        key=f"trulens:{row.get('event_id')}",
    )


def _hex(value: Any, digits: int) -> str:
    """TruLens writes OpenTelemetry's ids as decimal numbers."""
    said = str(value)
    is_id = said.isascii() and said.isdecimal() and len(said) < 40 and int(said) < 16**digits
    return f"{int(said):0{digits}x}" if is_id else hashed("trulens", said)[:digits]


# Records


def _record_in(row: Row) -> Row | None:
    """A record with its calls: itself, or in a table's column."""
    found: Any = row if "calls" in row else parsed(row.get("record_json"))
    record: Row = found
    if not isinstance(found, dict) or not record.get("record_id"):
        return None
    perf = parsed(row.get("perf_json"))
    renamed: Row = {"main_input": row.get("input"), "main_output": row.get("output"), "perf": perf, "calls": []}
    return {**renamed, **record}  # a table of the newer kind has no calls


def _record(record: Row) -> Iterator[Span]:
    id = str(record["record_id"])
    trace = hashed("trulens", id)
    spend, perf = mapping(record.get("cost")), mapping(record.get("perf"))
    stacks = {_stack(call): call for call in objects(record.get("calls"))}
    root = span_of("trulens", id)
    began = nanoseconds(perf.get("start_time") or record.get("ts"), local=True) or 0
    error = error_of(record.get("main_error"))
    meta = mapping(record.get("meta"))
    yield Span(
        trace_id=trace,
        span_id=root,
        name=str(record.get("app_id") or "record"),
        started_at=began,
        ended_at=max(nanoseconds(perf.get("end_time"), local=True) or began, began),
        status="ok" if error is None else "error",
        error=error,
        input=record.get("main_input"),
        output=record.get("main_output"),
        user_id=None if meta.get("user_id") is None else str(meta["user_id"]),
        tags=tuple(filter(None, [record.get("tags")])) if isinstance(record.get("tags"), str) else (),
        metadata={**meta, **({"tokens": spend["n_tokens"]} if spend.get("n_tokens") else {})},
    )
    for stack, call in stacks.items():
        times = mapping(call.get("perf"))
        start = nanoseconds(times.get("start_time"), local=True) or began
        above = stacks.get(stack[:-1])
        failure = error_of(call.get("error"))
        yield Span(
            trace_id=trace,
            span_id=span_of("trulens", call.get("call_id")),
            parent_id=root if above is None else span_of("trulens", above.get("call_id")),
            name=stack[-1][1] if stack else "call",
            started_at=start,
            ended_at=max(nanoseconds(times.get("end_time"), local=True) or start, start),
            status="ok" if failure is None else "error",
            error=failure,
            input=call.get("args"),
            output=call.get("rets"),
        )


def _stack(call: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    frames = objects(call.get("stack"))
    return tuple((str(frame.get("path")), str(mapping(frame.get("method")).get("name"))) for frame in frames)


def _columns(row: Row) -> list[Row]:
    """Feedback that stands beside a record, as `get_records_and_feedback` gives it."""
    names = [name for name in row if f"{name}_calls" in row]
    about = {"record_id": row.get("record_id"), "last_ts": row.get("ts")}
    return [
        {**about, "name": name, "result": row[name], "calls_json": {"calls": row[f"{name}_calls"]}} for name in names
    ]


def _result(row: Row) -> Feedback | None:
    value = number(row.get("result"))
    record, name = row.get("record_id"), str(row.get("name") or "feedback")
    if value is None or record is None:
        return None
    calls = objects(mapping(parsed(row.get("calls_json"))).get("calls"))
    reason = next((mapping(call.get("meta")).get("reason") for call in calls if call.get("meta")), None)
    id = row.get("feedback_result_id") or f"{record}:{name}"
    at = nanoseconds(row.get("last_ts"), local=True) or 0
    by_hand = row.get("feedback_definition_id") == "anonymous"
    return Feedback(
        id=hashed("trulens", id),
        target=f"{hashed('trulens', record)}-{span_of('trulens', record)}",
        name=name,
        value=value,
        source="reviewer" if by_hand else "judge",
        kind="explicit" if by_hand else "inferred",
        by=None if by_hand else name,
        reason=None if reason is None else str(reason),
        at=at,
        arrived_at=at,
        key=f"trulens:{id}",
    )
