"""The command line: what each command shows, and that a mistake is one sentence and status 1."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import loopkit
from loopkit.types import Variant
from loopkit.wire.decode import decode_request
from tests.export.test_delivery import Collector, until

VOTE = Variant(callable="tests.cli.test_commands:always_cards")


def always_cards(ticket: str) -> str:
    return "cards"


def command(*words: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "loopkit", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "LOOPKIT_HOME": str(home), "COLUMNS": "200", "PYTHONPATH": os.getcwd(), **environment},
        cwd=home.parent,
    )


@pytest.fixture
def spans(clean_environment: Path) -> list[str]:
    """A store with forty calls, corrected, and two variants."""
    loopkit.init("svc")
    ids = []
    for number in range(40):
        inputs = {"ticket": f"word{number} other{number * 7}"}
        about = loopkit.context(user_id=f"u{number}", plan="pro" if number % 2 else "free")
        with about, loopkit.span("triage", task="triage", input=inputs) as s:
            s.set(output="loans")
        loopkit.feedback(s.id, correction="cards" if number % 4 else "loans", by="ana")
        ids.append(s.id)
    registry = loopkit.Registry(loopkit.open_store())
    registry.promote("triage", registry.add("triage", VOTE), reason="the first one")
    loopkit.shutdown()
    return ids


def test_a_whole_round_by_commands(spans: list[str], clean_environment: Path) -> None:
    def says(*words: str) -> str:
        done = command(*words, home=clean_environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "corrected" not in says("show", spans[0])
    assert "→ cards" in says("show", spans[1])
    assert "pro" in says("figures", "triage", "--by", "plan")
    assert "cards" in says("failures", "triage")
    assert "expected" in says("confusion", "triage")
    assert "train" in says("dataset", "create", "triage")
    assert "examples" in says("dataset", "show", "triage")
    assert "triage/v2" in says("tune", "triage", "--with", "vote")
    assert "points (interval" in says("evaluate", "triage", "--variants", "current,candidate")
    assert "v2 gets 50%" in says("rollout", "start", "triage", "--candidate", "v2")
    assert "wait" in says("rollout", "status", "triage")
    assert "wait" in says("rollout", "step", "triage")
    assert "v1 serves triage" in says("rollout", "stop", "triage")
    assert "v2 serves triage" in says("promote", "triage", "v2")
    assert "the first one" in says("variants", "triage")
    assert "dataset" in says("lineage", spans[1])
    assert "spans" in says("store", "stats")
    assert "✓" in says("doctor")
    page = clean_environment.parent / "report.html"
    assert "wrote" in says("report", "triage", "--out", str(page))
    assert page.read_text().startswith("<!doctype html>")


def test_feedback_by_commands(spans: list[str], clean_environment: Path) -> None:
    done = command("feedback", "add", spans[0], "--name", "helpful", "--value", "true", home=clean_environment)
    event = done.stdout.split()[-1]
    assert event in command("feedback", "list", spans[0], home=clean_environment).stdout
    assert command("feedback", "retract", event, home=clean_environment).returncode == 0
    command("feedback", "add", "order:1", "--correction", "tech", home=clean_environment)
    assert "order:1" in command("feedback", "list", "--orphans", home=clean_environment).stdout
    rows = clean_environment.parent / "rows.jsonl"
    rows.write_text("".join(json.dumps({"target": id, "name": "stars", "value": 0.5}) + "\n" for id in spans[:3]))
    assert "3 events are there" in command("feedback", "import", str(rows), home=clean_environment).stdout
    (last,) = [e for e in loopkit.open_store().feedback(spans[2]) if e.name == "stars"]
    assert last.value == 0.5


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["show", "zzz"], "no span begins with 'zzz'"),
        (["lineage", "zzz"], "'zzz' is no dataset"),
        (["figures", "tirage"], "the task 'tirage' is unknown in .*; known: 'triage'"),
        (["dataset", "create", "tirage"], "the task 'tirage' is unknown"),
        (["dataset", "create", "triage", "--golden", "2"], "golden is 2.0"),
        (["dataset", "show", "zzz"], "no dataset 'zzz'"),
        (["tune", "triage", "--with", "magic"], "no tuner named 'magic' is installed; known: cascade"),
        (["evaluate", "triage", "--variants", "current,v9"], "has no variant 'v9'; known: v1"),
        (["rollout", "start", "triage", "--candidate", "v9"], "has no variant 'v9'"),
        (["rollout", "step", "triage"], "no rollout of 'triage' is running"),
        (["promote", "triage", "v9"], "has no variant 'v9'"),
        (["feedback", "add", "x"], "nothing to say"),
        (["feedback", "retract", "zzz"], "no feedback events begin with 'zzz'"),
        (["feedback", "import", "absent.jsonl"], "absent.jsonl can't be read"),
        (["report", "triage", "--out", "/no/such/place.html"], "can't be written"),
        (["evaluate", "triage", "--app", "no_such_module"], "application module 'no_such_module' can't be imported"),
    ],
)
def test_a_mistake_is_one_sentence(words: list[str], sentence: str, spans: list[str], clean_environment: Path) -> None:
    import re

    if words[:2] == ["tune", "triage"]:
        assert command("dataset", "create", "triage", home=clean_environment).returncode == 0
    done = command(*words, home=clean_environment)
    assert done.returncode == 1
    assert re.search(sentence, done.stderr), done.stderr
    assert done.stderr.startswith("loopkit: ")
    assert "Traceback" not in done.stderr


def test_one_bad_line_of_an_import_writes_nothing(spans: list[str], clean_environment: Path) -> None:
    rows = clean_environment.parent / "rows.jsonl"
    rows.write_text('{"target": "a", "name": "n", "value": 1}\n{"target": "b", "name": "n", "value": [1]}\n')
    done = command("feedback", "import", str(rows), home=clean_environment)
    assert "row 2: the value of 'n' is [1]" in done.stderr
    assert loopkit.open_store().feedback("a") == []


def test_where_there_is_no_store(tmp_path: Path) -> None:
    done = command("figures", "triage", home=tmp_path / "empty")
    assert done.returncode == 1
    assert "no store in" in done.stderr
    assert not (tmp_path / "empty").exists()


def test_a_broken_store_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "loopkit.db").write_bytes(b"somebody's notes" * 100)
    done = command("figures", "triage", home=tmp_path / "home")
    assert "is no loopkit store" in done.stderr
    assert "Traceback" not in done.stderr
    assert "✗" in command("doctor", home=tmp_path / "home").stdout


def test_doctor_names_what_is_wrong(spans: list[str], clean_environment: Path) -> None:
    done = command("doctor", home=clean_environment, OTEL_EXPORTER_OTLP_ENDPOINT="localhost:4318")
    assert done.returncode == 1
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in done.stdout


def test_doctor_asks_every_destination_whether_it_takes_what_we_send(clean_environment: Path) -> None:
    collector = Collector()
    clean_environment.mkdir()

    def doctor(**environment: str) -> tuple[int, str]:
        done = command("doctor", home=clean_environment, **environment)
        return done.returncode, done.stdout

    try:
        status, said = doctor(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=collector.endpoint)
        assert status == 0
        assert "answers, and takes what we send" in said
        assert "a span was recorded, redacted, written to a store and read back" in said
        assert "took a span that went through spool and transport" in said
        first, second = (list(decode_request(body)) for body in collector.bodies)
        assert first == []
        assert [span.name for span, _ in second] == ["loopkit doctor"]
        assert list(clean_environment.iterdir()) == []
        collector.answers = lambda number: (200, {}) if number == 3 else (413, {}, b"too large")
        status, said = doctor(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=collector.endpoint)
        assert status == 1
        assert "did not take a span (HTTP 413: too large)" in " ".join(said.split())
        collector.answers = lambda number: (401, {}, b"who are you?")
        status, said = doctor(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=collector.endpoint)
        assert status == 1
        assert "refuses (HTTP 401: who are you?)" in said
    finally:
        collector.stop()
    status, said = doctor(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=collector.endpoint)
    assert status == 1
    assert "can't be reached" in said


def test_the_spool_is_listed_replayed_and_dropped(clean_environment: Path) -> None:
    collector = Collector()
    collector.answers = lambda number: (400, {}, b"not like this")
    loopkit.init("svc", export=[collector.endpoint])
    with loopkit.span("refused"):
        pass
    until(lambda: any(spool.letters() for spool in loopkit.spools().values()))
    loopkit.shutdown()
    collector.stop()

    def spool(*words: str) -> str:
        done = command("spool", *words, home=clean_environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "HTTP 400: not like this" in spool("list")
    assert "1 batches wait again" in spool("replay", collector.endpoint)
    (kept,) = loopkit.spools().values()
    assert [span.name for batch in kept.waiting() for span, _ in decode_request(batch.data)] == ["refused"]
    assert "1 batches removed" in spool("drop")
    assert not list(kept.waiting())
    assert (
        "nothing was spooled for 'http://other'"
        in command("spool", "drop", "http://other", home=clean_environment).stderr
    )


def test_a_configured_application_is_found(tmp_path: Path) -> None:
    from loopkit.cli.application import configured_name
    from loopkit.errors import InvalidSetting

    assert configured_name(tmp_path) is None
    (tmp_path / "pyproject.toml").write_text('[tool.loopkit]\napp = "a.b"\n')
    assert configured_name(tmp_path) == "a.b"
    (tmp_path / "loopkit.toml").write_text('[loopkit]\napp = "c"\n')
    assert configured_name(tmp_path) == "c"
    (tmp_path / "loopkit.toml").write_text("[loopkit]\napp = 3\n")
    with pytest.raises(InvalidSetting, match=r"app in .* is 3"):
        configured_name(tmp_path)
    (tmp_path / "loopkit.toml").write_text("[loopkit")
    with pytest.raises(InvalidSetting, match="not valid TOML"):
        configured_name(tmp_path)
