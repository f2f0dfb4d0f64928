"""Signed tokens: who holds one may say certain things of one call, for a while, and nothing else.

A token is stateless: what it allows stands in it, and nobody can change that without the key. Its two parts, base64url
without padding, are the claims as JSON and their HMAC-SHA256 under the key, cut to 128 bits.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import re
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from loopkit import _host
from loopkit._json import compact_encoder
from loopkit._pseudonyms import pseudonym
from loopkit._secrets import secret_in
from loopkit.capture import slot
from loopkit.capture.decorator import current_span
from loopkit.capture.live import UNRECORDED
from loopkit.config import feedback_keys, home_directory
from loopkit.errors import InvalidInput, InvalidSetting
from loopkit.signals.targets import target_of

_FILE: Final = "feedback.key"
_DAY: Final = 86_400
_SIGNATURE: Final = 16
_SHORTEST: Final = 16
_LONGEST: Final = 2048
_HOST: Final = re.compile(r"[a-z0-9._:-]+")
Why = Literal["invalid_token", "expired_token"]


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token allows."""

    target: str
    names: tuple[str, ...]
    """Signals that may be sent."""
    by: str | None
    """The author, as a pseudonym."""
    origin: str | None
    """The page's origin, such as https://app.example; None for any."""
    expires: int
    """Seconds since the epoch."""
    nonce: str
    """Tells this token from all others."""
    once: bool
    """Whether it is good for one event."""


class InvalidToken(Exception):
    """It is not to be trusted; `why` says it in one word."""

    def __init__(self, why: Why) -> None:
        super().__init__(why)
        self.why = why


class Keys:
    """A ring of secrets: the first signs, all are accepted. So that keys can be changed while tokens are about."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._ring = {_name_of(secret): secret for secret in secrets}
        self._signing = _name_of(secrets[0])

    def sign(self, claims: bytes) -> bytes:
        """The signature, after the name of its key."""
        return self._signing + hmac.digest(self._ring[self._signing], claims, "sha256")[:_SIGNATURE]

    def is_signed(self, claims: bytes, signature: bytes) -> bool:
        """Whether one of the keys has signed exactly this."""
        secret = self._ring.get(signature[:4])
        if secret is None:
            return False
        return hmac.compare_digest(signature[4:], hmac.digest(secret, claims, "sha256")[:_SIGNATURE])


def keys(secrets: Sequence[str]) -> Keys:
    """A ring of these. Raises `InvalidSetting` for none, and for short ones."""
    if isinstance(secrets, str) or not secrets or not all(isinstance(each, str) for each in secrets):
        raise InvalidSetting("secrets is empty, or no list of strings: give the keys, the one that signs first")
    short = next((len(each) for each in secrets if len(each) < _SHORTEST), None)
    if short is not None:
        raise InvalidSetting(f"a feedback key has {short} characters: give {_SHORTEST} random ones or more")
    return Keys([each.encode() for each in secrets])


def check_keys() -> None:
    """Raises `InvalidSetting` where the variable's keys are none: what pages send would look forged."""
    if found := feedback_keys():
        keys(found)


def feedback_token(
    target: Any = None,
    names: Collection[str] = ("thumbs", "stars", "comment", "copied", "regenerated", "stopped", "dwell", "edited"),
    *,
    by: str | None = None,
    origin: str | None = None,
    expires: float = 30 * _DAY,
    once: bool = False,
    secrets: Sequence[str] | None = None,
) -> str:
    """A token with which a browser may say these things of one target, and nothing else.

    `target` is what `feedback` takes; by default the current span. `by` is the author, who stands in it as a pseudonym,
    `origin` the only page that may use it (`https://app.example`), `expires` its seconds of life, `once` makes it good
    for one event. Give it to the front end in a header or at the end of a stream: see `loopkit.web`. `secrets` are the
    keys, the one that signs first (default: `LOOPKIT_FEEDBACK_KEYS`, else one in the home directory).

    Raises `InvalidInput` naming what is wrong. A call that was sampled out has an empty token.
    """
    about = target_of(current_span() if target is None else target)
    if about == UNRECORDED:
        return ""
    listed = (names,) if isinstance(names, str) else tuple(names) if isinstance(names, Collection) else ()
    if not listed or not all(isinstance(name, str) and name.strip() for name in listed):
        raise InvalidInput(f"names is {names!r}: give the signals that may be sent, such as ['thumbs', 'comment']")
    page = None if origin is None else _origin(origin)
    is_number = isinstance(expires, (int, float)) and not isinstance(expires, bool)
    if not is_number or not 0 < expires <= 3650 * _DAY:
        raise InvalidInput(f"expires is {expires!r}: give seconds, at most ten years of them")
    if by is not None and not (isinstance(by, str) and by):
        raise InvalidInput(f"by is {by!r}: give a string that names one person, or leave it out")
    recorder = slot.recorder
    if by is not None:
        by = pseudonym(by, None if recorder is None else recorder.settings.store)
    claims: dict[str, Any] = {"t": about, "n": listed, "e": int(time.time() + expires), "i": os.urandom(8).hex()}
    claims |= {name: value for name, value in (("b", by), ("o", page), ("1", once)) if value}
    ring = _ring() if secrets is None else keys(secrets)
    try:
        body = _encode(claims).encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"the target or a name can't be written as UTF-8 ({error.reason}): give other ones"
        ) from None
    token = f"{_text(body)}.{_text(ring.sign(body))}"
    if len(token) > _LONGEST:
        raise InvalidInput(f"the token has {len(token)} characters: give a shorter target, or fewer names")
    return token


def read_token(token: Any, ring: Keys | None = None) -> Claims:
    """What a token allows. Raises `InvalidToken`."""
    if not isinstance(token, str) or len(token) > _LONGEST:
        raise InvalidToken("invalid_token")
    said, _, signature = token.partition(".")
    ring = ring or _ring()
    try:
        body = _bytes(said)
        is_good = ring.is_signed(body, _bytes(signature))
        claims: dict[str, Any] = json.loads(body) if is_good else {}
    except (ValueError, binascii.Error):
        claims = {}
    if not claims:
        raise InvalidToken("invalid_token")
    if claims["e"] < time.time():
        raise InvalidToken("expired_token")
    return Claims(
        claims["t"], tuple(claims["n"]), claims.get("b"), claims.get("o"), claims["e"], claims["i"], "1" in claims
    )


_encode: Callable[[Any], str] = compact_encoder(str)


def _ring() -> Keys:
    """The process's keys."""
    recorder = slot.recorder
    home = home_directory() if recorder is None else recorder.settings.home
    return _keys_of(feedback_keys(), home)


@lru_cache(maxsize=8)
def _keys_of(secrets: tuple[str, ...], home: Path) -> Keys:
    """Those given, else one in the home directory, made when first needed.

    Several hosts behind one name are to be given the same, or each would know its own only.
    """
    if secrets:
        return keys(secrets)
    found = secret_in(home / _FILE)
    if not (home / _FILE).exists():
        _host.warn_once(
            "feedback key",
            f"the key of feedback tokens can't be kept in {home}, so that no other process takes this one's tokens: "
            "set LOOPKIT_FEEDBACK_KEYS",
        )
    return Keys([found])


def _origin(given: Any) -> str:
    """As browsers write it."""
    parts = urlsplit(given) if isinstance(given, str) else None
    try:
        host, port = (parts.hostname, parts.port) if parts is not None else (None, None)
    except ValueError:
        host, port = None, None
    is_whole = (
        parts is not None and parts.scheme in ("http", "https") and not (parts.path or parts.query or parts.fragment)
    )
    if parts is None or not is_whole or not host or "@" in parts.netloc or not _HOST.fullmatch(host):
        raise InvalidInput(f"origin is {given!r}: give scheme and host alone, such as 'https://app.example'")
    name = f"[{host}]" if ":" in str(host) else host
    is_usual = port in (None, 443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{name}" if is_usual else f"{parts.scheme}://{name}:{port}"


def _name_of(secret: bytes) -> bytes:
    return hashlib.sha256(b"loopkit feedback key " + secret).digest()[:4]


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
