"""A page that takes feedback in the browser. Run it with `python examples/feedback_page.py` (needs fastapi, uvicorn).

Open http://127.0.0.1:8000, press a thumb, write a comment, copy or edit the answer, then look:
`loopkit feedback list`.
"""

import html
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from fastapi.responses import HTMLResponse

import loopkit
from loopkit import web


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    loopkit.init(service="answers")
    yield
    await loopkit.ashutdown()


app = FastAPI(lifespan=lifespan)
app.mount("/loop", web.FeedbackApp())

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>An answer</title>
<script src="/loop/loopkit.js" defer></script>
<main data-loopkit="{token}" data-loopkit-url="/loop">
  <p id="answer">{answer}</p>
  <button data-loopkit-thumb="up">👍</button> <button data-loopkit-thumb="down">👎</button>
  <button data-loopkit-stars="4">★★★★</button>
  <button data-loopkit-regenerate>Again</button> <button data-loopkit-stop>Stop</button>
  <textarea data-loopkit-edit>{answer}</textarea>
  <form data-loopkit-comment><input name="comment" aria-label="comment"><button>Send</button></form>
</main></html>"""


@loopkit.trace(task="answer")
def answer(question: str) -> str:
    return f"The answer to {question!r} is 42."


@app.get("/")
async def page(question: str = "everything") -> HTMLResponse:
    with loopkit.span("page") as request:
        token = loopkit.feedback_token(request)
        return HTMLResponse(
            PAGE.format(token=token, answer=html.escape(answer(question))), headers={web.FEEDBACK_HEADER: token}
        )


def check() -> None:
    """What the page's script does, without a browser, as the tests do."""
    import asyncio

    import httpx

    async def run() -> None:
        async with (
            lifespan(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://here") as client,
        ):
            token = (await client.get("/")).headers[web.FEEDBACK_HEADER]
            sent = await client.post("/loop/f", json={"t": token, "n": "thumbs", "v": True})
            print(sent.status_code, [event.name for event in loopkit.open_store().feedback()])

    asyncio.run(run())


if __name__ == "__main__":
    if "--check" in sys.argv:
        check()
    else:
        uvicorn.run(app, port=8000)
