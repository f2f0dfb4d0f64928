"""OpenAI's chat completions, and everything that speaks them: Groq, Together, vLLM, Ollama, llama.cpp, …

Shapes: https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

from loopkit.capture.dialects._content import (
    INSTRUCT,
    NOT_SAID,
    Listener,
    change_within,
    changed,
    for_tool,
    json_or_text,
    mapping,
    objects,
    other_part,
    sequence,
    since_the_model_spoke,
    some,
    texts_in,
)
from loopkit.capture.dialects._protocol import Fold, Piece
from loopkit.types import Kind, Message, ModelCall, Part, Usage, Variant

Request = Mapping[str, Any]

_PARAMETERS = {
    "reasoning_effort": "reasoning.level",
    "temperature": "temperature",
    "top_p": "top_p",
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "seed": "seed",
    "stop": "stop_sequences",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "n": "choice.count",
}
_OTHER_TEXTS = ("refusal", "reasoning_content", "reasoning")
_FINISH = {"tool_calls": "tool_call", "function_call": "tool_call"}
_NOT_PARAMETERS = frozenset(("messages", "model", "tools", "stream", "stream_options"))


class Chat:
    """Chat completions."""

    name = "openai.chat"
    operation = "chat"
    kind: Kind = "llm"
    id_field = "id"
    words: Mapping[str, Any] = {
        "messages": True,
        "tools": True,
        "choices": {"__all__": {"message": True, "logprobs": True}},
    }

    def facts(self, provider: str, request: Request, response: Mapping[str, Any]) -> ModelCall:
        """See `Dialect.facts`."""
        reasons = (choice.get("finish_reason") for choice in objects(response.get("choices")))
        return ModelCall(
            provider=provider,
            operation=self.operation,
            model=request.get("model"),
            response_model=response.get("model"),
            response_id=response.get("id") or None,
            parameters=_parameters(request),
            usage=_usage(mapping(response.get("usage"))),
            finish_reasons=tuple(_finish(reason) for reason in reasons if isinstance(reason, str) and reason),
            system_fingerprint=response.get("system_fingerprint"),
            stream=bool(request.get("stream")),
            output_type=_output_type(mapping(request.get("response_format"))),
        )

    def asked(self, request: Request) -> tuple[Message, ...]:
        """See `Dialect.asked`."""
        return tuple(message_of(item) for item in objects(request.get("messages")))

    def answered(self, response: Mapping[str, Any]) -> tuple[Message, ...]:
        """See `Dialect.answered`."""
        return tuple(_answer(choice) for choice in objects(response.get("choices")))

    def kept(self, response: Any) -> Any:
        """See `Dialect.kept`."""
        return response

    def fold(self) -> Fold:
        """See `Dialect.fold`."""
        return ChatFold()

    def with_input(self, request: Request, change: Callable[[str], str]) -> dict[str, Any]:
        """See `Dialect.with_input`."""
        messages = list(sequence(request.get("messages")))
        for index in since_the_model_spoke(messages, change):
            role = messages[index].get("role")
            if role not in (*INSTRUCT, "assistant"):
                said = for_tool(change, "tool_result") if role in ("tool", "function") else change
                messages[index] = {**messages[index], "content": changed(messages[index].get("content"), said)}
        return {**request, "messages": messages}

    def text(self, response: Any) -> str:
        """See `Dialect.text`."""
        return "".join(c.message.content or "" for c in some(response, "choices") if c.message)

    def hear(self, response: Any, change: Callable[[str], str]) -> None:
        """See `Dialect.hear`."""
        self._changed(response, change)

    def with_output(self, response: Any, change: Callable[[str], str]) -> Any:
        """See `Dialect.with_output`. What the SDK had parsed from a changed text is taken away."""
        return self._changed(response.model_copy(deep=True), change)

    def _changed(self, response: Any, change: Callable[[str], str]) -> Any:
        for choice in some(response, "choices"):
            message = getattr(choice, "message", None)
            if not message:
                continue
            before = (message.content, *(getattr(message, name, None) for name in _OTHER_TEXTS))
            for name in ("content", *_OTHER_TEXTS):
                change_text(message, name, "parsed", change)
            if getattr(message, "function_call", None) is not None:
                _change_function(message.function_call, None, change)
            if getattr(message, "audio", None) is not None:
                change_text(message.audio, "transcript", None, change)
            for call in some(message, "tool_calls"):
                if getattr(call, "function", None) is not None:
                    _change_function(call.function, "parsed_arguments", change)
                if getattr(call, "custom", None) is not None:
                    change_text(call.custom, "input", None, for_tool(change, "tool_call", call.custom.name))
            _change_others(message, change)
            after = (message.content, *(getattr(message, name, None) for name in _OTHER_TEXTS))
            if after != before and getattr(choice, "logprobs", None) is not None:
                choice.logprobs = None  # its tokens are the words
        return response

    def render(self, variant: Variant, messages: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """See `Dialect.render`."""
        return {"model": variant.model, "messages": [dict(m) for m in messages], **variant.parameters}

    def send(self, client: Any, arguments: Mapping[str, Any]) -> Any:
        """See `Dialect.send`."""
        return client.chat.completions.create(**arguments)


def _change_function(function: Any, parsed: str | None, change: Callable[[str], str]) -> None:
    called = for_tool(change, "tool_call", getattr(function, "name", None))
    if function.arguments == "" and isinstance(called, Listener):
        called("{}")  # its name is to be heard all the same
    change_text(function, "arguments", parsed, called)


def _change_others(message: Any, change: Callable[[str], str]) -> None:
    """What providers add to a message, whatever it is, and what a message may hold besides words."""
    extra: dict[str, Any] = getattr(message, "model_extra", None) or {}
    for name, value in list(extra.items()):
        if name not in _KNOWN and name not in NOT_SAID:
            setattr(message, name, changed(value, change))
    content: Any = message.content
    if isinstance(content, list):
        message.content = changed(content, change)
    for each in some(message, "annotations"):
        change_within(each, change)


class OpenAIChat(Chat):
    """Of OpenAI's own SDK and those made like it, whose objects and chunks are alike."""

    says_twice = False

    def with_turns(self, request: Request, turns: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """See `Dialect.with_turns`."""
        more = [{"role": role, "content": text} for role, text in turns]
        return {**request, "messages": [*sequence(request.get("messages")), *more]}

    def pieces(self, chunk: Any) -> list[Piece]:
        """See `Streaming.pieces`."""
        return [piece for piece, _ in _pieces(chunk)]

    def ended(self, chunk: Any) -> list[Any]:
        """See `Streaming.ended`."""
        return [choice.index for choice in some(chunk, "choices") if choice.finish_reason]

    def with_pieces(self, chunk: Any, texts: Sequence[str]) -> Any:
        """See `Streaming.with_pieces`."""
        copy = chunk.model_copy(deep=True)
        for (piece, put), text in zip(_pieces(copy), texts, strict=True):
            if text != piece.text:
                put(text)
        for choice in some(copy, "choices"):
            if getattr(choice, "logprobs", None) is not None:
                choice.logprobs = None
            if choice.model_extra and "token_ids" in choice.model_extra:
                del choice.model_extra["token_ids"]
        return copy


class ChatFold:
    """Chunks of a chat completion. Reads the SDK's objects directly: this runs once a token."""

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._choices: dict[int, _Choice] = {}
        self._usage: Any = None

    def feed(self, chunk: Any) -> None:
        """See `Fold.feed`."""
        if not self._head:
            self._head = {"id": chunk.id, "model": chunk.model}
        if (fingerprint := getattr(chunk, "system_fingerprint", None)) is not None:
            self._head["system_fingerprint"] = fingerprint
        if (usage := getattr(chunk, "usage", None)) is not None:
            self._usage = usage
        elif (groq := chunk.__dict__.get("x_groq")) is not None and groq.usage is not None:
            self._usage = groq.usage
        for choice in chunk.choices or ():
            found = self._choices.get(choice.index)
            if found is None:
                found = self._choices[choice.index] = _Choice()
            found.feed(choice)

    def result(self) -> dict[str, Any]:
        """See `Fold.result`."""
        usage = self._usage if self._usage is None else self._usage.model_dump(mode="json")
        choices = [{"index": i, **choice.result()} for i, choice in sorted(self._choices.items())]
        return {**self._head, "choices": choices, "usage": usage}


class _Choice:
    def __init__(self) -> None:
        self.role = "assistant"
        self.texts: dict[str, list[str]] = {}
        self.calls: dict[int, dict[str, Any]] = {}
        self.function: dict[str, str] = {}
        """Legacy: the one function that the model calls."""
        self.finish_reason: str | None = None
        self.logprobs: list[Any] = []
        self.token_ids: list[int] = []
        self.sound: dict[str, list[str]] = {}

    def feed(self, choice: Any) -> None:
        delta = choice.delta
        if choice.finish_reason is not None:
            self.finish_reason = choice.finish_reason
        self.logprobs += getattr(choice.__dict__.get("logprobs"), "content", None) or ()
        if choice.model_extra and "token_ids" in choice.model_extra:
            self.token_ids += choice.model_extra["token_ids"] or ()
        if delta is None:
            return
        if delta.content:
            self.texts.setdefault("content", []).append(delta.content)
        # Asking a pydantic object for what it lacks costs more than all the rest: look where its fields lie.
        self._feed_texts(delta.__dict__)
        if delta.model_extra:
            self._feed_texts(delta.model_extra)
        if delta.tool_calls:
            for call in delta.tool_calls:
                self._feed_call(call)

    def _feed_texts(self, fields: Mapping[str, Any]) -> None:
        for name in _OTHER_TEXTS:
            if isinstance(text := fields.get(name), str) and text:
                self.texts.setdefault(name, []).append(text)
        if (function := fields.get("function_call")) is not None:
            for name in ("name", "arguments"):
                self.function[name] = self.function.get(name, "") + (getattr(function, name, None) or "")
        if (sound := fields.get("audio")) is not None:
            for name, piece in mapping(sound if isinstance(sound, dict) else sound.__dict__).items():
                self.sound.setdefault(name, []).append(piece)

    def _feed_call(self, call: Any) -> None:
        known = self.calls.setdefault(call.index, {"id": None, "type": "function", "name": "", "said": ""})
        known["id"] = call.id or known["id"]
        if call.function is not None:
            known["name"] += call.function.name or ""
            known["said"] += call.function.arguments or ""
        elif custom := mapping(mapping(call.model_extra).get("custom")):
            known["type"] = "custom"
            known["name"] += custom.get("name") or ""
            known["said"] += custom.get("input") or ""

    def result(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": self.role, "content": None}
        message.update({name: "".join(pieces) for name, pieces in self.texts.items()})
        if self.sound:
            message["audio"] = _joined(self.sound)
        if self.function:
            message["function_call"] = self.function
        if self.calls:
            says = {"function": "arguments", "custom": "input"}
            message["tool_calls"] = [
                {
                    "id": c["id"],
                    "type": c["type"],
                    c["type"]: {"name": c["name"], says[c["type"]]: c["said"]},
                }
                for _, c in sorted(self.calls.items())
            ]
        result: dict[str, Any] = {"message": message, "finish_reason": self.finish_reason}
        if self.logprobs:
            result["logprobs"] = {"content": [token.model_dump() for token in self.logprobs]}
        if self.token_ids:
            result["token_ids"] = self.token_ids
        return result


def _pieces(chunk: Any) -> Iterator[_Place]:
    """What a chunk says, each with what puts something else in its place."""
    for choice in some(chunk, "choices"):
        if choice.delta is not None:
            yield from _words(choice.index, choice.delta)
            yield from _calls(choice.index, choice.delta)
            yield from _others(choice.index, choice.delta)


_Place: TypeAlias = "tuple[Piece, Callable[[str], None]]"


def _words(index: int, delta: Any) -> Iterator[_Place]:
    fields: dict[str, Any] = delta.__dict__
    extra: dict[str, Any] = delta.model_extra or {}
    for name in ("content", *_OTHER_TEXTS):  # where its fields lie: to ask for what it lacks costs most of all
        if isinstance(text := fields.get(name, extra.get(name)), str) and text:
            yield Piece((index, name), text), partial(setattr, delta, name)
    sound: Any = fields.get("audio", extra.get("audio"))
    if isinstance(text := _field(sound, "transcript"), str):
        yield Piece((index, "audio"), text), partial(_put, sound, "transcript")


def _calls(index: int, delta: Any) -> Iterator[_Place]:
    if (function := delta.__dict__.get("function_call")) is not None:
        piece = Piece((index, "function_call"), function.arguments or "", "tool_call", function.name)
        yield piece, partial(setattr, function, "arguments")
    for call in delta.tool_calls or ():
        channel = (index, "tool", call.index)
        if call.function is not None:
            function = call.function
            said = Piece(channel, function.arguments or "", "tool_call", function.name)
            yield said, partial(setattr, function, "arguments")
        elif custom := mapping(mapping(call.model_extra).get("custom")):
            said = Piece(channel, custom.get("input") or "", "tool_call", custom.get("name"))
            yield said, partial(_put, custom, "input")


def _others(index: int, delta: Any) -> Iterator[_Place]:
    """What providers add, whatever it is."""
    named: dict[str, Any] = dict(delta.model_extra or {})
    if isinstance(delta.__dict__.get("content"), list):
        named["content"] = delta.content
    for name, value in named.items():
        if isinstance(value, str) and value and name not in _KNOWN and name not in NOT_SAID:
            yield Piece((index, name), value), partial(setattr, delta, name)
        elif isinstance(value, (list, dict)) and name != "audio" and texts_in(partial(changed, value)):
            whole = json.dumps(value, ensure_ascii=False, default=str)
            yield Piece((index, name), whole, is_whole=True), partial(_put_json, delta, name)


_KNOWN = frozenset(("content", "audio", "function_call", "tool_calls", "role", *_OTHER_TEXTS))


def _field(thing: Any, name: str) -> Any:
    return mapping(thing).get(name) if isinstance(thing, Mapping) else getattr(thing, name, None)


def _put(place: Any, name: str, text: str) -> None:
    if isinstance(place, dict):
        place[name] = text
    else:
        setattr(place, name, text)


def _put_json(thing: Any, name: str, text: str) -> None:
    """What couldn't be put back goes."""
    setattr(thing, name, json_or_text(text))


def _joined(sound: Mapping[str, list[Any]]) -> dict[str, Any]:
    """What was said aloud, of its pieces: each piece of the sound is base64 by itself."""
    said = {name: [piece for piece in pieces if isinstance(piece, str)] for name, pieces in sound.items()}
    data = b"".join(map(_decoded, said.get("data", ())))
    return {
        "id": next(iter(said.get("id", ())), None),
        "transcript": "".join(said.get("transcript", ())),
        "data": base64.b64encode(data).decode(),
    }


def _decoded(piece: str) -> bytes:
    try:
        return base64.b64decode(piece)
    except ValueError:  # cut in the middle
        return b""


def change_text(thing: Any, name: str, parsed: str | None, change: Callable[[str], str]) -> None:
    """Change a text of an SDK's object; what the SDK had parsed from it goes where it is another now."""
    text = getattr(thing, name, None)
    if not isinstance(text, str) or not text or (said := change(text)) == text:
        return
    setattr(thing, name, said)
    if parsed is not None and getattr(thing, parsed, None) is not None:
        setattr(thing, parsed, None)


def message_of(item: Mapping[str, Any]) -> Message:
    """A message as the API has it."""
    role = item.get("role") or "user"
    if role == "tool":
        parts = [Part(type="tool_call_response", id=item.get("tool_call_id"), content=item.get("content"))]
        return Message(role=role, parts=tuple(parts))
    return Message(role=role, parts=tuple(_parts(item)), name=item.get("name"))


def _answer(choice: Mapping[str, Any]) -> Message:
    message, reason = mapping(choice.get("message")), choice.get("finish_reason")
    return Message(
        role=message.get("role") or "assistant",
        parts=tuple(_parts(message)),
        finish_reason=_finish(reason) if isinstance(reason, str) and reason else None,
        logprobs=tuple(token["logprob"] for token in objects(mapping(choice.get("logprobs")).get("content"))),
        token_ids=tuple(sequence(choice.get("token_ids"))),
    )


def _output_type(format: Mapping[str, Any]) -> Literal["json"] | None:
    return "json" if format.get("type") in ("json_object", "json_schema") else None


def _parts(item: Mapping[str, Any]) -> list[Part]:
    parts: list[Part] = []
    if reasoning := item.get("reasoning_content") or item.get("reasoning"):
        parts.append(Part(type="reasoning", content=reasoning))
    content = item.get("content")
    if isinstance(content, str):
        if content:
            parts.append(Part(type="text", content=content))
    else:
        parts += [_content_part(piece) for piece in objects(content)]
    if refusal := item.get("refusal"):
        parts.append(Part(type="refusal", content=refusal))
    if sound := mapping(item.get("audio")):
        if sound.get("transcript"):
            parts.append(Part(type="text", content=sound["transcript"]))
        parts.append(Part(type="blob", content=sound.get("data"), id=sound.get("id"), mime_type="audio/*"))
    for call in objects(item.get("tool_calls")):
        parts.append(_tool_call(mapping(call.get("function")) or mapping(call.get("custom")), call.get("id")))
    if function := mapping(item.get("function_call")):
        parts.append(_tool_call(function, None))
    return parts


def _tool_call(called: Mapping[str, Any], id: Any) -> Part:
    said = called.get("input") if "input" in called else json_or_text(called.get("arguments"))
    return Part(type="tool_call", id=id, name=called.get("name"), arguments=said)


def _content_part(piece: Mapping[str, Any]) -> Part:
    kind = piece.get("type")
    if kind == "text":
        return Part(type="text", content=piece.get("text"))
    if kind == "image_url":
        return Part(type="uri", uri=_place(piece.get("image_url")), mime_type="image/*")
    if kind == "document_url":
        return Part(type="uri", uri=_place(piece.get("document_url")), mime_type="application/*")
    if kind == "input_audio":
        sound = piece.get("input_audio")  # base64 itself at Mistral's
        told = mapping(sound)
        return Part(type="blob", content=told.get("data", sound), mime_type=f"audio/{told.get('format') or '*'}")
    if kind == "file":
        file = mapping(piece.get("file"))
        place = file.get("file_data")
        return Part(
            type="uri" if place else "file", uri=place, id=file.get("file_id"), name=file.get("filename"),
            mime_type="application/*",
        )  # fmt: skip
    return other_part(piece)


def _place(given: Any) -> Any:
    return given if isinstance(given, str) else mapping(given).get("url")


def _parameters(request: Request) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for name, value in request.items():
        if value is None or name in _NOT_PARAMETERS:
            continue
        if name == "stop" and isinstance(value, str):
            value = [value]
        if name == "n" and value == 1:
            continue
        parameters[_PARAMETERS.get(name, name)] = value
    return parameters


def _usage(usage: Mapping[str, Any]) -> Usage:
    prompt = mapping(usage.get("prompt_tokens_details"))
    completion = mapping(usage.get("completion_tokens_details"))
    return Usage(
        input_tokens=usage.get("prompt_tokens"),
        output_tokens=usage.get("completion_tokens"),
        cache_read_tokens=prompt.get("cached_tokens", usage.get("cached_tokens")),  # together has it here
        cache_write_tokens=prompt.get("cache_write_tokens"),
        reasoning_tokens=completion.get("reasoning_tokens"),
        audio_input_tokens=prompt.get("audio_tokens"),
        audio_output_tokens=completion.get("audio_tokens"),
        image_input_tokens=prompt.get("image_tokens"),
    )


def _finish(reason: str) -> str:
    return _FINISH.get(reason, reason)
