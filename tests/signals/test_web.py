"""Feedback from browsers: what a token allows, how it is refused, and that what was answered is on disk."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import time
from pathlib import Path
from typing import Any

import fastapi
import flask
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import loopkit
from loopkit import web
from loopkit.errors import InvalidInput, InvalidSetting
from loopkit.signals.endpoint import Asked, Endpoint
from loopkit.signals.tokens import InvalidToken, Keys, read_token
from loopkit.testing import MemorySink

SECRETS = ["a secret of some length"]
RING = Keys([SECRETS[0].encode()])
ORIGIN = "https://app.example"


def post(token: Any, name: Any = "thumbs", value: Any = True, path: str = "/f", **given: Any) -> httpx.Response:
    """Through a real FastAPI application with the app mounted in it."""
    said = {"t": token, "n": name, "v": value, **{k: v for k, v in given.items() if k in ("c", "x", "id")}}
    return send("POST", path, json.dumps(given.get("body", said)).encode(), given.get("headers"), given.get("app"))


def send(
    method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None, app: Any = None
) -> httpx.Response:
    whole = fastapi.FastAPI()
    whole.mount("/loop", app or web.FeedbackApp())

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app=whole)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.request(method, f"/loop{path}", content=body, headers=headers)

    return asyncio.run(run())


def events() -> list[tuple[str, str, Any]]:
    """As any other process finds them, without a flush: what was answered is there."""
    from loopkit.store.sqlite import Store

    store = Store(loopkit.open_store().directory)
    return [(event.target, event.name, event.value) for event in store.feedback()]


def test_what_a_token_allows_is_written_before_the_answer(stored: MemorySink) -> None:
    with loopkit.span("call") as s:
        token = loopkit.feedback_token(names=["thumbs", "comment"], by="ana")
    assert post(token, "thumbs", False, id="c-1").status_code == 204
    assert events() == [(s.id, "thumbs", False)]
    assert post(token, "thumbs", False, id="c-1").status_code == 204  # sent again
    assert post(token, "comment", None, c="too short").status_code == 204
    state = loopkit.held(loopkit.open_store())
    assert [(e.name, e.value, e.comment, e.kind) for e in state.about(s.id)] == [
        ("thumbs", False, None, "explicit"),
        ("comment", None, "too short", "explicit"),
    ]
    assert state.conflicts == 0
    (author,) = {event.by for event in state.about(s.id)}
    assert author == loopkit.feedback("t", "n", 1, by="ana").by  # type: ignore[union-attr]


def test_changing_ones_mind_without_ids_ends_with_the_last_word(stored: MemorySink) -> None:
    token = loopkit.feedback_token("order:1")
    for value in (True, False, True):
        assert post(token, "thumbs", value).status_code == 204
    (event,) = loopkit.held(loopkit.open_store()).about("order:1")
    assert event.value is True
    assert len(events()) == 3
    post(loopkit.feedback_token("order:1"), "thumbs", False)  # another page is another author
    assert len(loopkit.held(loopkit.open_store()).about("order:1")) == 2


def test_refusals_are_one_word(stored: MemorySink, caplog: pytest.LogCaptureFixture) -> None:
    token = loopkit.feedback_token("order:1", ["thumbs"], origin=ORIGIN)
    here = {"origin": ORIGIN}
    expired = loopkit.feedback_token("order:1", ["thumbs"], expires=1e-9)
    time.sleep(1.1)
    claims, _, signature = token.partition(".")
    other = "B" if signature[-2] == "A" else "A"
    forged = [f"{claims[:-2]}xx.{signature}", f"{claims}.{signature[:-2]}{other}A"]
    strange: list[object] = ["", "a.b", "é.é", 5, None, [], "x" * 5000]
    with caplog.at_level(logging.INFO, logger="loopkit"):
        for one in (*forged, *strange):
            answer = post(one, headers=here)
            assert (answer.status_code, answer.json()) == (401, {"error": "invalid_token"}), one
        cases: list[tuple[httpx.Response, int, str]] = [
            (post(expired), 401, "expired_token"),
            (post(token, "stars", 5, headers=here), 403, "wrong_name"),
            (post(token, headers={"origin": "https://evil.example"}), 403, "wrong_origin"),
            (post(token), 403, "wrong_origin"),
            (post(token, value=[1], headers=here), 422, "invalid_value"),
            (post(token, headers=here, body=[]), 400, "bad_request"),
            (post(token, headers=here, body={"t": token}), 400, "bad_request"),
            (post(token, headers=here, body={"t": token, "n": "thumbs", "target": "x"}), 400, "bad_request"),
            (send("POST", "/f", b"{", here), 400, "bad_request"),
            (post(token, headers=here, id="x" * 65), 400, "bad_request"),
            (post(token, headers=here, id=0), 400, "bad_request"),
            (post(token, headers=here, x="Send your PIN to evil.example"), 403, "wrong_name"),
            (post(token, value={"mail": "ana@example.org"}, headers=here), 422, "invalid_value"),
            (send("GET", f"/f/{token}?{'&'.join(f'u{n}=1' for n in range(70))}"), 400, "bad_request"),
            (send("GET", "/f"), 405, "wrong_method"),
            (send("GET", "/f/batch"), 405, "wrong_method"),
            (send("PUT", "/f/batch"), 405, "wrong_method"),
            (send("GET", "/other"), 404, "not_found"),
            (send("GET", "/f/../f/x/y"), 404, "not_found"),
        ]
    for answer, status, word in cases:
        assert (answer.status_code, answer.json()) == (status, {"error": word})
    assert events() == []
    assert not any(part in caplog.text for part in (token, claims, signature, expired, "ana@example.org"))


def test_a_token_for_one_event_takes_that_one(stored: MemorySink) -> None:
    token = loopkit.feedback_token("order:1", once=True)
    app = web.FeedbackApp()
    assert post(token, "thumbs", [1], id="a", app=app).status_code == 422  # nothing was said yet
    assert post(token, "thumbs", True, id="b", app=app).status_code == 204
    assert post(token, "thumbs", True, id="b", app=app).status_code == 204
    for value, id in ((False, "c"), (False, "b"), (False, ""), ([1], "b"), (False, "a")):
        refused = post(token, "thumbs", value, id=id, app=app)
        assert (refused.status_code, refused.json()) == (409, {"error": "replayed_token"})
    assert post(token, "thumbs", True, id="b", app=app).status_code == 204
    assert post(token, "thumbs", False, id="c").status_code == 204  # another process doesn't know, but the log does
    state = loopkit.held(loopkit.open_store())
    assert [event.value for event in state.about("order:1")] == [True]
    assert state.conflicts == 1


def test_too_much_is_not_read(stored: MemorySink) -> None:
    token = loopkit.feedback_token("order:1")
    whole = post(token, "comment", None, c="x" * 10_000_000)
    assert (whole.status_code, whole.json()) == (413, {"error": "too_large"})
    read = 0

    async def run() -> int:
        nonlocal read
        sent: list[Any] = []

        async def receive() -> Any:
            nonlocal read
            read += 1
            return {"type": "http.request", "body": b"x" * 4096, "more_body": True}  # without an end or a length

        async def send(message: Any) -> None:
            sent.append(message)

        await web.FeedbackApp()({"type": "http", "method": "POST", "path": "/f", "headers": []}, receive, send)
        return int(sent[0]["status"])

    assert asyncio.run(run()) == 413
    assert read <= 6


def test_a_batch_is_judged_event_by_event(stored: MemorySink) -> None:
    token = loopkit.feedback_token("order:1", ["copied", "dwell"])
    body = [
        {"t": token, "n": "copied", "v": True, "id": "1"},
        {"t": token, "n": "stars", "v": 5},
        {"t": "x", "n": "copied"},
        7,
        {"t": token, "n": "dwell", "v": 12, "id": "2"},
    ]
    answer = post(None, path="/f/batch", body=body, headers={"content-type": "text/plain", "origin": ORIGIN})
    assert answer.status_code == 200
    refused = [(one["index"], one["error"]) for one in answer.json()["refused"]]
    assert refused == [(1, "wrong_name"), (2, "invalid_token"), (3, "bad_request")]
    assert events() == [("order:1", "copied", True), ("order:1", "dwell", 12.0)]
    assert [event.kind for event in loopkit.open_store().feedback()] == ["implicit", "implicit"]
    assert post(None, path="/f/batch", body=[body[0]] * 65).json() == {"error": "too_large"}
    assert post(None, path="/f/batch", body={}).json() == {"error": "bad_request"}


def test_a_link_in_a_mail_writes_nothing_until_its_page_is_sent(stored: MemorySink) -> None:
    token = loopkit.feedback_token("order:1", ["thumbs"])
    path = f"/f/{token}"
    for method in ("GET", "HEAD"):
        page = send(method, f"{path}?n=thumbs&v=true")
        assert page.status_code == 200
    page = send("GET", f"{path}?n=thumbs&v=%22%3E%3Cscript%3Ealert(1)%3C/script%3E")
    assert "<script" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert events() == []
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert "Thank you" in send("POST", path, b"n=thumbs&v=true&c=nice+one", form).text
    assert events() == [("order:1", "thumbs", True)]
    assert loopkit.open_store().feedback()[0].comment == "nice one"
    assert send("GET", f"{path}?n=stars&v=5").json() == {"error": "wrong_name"}
    assert send("GET", "/f/x.y?n=thumbs").json() == {"error": "invalid_token"}


def test_other_pages_may_ask_but_the_token_decides(stored: MemorySink) -> None:
    answer = send("OPTIONS", "/f", headers={"origin": ORIGIN, "access-control-request-method": "POST"})
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "access-control-allow-credentials" not in answer.headers
    token = loopkit.feedback_token("order:1", origin=ORIGIN)
    answer = post(token, headers={"origin": ORIGIN})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (204, ORIGIN)


def test_who_sends_too_much_is_told_to_wait(stored: MemorySink) -> None:
    now = [0.0]
    endpoint = Endpoint(per_minute=3, per_address=30, clock=lambda: now[0])

    def status(token: str, client: str = "a") -> int:
        body = json.dumps({"t": token, "n": "thumbs", "v": True}).encode()
        return endpoint.answer(Asked("POST", "/f", client=client, body=body)).status

    token = loopkit.feedback_token("order:1")
    assert [status(token) for _ in range(4)] == [204, 204, 204, 429]
    now[0] += 20  # a third of a minute: one more
    assert [status(token) for _ in range(2)] == [204, 429]
    others = [loopkit.feedback_token(f"order:{number}") for number in range(40)]
    assert [status(one) for one in others].count(204) == 28  # of the address's thirty, two are spent
    assert status("forged") == 429
    assert status(others[-1], "b") == 204


def test_keys_are_changed_while_tokens_are_about(monkeypatch: pytest.MonkeyPatch, stored: MemorySink) -> None:
    home_made = loopkit.feedback_token("order:1")
    monkeypatch.setenv("LOOPKIT_FEEDBACK_KEYS", "the-new-one-of-length,the old one")
    with pytest.raises(InvalidSetting, match="a feedback key has 11 characters"):
        loopkit.feedback_token("order:1")
    with pytest.raises(InvalidSetting, match="a feedback key has 11 characters"):
        web.FeedbackApp()  # and not: every token is invalid
    own = ["of-an-app-by-itself"]
    token = loopkit.feedback_token("order:2", secrets=own)
    monkeypatch.delenv("LOOPKIT_FEEDBACK_KEYS")
    for app in (web.FeedbackApp, web.FeedbackWsgiApp):
        with pytest.raises(InvalidSetting, match="secrets is empty"):
            app(secrets=[])
        with pytest.raises(InvalidSetting, match="has no path"):
            app(app)
    assert post(token, app=web.FeedbackApp(secrets=own)).status_code == 204
    assert post(token).status_code == 401
    monkeypatch.setenv("LOOPKIT_FEEDBACK_KEYS", "the-old-one-of-length")
    old = loopkit.feedback_token("order:1")
    assert read_token(old).target == "order:1"
    monkeypatch.setenv("LOOPKIT_FEEDBACK_KEYS", "the-new-one-of-length,the-old-one-of-length")
    assert read_token(old).target == "order:1"
    new = loopkit.feedback_token("order:1")
    monkeypatch.setenv("LOOPKIT_FEEDBACK_KEYS", "the-new-one-of-length")
    assert read_token(new).target == "order:1"
    for gone in (old, home_made):
        with pytest.raises(InvalidToken, match="invalid_token"):
            read_token(gone)
    monkeypatch.delenv("LOOPKIT_FEEDBACK_KEYS")
    assert read_token(home_made).target == "order:1"


WORDS = st.text(min_size=1, max_size=40).filter(str.strip)


@given(WORDS, st.sets(WORDS, min_size=1, max_size=5), st.booleans())
def test_a_token_says_what_it_was_given(target: str, names: set[str], once: bool) -> None:
    token = loopkit.feedback_token(target, sorted(names), once=once, origin=ORIGIN, secrets=SECRETS)
    claims = read_token(token, RING)
    assert (claims.target, claims.names, claims.once, claims.origin) == (target, tuple(sorted(names)), once, ORIGIN)
    assert token.isascii()
    assert all(character.isalnum() or character in "-_." for character in token)


@given(st.data())
def test_no_changed_token_passes(data: st.DataObject) -> None:
    token = loopkit.feedback_token("order:1", ["thumbs"], secrets=SECRETS)
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters())
    changed = token[:place] + other + token[place + 1 :]
    try:
        claims = read_token(changed, RING)
    except InvalidToken:
        return
    assert (claims.target, claims.names) == ("order:1", ("thumbs",))  # the last character has bits that say nothing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": []}, "names is"),
        ({"names": [""]}, "names is"),
        ({"origin": "app.example"}, "origin is 'app.example'"),
        ({"origin": "https://app.example/"}, "origin is"),
        ({"expires": 0}, "expires is 0"),
        ({"expires": float("nan")}, "expires is nan"),
        ({"by": 5}, "by is 5"),
        ({"target": "x" * 3000}, "the token has"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str, recorded: MemorySink) -> None:
    with pytest.raises(InvalidInput, match=message):
        loopkit.feedback_token(arguments.pop("target", "order:1"), **arguments)


def test_a_dropped_call_has_no_token() -> None:
    assert loopkit.feedback_token() == ""
    assert post("").status_code == 401


def test_when_nothing_is_recorded_the_page_is_told() -> None:
    answer = post(loopkit.feedback_token("order:1"))
    assert (answer.status_code, answer.json()) == (503, {"error": "not_recording"})


def test_without_a_disk_it_is_taken_and_no_more(recorded: MemorySink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "durable", False)
    assert post(loopkit.feedback_token("order:1")).status_code == 202
    assert len(recorded.events()) == 1


def test_many_at_once_are_all_there(stored: MemorySink) -> None:
    whole = web.FeedbackApp()

    async def run() -> set[int]:
        transport = httpx.ASGITransport(app=whole)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            bodies = [{"t": loopkit.feedback_token(f"order:{n}"), "n": "thumbs", "v": True} for n in range(300)]
            answers = await asyncio.gather(*(client.post("/f", json=body) for body in bodies))
            return {answer.status_code for answer in answers}

    assert asyncio.run(run()) == {204}
    assert len(events()) == 300


def wsgi(app: Any, method: str, path: str, body: bytes = b"", **environ: Any) -> tuple[int, bytes]:
    told: list[str] = []

    def start(status: str, headers: Any) -> None:
        told.append(status)

    request = {
        "REQUEST_METHOD": method, "PATH_INFO": path, "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body),
        "SERVER_NAME": "here", "SERVER_PORT": "80", "wsgi.url_scheme": "http", **environ,
    }  # fmt: skip
    answer = b"".join(app(request, start))
    return int(told[0][:3]), answer


def test_flask_takes_it_in(stored: MemorySink) -> None:
    app = flask.Flask("app")
    app.add_url_rule("/", view_func=lambda: "the application")
    app.wsgi_app = web.FeedbackWsgiApp(app.wsgi_app, path="/loop")  # type: ignore[method-assign]
    body = json.dumps({"t": loopkit.feedback_token("order:1"), "n": "thumbs", "v": True}).encode()
    assert wsgi(app, "GET", "/") == (200, b"the application")
    assert wsgi(app, "POST", "/loop/f", body) == (204, b"")
    assert events() == [("order:1", "thumbs", True)]
    assert wsgi(app, "POST", "/loop/f", b"x" * 20_000)[0] == 413
    for odd in ("abc", "-1", "²", "1 2"):
        assert wsgi(app, "POST", "/loop/f", body, CONTENT_LENGTH=odd)[0] == 400
    assert wsgi(app, "POST", "/loop/f", body, CONTENT_LENGTH="9" * 5000)[0] == 413
    chunked = {"CONTENT_LENGTH": "", "wsgi.input_terminated": True}
    assert wsgi(app, "POST", "/loop/f", body, **chunked)[0] == 204
    assert wsgi(app, "POST", "/loop/f", b"x" * 20_000, **chunked)[0] == 413
    bare = web.FeedbackWsgiApp(path="/loop")
    assert wsgi(bare, "POST", "/f", body)[0] == 404
    assert wsgi(bare, "GET", "/loop/loopkit.js", **{"wsgi.input": None})[0] == 200
    assert wsgi(app, "GET", "/loop/loopkit.js")[1].startswith(b"/* loopkit")
    assert wsgi(app, "HEAD", "/loop/loopkit.js") == (200, b"")


def test_django_takes_it_in(stored: MemorySink) -> None:
    import django
    from django.conf import settings
    from django.core.asgi import get_asgi_application

    if not settings.configured:
        settings.configure(ROOT_URLCONF="tests.signals.urls", ALLOWED_HOSTS=["here"], SECRET_KEY="x", DEBUG=False)
        django.setup()
    app = web.FeedbackApp(get_asgi_application(), path="/loop")

    async def run() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://here") as client:
            body = {"t": loopkit.feedback_token("order:1"), "n": "thumbs", "v": True}
            return [(await client.post("/loop/f", json=body)).status_code, (await client.get("/")).status_code]

    assert asyncio.run(run()) == [204, 200]
    assert events() == [("order:1", "thumbs", True)]


def test_the_token_reaches_the_page_in_a_header_or_at_the_end_of_a_stream(stored: MemorySink) -> None:
    app = fastapi.FastAPI()

    @app.get("/answer")
    async def answer(response: fastapi.Response) -> str:
        with loopkit.span("answer"):
            response.headers[web.FEEDBACK_HEADER] = loopkit.feedback_token()
        return "42"

    @app.get("/stream")
    async def stream() -> fastapi.responses.StreamingResponse:
        async def parts() -> Any:
            with loopkit.span("stream") as s:
                yield "data: 42\n\n"
            yield web.feedback_event(loopkit.feedback_token(s))

        return fastapi.responses.StreamingResponse(parts(), media_type="text/event-stream")

    async def run() -> tuple[str, str]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://here") as client:
            header = (await client.get("/answer")).headers["x-loopkit-feedback"]
            return header, (await client.get("/stream")).text

    header, text = asyncio.run(run())
    spans = {span.name: span.id for span in loopkit.open_store().spans()}
    assert read_token(header).target == spans["answer"]
    assert text.startswith("data: 42\n\nevent: loopkit-feedback\ndata: ")
    assert read_token(text.rpartition("data: ")[2].strip()).target == spans["stream"]


def test_what_is_too_deep_is_refused_and_spoils_nothing(stored: MemorySink) -> None:
    deep: Any = "x"
    for _ in range(250):
        deep = [deep]
    token = loopkit.feedback_token("order:1", ["edited"])
    body = {"t": token, "n": "edited", "v": 0.5, "x": deep}
    assert post(token, body=body).status_code == 422
    with pytest.raises(InvalidInput, match="more than 64 lists and dicts"):
        loopkit.feedback("order:1", correction=deep)
    store = loopkit.open_store()
    loopkit.feedback("order:1", "thumbs", True)
    store.feedback()
    with store.transaction() as connection:  # of a version that took it
        row = "INSERT INTO feedback (id, target, name, at, arrived_at, body) VALUES ('x', 'order:1', 'n', 1, 1, ?)"
        connection.execute(row, (json.dumps({"id": "x", "target": "t", "name": "n", "correction": deep}),))
    assert [event.name for event in store.feedback()] == ["thumbs"]
    assert len(loopkit.held(store).current) == 1


def test_links_in_mails_may_be_followed_with_what_mailers_add(stored: MemorySink) -> None:
    token = loopkit.feedback_token("order:1")
    more = "&".join(f"utm_{n}=x" for n in range(9))
    assert send("GET", f"/f/{token}?n=thumbs&v=true&{more}").status_code == 200


@pytest.mark.parametrize(
    ("given_origin", "kept"),
    [
        ("https://App.Example", "https://app.example"),
        ("https://app.example:443", "https://app.example"),
        ("http://app.example:80", "http://app.example"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_origins_are_kept_as_browsers_write_them(given_origin: str, kept: str, stored: MemorySink) -> None:
    token = loopkit.feedback_token("order:1", origin=given_origin)
    assert read_token(token).origin == kept


def test_where_a_key_cant_be_kept_it_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOPKIT_HOME", str(file / "home"))
        loopkit.feedback_token("order:1")
    assert "set LOOPKIT_FEEDBACK_KEYS" in caplog.text


def test_a_fault_on_the_worker_ends_the_request(stored: MemorySink, monkeypatch: pytest.MonkeyPatch) -> None:
    from loopkit.capture import slot

    def fail(*_: Any, **__: Any) -> bool:
        raise RuntimeError("strict")

    assert slot.recorder is not None
    monkeypatch.setattr(slot.recorder.worker, "flush", fail)
    with pytest.raises(RuntimeError, match="strict"):
        post(loopkit.feedback_token("order:1"))
    monkeypatch.undo()
