"""What browsers send, whatever server stands around it: tokens and bodies in, events and a status out.

Nothing that was recorded is ever in an answer. Refusals are told by one word, and logged without the token.
"""

from __future__ import annotations

import hashlib
import html
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from threading import Lock
from typing import Any, Final
from urllib.parse import parse_qs, quote

from loopkit._json import canonical
from loopkit.capture import slot
from loopkit.capture.dialects._content import mapping
from loopkit.errors import InvalidInput
from loopkit.signals.rewards import MEANINGS
from loopkit.signals.say import feedback
from loopkit.signals.tokens import Claims, InvalidToken, Keys, read_token

_logger = logging.getLogger("loopkit")
LARGEST: Final = 16_384
"""Bytes of one event's body; a batch may have four times as many."""
LARGEST_BATCH: Final = 4 * LARGEST
_MOST_EVENTS: Final = 64
_JSON: Final = ("content-type", "application/json")
_LONGEST_ID: Final = 64
_EVENT: Final = frozenset(("t", "n", "v", "c", "x", "id"))
"""A token, a signal's name, its value, a comment, a correction, and the page's own id, so that it may send again."""
_CORRECTING: Final = frozenset(("edited", "accepted"))
"""Of the names that have a meaning, those that come with a correction."""
_REMEMBERED: Final = 100_000
_MORE: Final = {"too_many": (("retry-after", "10"),), "wrong_method": (("allow", "POST, OPTIONS"),)}
_STATUS: Final = {
    "bad_request": 400, "invalid_token": 401, "expired_token": 401, "wrong_name": 403, "wrong_origin": 403,
    "not_found": 404, "wrong_method": 405, "replayed_token": 409, "too_large": 413, "invalid_value": 422,
    "too_many": 429, "not_recording": 503,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, as far as it matters here."""

    method: str
    path: str
    """Below where the endpoint is mounted."""
    query: str = ""
    origin: str | None = None
    client: str = ""
    """The address it came from."""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back."""

    status: int
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""
    wrote: bool = False
    """Whether events were written, which are to be on disk before this is sent."""


class Refused(Exception):
    """Why nothing is written, in one word."""

    def __init__(self, why: str, token: Any = None) -> None:
        super().__init__(why)
        self.why = why
        self.token = token


@dataclass
class Endpoint:
    """See `loopkit.web.FeedbackApp`."""

    ring: Keys | None = None
    per_minute: int = 120
    """Events that one token may send."""
    per_address: int = 1200
    """Events, refused ones too, that one address may send in a minute."""
    clock: Callable[[], float] = time.monotonic
    _rates: Rates = field(init=False)
    _used: OrderedDict[str, str] = field(init=False, default_factory=OrderedDict)
    _lock: Lock = field(init=False, default_factory=Lock)

    def __post_init__(self) -> None:
        self._rates = Rates(self.clock)

    def answer(self, asked: Asked) -> Reply:
        """The answer to a request whose body has been read."""
        try:
            return self._answered(asked)
        except Refused as refused:
            return refusal(refused.why, asked, refused.token)

    def _answered(self, asked: Asked) -> Reply:
        if asked.method == "OPTIONS":
            return Reply(204, [*_cors(asked), ("access-control-max-age", "600")])
        if asked.path == "/loopkit.js":
            return _script() if asked.method in ("GET", "HEAD") else refusal("wrong_method", asked)
        if asked.path in ("/f", "/f/batch") and asked.method != "POST":
            raise Refused("wrong_method")
        if asked.path == "/f/batch":
            return self._batch(asked)
        if asked.path == "/f":
            self._take(_read(asked.body), asked)
            return Reply(204, _cors(asked), wrote=True)
        token = asked.path.removeprefix("/f/")
        if asked.path.startswith("/f/") and "/" not in token and asked.method in ("GET", "HEAD", "POST"):
            return self._page(token, asked)
        raise Refused("not_found")

    def _batch(self, asked: Asked) -> Reply:
        """What a page sends when it is left: it can't mend anything, so each event is judged by itself."""
        events = _read(asked.body, list)
        if len(events) > _MOST_EVENTS:
            raise Refused("too_large")
        refused: list[dict[str, Any]] = []
        for number, event in enumerate(events):
            try:
                self._take(event, asked)
            except Refused as error:
                _log(error.why, mapping(event).get("t"))
                refused.append({"index": number, "error": error.why})
        told = {"taken": len(events) - len(refused), "refused": refused}
        return Reply(200, [*_cors(asked), _JSON], json.dumps(told).encode(), wrote=len(refused) < len(events))

    def _page(self, token: str, asked: Asked) -> Reply:
        """A link in a mail shows a page; only what is sent from there is written, since scanners follow links."""
        self._slow_down(asked)
        claims = self._claims(token)
        said = _single(asked.body.decode("utf-8", "replace") if asked.method == "POST" else asked.query)
        if said.get("n") not in claims.names:
            raise Refused("wrong_name")
        if asked.method != "POST":
            return _html(_form(said, token))
        event = {"t": token, "n": said["n"], "v": _plain(said.get("v")), "c": said.get("c") or None}
        self._take({name: value for name, value in event.items() if value is not None}, asked)
        return _html("<p>Thank you.</p>", wrote=True)

    def _take(self, event: Any, asked: Asked) -> None:
        """Write one event. Raises `Refused`."""
        given = mapping(event)
        token, name = given.get("t"), given.get("n")
        self._slow_down(asked)
        if not {"t", "n"} <= given.keys() or given.keys() - _EVENT:
            raise Refused("bad_request", token)
        claims = self._claims(token)
        if claims.origin is not None and asked.origin != claims.origin:
            raise Refused("wrong_origin", token)
        if name not in claims.names or ("x" in given and name in MEANINGS and name not in _CORRECTING):
            raise Refused("wrong_name", token)
        if not self._rates.allow(f"t{claims.nonce}", self.per_minute):
            raise Refused("too_many", token)
        if slot.recorder is None:
            raise Refused("not_recording", token)
        id = given.get("id", "")
        if not isinstance(id, str) or len(id) > _LONGEST_ID:
            raise Refused("bad_request", token)
        own = f"web:{claims.nonce}"
        is_first = self._spend(claims, given)
        meaning = MEANINGS.get(name)
        try:
            feedback(
                claims.target, name, given.get("v"), comment=given.get("c"), correction=given.get("x"),
                by=claims.by or own, key=own if claims.once else f"{own}:{id}" if id else None,
                kind="explicit" if meaning is None else meaning.kind,
            )  # fmt: skip
        except InvalidInput:
            if is_first:
                self._used.pop(claims.nonce, None)
            raise Refused("invalid_value", token) from None

    def _claims(self, token: Any) -> Claims:
        try:
            return read_token(token, self.ring)
        except InvalidToken as error:
            raise Refused(error.why, token) from None

    def _slow_down(self, asked: Asked) -> None:
        if not self._rates.allow(f"a{asked.client}", self.per_address):
            raise Refused("too_many")

    def _spend(self, claims: Claims, given: Mapping[str, Any]) -> bool:
        """A token for one event takes that one again, and no other: here, and in the log by its key.

        Whether this is the first time.
        """
        if not claims.once:
            return False
        told = canonical({name: value for name, value in given.items() if name != "t"})
        said = hashlib.sha256(told.encode("utf-8", "replace")).hexdigest()[:32]
        with self._lock:
            is_first = claims.nonce not in self._used
            if self._used.setdefault(claims.nonce, said) != said:
                raise Refused("replayed_token", given["t"])
            while len(self._used) > _REMEMBERED:
                self._used.popitem(last=False)
        return is_first


class Rates:
    """Token buckets by name: so many a minute, in a bounded table."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = Lock()
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allow(self, name: str, per_minute: int) -> bool:
        """Whether one more may pass now."""
        now = self._clock()
        with self._lock:
            left, then = self._left.pop(name, (float(per_minute), now))
            left = min(float(per_minute), left + (now - then) * per_minute / 60)
            self._left[name] = (left - 1 if left >= 1 else left, now)
            while len(self._left) > _REMEMBERED:
                self._left.popitem(last=False)
        return left >= 1


def refusal(why: str, asked: Asked, token: Any = None) -> Reply:
    """A status and one word."""
    _log(why, token)
    headers = [*_cors(asked), _JSON, *_MORE.get(why, ())]
    return Reply(_STATUS[why], headers, json.dumps({"error": why}).encode())


def _log(why: str, token: Any) -> None:
    known = hashlib.sha256(str(token).encode("utf-8", "replace")).hexdigest()[:8] if token else "-"
    _logger.info("loopkit: feedback from a page was refused: %s (token %s)", why, known)


def _cors(asked: Asked) -> list[tuple[str, str]]:
    """Any page may send, without cookies; whether it is the right page the token says when it comes."""
    if asked.origin is None:
        return [("cache-control", "no-store")]
    return [
        ("access-control-allow-origin", asked.origin),
        ("access-control-allow-methods", "POST, GET, OPTIONS"),
        ("access-control-allow-headers", "content-type"),
        ("vary", "origin"),
        ("cache-control", "no-store"),
    ]


def _read(body: bytes, kind: type[Any] = dict) -> Any:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused("bad_request") from None
    if not isinstance(found, kind):
        raise Refused("bad_request")
    return found


def _single(text: str) -> dict[str, str]:
    try:
        return {name: values[-1] for name, values in parse_qs(text, max_num_fields=64).items()}
    except ValueError:
        raise Refused("bad_request") from None


def _plain(value: str | None) -> Any:
    """A link's value: a number or a yes where it looks like one."""
    try:
        found = json.loads(value or "null")
    except ValueError:
        return value
    return found if isinstance(found, (bool, int, float)) else value


def _form(said: Mapping[str, str], token: str) -> str:
    kept = {name: html.escape(said[name], quote=True) for name in ("n", "v") if name in said}
    hidden = "".join(f'<input type="hidden" name="{name}" value="{value}">' for name, value in kept.items())
    what = html.escape(said.get("n", ""))
    value = f" = {html.escape(said['v'])}" if "v" in said else ""
    return (
        f'<form method="post" action="{quote(token)}"><p>Send your feedback: <b>{what}{value}</b>?</p>{hidden}'
        '<p><textarea name="c" rows="3" cols="40" maxlength="4000" aria-label="comment"></textarea></p>'
        '<button type="submit">Send</button></form>'
    )


def _html(inside: str, *, wrote: bool = False) -> Reply:
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Feedback</title><body>{inside}</body></html>'
    headers = [
        ("content-type", "text/html; charset=utf-8"),
        ("content-security-policy", "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"),
        ("referrer-policy", "same-origin"),  # with none at all, the form would be sent from nowhere
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
    ]
    return Reply(200, headers, page.encode(), wrote)


def _script() -> Reply:
    headers = [("content-type", "text/javascript; charset=utf-8"), ("cache-control", "public, max-age=3600"),
               ("access-control-allow-origin", "*"), ("x-content-type-options", "nosniff")]  # fmt: skip
    return Reply(200, headers, (files("loopkit.signals") / "static" / "loopkit.js").read_bytes())
