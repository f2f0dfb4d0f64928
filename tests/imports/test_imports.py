"""Exports of other tools become spans and feedback: the same trace whatever file it came in, once however often.

The files are synthetic, in the shapes that each tool's SDK writes or its documentation shows (see `files/SOURCES.md`).
"""

from __future__ import annotations

import gzip
import json
import shutil
import sqlite3
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import loopkit
from loopkit.cli.app import app
from loopkit.errors import InvalidInput
from loopkit.imports.load import SOURCES
from loopkit.imports.values import nanoseconds, span_of, trace_of
from loopkit.types import ModelCall, Span

FILES = Path(__file__).parent / "files"
TRACE = "8f1e2d3c4b5a69788796a5b4c3d2e1f0"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("LOOPKIT_HOME", str(tmp_path / "home"))
    return lambda: loopkit.open_store(tmp_path / "home")


def call_of(span: Span) -> ModelCall:
    assert span.model_call is not None
    return span.model_call


def by_name(spans: list[Span]) -> dict[str, Span]:
    return {span.name: span for span in spans}


LANGFUSE = {
    "a trace of the API": ["langfuse_trace.json"],
    "pages of the API": [
        "langfuse_traces_page.json", "langfuse_v2_observations_page.json", "langfuse_v3_scores_page.json",
    ],
    "blob exports": ["langfuse_blob_observations_v2.csv", "langfuse_blob_scores.csv"],
    "tables": ["langfuse_ui_traces.csv", "langfuse_ui_observations_legacy.csv", "langfuse_ui_scores.csv"],
}  # fmt: skip


@pytest.mark.parametrize("way", LANGFUSE)
def test_langfuse(way: str, store: Any) -> None:
    paths = [FILES / name for name in LANGFUSE[way]]
    got = loopkit.import_traces("langfuse", *paths, task="qa")
    assert (got.spans, got.skipped) == (3, {})
    spans = by_name(store().spans(task="qa"))
    root, chat, search = spans["rag-query"], spans["chat"], spans["search"]
    assert {span.trace_id for span in spans.values()} == {TRACE}
    assert (root.parent_id, chat.parent_id, search.parent_id) == (None, root.span_id, root.span_id)
    assert (root.input, root.output, root.duration) == ({"question": "capital of France?"}, "Paris", 1.78)
    assert (root.user_id, root.session_id, root.tags, root.service) == ("u1", "sess-1", ("demo",), "langfuse")
    assert (search.kind, search.status, search.input) == ("tool", "error", {"q": "capital"})
    call = call_of(chat)
    assert [message.text for message in call.input] == ["be brief", "capital of France?"]
    assert [message.text for message in call.output] == ["Paris"]
    assert (call.usage.input_tokens, call.usage.output_tokens, call.usage.cache_read_tokens) == (21, 5, 8)
    assert call.cost == pytest.approx(6.15e-06)
    assert call.time_to_first_token == pytest.approx(0.4)
    assert call.parameters == {"temperature": 0.2}
    said = {event.name: event for event in store().feedback()}
    assert (said["correctness"].value, said["correctness"].source) == (0.9, "judge")
    assert said["correctness"].target == chat.id
    assert (said["tone"].value, said["tone"].source) == ("friendly", "reviewer")
    assert said["tone"].target == root.id  # of the whole trace
    if way != "pages of the API":
        assert said["thumbs"].value is True


def test_a_langfuse_trace_without_a_root_of_its_own_gets_one(store: Any, tmp_path: Path) -> None:
    at = "2025-01-01T00:00:0{}.000Z"
    trace = {"id": "my-trace", "timestamp": at.format(0), "name": "chat", "input": "hi", "userId": "u1"}
    two = [
        {"id": f"o-{n}", "traceId": "my-trace", "type": "SPAN", "name": f"part {n}", "startTime": at.format(n),
         "endTime": at.format(n + 1)}
        for n in (1, 2)
    ]  # fmt: skip
    (tmp_path / "export.jsonl").write_text("\n".join(map(json.dumps, [*two, trace])))
    loopkit.import_traces("langfuse", tmp_path / "export.jsonl")
    spans = by_name(store().spans())
    root = spans["chat"]
    assert (root.duration, root.input, root.user_id) == (3.0, "hi", "u1")
    assert {spans[name].parent_id for name in ("part 1", "part 2")} == {root.span_id}


def test_langsmith(store: Any) -> None:
    got = loopkit.import_traces("langsmith", FILES / "langsmith_runs.jsonl", FILES / "langsmith_feedback.jsonl")
    assert (got.spans, got.feedback) == (6, 1)
    spans = store().spans()
    agent, first, tool, second, failed, last = spans
    assert (agent.user_id, agent.session_id, agent.tags) == ("u1", "s1", ("demo",))
    assert {first.parent_id, tool.parent_id, second.parent_id} == {agent.span_id}
    call = call_of(first)
    assert [(message.role, message.text) for message in call.input] == [
        ("system", "be brief"), ("user", "capital of France?"),
    ]  # fmt: skip
    (part,) = call.output[0].parts
    assert (part.type, part.name, part.arguments) == ("tool_call", "search", {"q": "capital"})
    assert call.output[0].finish_reason == "tool_call"
    assert (call.usage.input_tokens, call.usage.output_tokens, call.usage.cache_read_tokens) == (21, 5, 8)
    assert (tool.kind, tool.input, tool.output) == ("tool", {"q": "capital"}, "Paris is the capital")
    assert [message.role for message in call_of(second).input] == ["system", "user", "assistant", "tool"]
    assert (failed.status, failed.error and failed.error.type) == ("error", "ValueError")
    assert (call_of(last).output[0].text, call_of(last).cost) == ("Paris", 0.001)
    (event,) = store().feedback()
    assert (event.name, event.value, event.correction, event.comment) == (
        "correctness",
        0.9,
        {"expected": "Paris"},
        "ok",
    )
    assert event.target == agent.id


def test_promptlayer(store: Any) -> None:
    names = ("get_request", "get_trace", "search_requests_page", "track_score_body", "track_metadata_body")
    loopkit.import_traces("promptlayer", *(FILES / f"promptlayer_{name}.json" for name in names))
    (span,) = store().spans()
    assert (span.trace_id, span.span_id) == ("a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6", "1a2b3c4d5e6f7a8b")
    assert (span.user_id, span.session_id) == ("user123", "abc123")
    assert set(span.tags) == {"production", "promptlayer:12345"}
    call = call_of(span)
    assert (call.provider, call.model, call.input[0].text, call.cost) == ("openai", "gpt-4", "Hello, world!", 0.005)
    (event,) = store().feedback()
    assert (event.name, event.value, event.target) == ("correctness", 100.0, span.id)


def test_what_promptlayers_sdk_sends(store: Any) -> None:
    loopkit.import_traces("promptlayer", FILES / "promptlayer_log.json")
    (span,) = store().spans()
    call = call_of(span)
    assert [message.text for message in call.input] == ["be brief", "capital of France?"]
    assert (call.output[0].text, call.parameters) == ("Paris", {"temperature": 0.2})
    assert span.duration == pytest.approx(1.78)


def test_trulens_events(store: Any) -> None:
    got = loopkit.import_traces("trulens", FILES / "trulens_events.json")
    assert (got.spans, got.feedback) == (6, 2)
    spans = store().spans()
    root, retrieval, generation = spans[:3]
    assert root.trace_id == "c1c746d04dfae20ac9c45a58b223450e"
    assert {retrieval.parent_id, generation.parent_id} == {root.span_id}
    assert (root.input, root.output) == ("capital of France?", "Paris")
    assert retrieval.output[0] == {"content": "Paris is the capital of France."}
    assert (call_of(generation).model, call_of(generation).usage.input_tokens) == ("gpt-4o-mini", 21)
    failed = [span for span in spans if span.status == "error"]
    assert {span.error.type for span in failed if span.error} == {"ValueError"}
    event = store().feedback()[0]
    assert (event.name, event.value, event.source, event.kind) == ("len_check", 0.75, "judge", "inferred")
    assert event.target == root.id


def test_trulens_records_in_a_database(store: Any, tmp_path: Path) -> None:
    path = tmp_path / "default.sqlite"
    connection = sqlite3.connect(path)
    for table in ("records", "feedbacks"):
        rows = json.loads((FILES / f"trulens_{table}.json").read_text())
        names = list(rows[0])
        connection.execute(f"CREATE TABLE trulens_{table} ({', '.join(names)})")
        for row in rows:
            values = [json.dumps(row[n]) if isinstance(row[n], (dict, list)) else row[n] for n in names]
            connection.execute(f"INSERT INTO trulens_{table} VALUES ({', '.join('?' * len(names))})", values)
    connection.commit()
    connection.close()
    loopkit.import_traces("trulens", path)
    spans = store().spans()
    root, query, retrieve, generate = spans
    assert (root.input, root.output, root.user_id, root.tags) == ("capital of France?", "Paris", "u1", ("demo",))
    assert query.parent_id == root.span_id
    assert {retrieve.parent_id, generate.parent_id} == {query.span_id}
    said = {event.name: event for event in store().feedback()}
    assert (said["len_check"].source, said["len_check"].reason) == ("judge", "short answer")
    assert (said["human"].source, said["human"].value) == ("reviewer", 1.0)


def test_a_table_of_trulens_as_pandas_writes_it(store: Any) -> None:
    assert loopkit.import_traces("trulens", FILES / "trulens_frame.json").spans == 2
    assert store().spans()[0].input in ("capital of France?", "please fail")


@pytest.mark.parametrize("source", ["langfuse", "langsmith", "promptlayer", "trulens"])
def test_once_however_often_and_compressed_too(source: str, store: Any, tmp_path: Path) -> None:
    names = {"langfuse": "langfuse_trace.json", "langsmith": "langsmith_runs.jsonl",
             "promptlayer": "promptlayer_log.json", "trulens": "trulens_events.json"}  # fmt: skip
    path = FILES / names[source]
    packed = tmp_path / f"{path.name}.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    loopkit.import_traces(source, path)
    spans, events = store().spans(), store().feedback()
    loopkit.import_traces(source, packed)
    assert (store().spans(), store().feedback()) == (spans, events)


def test_what_is_imported_is_redacted_and_kept_as_long_as_what_arrives(store: Any, tmp_path: Path) -> None:
    row = {"id": "t1", "timestamp": "2020-01-01T00:00:00Z", "name": "old", "input": "mail ana@example.org"}
    score = {"id": "s1", "traceId": "t1", "name": "n", "dataType": "NUMERIC", "value": 1, "comment": "ana@example.org",
             "timestamp": "2020-01-01T00:00:00Z", "source": "ANNOTATION", "authorUserId": "ana"}  # fmt: skip
    (tmp_path / "export.json").write_text(json.dumps([row, score]))
    loopkit.import_traces("langfuse", tmp_path / "export.json")
    store().prune()
    (span,) = store().spans()
    assert span.input == "mail [EMAIL]"
    (event,) = store().feedback()
    assert event.comment == "[EMAIL]"
    assert event.by is not None
    assert event.by.startswith("anon-")


def test_feedback_makes_a_dataset_of_what_was_imported(store: Any, tmp_path: Path) -> None:
    rows: list[Any] = []
    for number in range(4):
        id = f"t{number}"
        rows.append({"id": id, "timestamp": f"2025-01-01T00:00:0{number}Z", "input": {"ticket": f"number {number}"},
                     "output": "loan", "userId": f"u{number}"})  # fmt: skip
        score = {"traceId": id, "name": "correction", "dataType": "CORRECTION", "stringValue": "card", "value": 0}
        rows.append({**score, "id": f"s{number}", "timestamp": "2025-01-01T00:01:00Z", "source": "ANNOTATION"})
    (tmp_path / "export.json").write_text(json.dumps(rows))
    loopkit.import_traces("langfuse", tmp_path / "export.json", task="triage")
    dataset = loopkit.Dataset.create("triage", golden=0, test=0)
    assert {example.expected for example in dataset.examples} == {"card"}
    assert {example.input["ticket"] for example in dataset.examples} == {f"number {n}" for n in range(4)}


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("x.json", "not json", "is no JSON"),
        ("x.jsonl", '{"a": 1}\n{"b":', "line 2 is no JSON"),
        ("x.json", "[]", "it has no rows"),
        ("x.json", '[{"a": 1}]', "nothing in .* looks like langfuse's: 1 rows: it has no id"),
        ("x.csv", "a,b\n1,2\n", "looks like langfuse's"),
        ("x.json.gz", "no gzip", "is no JSON"),
    ],
)
def test_a_file_that_is_no_export_is_one_sentence(
    name: str, content: str, sentence: str, store: Any, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    if content == "[]":
        assert loopkit.import_traces("langfuse", tmp_path / name).spans == 0
        return
    with pytest.raises(InvalidInput, match=sentence):
        loopkit.import_traces("langfuse", tmp_path / name)
    assert not (tmp_path / "home").exists()


def test_what_is_wrong_with_the_call_is_said(store: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="source is 'datadog': known are langfuse, langsmith, promptlayer, trulens"):
        loopkit.import_traces("datadog", tmp_path)
    with pytest.raises(InvalidInput, match="no file was given"):
        loopkit.import_traces("langfuse")
    with pytest.raises(InvalidInput, match="can't be read"):
        loopkit.import_traces("langfuse", tmp_path / "missing.json")


def test_the_command(store: Any, tmp_path: Path) -> None:
    shutil.copy(FILES / "langfuse_trace.json", tmp_path / "trace.json")
    result = CliRunner().invoke(app, ["import", "langfuse", str(tmp_path / "trace.json"), "--service", "helpdesk"])
    assert result.exit_code == 0, result.output
    assert "3 spans and 3 statements from langfuse" in result.output
    assert {span.service for span in store().spans()} == {"helpdesk"}


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=20)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_NAMES = st.sampled_from(
    ["id", "trace_id", "traceId", "timestamp", "startTime", "start_time", "end_time", "type", "run_type", "inputs",
     "outputs", "extra", "feedback_source", "key", "run_id", "score", "value", "dataType", "usageDetails", "input",
     "output", "metadata", "tags", "request_start_time", "spans", "scores", "record_attributes", "record", "trace",
     "record_json", "calls", "record_id", "cost", "perf", "messages", "level", "dotted_order", "parent_run_id"]
)  # fmt: skip
_ROWS = st.lists(st.dictionaries(_NAMES, _JSON, max_size=8), min_size=1, max_size=3)


@given(_ROWS, st.sampled_from(sorted(SOURCES)))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_no_row_hurts(rows: Any, source: str) -> None:
    reasons: list[str] = []
    for each in SOURCES[source](rows, reasons.append):
        assert each.id


@given(st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2200, 1, 1)))
def test_times_are_the_same_however_they_are_written(moment: datetime) -> None:
    known = moment.replace(tzinfo=timezone.utc)
    micros = round(known.timestamp() * 1_000_000) * 1000
    for text in (known.isoformat(), known.isoformat().replace("+00:00", "Z"), moment.isoformat(sep=" "), known):
        assert nanoseconds(text) == micros
    if known.year > 1990:
        assert abs((nanoseconds(known.timestamp()) or 0) - micros) <= 1000
        assert nanoseconds(micros // 1_000_000) == micros // 1_000_000 * 1_000_000


def test_ids_stay_where_they_can() -> None:
    assert trace_of("x", TRACE) == TRACE
    assert trace_of("x", "6f0e7f2a-1c63-4f0a-8e2d-7d8f4d3b2a11") == "6f0e7f2a1c634f0a8e2d7d8f4d3b2a11"
    assert len(trace_of("x", "my trace")) == 32
    assert span_of("x", "1a2b3c4d5e6f7081") == "1a2b3c4d5e6f7081"
    assert len(span_of("x", "6f0e7f2a-1c63-4f0a-8e2d-7d8f4d3b2a11")) == 16


ROW = {"id": "t1", "timestamp": "2025-01-01T00:00:00Z", "name": "good", "input": "hi"}
AT = "2025-01-01T00:00:00Z"
SPAN = {"id": "o", "traceId": "t2", "type": "SPAN", "name": "odd", "startTime": AT}
ODD: dict[str, dict[str, Any]] = {
    "an end after the year 2262": {**SPAN, "endTime": "9999-12-31T23:59:59Z"},
    "a start before 1970": {**SPAN, "startTime": "0001-01-01T00:00:00Z"},
    "a start that is none": {**SPAN, "startTime": "garbage"},
    "a score of the year 9999": {
        "id": "s", "traceId": "t1", "name": "n", "dataType": "NUMERIC", "value": 1, "timestamp": "9999-12-31T23:59:59Z"
    },
    "a text that begins many lists": {"id": "t3", "timestamp": AT, "input": "[" * 100_000},
    "ids that are numbers": {"id": 7, "timestamp": AT, "userId": 5, "sessionId": 6},
    "a line separator": {"id": "t4", "timestamp": AT, "input": "a\u2028b\u0085c"},
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_an_odd_row_costs_no_other(name: str, store: Any, tmp_path: Path) -> None:
    text = "\n".join(json.dumps(each, ensure_ascii=False) for each in (ROW, ODD[name]))
    (tmp_path / "export.jsonl").write_text(text)
    got = loopkit.import_traces("langfuse", tmp_path / "export.jsonl")
    spans = store().spans()
    assert len(spans) == got.spans
    assert "good" in by_name(spans)
    assert all(span.content_status == "kept" for span in spans)


def test_a_recording_process_imports_as_it_records(store: Any, tmp_path: Path) -> None:
    (tmp_path / "export.json").write_text(json.dumps([{**ROW, "input": "MAGICWORD"}]))
    loopkit.init("svc", store=tmp_path / "own", redact=lambda text: text.replace("MAGICWORD", "[X]"))
    try:
        loopkit.import_traces("langfuse", tmp_path / "export.json")
        (span,) = loopkit.open_store().spans()
        assert span.input == "[X]"
        loopkit.init("svc", store=tmp_path / "off", content="off")
        loopkit.import_traces("langfuse", tmp_path / "export.json")
        (span,) = loopkit.open_store().spans()
        assert (span.input, span.content_status) == (None, "off")
    finally:
        loopkit.shutdown()


def test_a_trace_that_says_more_than_its_one_call_is_there(store: Any, tmp_path: Path) -> None:
    call = {"id": "o", "traceId": "t1", "type": "GENERATION", "name": "chat", "startTime": "2025-01-01T00:00:00Z",
            "totalCost": 0, "usage": {"input": 0, "output": 3}}  # fmt: skip
    (tmp_path / "export.json").write_text(json.dumps([{**ROW, "output": "FINAL"}, call]))
    loopkit.import_traces("langfuse", tmp_path / "export.json")
    spans = by_name(store().spans())
    assert (spans["good"].output, spans["chat"].parent_id) == ("FINAL", spans["good"].span_id)
    told = call_of(spans["chat"])
    assert (told.cost, told.usage.input_tokens, told.usage.output_tokens) == (0, 0, 3)
