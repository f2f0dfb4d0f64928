"""OpenAI's responses.

Shapes: https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from loopkit.capture.dialects._content import (
    INSTRUCT,
    Whose,
    change_within,
    changed,
    changed_texts,
    for_tool,
    json_or_text,
    mapping,
    objects,
    other_part,
    sequence,
    some,
)
from loopkit.capture.dialects._protocol import Piece, whole_pieces
from loopkit.capture.dialects.openai_chat import change_text
from loopkit.types import Kind, Message, ModelCall, Part, Usage, Variant

Request = Mapping[str, Any]

_PARAMETERS = {"max_output_tokens": "max_tokens", "previous_response_id": "previous_response.id"}
_NOT_PARAMETERS = frozenset(("input", "instructions", "model", "tools", "stream", "stream_options"))
_TERMINAL = ("response.completed", "response.incomplete", "response.failed")


class Responses:
    """Responses."""

    name = "openai.responses"
    operation = "chat"
    kind: Kind = "llm"
    id_field = "id"
    words: Mapping[str, Any] = {"input": True, "instructions": True, "tools": True, "output": True}

    def facts(self, provider: str, request: Request, response: Mapping[str, Any]) -> ModelCall:
        """See `Dialect.facts`."""
        reason = _finish(response)
        return ModelCall(
            provider=provider,
            operation=self.operation,
            model=request.get("model"),
            response_model=response.get("model"),
            response_id=response.get("id") or None,
            parameters={
                _PARAMETERS.get(name, name): value
                for name, value in request.items()
                if value is not None and name not in _NOT_PARAMETERS
            },
            usage=_usage(mapping(response.get("usage"))),
            finish_reasons=(reason,) if reason else (),
            stream=bool(request.get("stream")),
        )

    def asked(self, request: Request) -> tuple[Message, ...]:
        """See `Dialect.asked`."""
        return _input(request)

    def answered(self, response: Mapping[str, Any]) -> tuple[Message, ...]:
        """See `Dialect.answered`."""
        return _output(response, _finish(response))

    def kept(self, response: Any) -> Any:
        """See `Dialect.kept`."""
        return response

    def fold(self) -> ResponsesFold:
        """See `Dialect.fold`."""
        return ResponsesFold()

    def with_input(self, request: Request, change: Callable[[str], str]) -> dict[str, Any]:
        """See `Dialect.with_input`."""
        given, prompt = request.get("input"), request.get("prompt")
        prompted = dict(request)
        if isinstance(prompt, Mapping) and "variables" in prompt:
            prompted["prompt"] = {**prompt, "variables": changed_texts(prompt["variables"], change)}
        if isinstance(given, str):
            return {**prompted, "input": change(given)}
        items = list(sequence(given))
        for index in range(len(items) - 1, -1, -1):
            item = items[index]
            if not isinstance(item, Mapping):
                continue
            turn = mapping(item)
            if _is_the_models(turn):
                if getattr(change, "reaches_back", False):
                    continue
                break
            if turn.get("role") not in INSTRUCT:
                items[index] = changed(item, change)
        return {**prompted, "input": items} if "input" in request else prompted

    def with_turns(self, request: Request, turns: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """See `Dialect.with_turns`."""
        given = request.get("input")
        items = [{"role": "user", "content": given}] if isinstance(given, str) else list(sequence(given))
        return {**request, "input": [*items, *({"role": role, "content": text} for role, text in turns)]}

    def text(self, response: Any) -> str:
        """See `Dialect.text`."""
        return "".join(part.text for part in _text_parts(response))

    def hear(self, response: Any, change: Callable[[str], str]) -> None:
        """See `Dialect.hear`."""
        _changed_in(response, change)

    def with_output(self, response: Any, change: Callable[[str], str]) -> Any:
        """See `Dialect.with_output`."""
        return _changed_in(response.model_copy(deep=True), change)

    says_twice = True

    def pieces(self, chunk: Any) -> list[Piece]:
        """See `Streaming.pieces`."""
        if _is_delta(chunk):
            of: Whose = "tool_call" if chunk.type.startswith(_TOOL_DELTAS) else "words"
            return [Piece((_channel(chunk),), chunk.delta, of)]
        return whole_pieces(partial(_visit, chunk))

    def ended(self, chunk: Any) -> list[Any]:
        """See `Streaming.ended`."""
        return [_channel(chunk)] if chunk.type.endswith(".done") else []

    def with_pieces(self, chunk: Any, texts: Sequence[str]) -> Any:
        """See `Streaming.with_pieces`."""
        copy, rest = chunk.model_copy(deep=True), list(texts)
        if _is_delta(copy):
            copy.delta = rest.pop(0)
        else:
            _visit(copy, lambda _: rest.pop(0))
        if getattr(copy, "logprobs", None):
            copy.logprobs = []
        return copy

    def render(self, variant: Variant, messages: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """See `Dialect.render`."""
        return {"model": variant.model, "input": [dict(m) for m in messages], **variant.parameters}

    def send(self, client: Any, arguments: Mapping[str, Any]) -> Any:
        """See `Dialect.send`."""
        return client.responses.create(**arguments)


_TOOL_DELTAS = (
    "response.function_call_arguments", "response.custom_tool_call_input", "response.mcp_call_arguments",
    "response.code_interpreter_call_code",
)  # fmt: skip


def _is_delta(event: Any) -> bool:
    """Whether it says the next piece of a text; sounds come in pieces too."""
    kind: str = event.type
    return kind.endswith(".delta") and kind != "response.audio.delta" and isinstance(event.delta, str)


def _channel(event: Any) -> tuple[Any, ...]:
    part = getattr(event, "content_index", getattr(event, "summary_index", None))
    return event.type.rpartition(".")[0], getattr(event, "output_index", None), part


def _visit(event: Any, change: Callable[[str], str]) -> None:
    """Change the texts that an event says as a whole."""
    if getattr(event, "response", None) is not None:
        _changed_in(event.response, change)
    elif getattr(event, "item", None) is not None:
        _change_item(event.item, change)
    elif getattr(event, "part", None) is not None:
        change_within(event.part, change)
    else:  # a text's own, and whatever else may come
        for name in ("arguments", "input", "code", "command"):
            change_text(event, name, None, for_tool(change, "tool_call"))
        change_within(event, lambda text: text if text in _heard(event) else change(text))


def _heard(event: Any) -> tuple[Any, ...]:
    return tuple(getattr(event, name, None) for name in ("arguments", "input", "code", "command", "type"))


class ResponsesFold:
    """Events of a response's stream. The last one carries the whole response; before it, the text so far."""

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._texts: dict[tuple[int, int], list[str]] = {}
        self._whole: Any = None

    def feed(self, chunk: Any) -> None:
        """See `Fold.feed`."""
        kind = chunk.type
        if kind == "response.output_text.delta":
            self._texts.setdefault((chunk.output_index, chunk.content_index), []).append(chunk.delta)
        elif kind == "response.created":
            self._head = {"id": chunk.response.id, "model": chunk.response.model}
        elif kind in _TERMINAL:
            self._whole = chunk.response

    def result(self) -> dict[str, Any]:
        """See `Fold.result`."""
        if self._whole is not None:
            whole: dict[str, Any] = self._whole.model_dump(mode="json", warnings=False)
            return whole
        output = [
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "".join(pieces)}],
            }
            for _, pieces in sorted(self._texts.items())
        ]
        return {**self._head, "output": output}


def _input(request: Request) -> tuple[Message, ...]:
    messages: list[Message] = []
    if instructions := request.get("instructions"):
        messages.append(Message(role="system", parts=(Part(type="text", content=instructions),)))
    given = request.get("input")
    if isinstance(given, str):
        messages.append(Message(role="user", parts=(Part(type="text", content=given),)))
    else:
        messages += [_item(item) for item in objects(given)]
    return tuple(messages)


def _output(answer: Mapping[str, Any], reason: str | None) -> tuple[Message, ...]:
    """The response's items as one message: that is what the model said in one turn."""
    parts = [part for item in objects(answer.get("output")) for part in _item(item).parts]
    return (Message(role="assistant", parts=tuple(parts), finish_reason=reason),) if parts else ()


def _item(item: Mapping[str, Any]) -> Message:
    kind = item.get("type") or "message"
    if kind == "message":
        return Message(role=item.get("role") or "user", parts=tuple(_content(item.get("content"))))
    if kind == "function_call":
        call = Part(
            type="tool_call",
            id=item.get("call_id"),
            name=item.get("name"),
            arguments=json_or_text(item.get("arguments")),
        )
        return Message(role="assistant", parts=(call,))
    if kind == "function_call_output":
        result = Part(type="tool_call_response", id=item.get("call_id"), content=item.get("output"))
        return Message(role="tool", parts=(result,))
    if kind == "image_generation_call":
        mime = f"image/{item.get('output_format') or '*'}"
        return Message(role="assistant", parts=(Part(type="blob", content=item.get("result"), mime_type=mime),))
    if kind == "reasoning":
        texts = [part.get("text", "") for part in objects(item.get("content") or item.get("summary"))]
        return Message(role="assistant", parts=tuple(Part(type="reasoning", content=text) for text in texts))
    return Message(role="assistant", parts=(other_part(item),))


def _content(content: Any) -> list[Part]:
    if isinstance(content, str):
        return [Part(type="text", content=content)]
    return [_content_part(piece) for piece in objects(content)]


def _content_part(piece: Mapping[str, Any]) -> Part:
    kind = piece.get("type")
    if kind in ("input_text", "output_text", "text"):
        return Part(type="text", content=piece.get("text"))
    if kind == "refusal":
        return Part(type="refusal", content=piece.get("refusal"))
    if kind == "input_image":
        return Part(type="uri", uri=piece.get("image_url"), id=piece.get("file_id"), mime_type="image/*")
    if kind == "input_file":
        place = piece.get("file_url") or piece.get("file_data")
        return Part(
            type="uri" if place else "file", uri=place, id=piece.get("file_id"), name=piece.get("filename"),
            mime_type="application/*",
        )  # fmt: skip
    return other_part(piece)


def _usage(usage: Mapping[str, Any]) -> Usage:
    given = mapping(usage.get("input_tokens_details"))
    return Usage(
        input_tokens=usage.get("input_tokens"),
        output_tokens=usage.get("output_tokens"),
        cache_read_tokens=given.get("cached_tokens"),
        cache_write_tokens=given.get("cache_write_tokens"),
        reasoning_tokens=mapping(usage.get("output_tokens_details")).get("reasoning_tokens"),
    )


def _finish(answer: Mapping[str, Any]) -> str | None:
    status = answer.get("status")
    if status == "completed":
        called = any(item.get("type") == "function_call" for item in objects(answer.get("output")))
        return "tool_call" if called else "stop"
    if status == "incomplete":
        reason = mapping(answer.get("incomplete_details")).get("reason")
        return "length" if reason == "max_output_tokens" else reason
    return "error" if status == "failed" else None


def _text_parts(response: Any) -> list[Any]:
    return [
        part
        for item in some(response, "output")
        if getattr(item, "type", None) == "message"
        for part in some(item, "content")
        if getattr(part, "type", None) == "output_text"
    ]


def _changed_in(response: Any, change: Callable[[str], str]) -> Any:
    """The response itself, with what the model said changed: texts, refusals, and what tools are to get."""
    for item in some(response, "output"):
        _change_item(item, change)
    return response


def _change_item(item: Any, change: Callable[[str], str]) -> None:
    kind = getattr(item, "type", None)
    if kind == "message":
        for part in some(item, "content"):
            is_text = getattr(part, "type", None) == "output_text"
            change_text(part, "text" if is_text else "refusal", "parsed", change)
    elif kind == "function_call":
        called = for_tool(change, "tool_call", getattr(item, "name", None))
        change_text(item, "arguments", "parsed_arguments", called)
    else:
        change_within(item, change)


def _is_the_models(item: Mapping[str, Any]) -> bool:
    """Whether it is a turn of the model's: what comes before it, it has seen."""
    kind = str(item.get("type") or "")
    return item.get("role") == "assistant" or kind.endswith("_call") or kind in ("reasoning", "compaction")
