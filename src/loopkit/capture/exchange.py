"""What a live span carries of a model call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loopkit.capture.dialects._protocol import Dialect
from loopkit.capture.snapshot import snapshot
from loopkit.wire.messages import dumps


class Exchange:
    """What was asked of a provider and what came back, as JSON texts until somebody reads them."""

    __slots__ = ("bare", "dialect", "provider", "request", "response", "response_id", "time_to_first_token")

    def __init__(self, dialect: Dialect, provider: str, *, bare: bool) -> None:
        """`bare` leaves out what was said, and keeps the facts."""
        self.dialect = dialect
        self.provider = provider
        self.bare = bare
        self.request = "{}"
        self.response: str | None = None
        self.response_id: str | None = None
        self.time_to_first_token: float | None = None

    def ask(self, request: Mapping[str, Any]) -> None:
        """The request, as it is sent."""
        self.request = snapshot(self._without_words(request) if self.bare else request)

    def answer(self, response: Any) -> None:
        """The SDK's response object."""
        leave_out = set(self.dialect.words) if self.bare else None
        self.response = response.model_dump_json(exclude_unset=True, warnings=False, exclude=leave_out)
        self.response_id = getattr(response, "id", None)

    def answer_with(self, response: Mapping[str, Any], text: str | None = None) -> None:
        """The response as plain data, and its JSON text where there is one."""
        if text is None or self.bare:
            text = dumps(self._without_words(response) if self.bare else response)
        self.response, self.response_id = text, response.get("id")

    def _without_words(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in body.items() if name not in self.dialect.words}
