"""The feedback endpoint as an ASGI app and as a WSGI app, and how its tokens get to a page."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from functools import cached_property
from http import HTTPStatus
from typing import Any, Final

from loopkit.capture import slot
from loopkit.errors import InvalidSetting
from loopkit.signals.endpoint import LARGEST, LARGEST_BATCH, Asked, Endpoint, Reply, refusal
from loopkit.signals.tokens import check_keys, keys

FEEDBACK_HEADER: Final = "X-Loopkit-Feedback"
"""The response header in which a front end looks for the token."""
_FLUSH_SECONDS = 5.0
_DIGITS = 18


def feedback_event(token: str) -> str:
    """The last event of a server-sent stream: `event: loopkit-feedback`, with the token as its data."""
    return f"event: loopkit-feedback\ndata: {token}\n\n"


class _Mounted:
    """What both have: the endpoint, and where it stands."""

    def __init__(
        self,
        app: Any = None,
        *,
        path: str = "",
        per_minute: int = 120,
        per_address: int = 1200,
        secrets: Sequence[str] | None = None,
    ) -> None:
        check_keys()
        self._endpoint = Endpoint(None if secrets is None else keys(secrets), per_minute, per_address)
        self._app = app
        self._path = path.rstrip("/")
        if app is not None and not self._path:
            raise InvalidSetting("the feedback app stands before another and has no path: give path='/loop'")


class FeedbackApp(_Mounted):
    """ASGI app that takes feedback from browsers: `app.mount("/loop", web.FeedbackApp())`.

    `POST /f` takes one event, `POST /f/batch` a list (`navigator.sendBeacon`), `GET /f/TOKEN?n=thumbs&v=true` shows a
    page for links in mails, from which alone is written, `GET /loopkit.js` is the browser's part. It answers 204 when
    what was said is on disk, 202 where there is no disk. Where a framework can't mount ASGI apps, give it the
    framework's own `app` and the `path` to take over: `web.FeedbackApp(django_app, path="/loop")`.

    `per_minute` bounds what one token may send, `per_address` what one address may (a proxy's is everybody's, unless
    the server is told to believe its headers); `secrets` are the keys, as `feedback_token` has them (default:
    `LOOPKIT_FEEDBACK_KEYS`, else one in the home directory).

    Raises `InvalidSetting` for keys that are too short, or an app without a path.
    """

    @cached_property
    def _appended(self) -> _Appended:
        return _Appended()

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        """See the ASGI specification."""
        path = _below(scope, self._path)
        if scope["type"] != "http" or path is None:
            if self._app is not None:
                await self._app(scope, receive, send)
            elif scope["type"] == "http":
                await _send(send, refusal("not_found", Asked("", "")))
            return
        headers = {name.lower(): value for name, value in scope.get("headers") or ()}
        asked = Asked(
            scope["method"], path, scope.get("query_string", b"").decode("latin-1"),
            _text(headers.get(b"origin")), str((scope.get("client") or ("",))[0]),
        )  # fmt: skip
        body = await _body(receive, headers.get(b"content-length"), _most(path))
        if body is None:
            await _send(send, refusal("too_large", asked))
            return
        reply = self._endpoint.answer(replace(asked, body=body))
        if reply.wrote:
            reply = _kept(reply, await self._appended.wait())
        await _send(send, reply, is_head=asked.method == "HEAD")


class FeedbackWsgiApp(_Mounted):
    """The same for WSGI: `app.wsgi_app = web.FeedbackWsgiApp(app.wsgi_app, path="/loop")`."""

    def __call__(self, environ: MutableMapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """See PEP 3333."""
        path = _under(str(environ.get("PATH_INFO", "")), self._path)
        if path is None and self._app is not None:
            passed: Iterable[bytes] = self._app(environ, start_response)
            return passed
        asked = Asked(
            environ["REQUEST_METHOD"], path or "", environ.get("QUERY_STRING", ""), environ.get("HTTP_ORIGIN"),
            environ.get("REMOTE_ADDR", ""),
        )  # fmt: skip
        body = _wsgi_body(environ, _most(asked.path))
        reply = refusal(body, asked) if isinstance(body, str) else self._endpoint.answer(replace(asked, body=body))
        if reply.wrote:
            recorder = slot.recorder
            reply = _kept(reply, recorder is not None and recorder.worker.flush(_FLUSH_SECONDS))
        status = HTTPStatus(reply.status)
        start_response(f"{status.value} {status.phrase}", [*reply.headers, ("content-length", str(len(reply.body)))])
        return [] if asked.method == "HEAD" else [reply.body]


class _Appended:
    """Waits until what was said before is on disk: one flush for all that wait, however many they are."""

    def __init__(self) -> None:
        self._next: dict[asyncio.AbstractEventLoop, asyncio.Future[bool]] = {}
        self._running: dict[asyncio.AbstractEventLoop, asyncio.Task[None]] = {}

    async def wait(self) -> bool:
        """Whether it is; False where there is no disk to be on."""
        loop = asyncio.get_running_loop()
        waits = self._next.get(loop)
        if waits is None:
            waits = self._next[loop] = loop.create_future()
        if loop not in self._running:
            self._running[loop] = loop.create_task(self._run(loop))
        return await asyncio.shield(waits)

    async def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while (waits := self._next.pop(loop, None)) is not None:
                recorder = slot.recorder
                try:
                    kept = recorder is not None and await asyncio.to_thread(recorder.worker.flush, _FLUSH_SECONDS)
                except Exception as error:  # noqa: BLE001  # strict mode's, or the loop is ending: who waits is told
                    waits.set_exception(error)
                else:
                    waits.set_result(kept)
        finally:
            self._running.pop(loop, None)


def _kept(reply: Reply, is_on_disk: bool) -> Reply:
    return Reply(202 if not is_on_disk and reply.status == 204 else reply.status, reply.headers, reply.body)


def _below(scope: Mapping[str, Any], path: str) -> str | None:
    """The path below the mount; None where it isn't there."""
    whole = str(scope.get("path", ""))
    root = str(scope.get("root_path", ""))
    if root and whole.startswith(f"{root}/"):  # a mounted app is told the whole path and where it stands
        whole = whole[len(root) :]
    return _under(whole, path)


def _under(whole: str, path: str) -> str | None:
    if not path:
        return whole
    return whole[len(path) :] if whole.startswith(f"{path}/") else None


def _wsgi_body(environ: Mapping[str, Any], most: int) -> bytes | str:
    """The whole body, or why it isn't read."""
    stream, length = environ.get("wsgi.input"), str(environ.get("CONTENT_LENGTH") or "").strip()
    if stream is None:
        return b""
    if not length:
        body = stream.read(most + 1) if environ.get("wsgi.input_terminated") else b""
        return "too_large" if len(body) > most else bytes(body)
    if not (length.isascii() and length.isdigit()):
        return "bad_request"
    return "too_large" if len(length) > _DIGITS or int(length) > most else bytes(stream.read(int(length)))


def _most(path: str) -> int:
    return LARGEST_BATCH if path == "/f/batch" else LARGEST


async def _body(receive: Callable[[], Awaitable[Mapping[str, Any]]], length: bytes | None, most: int) -> bytes | None:
    """The whole body; None where there is too much, which isn't read."""
    if length is not None and length.isdigit() and (len(length) > _DIGITS or int(length) > most):
        return None
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > most:
            return None
        if message["type"] != "http.request" or not message.get("more_body"):
            return bytes(body)


async def _send(send: Any, reply: Reply, *, is_head: bool = False) -> None:
    headers = [(name.encode(), value.encode("latin-1")) for name, value in reply.headers]
    headers.append((b"content-length", str(len(reply.body)).encode()))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if is_head else reply.body})


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
