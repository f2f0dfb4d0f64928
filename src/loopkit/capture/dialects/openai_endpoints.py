"""OpenAI's endpoints beside chat and responses, and everything that speaks them.

Shapes: https://platform.openai.com/docs/api-reference
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from loopkit.capture.dialects._content import mapping, objects, sequence
from loopkit.capture.dialects._endpoint import Endpoint, as_dict, data_part
from loopkit.capture.dialects.openai_chat import Chat
from loopkit.types import Kind, Message, ModelCall, Part

Request = Mapping[str, Any]


class Embeddings(Endpoint):
    """Embeddings. The vectors are not kept, only how many there were and how long."""

    name = "openai.embeddings"
    operation = "embeddings"
    kind: Kind = "embedding"
    asks = ("input",)
    words: Mapping[str, Any] = {"input": True}

    def facts(self, provider: str, request: Request, response: Mapping[str, Any]) -> ModelCall:
        """See `Dialect.facts`."""
        lengths = [item.get("dimensions") for item in objects(response.get("data"))]
        return replace(super().facts(provider, request, response), dimensions=lengths[0] if lengths else None)

    def parameters(self, request: Request) -> dict[str, Any]:
        """What else was asked for."""
        found = super().parameters(request)
        format = found.pop("encoding_format", None)
        return found if format is None else {**found, "encoding_formats": [format]}

    def kept(self, response: Any) -> Any:
        """See `Dialect.kept`."""
        if isinstance(response, Mapping):
            return _without_vectors(mapping(response))
        plain = response.model_dump(mode="json", exclude={"data": {"__all__": {"embedding"}}}, warnings=False)
        for item, vector in zip(plain.get("data") or (), response.data or (), strict=False):
            item["dimensions"] = _length(getattr(vector, "embedding", None))
        return plain


class Completions(Endpoint):
    """Legacy completions."""

    name = "openai.completions"
    operation = "text_completion"
    asks = ("prompt", "suffix")
    words: Mapping[str, Any] = {
        "prompt": True,
        "suffix": True,
        "choices": {"__all__": {"text": True, "logprobs": True}},
    }

    def facts(self, provider: str, request: Request, response: Mapping[str, Any]) -> ModelCall:
        """See `Dialect.facts`."""
        rest = {name: value for name, value in request.items() if name not in self.asks}
        return replace(_CHAT.facts(provider, rest, response), operation=self.operation)

    def answered(self, response: Mapping[str, Any]) -> tuple[Message, ...]:
        """See `Dialect.answered`."""
        return tuple(
            Message(
                role="assistant",
                parts=(Part(type="text", content=choice.get("text")),),
                finish_reason=choice.get("finish_reason"),
                logprobs=tuple(sequence(mapping(choice.get("logprobs")).get("token_logprobs"))),
            )
            for choice in objects(response.get("choices"))
        )

    def fold(self) -> CompletionsFold:
        """See `Dialect.fold`."""
        return CompletionsFold()

    def hear(self, response: Any, change: Callable[[str], str]) -> None:
        """See `Dialect.hear`."""
        for choice in response.choices or ():
            change(choice.text or "")

    def with_output(self, response: Any, change: Callable[[str], str]) -> Any:
        """See `Dialect.with_output`."""
        copy = response.model_copy(deep=True)
        for choice in copy.choices or ():
            if choice.text:
                choice.text = change(choice.text)
        return copy


class CompletionsFold:
    """Chunks of a legacy completion."""

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._texts: dict[int, list[str]] = {}
        self._reasons: dict[int, str | None] = {}
        self._usage: Any = None

    def feed(self, chunk: Any) -> None:
        """See `Fold.feed`."""
        if not self._head:
            self._head = {"id": chunk.id, "model": chunk.model}
        if chunk.usage is not None:
            self._usage = chunk.usage
        for choice in chunk.choices or ():
            self._texts.setdefault(choice.index, []).append(choice.text or "")
            self._reasons[choice.index] = choice.finish_reason or self._reasons.get(choice.index)

    def result(self) -> dict[str, Any]:
        """See `Fold.result`."""
        choices = [
            {"index": index, "text": "".join(pieces), "finish_reason": self._reasons[index]}
            for index, pieces in sorted(self._texts.items())
        ]
        usage = None if self._usage is None else self._usage.model_dump(mode="json")
        return {**self._head, "choices": choices, "usage": usage}


class Images(Endpoint):
    """Pictures made, changed or varied."""

    name = "openai.images"
    operation = "generate_content"
    asks = ("prompt",)
    words: Mapping[str, Any] = {"prompt": True, "image": True, "mask": True, "data": True, "b64_json": True}
    output_type = "image"

    def asked(self, request: Request) -> tuple[Message, ...]:
        """See `Dialect.asked`."""
        given = [part for name in ("image", "mask") for part in _files(request.get(name), "image/*")]
        said = [part for message in super().asked(request) for part in message.parts]
        return (Message(role="user", parts=(*said, *given)),) if said or given else ()

    def answered(self, response: Mapping[str, Any]) -> tuple[Message, ...]:
        """See `Dialect.answered`."""
        pictures = objects(response.get("data")) or ([response] if "b64_json" in response else [])
        mime = f"image/{response.get('output_format') or '*'}"
        parts: list[Part] = []
        for item in pictures:
            if item.get("revised_prompt"):
                parts.append(Part(type="text", content=item["revised_prompt"]))
            parts.append(data_part(item, mime))
        return (Message(role="assistant", parts=tuple(parts)),) if parts else ()

    def kept(self, response: Any) -> Any:
        """See `Dialect.kept`."""
        return response if hasattr(response, "model_dump_json") else as_dict(response)


class Speech(Endpoint):
    """Text read aloud."""

    name = "openai.speech"
    operation = "generate_content"
    asks = ("input",)
    words: Mapping[str, Any] = {"input": True, "instructions": True, "data": True}
    output_type = "speech"

    def asked(self, request: Request) -> tuple[Message, ...]:
        """See `Dialect.asked`."""
        told = tuple(text_message("system", request.get("instructions")))
        return told + super().asked(request)

    def answered(self, response: Mapping[str, Any]) -> tuple[Message, ...]:
        """See `Dialect.answered`."""
        sound = response.get("data")
        part = Part(type="blob", content=sound, mime_type=response.get("mime_type"))
        return () if sound is None else (Message(role="assistant", parts=(part,)),)

    def kept(self, response: Any) -> Any:
        """See `Dialect.kept`."""
        if isinstance(response, Mapping):
            return mapping(response)
        if isinstance(response, (str, bytes)):  # read as it came: what it was can't be told from its text
            return {}
        inner = getattr(response, "response", response)
        is_read = getattr(inner, "is_closed", False)
        return {"data": inner.content if is_read else None, "mime_type": inner.headers.get("content-type")}


class Transcriptions(Endpoint):
    """Sound written down, in its own language or in English."""

    name = "openai.transcriptions"
    operation = "generate_content"
    asks = ("prompt",)
    words: Mapping[str, Any] = {"prompt": True, "file": True, "text": True, "segments": True, "words": True}
    output_type = "text"

    def asked(self, request: Request) -> tuple[Message, ...]:
        """See `Dialect.asked`."""
        told = tuple(text_message("system", request.get("prompt")))
        sound = tuple(_files(request.get("file"), "audio/*"))
        return (*told, Message(role="user", parts=sound)) if sound else told

    def answered(self, response: Mapping[str, Any]) -> tuple[Message, ...]:
        """See `Dialect.answered`."""
        return tuple(text_message("assistant", response.get("text")))

    def kept(self, response: Any) -> Any:
        """See `Dialect.kept`."""
        return response if hasattr(response, "model_dump_json") else as_dict(response)

    def hear(self, response: Any, change: Callable[[str], str]) -> None:
        """See `Dialect.hear`."""
        change(response if isinstance(response, str) else response.text)

    def with_output(self, response: Any, change: Callable[[str], str]) -> Any:
        """See `Dialect.with_output`."""
        if isinstance(response, str):
            return change(response)
        return response.model_copy(update={"text": change(response.text)})


class Moderations(Endpoint):
    """What a provider's own check says of texts and pictures."""

    name = "openai.moderations"
    operation = "moderation"
    asks = ("input",)
    words: Mapping[str, Any] = {"input": True}
    output_type = "json"

    def answered(self, response: Mapping[str, Any]) -> tuple[Message, ...]:
        """See `Dialect.answered`."""
        parts = tuple(Part(type="moderation", content=dict(item)) for item in objects(response.get("results")))
        return (Message(role="assistant", parts=parts),) if parts else ()


class Batches(Endpoint):
    """Calls handed in together; what comes of them is fetched later, and told by nobody here."""

    name = "openai.batches"
    operation = "batch"

    def facts(self, provider: str, request: Request, response: Mapping[str, Any]) -> ModelCall:
        """See `Dialect.facts`. A batch just made has used nothing."""
        return replace(super().facts(provider, request, {**response, "usage": None}), output_type=None)


def text_message(role: str, text: Any) -> list[Message]:
    """A message of one text, where there is one."""
    return [Message(role=role, parts=(Part(type="text", content=text),))] if isinstance(text, str) and text else []


def _files(value: Any, mime_type: str) -> list[Part]:
    """What was uploaded: itself, or a name where the SDK was to read it from somewhere."""
    parts: list[Part] = []
    for item in sequence(value) or [value]:
        told = mapping(item)
        content, name = told.get("data", item if isinstance(item, str) else None), told.get("name")
        if content is not None or name is not None:
            kind = "file" if content is None else "blob"
            parts.append(Part(type=kind, content=content, name=name, mime_type=mime_type))
    return parts


def _without_vectors(response: Mapping[str, Any]) -> dict[str, Any]:
    data = [
        {**{k: v for k, v in item.items() if k != "embedding"}, "dimensions": _length(item.get("embedding"))}
        for item in objects(response.get("data"))
    ]
    return {**response, "data": data}


def _length(vector: Any) -> int | None:
    """Of a vector, as floats or as base64 of four bytes each."""
    if isinstance(vector, str):
        return len(vector) * 3 // 4 // 4
    return len(vector) if hasattr(vector, "__len__") else None


_CHAT = Chat()
