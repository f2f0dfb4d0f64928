"""Checks that ask somebody else: a service of one's own, safety models, judges, evaluators, Presidio."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI, OpenAI

import loopkit
from loopkit import checks
from loopkit.errors import InvalidInput
from loopkit.testing import MemorySink, ScriptedProvider, chat_completion
from loopkit.wire import names

Answer = Callable[[dict[str, Any]], Any]


class Service:
    """A real HTTP server on loopback that answers as it is told, and keeps what it was sent."""

    def __init__(self) -> None:
        self.answer: Answer = lambda body: {"action": "allow"}
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        self.paths: list[str] = []
        self.drips = False
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                service.bodies.append(body)
                service.headers.append(self.headers)
                service.paths.append(self.path)
                said = service.answer(body)
                status, data = said if isinstance(said, tuple) else (200, json.dumps(said).encode())
                self.send_response(status)
                self.send_header("content-length", str(10**9 if service.drips else len(data)))
                self.end_headers()
                while service.drips:
                    try:
                        self.wfile.write(b" ")
                    except OSError:
                        return
                    time.sleep(0.05)
                with contextlib.suppress(BrokenPipeError):  # who asked may have gone
                    self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.server.shutdown()
    made.server.server_close()


# any service


def test_a_service_is_told_what_is_known_and_its_verdict_holds(service: Service) -> None:
    guard = loopkit.Guard(output=[checks.http(f"{service.url}/moderate", headers={"x-api-key": "k1"})])
    assert guard.check("hello", stage="output", task="triage").action == "allow"
    assert service.bodies == [{"text": "hello", "stage": "output", "tool": None, "task": "triage"}]
    assert (service.headers[0]["x-api-key"], service.paths[0]) == ("k1", "/moderate")
    service.answer = lambda body: {"action": "redact", "text": body["text"].replace("ana", "[NAME]"), "reason": "name"}
    verdict = guard.check("hello ana", stage="output")
    assert (verdict.action, verdict.text, verdict.reason) == ("redact", "hello [NAME]", "name")
    service.answer = lambda body: {"action": "block", "reason": "no", "score": 0.9}
    verdict = guard.check("x", stage="output")
    assert (verdict.action, verdict.reason, verdict.score, verdict.failed) == ("block", "no", 0.9, False)


def test_another_services_words_are_read_as_one_says(service: Service) -> None:
    check = checks.http(
        service.url, name="moderation", body=lambda text, seen: {"input": text, "as": seen.stage},
        read=lambda said: not said["flagged"],
    )  # fmt: skip
    service.answer = lambda body: {"flagged": "kill" in body["input"]}
    guard = loopkit.Guard(input=[check])
    assert guard.check("hello").action == "allow"
    verdict = guard.check("kill")
    assert (verdict.action, verdict.check, verdict.reason) == ("block", "moderation", "it said no")


@pytest.mark.parametrize(
    "answer",
    [
        lambda body: (500, b"{}"),
        lambda body: (302, b""),
        lambda body: (200, b"no JSON"),
        lambda body: {"no": "action"},
        lambda body: {"action": "explode"},
        lambda body: {"action": "redact"},
        lambda body: ["allow"],
        lambda body: None,
        lambda body: "allow",
    ],
)
def test_nonsense_is_a_failure_and_says_nothing_of_the_text(answer: Answer, service: Service) -> None:
    service.answer = answer
    verdict = loopkit.Guard(input=[checks.http(service.url)]).check("the secret text")
    assert (verdict.action, verdict.failed) == ("block", True)
    assert "secret" not in verdict.reason
    assert loopkit.Guard(input=[checks.http(service.url, on_error="open")]).check("x").action == "allow"


def test_a_slow_or_missing_service_holds_nobody_up(service: Service) -> None:
    service.answer = lambda body: time.sleep(1.0) or {"action": "allow"}
    began = time.monotonic()
    verdict = loopkit.Guard(input=[checks.http(service.url, timeout=0.1)]).check("x")
    assert (verdict.action, verdict.failed) == ("block", True)
    assert time.monotonic() - began < 0.5
    nobody = checks.http("http://127.0.0.1:9/x", on_error="open")
    assert loopkit.Guard(input=[nobody]).check("x").action == "allow"


def test_services_are_asked_at_once_and_about_what_is_left_of_a_text(service: Service) -> None:
    service.answer = lambda body: time.sleep(0.2) or {"action": "allow"}
    guard = loopkit.Guard(input=[checks.pii(), *(checks.http(service.url, name=f"s{n}") for n in range(5))])
    began = time.monotonic()
    assert guard.check("write to ana@example.org").action == "redact"
    assert time.monotonic() - began < 0.8
    assert {body["text"] for body in service.bodies} == {"write to [EMAIL]"}


def test_it_works_around_sync_and_async_clients(service: Service, recorded: MemorySink) -> None:
    service.answer = lambda body: {"action": "block" if "bad" in body["text"] else "allow"}
    guard = loopkit.Guard(input=[checks.http(service.url)])
    provider = ScriptedProvider([chat_completion("fine")] * 2)
    transport = provider.transport(httpx2)
    client = loopkit.wrap(OpenAI(api_key="k", http_client=httpx2.Client(transport=transport)), guard=guard)
    assert client.chat.completions.create(model="m", messages=[{"role": "user", "content": "good"}])

    async def both() -> None:
        aclient = loopkit.wrap(
            AsyncOpenAI(api_key="k", http_client=httpx2.AsyncClient(transport=transport)), guard=guard
        )
        await aclient.chat.completions.create(model="m", messages=[{"role": "user", "content": "good"}])
        with pytest.raises(loopkit.Blocked):
            await aclient.chat.completions.create(model="m", messages=[{"role": "user", "content": "bad"}])

    asyncio.run(both())
    assert [body["text"] for body in service.bodies] == ["good", "good", "bad"]


def test_one_text_that_is_no_unicode_is_judged_and_holds_nobody_up(service: Service) -> None:
    service.answer = lambda body: {"action": "block" if "bad" in body["text"] else "allow"}
    guard = loopkit.Guard(input=[checks.http(service.url, on_error="open")])
    for _ in range(6):
        assert guard.check("bad\ud800").action == "block"
    assert service.bodies[0]["text"] == "bad\ud800"
    assert guard.check("good").action == "allow"


def test_a_service_that_drips_keeps_no_other_waiting(service: Service) -> None:
    dripping = Service()
    dripping.drips = True
    try:
        slow, quick = checks.http(dripping.url, name="slow", timeout=0.2), checks.http(service.url, name="quick")
        for _ in range(12):
            assert loopkit.Guard(input=[slow]).check("x").failed
        assert loopkit.Guard(input=[quick]).check("x").action == "allow"
        with pytest.raises(TimeoutError):
            slow.check("x")
    finally:
        dripping.server.shutdown()
        dripping.server.server_close()


def test_what_pii_takes_out_is_not_sent_by_another_way(service: Service) -> None:
    seen: list[Any] = []

    @loopkit.evaluator
    def noting(output: str, input: Any) -> bool:
        seen.append(input)
        input.clear()
        return True

    service.answer = lambda body: completion("safe")
    guard = loopkit.Guard(
        input=[checks.pii(), noting.at_least(0.5)],
        output=[checks.pii(), checks.llama_guard(service.url, model="m"), noting.at_least(0.5)],
    )
    provider = ScriptedProvider([chat_completion("fine")])
    client = loopkit.wrap(
        OpenAI(api_key="k", http_client=httpx2.Client(transport=provider.transport(httpx2))), guard=guard
    )
    client.chat.completions.create(model="m", messages=[{"role": "user", "content": "I am ana@example.org"}])

    @loopkit.trace(guard=guard)
    def shout(text: str, more: list[str]) -> str:
        return text.upper() + more[0]

    assert shout("mail bob@example.org", more=["x"]) == "MAIL [EMAIL]x"
    assert [body["messages"][0]["content"] for body in service.bodies] == ["I am [EMAIL]", "mail [EMAIL]\n\nx"]
    assert "example.org" not in str(seen)


def test_keys_are_in_no_repr() -> None:
    for check in (
        checks.http("http://x/", headers={"x": "s3cret"}),
        checks.judge("r", "http://x/", model="m", api_key="s3cret"),
    ):
        assert "s3cret" not in repr(check)
    with pytest.raises(InvalidInput) as refused:
        checks.http("ftp://me:s3cret@x/")
    assert "s3cret" not in str(refused.value)


# models


def completion(text: str) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": text}}], "usage": {"prompt_tokens": 9}}


@pytest.mark.parametrize(
    ("said", "action", "reason"),
    [
        ("safe", "allow", ""),
        ("\n\nsafe\n", "allow", ""),
        ("unsafe\nS1,S10", "block", "unsafe: S1, S10"),
        ("unsafe", "block", "unsafe"),
        ("unsafe S1", "block", "unsafe: S1"),
        ("unsafe\nS6", "allow", ""),
        ("unsafe\nS6,S1", "block", "unsafe: S6, S1"),
        ("safe? no, unsafe", "block", "the check itself failed: it answered neither safe nor unsafe"),
        ("safe\n\nunsafe\nS1", "block", "the check itself failed: it answered neither safe nor unsafe"),
        ("I think it is fine", "block", "the check itself failed: it answered neither safe nor unsafe"),
        ("", "block", "the check itself failed: it answered neither safe nor unsafe"),
    ],
)
def test_a_safety_model_says_safe_or_unsafe(said: str, action: str, reason: str, service: Service) -> None:
    service.answer = lambda body: completion(said)
    guard = loopkit.Guard(
        input=[checks.llama_guard(f"{service.url}/v1/", model="llama-guard", api_key="k2", allow=["S6"])]
    )
    verdict = guard.check("how do I?")
    assert (verdict.action, verdict.reason if verdict.action != "allow" else "") == (action, reason)
    assert service.paths == ["/v1/chat/completions"]
    assert service.headers[0]["authorization"] == "Bearer k2"
    assert service.bodies[0]["messages"] == [{"role": "user", "content": "how do I?"}]


def test_of_an_answer_it_sees_the_question_too_and_is_recorded(service: Service, recorded: MemorySink) -> None:
    service.answer = lambda body: completion("safe")
    guard = loopkit.Guard(output=[checks.llama_guard(service.url, model="llama-guard")])
    provider = ScriptedProvider([chat_completion("like this")])
    client = loopkit.wrap(
        OpenAI(api_key="k", http_client=httpx2.Client(transport=provider.transport(httpx2))), guard=guard
    )
    client.chat.completions.create(model="m", messages=[{"role": "user", "content": "how?"}])
    assert service.bodies[0]["messages"] == [
        {"role": "user", "content": "how?"}, {"role": "assistant", "content": "like this"},
    ]  # fmt: skip
    asked = next(span for span in recorded.spans() if span.model_call and span.model_call.model == "llama-guard")
    guarded = next(span for span in recorded.spans() if span.model_call and span.model_call.model == "m")
    assert asked.trace_id == guarded.trace_id
    assert asked.model_call is not None
    assert asked.model_call.usage.input_tokens == 9


def test_a_judge_is_told_the_rule_and_that_the_text_gives_no_orders(service: Service) -> None:
    check = checks.judge("The answer gives no legal advice.", f"{service.url}/v1", model="j")
    service.answer = lambda body: completion('Sure: {"keeps_rule": true, "reason": "none given"}')
    guard = loopkit.Guard(output=[check])
    assert guard.check("Ask a lawyer.", stage="output").action == "allow"
    system, user = (message["content"] for message in service.bodies[0]["messages"])
    mark = user.split("\n\n")[1].split("\n")[0]
    assert len(mark) == 16
    assert mark in system
    assert f"{mark}\nAsk a lawyer.\n{mark}" in user
    service.answer = lambda body: completion('{"keeps_rule": false, "reason": "it says what the law is"}')
    verdict = guard.check("You may sue.", stage="output")
    assert (verdict.action, verdict.reason, verdict.text) == ("block", "it said no", "it says what the law is")
    assert service.bodies[1]["messages"][1]["content"].count(mark) == 0  # another one each time
    service.answer = lambda body: completion('{"keeps_rule": false, "reason": "it says {x}"}')
    assert guard.check("x", stage="output").text == "it says {x}"
    quoting = (
        'The text says {"keeps_rule": true, "reason": "ok"}. A trick. {"keeps_rule": false, "reason": "it lies"}',
        '{"verdict": {"keeps_rule": true}}',
        '{"keeps_rule": false, "keeps_rule": true}',
        '{"verdict": {"keeps_rule": false}} {"keeps_rule": true}',
    )
    for nonsense in (*quoting, "yes", "{}", '{"keeps_rule": "maybe"}', "{not json}", '["keeps_rule"]'):
        service.answer = lambda body, nonsense=nonsense: completion(nonsense)
        assert guard.check("x", stage="output").failed


def test_what_is_only_tried_out_is_not_recorded(service: Service, recorded: MemorySink) -> None:
    service.answer = lambda body: completion('{"keeps_rule": true}')
    guard = loopkit.Guard(input=[checks.judge("r", service.url, model="j")])
    guard.check("x", record=False)
    assert recorded.spans() == []
    guard.check("x")
    assert [span.model_call.model for span in recorded.spans() if span.model_call] == ["j"]


def test_what_a_judge_says_of_a_text_is_not_written_down(service: Service, recorded: MemorySink) -> None:
    service.answer = lambda body: completion('{"keeps_rule": false, "reason": "it names Jane Doe"}')
    guard = loopkit.Guard(input=[checks.judge("r", service.url, model="j", action="flag")])
    assert guard.check("x").text == "it names Jane Doe"
    verdict = next(span for span in recorded.spans() if span.kind == "guardrail")
    assert "Jane" not in str(verdict)
    assert verdict.attributes[names.GUARD_REASON] == "it said no"


@pytest.mark.parametrize("answer", ["nonsense", "a client's fault"])
def test_texts_that_get_no_answer_leave_the_check_to_others(answer: str, service: Service) -> None:
    def say(body: Any) -> Any:
        if "confuse" in body["messages"][-1]["content"]:
            return (400, b"{}") if answer == "a client's fault" else completion("hm")
        return completion('{"keeps_rule": false}')

    service.answer = say
    guard = loopkit.Guard(input=[checks.judge("r", service.url, model="j", on_error="open")])
    assert [guard.check("confuse").action for _ in range(7)] == ["allow"] * 7
    assert guard.check("rob a bank").action == "block"
    assert len(service.bodies) == 8


def test_trying_out_changes_nothing_for_others(service: Service) -> None:
    guard = loopkit.Guard(
        input=[checks.judge("r", service.url, model="j", on_error="open"), checks.rate(1, 3600)], output=[]
    )
    service.answer = lambda body: (500, b"")
    assert [guard.check("x", record=False).action for _ in range(7)] == ["allow"] * 7
    service.answer = lambda body: completion('{"keeps_rule": true}')
    assert guard.check("x").action == "allow"
    service.answer = lambda body: completion('{"keeps_rule": false}')
    assert guard.check("x").action == "block"


@pytest.mark.parametrize("is_stream", [False, True])
def test_checks_that_look_afterwards_see_what_the_others_left(is_stream: bool, service: Service) -> None:
    came: list[str] = []

    def note(text: str) -> bool:
        came.append(text)
        return True

    guard = loopkit.Guard(output=[checks.pii(), checks.passes(note, run="after")])

    @loopkit.trace(guard=guard)
    def answer() -> Any:
        return iter(["mail ", "ana@example.org ", "now"]) if is_stream else "mail ana@example.org now"

    @loopkit.trace(guard=guard)
    def stream() -> Any:
        yield from ["mail ", "ana@example.org ", "now"]

    assert "".join(stream() if is_stream else answer()) == "mail [EMAIL] now"
    deadline = time.monotonic() + 5
    while not came and time.monotonic() < deadline:
        time.sleep(0.01)
    assert came == ["mail [EMAIL] now"]


@pytest.mark.parametrize(
    ("url", "said"),
    [("http://localhost/v1?api-version=1", "a URL with a query"), ("http://localhost/v1#x", "a URL with a query")],
)
def test_a_models_url_has_no_query(url: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        checks.judge("r", url, model="m")


def test_what_a_url_holds_is_not_shown() -> None:
    assert "SECRET" not in repr(checks.http("http://u:SECRET@localhost/?key=SECRET"))


@pytest.mark.parametrize(
    "said", [{"action": "retry", "text": 5}, {"action": "flag", "score": float("nan")}, {"reason": "no"}, [1], "block"]
)
def test_a_services_nonsense_is_a_failure(said: Any, service: Service) -> None:
    service.answer = lambda body: said
    assert loopkit.Guard(output=[checks.http(service.url)]).check("x", stage="output").failed


def test_a_real_model_is_asked(model_url: str) -> None:
    """What this small one says is worth nothing; that it is asked and its answer read, is."""
    guard = loopkit.Guard(input=[checks.judge("The text is in English.", model_url, model="smollm2", timeout=60)])
    verdict = guard.check("Where is my card?")
    assert verdict.check in ("judge", "")
    assert not verdict.failed or "whether the rule is kept" in verdict.reason


# evaluators


@loopkit.evaluator
def politeness(output: str) -> dict[str, Any]:
    polite = sum(word in output.lower() for word in ("please", "thank"))
    return {"value": min(polite / 2, 1.0), "reason": "Say please and thank you."}


def test_an_evaluator_is_a_check() -> None:
    guard = loopkit.Guard(output=[politeness.at_least(0.7, action="retry")], retries=1)
    provider = ScriptedProvider([chat_completion("No."), chat_completion("Please wait, thank you.")])
    client = loopkit.wrap(
        OpenAI(api_key="k", http_client=httpx2.Client(transport=provider.transport(httpx2))), guard=guard
    )
    given = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "When?"}])
    assert given.choices[0].message.content == "Please wait, thank you."
    assert provider.requests[1]["messages"][-1] == {"role": "user", "content": "Say please and thank you."}
    verdict = guard.check("please", stage="output")
    assert (verdict.action, verdict.check, verdict.score) == ("retry", "politeness", 0.5)
    assert politeness("please") == {"value": 0.5, "reason": "Say please and thank you."}  # it is the function still


def test_it_knows_what_was_asked() -> None:
    seen: list[Any] = []

    @loopkit.evaluator
    def noted(output: str, input: Any) -> bool:
        seen.append((output, dict(input)))
        return True

    guard = loopkit.Guard(output=[noted.at_least(1)])

    @loopkit.trace(guard=guard)
    def double(text: str, times: int) -> str:
        return text * times

    double("a", times=2)
    provider = ScriptedProvider([chat_completion("fine")])
    client = loopkit.wrap(
        OpenAI(api_key="k", http_client=httpx2.Client(transport=provider.transport(httpx2))), guard=guard
    )
    client.chat.completions.create(model="m", messages=[{"role": "user", "content": "How?"}])
    assert seen == [
        ("aa", {"text": "a", "times": 2}), ("fine", {"messages": [{"role": "user", "content": "How?"}]}),
    ]  # fmt: skip


@pytest.mark.parametrize("result", [ZeroDivisionError("the text"), "a label", float("nan"), object()])
def test_an_evaluator_that_gives_no_score_has_failed(result: Any) -> None:
    @loopkit.evaluator
    def odd(output: str) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    verdict = loopkit.Guard(output=[odd.at_least(0.5)]).check("x", stage="output")
    assert (verdict.action, verdict.failed) == ("block", True)
    assert "the text" not in verdict.reason


async def slowly(output: str) -> bool:
    return True


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: checks.http("localhost:80"), "begins with http"),
        (lambda: checks.http("ftp://x/"), "begins with http"),
        (lambda: checks.http("http://x/", action="redact"), "has to give the text"),
        (lambda: checks.llama_guard("http://x/v1", model=""), "give its name"),
        (lambda: checks.judge("", "http://x/v1", model="m"), "what has to hold"),
        (lambda: checks.judge("r", "http://x/v1", model="m", action="replace"), "not where"),
        (lambda: politeness.at_least("high"), "give a number"),
        (lambda: politeness.at_least(0.5, action="redact"), "how good a text is"),
        (lambda: loopkit.evaluator(lambda output, expected: True).at_least(1), "compares with 'expected'"),
        (lambda: politeness.at_least(float("nan")), "give a number"),
        (lambda: loopkit.evaluator(slowly).at_least(1), "async"),
        (lambda: checks.http("http://[::1"), "begins with http"),
        (lambda: checks.http("http://x/", name=5), "give a text"),
        (lambda: checks.presidio(analyzer=object()), "AnalyzerEngine"),
    ],
)
def test_bad_ones_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make()


# Presidio


def test_presidio_finds_what_its_analyzer_does(tmp_path: Any) -> None:
    pytest.importorskip("presidio_analyzer")
    spacy = pytest.importorskip("spacy")
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    class WithoutModel(SpacyNlpEngine):
        def __init__(self) -> None:
            super().__init__()
            self.nlp = {"en": spacy.blank("en")}

        def load(self) -> None:
            pass

    engine = AnalyzerEngine(nlp_engine=WithoutModel(), supported_languages=["en"])
    entities = ["CREDIT_CARD", "US_SSN"]
    verdict = loopkit.Guard(input=[checks.presidio(engine, entities=entities)]).check(
        "pay with 4111 1111 1111 1111 now"
    )
    assert (verdict.action, verdict.text) == ("redact", "pay with [CREDIT_CARD] now")
    assert loopkit.Guard(input=[checks.presidio(engine)]).check("an ordinary text").action == "allow"
