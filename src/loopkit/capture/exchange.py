"""What a live span carries of a model call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from loopkit.capture.dialects._content import objects
from loopkit.capture.dialects._protocol import Dialect
from loopkit.capture.schemas import Schema, schema_in
from loopkit.capture.snapshot import CUT_WHOLE, TRUNCATED, fits, snapshot


class Exchange:
    """What was asked of a provider and what came back, as JSON texts until somebody reads them."""

    __slots__ = (
        "bare", "dialect", "provider", "request", "response", "response_id", "schema", "server", "time_to_first_token",
    )  # fmt: skip

    def __init__(self, dialect: Dialect, provider: str, *, bare: bool, server: str | None = None) -> None:
        """`bare` leaves out what was said, and keeps the facts; `server` is the URL called, or its beginning."""
        self.dialect = dialect
        self.provider = provider
        self.bare = bare
        self.server = server
        self.request = "{}"
        self.schema: Schema | None = None
        """What the answer is to look like."""
        self.response: str | None = None
        self.response_id: str | None = None
        self.time_to_first_token: float | None = None

    def ask(self, request: Mapping[str, Any]) -> None:
        """The request, as it is sent."""
        self.schema = schema_in(request)
        self.request = self._text(without(request, self.dialect.words) if self.bare else request)

    def answer(self, given: Any) -> None:
        """The SDK's response object."""
        response = self.dialect.kept(given)
        if response is None or isinstance(response, (str, list)):  # a server may answer anything
            self.response = None if self.bare else snapshot(response)
            return
        if not hasattr(response.__class__, "model_dump_json"):
            self.answer_with(response)
            return
        leave_out: Any = self.dialect.words if self.bare else None
        try:
            text = response.model_dump_json(exclude_unset=True, warnings=False, exclude=leave_out)
        except Exception:  # noqa: BLE001  # half a surrogate pair, say, which JSON can hold and UTF-8 can't
            text = self._text(without(response.model_dump(warnings=False), leave_out or {}))
        self.response = text if fits(text) else self._text(json.loads(text))
        self.response_id = _text(getattr(response, self.dialect.id_field, None))

    def answer_with(self, response: Mapping[str, Any], text: str | None = None) -> None:
        """The response as plain data, and its JSON text where there is one."""
        if text is None or self.bare or not fits(text):
            text = self._text(without(response, self.dialect.words) if self.bare else response)
        self.response, self.response_id = text, _text(response.get(self.dialect.id_field))

    def _text(self, body: Mapping[str, Any]) -> str:
        """As JSON. What is too large even with its texts cut keeps what isn't words: its facts."""
        text = snapshot(body, with_bytes=True)
        if not text.startswith(CUT_WHOLE):
            return text
        size = json.loads(text)[TRUNCATED]
        return snapshot({TRUNCATED: size, **without(body, self.dialect.words)})


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def without(body: Mapping[str, Any], words: Mapping[str, Any]) -> dict[str, Any]:
    """A copy without some fields: those that `words` maps to True, and in the items of lists those below "__all__"."""
    kept: dict[str, Any] = {}
    for name, value in body.items():
        below = words.get(name)
        if below is None:
            kept[name] = value
        elif below is not True:
            kept[name] = [without(item, below["__all__"]) for item in objects(value)]
    return kept
