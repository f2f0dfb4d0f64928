"""Google's generateContent, of the Gemini API and of Vertex AI. Bodies mix camelCase and snake_case: both are read.

Shapes: https://ai.google.dev/api/generate-content and https://ai.google.dev/api/embeddings
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from loopkit.capture.dialects._content import (
    as_tool_turn,
    changed,
    count,
    mapping,
    objects,
    sequence,
    since_the_model_spoke,
    texts_in,
    total,
)
from loopkit.capture.dialects._endpoint import Endpoint
from loopkit.capture.dialects._streams import Place, PlainStream
from loopkit.types import Kind, Message, ModelCall, Part, Usage, Variant

Request = Mapping[str, Any]

_PARAMETERS = {
    "temperature": "temperature",
    "topP": "top_p",
    "topK": "top_k",
    "maxOutputTokens": "max_tokens",
    "stopSequences": "stop_sequences",
    "seed": "seed",
    "frequencyPenalty": "frequency_penalty",
    "presencePenalty": "presence_penalty",
    "candidateCount": "choice.count",
}
_FINISH = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "MALFORMED_FUNCTION_CALL": "error",
    "MALFORMED_RESPONSE": "error",
}
_NOT_PARAMETERS = frozenset(("contents", "systemInstruction", "tools", "model", "generationConfig", "stream"))


class GenerateContent(PlainStream):
    """generateContent, whole and streamed. What the SDK gives back here is the HTTP response, with its body as text."""

    name = "google.generate_content"
    operation = "generate_content"
    kind: Kind = "llm"
    id_field = "responseId"
    words: Mapping[str, Any] = {
        "contents": True, "systemInstruction": True, "tools": True, "candidates": {"__all__": {"content": True}},
    }  # fmt: skip

    def facts(self, provider: str, request: Request, response: Mapping[str, Any]) -> ModelCall:
        """See `Dialect.facts`."""
        asked = camel(request)
        config = mapping(asked.get("generationConfig"))
        said = {_PARAMETERS.get(name, name): value for name, value in config.items() if value is not None}
        said |= {name: value for name, value in asked.items() if value is not None and name not in _NOT_PARAMETERS}
        if said.get("choice.count") == 1:
            del said["choice.count"]
        if isinstance(said.get("top_k"), float):
            said["top_k"] = int(said["top_k"])  # sent as 40.0; an integer in the conventions
        return ModelCall(
            provider=provider,
            operation=self.operation,
            model=request.get("model"),
            response_model=response.get("modelVersion"),
            response_id=response.get("responseId") or None,
            parameters=said,
            usage=_usage(mapping(response.get("usageMetadata"))),
            finish_reasons=tuple(filter(None, map(_finish, objects(response.get("candidates"))))),
            stream=bool(request.get("stream")),
            output_type="json" if config.get("responseMimeType") == "application/json" else None,
        )

    def asked(self, request: Request) -> tuple[Message, ...]:
        """See `Dialect.asked`."""
        asked = camel(request)
        system = mapping(asked.get("systemInstruction"))
        told = (Message(role="system", parts=_parts(system)),) if system else ()
        return told + tuple(_message(content) for content in objects(asked.get("contents")))

    def answered(self, response: Mapping[str, Any]) -> tuple[Message, ...]:
        """See `Dialect.answered`."""
        return tuple(
            Message(role="assistant", parts=_parts(mapping(each.get("content"))), finish_reason=_finish(each))
            for each in objects(response.get("candidates"))
        )

    def kept(self, response: Any) -> Any:
        """See `Dialect.kept`."""
        return _body(response)

    def fold(self) -> GenerateContentFold:
        """See `Dialect.fold`."""
        return GenerateContentFold()

    def with_input(self, request: Request, change: Callable[[str], str]) -> dict[str, Any]:
        """See `Dialect.with_input`."""
        contents = [dict(content) for content in objects(request.get("contents"))]
        roles = [{"role": "assistant" if content.get("role") == "model" else "user"} for content in contents]
        for index in since_the_model_spoke(roles, change):
            contents[index]["parts"] = changed(contents[index].get("parts") or [], change)
        return {**request, "contents": contents}

    def text(self, response: Any) -> str:
        """See `Conversation.text`."""
        if hasattr(response, "candidates"):  # what the application gets
            return str(response.text or "")
        return "".join(texts_in(lambda change: self.hear(response, change)))

    def hear(self, response: Any, change: Callable[[str], str]) -> None:
        """See `Dialect.hear`."""
        self.with_output(response, change)

    def with_output(self, response: Any, change: Callable[[str], str]) -> Any:
        """See `Dialect.with_output`."""
        body = _body(response)
        for each in objects(body.get("candidates")):
            content = each.get("content")
            if isinstance(content, dict):
                content["parts"] = changed(mapping(content).get("parts") or [], change)
        return response.model_copy(update={"body": json.dumps(body)})

    def opened(self, chunk: Any) -> Any:
        """See `PlainStream.opened`."""
        return _body(chunk)

    def closed(self, chunk: Any, plain: Any) -> Any:
        """See `PlainStream.closed`."""
        return chunk.model_copy(update={"body": json.dumps(plain)})

    def places(self, plain: Any) -> Iterator[Place]:
        """See `PlainStream.places`."""
        for each in objects(plain.get("candidates")):
            index, parts = each.get("index") or 0, mapping(each.get("content")).get("parts")
            for number, part in enumerate(objects(parts)):
                if isinstance(part.get("text"), str):
                    yield Place(part, "text", (index, "thought" if part.get("thought") else "text"))
                else:
                    yield Place(parts, number, None)

    def ended(self, chunk: Any) -> list[Any]:
        """See `Streaming.ended`."""
        found = objects(_body(chunk).get("candidates"))
        return [each.get("index") or 0 for each in found if each.get("finishReason")]

    def render(self, variant: Variant, messages: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """See `Conversation.render`."""
        system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
        contents = [
            {"role": "model" if m["role"] == "assistant" else "user", "parts": [{"text": m["content"]}]}
            for m in messages
            if m["role"] != "system"
        ]
        config = {**({"system_instruction": system} if system else {}), **variant.parameters}
        return {"model": variant.model, "contents": contents, **({"config": config} if config else {})}

    def send(self, client: Any, arguments: Mapping[str, Any]) -> Any:
        """See `Conversation.send`."""
        return client.models.generate_content(**arguments)


class GenerateContentFold:
    """Chunks, each of a response's shape; usage is a running total."""

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._candidates: dict[int, dict[str, Any]] = {}

    def feed(self, chunk: Any) -> None:
        """See `Fold.feed`."""
        body = _body(chunk)
        candidates = objects(body.pop("candidates", None))
        self._head.update(body)
        for each in candidates:
            index = each.get("index") or 0
            known = self._candidates.setdefault(index, {"index": index, "content": {"role": "model", "parts": []}})
            known.update({name: value for name, value in each.items() if name != "content"})
            for part in objects(mapping(each.get("content")).get("parts")):
                _append(known["content"]["parts"], dict(part))

    def result(self) -> dict[str, Any]:
        """See `Fold.result`."""
        return {**self._head, "candidates": [each for _, each in sorted(self._candidates.items())]}


class GoogleEmbeddings(Endpoint):
    """batchEmbedContents, embedContent, and Vertex AI's predict. The vectors are not kept."""

    name = "google.embeddings"
    operation = "embeddings"
    kind: Kind = "embedding"
    asks = ("requests", "content", "instances")
    words: Mapping[str, Any] = {"requests": True, "content": True, "instances": True}

    def facts(self, provider: str, request: Request, response: Mapping[str, Any]) -> ModelCall:
        """See `Dialect.facts`."""
        counted = mapping(response.get("usageMetadata")).get("promptTokenCount", response.get("tokens"))
        return ModelCall(
            provider=provider,
            operation=self.operation,
            model=request.get("model"),
            parameters=self.parameters(request),
            usage=Usage(input_tokens=counted),
            dimensions=response.get("dimensions"),
        )

    def asked(self, request: Request) -> tuple[Message, ...]:
        """See `Dialect.asked`."""
        given = [each.get("content") for each in objects(request.get("requests")) + objects(request.get("instances"))]
        contents = [*given, request.get("content")]
        texts = [Part(type="text", content=content) for content in contents if isinstance(content, str)]
        parts = [part for content in contents for part in _parts(mapping(content))]
        return (Message(role="user", parts=(*texts, *parts)),) if texts or parts else ()

    def with_input(self, request: Request, change: Callable[[str], str]) -> dict[str, Any]:
        """See `Dialect.with_input`: the texts alone, not tasks and titles."""

        def within(content: Any) -> Any:
            if isinstance(content, str):
                return change(content)
            whole = mapping(content)
            return {**whole, "parts": changed(whole.get("parts") or [], change)}

        made = dict(request)
        for name in ("requests", "instances"):
            if name in made:
                items = objects(made[name])
                made[name] = [{**i, "content": within(i["content"])} if "content" in i else i for i in items]
        if "content" in made:
            made["content"] = within(made["content"])
        return made

    def kept(self, response: Any) -> Any:
        """See `Dialect.kept`."""
        body = _body(response)
        embeddings = [
            mapping(each.get("embeddings")) or each
            for each in objects(body.get("embeddings")) + objects(body.get("predictions"))
        ] or [mapping(body.get("embedding"))]
        lengths = [len(sequence(each.get("values"))) for each in embeddings]
        counts = [mapping(each.get("statistics")).get("token_count") for each in embeddings]
        found: dict[str, Any] = {"count": len(lengths), "dimensions": lengths[0] if lengths else None}
        if "usageMetadata" in body:
            found["usageMetadata"] = body["usageMetadata"]
        if counts and all(isinstance(count, (int, float)) for count in counts):
            found["tokens"] = int(sum(count for count in counts if count is not None))
        return found


def camel(value: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of an object as the API documents them; those of the objects in it stay."""
    return {_camel(name): item for name, item in value.items()}


def _camel(name: str) -> str:
    return re.sub("_([a-z])", lambda match: match.group(1).upper(), name)


def _body(response: Any) -> dict[str, Any]:
    """A body as plain data: of the SDK's HTTP response, or as it was read already."""
    if isinstance(response, Mapping):
        return dict(mapping(response))
    value: Any = json.loads(getattr(response, "body", None) or "{}")
    whole: dict[str, Any] = value
    return whole if isinstance(value, dict) else {}


def _message(content: Mapping[str, Any]) -> Message:
    parts = _parts(content)
    return as_tool_turn(Message(role="assistant" if content.get("role") == "model" else "user", parts=parts))


def _parts(content: Mapping[str, Any]) -> tuple[Part, ...]:
    return tuple(_part(camel(part)) for part in objects(content.get("parts")))


def _part(part: Mapping[str, Any]) -> Part:
    if "text" in part:
        return Part(type="reasoning" if part.get("thought") else "text", content=part["text"])
    if "functionCall" in part:
        call = mapping(part["functionCall"])
        return Part(type="tool_call", id=call.get("id"), name=call.get("name"), arguments=call.get("args"))
    if "functionResponse" in part:
        answer = mapping(part["functionResponse"])
        content = answer.get("response")
        return Part(type="tool_call_response", id=answer.get("id"), name=answer.get("name"), content=content)
    if "inlineData" in part:
        data = camel(mapping(part["inlineData"]))
        return Part(type="blob", content=data.get("data"), mime_type=data.get("mimeType"))
    if "fileData" in part:
        data = camel(mapping(part["fileData"]))
        return Part(type="uri", uri=data.get("fileUri"), mime_type=data.get("mimeType"))
    kind = next(iter(part), "data")
    return Part(type=kind, content=part.get(kind))


def _append(parts: list[dict[str, Any]], part: dict[str, Any]) -> None:
    """Texts of one kind that follow each other are one."""
    last = parts[-1] if parts else {}
    if set(part) <= {"text", "thought"} and "text" in last and last.get("thought") == part.get("thought"):
        last["text"] += part.get("text") or ""
    else:
        parts.append(part)


def _finish(candidate: Mapping[str, Any]) -> str | None:
    """A call of a tool ends with STOP here: the parts tell."""
    reason = candidate.get("finishReason")
    if not isinstance(reason, str) or reason == "FINISH_REASON_UNSPECIFIED":
        return None
    if reason == "STOP" and any(part.type == "tool_call" for part in _parts(mapping(candidate.get("content")))):
        return "tool_call"
    return _FINISH.get(reason, reason.lower())


def _usage(usage: Mapping[str, Any]) -> Usage:
    """Thoughts are counted apart here, and belong to the output in the conventions; tools' prompts to the input."""
    given, thoughts = usage.get("promptTokenCount"), usage.get("thoughtsTokenCount")
    made, tools = usage.get("candidatesTokenCount"), usage.get("toolUsePromptTokenCount")
    return Usage(
        input_tokens=total(given, tools),
        output_tokens=total(made, thoughts) if made is not None else count(thoughts),
        cache_read_tokens=usage.get("cachedContentTokenCount"),
        reasoning_tokens=thoughts,
        audio_input_tokens=_modality(usage.get("promptTokensDetails"), "AUDIO"),
        audio_output_tokens=_modality(usage.get("candidatesTokensDetails"), "AUDIO"),
        image_input_tokens=_modality(usage.get("promptTokensDetails"), "IMAGE"),
        image_output_tokens=_modality(usage.get("candidatesTokensDetails"), "IMAGE"),
    )


def _modality(details: Any, name: str) -> int | None:
    return next((each.get("tokenCount") for each in objects(details) if each.get("modality") == name), None)
