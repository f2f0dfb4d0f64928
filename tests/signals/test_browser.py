"""loopkit.js in a real browser, against the example's FastAPI application under uvicorn."""

from __future__ import annotations

import gzip
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
import uvicorn
from examples.feedback_page import app
from playwright.sync_api import Browser, Page, sync_playwright

import loopkit
from loopkit.signals.sensors import similarity
from loopkit.types import Feedback

CHROMIUM = next((path for name in ("chromium", "google-chrome", "chrome") if (path := shutil.which(name))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
SCRIPT = files("loopkit.signals") / "static" / "loopkit.js"
DEADLINE = 10.0


def test_the_script_is_small() -> None:
    assert len(gzip.compress(SCRIPT.read_bytes(), 9)) < 3_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    with sync_playwright() as engine:
        started = engine.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def url(clean_environment: Any) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


def open_page(browser: Browser, url: str, **given: Any) -> Page:
    context = browser.new_context(**given)
    page = context.new_page()
    page.goto(url)
    page.wait_for_function("window.loopkit && document.querySelector('main').loopkit")
    return page


def said(*names: str) -> dict[str, Feedback]:
    """What has arrived, by name, when all of these have."""
    deadline = time.monotonic() + DEADLINE
    while True:
        found = {event.name: event for event in loopkit.open_store().feedback()}
        if set(names) <= found.keys() or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def test_everything_that_is_said_and_done(browser: Browser, url: str) -> None:
    page = open_page(browser, url)
    page.click("[data-loopkit-thumb=down]")
    page.wait_for_selector("main[data-loopkit-state=sent]")
    page.click("[data-loopkit-stars]")
    page.fill("form input", "too short ✂")
    page.click("form button")
    page.click("[data-loopkit-regenerate]")
    page.click("[data-loopkit-stop]")
    page.evaluate("getSelection().selectAllChildren(document.getElementById('answer')); document.execCommand('copy')")
    page.fill("textarea", "The answer to 'everything' is 43.")
    page.locator("textarea").blur()
    found = said("thumbs", "stars", "comment")
    page.wait_for_timeout(1_100)
    page.goto("about:blank")
    found = said("thumbs", "stars", "comment", "regenerated", "stopped", "copied", "edited", "dwell")
    values = {name: event.value for name, event in found.items()}
    assert values.pop("dwell") >= 1  # type: ignore[operator]
    before, after = "The answer to 'everything' is 42.", "The answer to 'everything' is 43."
    assert values.pop("edited") == pytest.approx(similarity(before, after))
    assert values == {
        "thumbs": False, "stars": 4.0, "comment": None, "regenerated": True, "stopped": True, "copied": True,
    }  # fmt: skip
    assert found["comment"].comment == "too short ✂"
    assert found["edited"].correction == "The answer to 'everything' is 43."
    kinds = {name: event.kind for name, event in found.items()}
    assert {name for name, kind in kinds.items() if kind == "explicit"} == {"thumbs", "stars", "comment"}
    (span,) = [span for span in loopkit.open_store().spans() if span.name == "page"]
    assert {event.target for event in found.values()} == {span.id}
    assert len({event.by for event in found.values()}) == 1


def test_do_not_track_and_consent_are_kept(browser: Browser, url: str) -> None:
    asks = "Object.defineProperty(navigator, 'doNotTrack', {get: () => '1'})"
    context = browser.new_context()
    context.add_init_script(asks)
    page = context.new_page()
    page.goto(url)
    page.wait_for_function("window.loopkit && document.querySelector('main').loopkit")
    page.click("[data-loopkit-regenerate]")
    page.click("[data-loopkit-thumb=up]")  # said outright
    page.wait_for_selector("main[data-loopkit-state=sent]")
    page.goto("about:blank")
    assert said("thumbs").keys() == {"thumbs"}
    page = open_page(browser, url)
    page.evaluate("loopkit.consent = false")
    page.click("[data-loopkit-thumb=down]")
    page.click("[data-loopkit-stop]")
    page.wait_for_timeout(300)
    page.goto("about:blank")
    page.wait_for_timeout(300)
    assert [event.value for event in loopkit.open_store().feedback()] == [True]


def test_another_sites_page_may_send_where_the_token_says_so(browser: Browser, url: str) -> None:
    token = loopkit.feedback_token("order:1", origin=url.replace("127.0.0.1", "localhost"))
    other = url.replace("127.0.0.1", "localhost")  # another origin to a browser
    page = browser.new_context().new_page()
    send = (
        "async ([to, t]) => (await fetch(to, {method: 'POST', body: JSON.stringify({t, n: 'thumbs', v: true})})).status"
    )
    page.goto(other)
    assert page.evaluate(send, [f"{url}/loop/f", token]) == 204
    page.goto(url)
    assert page.evaluate(send, [f"{url}/loop/f", token]) == 403
    assert said("thumbs")["thumbs"].target == "order:1"


def test_the_page_of_a_link_in_a_mail(browser: Browser, url: str) -> None:
    token = loopkit.feedback_token("order:2", ["thumbs"], origin=url)
    page = browser.new_context().new_page()
    page.goto(f"{url}/loop/f/{token}?n=thumbs&v=false")
    assert loopkit.open_store().feedback() == []
    page.fill("textarea", "from a mail")
    page.click("button")
    page.wait_for_selector("text=Thank you")
    event = said("thumbs")["thumbs"]
    assert (event.target, event.value, event.comment) == ("order:2", False, "from a mail")


def test_it_measures_edits_as_the_library_does(browser: Browser, url: str) -> None:
    page = open_page(browser, url)
    pairs = [["", ""], ["abc", ""], ["kitten", "sitting"], ["a", "a"], ["flaw", "lawn"], ["a  b\n", "a b"],
             ["cärd", "ca\u0308rd"], ["żółw 🐢 x", "żółw 🐙 x"], ["x" * 6000, "x" * 5999 + "y"]]  # fmt: skip
    measured = [page.evaluate("([a, b]) => loopkit.similarity(a, b)", pair) for pair in pairs]
    assert measured == pytest.approx([similarity(*pair) for pair in pairs], abs=2e-6)


SCENE = """([token, other]) => {
  document.body.insertAdjacentHTML('beforeend', '<section id=out><div id=in>' +
    '<button data-loopkit-thumb=up>y</button><textarea data-loopkit-edit></textarea></div></section>');
  const url = document.querySelector('main').getAttribute('data-loopkit-url');
  document.querySelector('#in textarea').value = 'x'.repeat(6000);
  window.outer = loopkit.track(document.getElementById('out'), other, { url });
  window.inner = loopkit.track(document.getElementById('in'), token, { url });
}"""


def test_of_elements_in_each_other_the_innermost_tells_and_half_a_text_is_no_correction(
    browser: Browser, url: str
) -> None:
    page = open_page(browser, url)
    page.evaluate(SCENE, [loopkit.feedback_token("order:in"), loopkit.feedback_token("order:out")])
    page.click("#in button")
    page.fill("#in textarea", "x" * 5999 + "y")
    page.locator("#in textarea").blur()
    page.wait_for_timeout(200)
    page.goto("about:blank")
    found = said("thumbs", "edited")
    assert [(e.target, e.name) for e in loopkit.open_store().feedback() if e.name == "thumbs"] == [
        ("order:in", "thumbs")
    ]
    assert 0.99 < float(found["edited"].value or 0) < 1
    assert found["edited"].correction is None


def test_much_at_once_is_sent_in_portions(browser: Browser, url: str) -> None:
    page = open_page(browser, url)
    token = loopkit.feedback_token("order:1", ["edited"])
    page.evaluate(
        """([token, url]) => { const t = loopkit.track(document.createElement('p'), token, { url });
        for (let n = 0; n < 12; n++) t.note('edited', n / 20, { x: '字'.repeat(4000) }); }""",
        [token, f"{url.rstrip('/')}/loop"],
    )
    deadline = time.monotonic() + DEADLINE
    while len(loopkit.open_store().feedback()) < 12:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_consent_that_is_withdrawn_stops_what_was_not_sent_yet(browser: Browser, url: str) -> None:
    page = open_page(browser, url)
    page.click("[data-loopkit-regenerate]")
    page.evaluate("loopkit.consent = false")
    page.goto("about:blank")
    page.wait_for_timeout(300)
    assert loopkit.open_store().feedback() == []


def test_time_away_doesnt_end_what_is_seen(browser: Browser, url: str) -> None:
    page = open_page(browser, url)
    hide = """hidden => { Object.defineProperty(document, 'hidden', { get: () => hidden, configurable: true });
        document.dispatchEvent(new Event('visibilitychange')); }"""
    page.wait_for_timeout(1_300)
    page.evaluate(hide, True)
    page.wait_for_timeout(500)
    page.evaluate(hide, False)
    page.wait_for_timeout(2_300)
    page.goto("about:blank")
    deadline = time.monotonic() + DEADLINE
    while len([event for event in loopkit.open_store().feedback() if event.name == "dwell"]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first, last = (event.value for event in loopkit.open_store().feedback() if event.name == "dwell")
    assert float(last or 0) >= float(first or 0) + 2
