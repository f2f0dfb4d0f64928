"""What may be kept of what was said: content policy, redaction that fails closed, where content goes."""

from __future__ import annotations

import httpx2
import pytest
from openai import OpenAI

import loopkit
from loopkit import _host
from loopkit.config import settings
from loopkit.errors import InvalidSetting
from loopkit.testing import ScriptedProvider, recording


def client_of(answers: list[object]) -> OpenAI:
    provider = ScriptedProvider(answers)
    return loopkit.wrap(OpenAI(api_key="k", http_client=httpx2.Client(transport=provider.transport(httpx2))))


def ask(client: OpenAI, text: str) -> None:
    client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}])


def test_patterns_are_redacted_everywhere_before_anything_is_kept() -> None:
    key = "sk-" + "a1B2" * 8
    with recording() as recorded:
        with loopkit.context(note="mail joe@example.com"):
            ask(client_of([f"use {key}"]), f"my card is 4111 1111 1111 1111\nkey {key}")
        loopkit.trace(lambda number: number)(4111111111111111)
        whole = repr(recorded.spans())
        raw = b"".join(s.stored() for batch in recorded.batches for s in batch.spans)
    for secret in ("4111 1111", "411111111111", key, "joe@example.com"):
        assert secret not in whole
        assert secret.encode() not in raw
    assert "[CARD]" in whole
    assert "[KEY]" in whole


def test_a_redactor_of_ones_own_sees_every_text() -> None:
    with recording(redact=lambda text: text.replace("secret", "***")) as recorded:
        ask(client_of(["a secret answer"]), "a secret question")
        (span,) = recorded.spans()
    assert span.model_call is not None
    assert span.model_call.input[0].text == "a *** question"
    assert span.model_call.output[0].text == "a *** answer"


def test_a_redactor_that_raises_costs_its_span_the_content_and_nothing_else() -> None:
    def redact(text: str) -> str:
        if "bad" in text:
            raise RuntimeError("redactor broke")
        return text

    with recording(redact=redact) as recorded:
        client = client_of(["fine", "fine"])
        ask(client, "a bad one")
        ask(client, "a good one")
        first, second = recorded.spans()
    assert first.content_status == "failed"
    assert first.model_call is not None
    assert (first.model_call.input, first.model_call.output, first.model_call.native_request) == ((), (), None)
    assert second.content_status == "kept"
    assert second.model_call is not None
    assert second.model_call.input[0].text == "a good one"
    assert _host.faults["redaction"] == 1


def test_content_off_keeps_figures_but_no_words() -> None:
    with recording(content="off") as recorded:
        ask(client_of(["an answer"]), "a question")
        loopkit.trace(lambda word: word)("another word")
        raw = b"".join(s.stored() for batch in recorded.batches for s in batch.spans)
        call = next(span for span in recorded.spans() if span.kind == "llm").model_call
    assert call is not None
    assert call.usage.input_tokens == 12
    assert b"question" not in raw
    assert b"answer" not in raw
    assert b"another word" not in raw


def test_native_request_stays_in_the_local_piece() -> None:
    with recording() as recorded:
        ask(client_of(["yes"]), "no wire for this")
        recorded.spans()
        pieces = [span for batch in recorded.batches for span in batch.spans]
    assert b"no wire for this" not in pieces[0].exported(content=False)
    assert b"loopkit.request.body" in pieces[0].local


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"content": "wire"}, "content is 'wire'"),
        ({"sample": 2}, "sample is 2"),
        ({"redact": "yes"}, "redact is 'yes'"),
        ({"export": "http://x"}, "give a list"),
        ({"export": 5}, "give a list"),
        ({"export": [5]}, "export has 5"),
        ({"export": ["http://[::1"]}, "write a full URL"),
        ({"export": ["http://x:1/v1/traces", "http://x:1/v1/traces"]}, "names 'http://x:1/v1/traces' twice"),
        ({"store": "\0"}, "name a directory"),
        ({"store": 5}, "store is 5"),
        ({"service": 5}, "the service's name is 5"),
        ({"export": ["localhost:4318"]}, "write a full URL"),
        ({"store": __file__}, "which is a file"),
    ],
)
def test_bad_settings_are_one_sentence_and_change_nothing(given: dict[str, object], message: str) -> None:
    loopkit.init("first", store=None)
    with pytest.raises(InvalidSetting, match=message):
        loopkit.init(**{"service": "second", **given})  # type: ignore[arg-type]
    with loopkit.span("still recording") as span:
        assert span.id


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "grpc://x"),
        ("OTEL_RESOURCE_ATTRIBUTES", "novalue"),
    ],
)
def test_a_bad_variable_is_named(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidSetting, match=variable):
        loopkit.init("service")


def test_the_service_is_named_by_the_argument_then_by_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=from-resource,team=desk")
    assert settings().service == "from-resource"
    assert settings("given").resource == {"service.name": "given", "team": "desk"}
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from-name")
    assert settings().service == "from-name"


def test_a_redactor_that_gives_no_text_costs_its_span_the_content() -> None:
    with recording(redact=lambda text: None) as recorded, loopkit.span("read", input="words"):  # type: ignore[arg-type,return-value]
        pass
    (span,) = recorded.spans()
    assert (span.content_status, span.input) == ("failed", None)


def test_json_inside_a_text_is_redacted_even_where_a_key_is_there_twice() -> None:
    with recording() as recorded, loopkit.span("read", input='{"a":"joe@example.com","a":"ok"}'):
        pass
    assert "joe@" not in recorded.spans()[0].input


def test_tags_of_any_type_and_integers_of_any_length_are_kept_as_text() -> None:
    with recording() as recorded, loopkit.span("read", input={"n": 10**5000}) as s:
        s.set(tags=[1, "two"])  # type: ignore[list-item]
    (span,) = recorded.spans()
    assert (span.tags, span.input) == (("1", "two"), {"n": "<an integer of 16610 bits>"})


def test_a_service_needs_a_name() -> None:
    with pytest.raises(InvalidSetting, match="OTEL_SERVICE_NAME"):
        loopkit.init()


def test_a_prompt_that_is_too_long_keeps_its_shape() -> None:
    with recording() as sink, loopkit.span("read", input={"pages": ["x" * 2_000_000, "short"]}):
        pass
    span = sink.spans()[0]
    assert span.content_status == "truncated"
    assert span.input["pages"][0].startswith("xxx")
    assert "2000000 characters" in span.input["pages"][0]
    assert span.input["pages"][1] == "short"
