"""What the endpoints have in common that are no conversation: a text goes in, something comes out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal

from loopkit.capture.dialects._content import changed_texts, mapping, sequence
from loopkit.capture.dialects._protocol import Fold
from loopkit.types import Kind, Message, ModelCall, Part, Usage

Request = Mapping[str, Any]


class Endpoint:
    """See `Dialect`. A subclass says what differs."""

    name: str
    operation: str
    kind: Kind = "llm"
    id_field = "id"
    asks: tuple[str, ...] = ()
    """The fields of the request that hold what was said."""
    words: Mapping[str, Any] = {}
    output_type: Literal["text", "json", "image", "speech"] | None = None

    def facts(self, provider: str, request: Request, response: Mapping[str, Any]) -> ModelCall:
        """See `Dialect.facts`."""
        return ModelCall(
            provider=provider,
            operation=self.operation,
            model=request.get("model"),
            response_model=response.get("model"),
            response_id=response.get("id") or None,
            parameters=self.parameters(request),
            usage=self.usage(mapping(response.get("usage"))),
            stream=bool(request.get("stream")),
            output_type=self.output_type,
        )

    def parameters(self, request: Request) -> dict[str, Any]:
        """What else was asked for."""
        said = {*self.asks, "model", "stream", "file", "image", "mask"}
        return {name: value for name, value in request.items() if value is not None and name not in said}

    def usage(self, usage: Mapping[str, Any]) -> Usage:
        """Tokens, as OpenAI's newer endpoints count them."""
        given, made = (mapping(usage.get(f"{side}_tokens_details") or usage.get(f"{side}_token_details"))
                       for side in ("input", "output"))  # fmt: skip
        return Usage(
            input_tokens=usage.get("input_tokens", usage.get("prompt_tokens")),
            output_tokens=usage.get("output_tokens", usage.get("completion_tokens")),
            audio_input_tokens=given.get("audio_tokens"),
            image_input_tokens=given.get("image_tokens"),
            image_output_tokens=made.get("image_tokens"),
        )

    def asked(self, request: Request) -> tuple[Message, ...]:
        """See `Dialect.asked`."""
        parts = tuple(part for name in self.asks for part in text_parts(request.get(name)))
        return (Message(role="user", parts=parts),) if parts else ()

    def answered(self, response: Mapping[str, Any]) -> tuple[Message, ...]:
        """See `Dialect.answered`."""
        return ()

    def kept(self, response: Any) -> Any:
        """See `Dialect.kept`."""
        return response

    def fold(self) -> Fold:
        """See `Dialect.fold`."""
        return LastChunk(self.kept)

    def with_input(self, request: Request, change: Callable[[str], str]) -> dict[str, Any]:
        """See `Dialect.with_input`."""
        return {name: changed_texts(value, change) if name in self.asks else value for name, value in request.items()}

    def hear(self, response: Any, change: Callable[[str], str]) -> None:
        """See `Dialect.hear`."""

    def with_output(self, response: Any, change: Callable[[str], str]) -> Any:
        """See `Dialect.with_output`."""
        return response


class LastChunk:
    """See `Fold`: of a stream that repeats itself until it is whole, the last chunk says all."""

    def __init__(self, kept: Callable[[Any], Any]) -> None:
        self._kept = kept
        self._last: Any = None

    def feed(self, chunk: Any) -> None:
        """See `Fold.feed`."""
        self._last = chunk

    def result(self) -> dict[str, Any]:
        """See `Fold.result`."""
        return as_dict(self._kept(self._last))


def text_parts(value: Any) -> list[Part]:
    """Texts, one by one; tokens by their number; other things as they are."""
    if value is None:
        return []
    if isinstance(value, str):
        return [Part(type="text", content=value)]
    items = sequence(value)
    if items and all(isinstance(item, int) for item in items):
        return [Part(type="tokens", content=list(items))]
    if isinstance(value, Mapping):
        whole = mapping(value)
        return [Part(type="text", content=whole["text"]) if "text" in whole else Part(type="data", content=dict(whole))]
    return [part for item in items for part in text_parts(item)]


def data_part(item: Mapping[str, Any], mime_type: str) -> Part:
    """A picture or sound: where it lies, or itself."""
    if item.get("url"):
        return Part(type="uri", uri=item["url"], mime_type=mime_type)
    return Part(type="blob", content=item.get("b64_json"), mime_type=mime_type)


def as_dict(response: Any) -> dict[str, Any]:
    """An SDK's response as plain data: a pydantic object, a dict, or a text that is JSON or words."""
    value: Any = response
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json", exclude_unset=True, warnings=False)
    if isinstance(value, (str, bytes)):
        try:
            value = json.loads(value)
        except ValueError:
            value = {"text": value if isinstance(value, str) else {"bytes": len(value)}}
    whole: dict[str, Any] = value
    return whole if isinstance(value, dict) else {}
