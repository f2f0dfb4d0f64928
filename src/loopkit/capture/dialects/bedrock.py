"""AWS Bedrock: Converse, and InvokeModel with the bodies of the models' makers.

Shapes: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html and, for each maker,
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from loopkit.capture.dialects._content import (
    as_tool_turn,
    changed,
    changed_texts,
    json_or_text,
    mapping,
    objects,
    sequence,
    since_the_model_spoke,
    total,
)
from loopkit.capture.dialects._endpoint import Endpoint, text_parts
from loopkit.capture.dialects._loose import loose
from loopkit.capture.dialects._protocol import Dialect, Fold
from loopkit.capture.dialects._streams import Place, PlainStream
from loopkit.capture.dialects.anthropic_messages import Messages
from loopkit.capture.dialects.openai_chat import Chat
from loopkit.types import Kind, Message, ModelCall, Part, Usage, Variant

Request = Mapping[str, Any]

_PARAMETERS = {
    "temperature": "temperature", "topP": "top_p", "topK": "top_k", "maxTokens": "max_tokens",
    "max_new_tokens": "max_tokens", "stopSequences": "stop_sequences",
}  # fmt: skip
_NOT_PARAMETERS = frozenset(("messages", "system", "modelId", "toolConfig", "inferenceConfig", "stream", "model"))
_FINISH = {
    "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_call",
    "guardrail_intervened": "content_filter", "content_filtered": "content_filter",
    "model_context_window_exceeded": "length", "malformed_model_output": "error", "malformed_tool_use": "error",
}  # fmt: skip


_STREAMED = {"text", "toolUse", "reasoningContent"}
"""What deltas say piece by piece; the rest, such as citations, comes as a whole."""


class Converse(PlainStream):
    """Converse and ConverseStream. The request is the call's arguments, the response a dict."""

    name = "bedrock.converse"
    operation = "chat"
    kind: Kind = "llm"
    id_field = "requestId"
    words: Mapping[str, Any] = {"messages": True, "system": True, "toolConfig": True, "output": True}

    def facts(self, provider: str, request: Request, response: Mapping[str, Any]) -> ModelCall:
        """See `Dialect.facts`."""
        config = {_PARAMETERS.get(k, k): v for k, v in mapping(request.get("inferenceConfig")).items() if v is not None}
        rest = {k: v for k, v in request.items() if v is not None and k not in _NOT_PARAMETERS}
        reason = _finish(response)
        routed = mapping(mapping(response.get("trace")).get("promptRouter")).get("invokedModelId")
        return ModelCall(
            provider=provider,
            operation=self.operation,
            model=request.get("modelId"),
            response_model=routed,
            response_id=response.get("requestId"),
            parameters={**config, **rest},
            usage=_usage(mapping(response.get("usage"))),
            finish_reasons=(reason,) if reason else (),
            stream=bool(request.get("stream")),
        )

    def asked(self, request: Request) -> tuple[Message, ...]:
        """See `Dialect.asked`."""
        system = tuple(part for block in objects(request.get("system")) for part in _block(block))
        told = (Message(role="system", parts=system),) if system else ()
        return told + tuple(_message(item) for item in objects(request.get("messages")))

    def answered(self, response: Mapping[str, Any]) -> tuple[Message, ...]:
        """See `Dialect.answered`."""
        message = mapping(mapping(response.get("output")).get("message"))
        return (replace(_message(message), finish_reason=_finish(response)),) if message else ()

    def kept(self, response: Any) -> Any:
        """See `Dialect.kept`."""
        whole = dict(mapping(response))
        about = mapping(whole.pop("ResponseMetadata", None))
        return {"requestId": about.get("RequestId"), **whole} if about else whole

    def fold(self) -> Fold:
        """See `Dialect.fold`."""
        return ConverseFold()

    def with_input(self, request: Request, change: Callable[[str], str]) -> dict[str, Any]:
        """See `Dialect.with_input`."""
        messages = [dict(item) for item in objects(request.get("messages"))]
        for index in since_the_model_spoke(messages, change):
            messages[index]["content"] = changed(messages[index].get("content") or [], change)
        given = {"promptVariables": changed(request["promptVariables"], change)} if "promptVariables" in request else {}
        return {**request, "messages": messages, **given}

    def text(self, response: Any) -> str:
        """See `Conversation.text`."""
        return "".join(message.text for message in self.answered(response))

    def hear(self, response: Any, change: Callable[[str], str]) -> None:
        """See `Dialect.hear`."""
        self.with_output(response, change)

    def with_output(self, response: Any, change: Callable[[str], str]) -> Any:
        """See `Dialect.with_output`."""
        output = mapping(response.get("output"))
        message = mapping(output.get("message"))
        content = changed(message.get("content") or [], change)
        return {**response, "output": {**output, "message": {**message, "content": content}}}

    def places(self, plain: Any) -> Iterator[Place]:
        """See `PlainStream.places`."""
        start = mapping(plain.get("contentBlockStart"))
        if use := mapping(mapping(start.get("start")).get("toolUse")):
            yield Place(None, None, (start.get("contentBlockIndex", 0), "input"), "tool_call", use.get("name"))
        block = mapping(plain.get("contentBlockDelta"))
        index, delta = block.get("contentBlockIndex", 0), mapping(block.get("delta"))
        for name, holder in (("text", delta), ("reasoning", mapping(delta.get("reasoningContent")))):
            if isinstance(holder.get("text"), str):
                yield Place(holder, "text", (index, name))
        for name in delta.keys() - _STREAMED:
            yield Place(delta, name, None)
        used = mapping(delta.get("toolUse"))
        if isinstance(used.get("input"), str):
            yield Place(used, "input", (index, "input"), "tool_call")

    def ended(self, chunk: Any) -> list[Any]:
        """See `Streaming.ended`."""
        stop = mapping(mapping(chunk).get("contentBlockStop"))
        return [stop.get("contentBlockIndex", 0)] if stop else []

    def render(self, variant: Variant, messages: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """See `Conversation.render`."""
        system = [{"text": m["content"]} for m in messages if m["role"] == "system"]
        rest = [{"role": m["role"], "content": [{"text": m["content"]}]} for m in messages if m["role"] != "system"]
        made = {"modelId": variant.model, "messages": rest, **({"system": system} if system else {})}
        return {**made, **variant.parameters}

    def send(self, client: Any, arguments: Mapping[str, Any]) -> Any:
        """See `Conversation.send`."""
        return client.converse(**arguments)


class ConverseFold:
    """Events of a stream; usage comes last."""

    def __init__(self) -> None:
        self._role = "assistant"
        self._blocks: dict[int, dict[str, Any]] = {}
        self._rest: dict[str, Any] = {}

    def feed(self, chunk: Any) -> None:
        """See `Fold.feed`."""
        event = mapping(chunk)
        if "contentBlockStart" in event:
            self._start(mapping(event["contentBlockStart"]))
        elif "contentBlockDelta" in event:
            self._delta(mapping(event["contentBlockDelta"]))
        elif "messageStart" in event:
            self._role = mapping(event["messageStart"]).get("role") or self._role
        elif "messageStop" in event:
            self._rest.update(mapping(event["messageStop"]))
        elif "metadata" in event:
            self._rest.update(mapping(event["metadata"]))

    def result(self) -> dict[str, Any]:
        """See `Fold.result`."""
        content = [_finished(block) for _, block in sorted(self._blocks.items())]
        return {"output": {"message": {"role": self._role, "content": content}}, **self._rest}

    def _start(self, event: Mapping[str, Any]) -> None:
        self._blocks[event.get("contentBlockIndex", 0)] = {k: dict(v) for k, v in mapping(event.get("start")).items()}

    def _delta(self, event: Mapping[str, Any]) -> None:
        block = self._blocks.setdefault(event.get("contentBlockIndex", 0), {})
        delta = mapping(event.get("delta"))
        if "text" in delta:
            block["text"] = block.get("text", "") + delta["text"]
        if "toolUse" in delta:
            use = block.setdefault("toolUse", {})
            use["input"] = use.get("input", "") + mapping(delta["toolUse"]).get("input", "")
        if "reasoningContent" in delta:
            said = block.setdefault("reasoningContent", {"reasoningText": {"text": ""}})
            said["reasoningText"]["text"] += mapping(delta["reasoningContent"]).get("text") or ""


class Invoke:
    """InvokeModel and its stream: the body of the model's maker, read with that one's dialect."""

    name = "bedrock.invoke"
    operation = "chat"
    kind: Kind = "llm"
    id_field = "requestId"
    words: Mapping[str, Any] = {"body": True, "answer": True}

    def facts(self, provider: str, request: Request, response: Mapping[str, Any]) -> ModelCall:
        """See `Dialect.facts`."""
        inner = _maker(request)
        call = inner.facts(provider, _body(request), mapping(response.get("answer")))
        counted = mapping(response.get("counts"))
        usage = call.usage
        if usage == Usage() and counted:
            usage = Usage(input_tokens=counted.get("input"), output_tokens=counted.get("output"))
        return replace(
            call, operation=inner.operation, model=request.get("modelId"), usage=usage, native_format=None,
            response_id=call.response_id or response.get("requestId"), stream=bool(request.get("stream")),
        )  # fmt: skip

    def asked(self, request: Request) -> tuple[Message, ...]:
        """See `Dialect.asked`."""
        return _maker(request).asked(_body(request))

    def answered(self, response: Mapping[str, Any]) -> tuple[Message, ...]:
        """See `Dialect.answered`. The answer says itself whose it is."""
        answer = mapping(response.get("answer"))
        if isinstance(answer.get("content"), list):
            return _MESSAGES.answered(answer)
        if "output" in answer:
            return _CONVERSE.answered(answer)
        return _CHAT.answered(answer) if "choices" in answer else _PROMPTED.answered(answer)

    def kept(self, response: Any) -> Any:
        """See `Dialect.kept`."""
        return response

    def fold(self) -> Fold:
        """See `Dialect.fold`."""
        return InvokeFold()

    def with_input(self, request: Request, change: Callable[[str], str]) -> dict[str, Any]:
        """See `Dialect.with_input`."""
        maker = _maker(request)
        if maker is _PROMPTED:  # of whatever shape
            return {**request, "body": changed(request.get("body"), change)}
        return {**request, "body": maker.with_input(_body(request), change)}

    def hear(self, response: Any, change: Callable[[str], str]) -> None:
        """See `Dialect.hear`: all texts of the answer, whoever made its shape."""
        self.with_output(response, change)

    def with_output(self, response: Any, change: Callable[[str], str]) -> Any:
        """See `Dialect.with_output`."""
        return {**response, "answer": changed_texts(response.get("answer"), change)}


class InvokeFold:
    """Pieces of the maker's own JSON; the last one counts the tokens."""

    def __init__(self) -> None:
        self._pieces: list[dict[str, Any]] = []

    def feed(self, chunk: Any) -> None:
        """See `Fold.feed`."""
        data = mapping(mapping(chunk).get("chunk")).get("bytes")
        value: Any = json.loads(data) if data else None
        piece: dict[str, Any] = value
        if isinstance(value, dict):
            self._pieces.append(piece)

    def result(self) -> dict[str, Any]:
        """See `Fold.result`."""
        counts: dict[str, Any] = {}
        for piece in self._pieces:
            counted = mapping(piece.get("amazon-bedrock-invocationMetrics"))
            if counted:
                counts = {"input": counted.get("inputTokenCount"), "output": counted.get("outputTokenCount")}
        return {"answer": self._answer(), "counts": counts}

    def _answer(self) -> dict[str, Any]:
        fold: Fold
        if any(piece.get("type") == "message_start" for piece in self._pieces):
            fold = _MESSAGES.fold()
            for piece in self._pieces:
                fold.feed(loose(piece))
            return fold.result()
        if any(objects(piece.get("choices")) and "delta" in objects(piece["choices"])[0] for piece in self._pieces):
            fold = _CHAT.fold()
            for piece in self._pieces:
                fold.feed(loose(piece))
            return fold.result()
        if any("contentBlockDelta" in piece for piece in self._pieces):
            fold = ConverseFold()
            for piece in self._pieces:
                fold.feed(piece)
            return fold.result()
        answer: dict[str, Any] = {}
        for piece in self._pieces:
            answer.update({k: v for k, v in piece.items() if v is not None})
        answer["text"] = "".join(_said(piece) for piece in self._pieces)
        return {k: v for k, v in answer.items() if k not in ("generation", "outputText", "outputs", "results")}


class _Prompted(Endpoint):
    """A prompt in, a text out: Titan, Llama, older Mistral and Cohere models."""

    name = "bedrock.prompt"
    operation = "text_completion"
    asks = ("prompt", "inputText", "message")

    def facts(self, provider: str, request: Request, response: Mapping[str, Any]) -> ModelCall:
        """See `Dialect.facts`."""
        result = next(iter(objects(response.get("results"))), response)
        reason = response.get("stop_reason") or response.get("finish_reason") or result.get("completionReason")
        given = response.get("prompt_token_count", response.get("inputTextTokenCount"))
        made = response.get("generation_token_count", result.get("tokenCount"))
        return replace(
            super().facts(provider, request, {}),
            response_id=response.get("generation_id"),
            usage=Usage(input_tokens=given, output_tokens=made),
            finish_reasons=(_FINISH.get(reason, reason.lower()),) if isinstance(reason, str) else (),
        )

    def answered(self, response: Mapping[str, Any]) -> tuple[Message, ...]:
        """See `Dialect.answered`."""
        text = _said(response)
        return (Message(role="assistant", parts=(Part(type="text", content=text),)),) if text else ()


class InvokeEmbedding(Invoke):
    """The same for models that embed. The vectors are not kept."""

    name = "bedrock.invoke.embedding"
    operation = "embeddings"
    kind: Kind = "embedding"

    def facts(self, provider: str, request: Request, response: Mapping[str, Any]) -> ModelCall:
        """See `Dialect.facts`."""
        answer, counted = mapping(response.get("answer")), mapping(response.get("counts"))
        return ModelCall(
            provider=provider,
            operation=self.operation,
            model=request.get("modelId"),
            response_id=response.get("requestId"),
            usage=Usage(input_tokens=answer.get("inputTextTokenCount", counted.get("input"))),
            dimensions=answer.get("dimensions"),
        )

    def asked(self, request: Request) -> tuple[Message, ...]:
        """See `Dialect.asked`."""
        body = _body(request)
        parts = tuple(text_parts(body.get("inputText"))) + tuple(text_parts(body.get("texts")))
        return (Message(role="user", parts=parts),) if parts else ()

    def answered(self, response: Mapping[str, Any]) -> tuple[Message, ...]:
        """See `Dialect.answered`."""
        return ()

    def kept(self, response: Any) -> Any:
        """See `Dialect.kept`."""
        answer = dict(mapping(mapping(response).get("answer")))
        vectors = [answer.pop(name) for name in ("embedding", "embeddings") if name in answer]
        first: Any = vectors[0] if vectors else None
        while isinstance(first, Mapping):
            first = next(iter(mapping(first).values()), None)
        if first and sequence(first[0]):
            answer["count"], first = len(first), first[0]
        answer["dimensions"] = len(sequence(first)) or None
        return {**response, "answer": answer}

    def with_input(self, request: Request, change: Callable[[str], str]) -> dict[str, Any]:
        """See `Dialect.with_input`."""
        body = _body(request)
        said = {name: changed_texts(body[name], change) for name in ("inputText", "texts") if name in body}
        return {**request, "body": {**body, **said}}


_MESSAGES, _CONVERSE, _CHAT, _PROMPTED = Messages(), Converse(), Chat(), _Prompted()


_TALKS = ("messages", "prompt", "message", "anthropic_version", "textGenerationConfig", "inferenceConfig")


def embeds(request: Request) -> bool:
    """Whether an invocation asks for vectors: by its body, since a model's id may be called anything."""
    body = mapping(request.get("body"))
    if any(name in body for name in _TALKS):
        return False
    return "texts" in body or "input_type" in body or "embed" in str(request.get("modelId"))


def _maker(request: Request) -> Dialect:
    """By the body: a model's id may be an ARN that tells nothing."""
    model, body = str(request.get("modelId") or ""), mapping(request.get("body"))
    if "anthropic_version" in body or ("anthropic." in model and not body):
        return _MESSAGES
    if "messages" not in body:
        return _CONVERSE if "amazon.nova" in model else _PROMPTED
    blocks = [block for item in objects(body["messages"]) for block in objects(item.get("content"))]
    untyped = bool(blocks) and all("type" not in block for block in blocks)
    return _CONVERSE if untyped or "amazon.nova" in model else _MESSAGES if "anthropic." in model else _CHAT


def _body(request: Request) -> dict[str, Any]:
    return dict(mapping(request.get("body")))


def _said(answer: Mapping[str, Any]) -> str:
    """The text of an answer, wherever its maker has put it."""
    places = [answer, *(each for name in ("results", "outputs", "generations") for each in objects(answer.get(name)))]
    delta = mapping(mapping(mapping(answer.get("delta")).get("message")).get("content"))
    places.append(delta)
    texts = (place.get(name) for place in places for name in ("generation", "outputText", "text", "completion"))
    return "".join(text for text in texts if isinstance(text, str))


def _message(item: Mapping[str, Any]) -> Message:
    parts = tuple(part for block in objects(item.get("content")) for part in _block(block))
    return as_tool_turn(Message(role=item.get("role") or "user", parts=parts))


def _block(block: Mapping[str, Any]) -> list[Part]:
    found: list[Part] = []
    for kind, content in block.items():
        inside = mapping(content)
        if kind == "text":
            found.append(Part(type="text", content=content))
        elif kind == "reasoningContent":
            found.append(Part(type="reasoning", content=mapping(inside.get("reasoningText")).get("text")))
        elif kind == "toolUse":
            use = inside
            found.append(
                Part(type="tool_call", id=use.get("toolUseId"), name=use.get("name"), arguments=use.get("input"))
            )
        elif kind == "toolResult":
            found.append(
                Part(type="tool_call_response", id=inside.get("toolUseId"), content=_results(inside.get("content")))
            )
        elif kind in ("image", "video", "audio", "document"):
            mime = f"{kind}/{inside.get('format') or '*'}"
            source = mapping(inside.get("source"))
            place = mapping(source.get("s3Location")).get("uri")
            content = source.get("bytes", source.get("text"))
            found.append(Part(type="uri" if place else "blob", uri=place, content=content, mime_type=mime))
        elif kind != "cachePoint":
            found.append(Part(type=kind, content=content))
    return found


def _results(content: Any) -> Any:
    """A tool's result: its text or JSON where that is all there is."""
    items = objects(content)
    if len(items) == 1 and len(items[0]) == 1:
        return next(iter(items[0].values()))
    return items


def _finished(block: dict[str, Any]) -> dict[str, Any]:
    use = block.get("toolUse")
    if isinstance(use, dict):
        whole = mapping(use)
        return {**block, "toolUse": {**whole, "input": json_or_text(whole.get("input") or "{}")}}
    return block


def _finish(response: Mapping[str, Any]) -> str | None:
    reason = response.get("stopReason")
    return _FINISH.get(reason, reason) if isinstance(reason, str) else None


def _usage(usage: Mapping[str, Any]) -> Usage:
    """Bedrock counts cached tokens apart; the conventions' input tokens are all of them."""
    read, written = usage.get("cacheReadInputTokens"), usage.get("cacheWriteInputTokens")
    return Usage(
        input_tokens=total(usage.get("inputTokens"), read, written),
        output_tokens=usage.get("outputTokens"),
        cache_read_tokens=read,
        cache_write_tokens=written,
    )
