"""Calls told in our own words: by `record_model_call`, and by frameworks that have their own shapes for everything.

Messages have the shape of OpenTelemetry's GenAI conventions; usage has the names of `loopkit.types.Usage`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

from loopkit.capture.dialects._content import mapping, objects
from loopkit.capture.dialects.openai_chat import message_of
from loopkit.types import Kind, Message, ModelCall, Usage
from loopkit.wire.messages import decode_message, encode_message

Request = Mapping[str, Any]

_USAGE = tuple(field.name for field in fields(Usage))


class Neutral:
    """See `Dialect`. The operation stands in the request."""

    name = "loopkit.call"
    operation = "chat"
    kind: Kind = "llm"
    id_field = "id"
    words: Mapping[str, Any] = {"messages": True, "tools": True, "parameters": True}

    def facts(self, provider: str, request: Request, response: Mapping[str, Any]) -> ModelCall:
        """See `Dialect.facts`."""
        usage = mapping(response.get("usage"))
        reasons = [message.finish_reason for message in self.answered(response)]
        return ModelCall(
            provider=provider,
            operation=request.get("operation") or self.operation,
            model=request.get("model"),
            response_model=response.get("model"),
            response_id=response.get("id"),
            parameters=mapping(request.get("parameters")),
            usage=Usage(**{name: usage.get(name) for name in _USAGE}),
            cost=response.get("cost"),
            finish_reasons=tuple(reason for reason in reasons if reason),
            stream=bool(request.get("stream")),
        )

    def asked(self, request: Request) -> tuple[Message, ...]:
        """See `Dialect.asked`."""
        return tuple(decode_message(item) for item in objects(request.get("messages")))

    def answered(self, response: Mapping[str, Any]) -> tuple[Message, ...]:
        """See `Dialect.answered`."""
        return tuple(decode_message(item) for item in objects(response.get("messages")))

    def kept(self, response: Any) -> Any:
        """See `Dialect.kept`."""
        return response

    def fold(self) -> Any:
        """Such calls are told when they are over: nothing streams."""
        raise NotImplementedError

    def with_input(self, request: Request, change: Callable[[str], str]) -> dict[str, Any]:
        """Nor is there anything left to change."""
        return dict(request)

    def hear(self, response: Any, change: Callable[[str], str]) -> None:
        """See `Dialect.hear`."""
        for message in self.answered(mapping(response)):
            change(message.text)

    def with_output(self, response: Any, change: Callable[[str], str]) -> Any:
        """See `Neutral.with_input`."""
        return response


def told_messages(given: Any, role: str) -> list[dict[str, Any]]:
    """Messages as JSON: of a text, of `Message`s, or of dicts with `content`, as OpenAI has them, or with `parts`."""
    if given is None:
        return []
    if isinstance(given, (str, Message, Mapping)):
        given = [given]
    items: Any = given  # isinstance makes `given` an iterable of unknown types; this stays Any
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise TypeError(f"they are {type(given).__name__}: give a text, a message, or a list of them")
    return [_told(item, role) for item in items]


def _told(item: Any, role: str) -> dict[str, Any]:
    if isinstance(item, str):
        return {"role": role, "parts": [{"type": "text", "content": item}]}
    if isinstance(item, Mapping):
        whole = mapping(item)
        if "parts" in whole:
            return {"role": role, **whole}
        item = replace(message_of({"role": role, **whole}), finish_reason=whole.get("finish_reason"))
    if not isinstance(item, Message):
        raise TypeError(
            f"a message is {type(item).__name__}: give a text, a loopkit.Message, or a dict with role and content"
        )
    return encode_message(item, output=item.finish_reason is not None)
