"""What other instrumentations call things, in our names: OpenTelemetry's GenAI conventions, OpenInference, OpenLLMetry.

Sources: the GenAI conventions (repository semantic-conventions-genai), OpenInference's specification
(https://arize-ai.github.io/openinference/spec/semantic_conventions.html), and OpenLLMetry's attributes
(https://www.traceloop.com/docs/openllmetry/contributing/semantic-conventions).
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from loopkit.types import Kind
from loopkit.wire import names

_KINDS_OF_OPERATIONS: Mapping[str, Kind] = {
    "chat": "llm", "text_completion": "llm", "generate_content": "llm", "embeddings": "embedding",
    "execute_tool": "tool", "retrieval": "retrieval", "invoke_agent": "agent", "create_agent": "agent",
    "invoke_workflow": "task", "plan": "task",
}  # fmt: skip
_KINDS_OF_OPENINFERENCE: Mapping[str, Kind] = {
    "LLM": "llm", "EMBEDDING": "embedding", "TOOL": "tool", "RETRIEVER": "retrieval", "RERANKER": "retrieval",
    "AGENT": "agent", "CHAIN": "task", "GUARDRAIL": "guardrail", "EVALUATOR": "evaluation", "PROMPT": "task",
}  # fmt: skip
_KINDS_OF_OPENLLMETRY: Mapping[str, Kind] = {"workflow": "task", "task": "task", "agent": "agent", "tool": "tool"}
_SAME = {
    "llm.model_name": names.REQUEST_MODEL,
    "embedding.model_name": names.REQUEST_MODEL,
    "llm.request.model_name": names.REQUEST_MODEL,
    "llm.response.model_name": names.RESPONSE_MODEL,
    "llm.provider": names.PROVIDER,
    "llm.system": names.PROVIDER,
    "gen_ai.system": names.PROVIDER,
    "llm.token_count.prompt": names.INPUT_TOKENS,
    "gen_ai.usage.prompt_tokens": names.INPUT_TOKENS,
    "llm.token_count.completion": names.OUTPUT_TOKENS,
    "gen_ai.usage.completion_tokens": names.OUTPUT_TOKENS,
    "llm.token_count.prompt_details.cache_read": names.CACHE_READ_TOKENS,
    "llm.token_count.prompt_details.cache_write": names.CACHE_WRITE_TOKENS,
    "gen_ai.usage.cache_read_input_tokens": names.CACHE_READ_TOKENS,
    "gen_ai.usage.cache_creation_input_tokens": names.CACHE_WRITE_TOKENS,
    "gen_ai.usage.cache_creation.input_tokens": names.CACHE_WRITE_TOKENS,
    "llm.token_count.prompt_details.audio": names.AUDIO_INPUT_TOKENS,
    "llm.token_count.completion_details.audio": names.AUDIO_OUTPUT_TOKENS,
    "llm.token_count.completion_details.reasoning": names.REASONING_TOKENS,
    "llm.cost.total": names.COST,
    "traceloop.entity.input": names.OI_INPUT,
    "traceloop.entity.output": names.OI_OUTPUT,
    "gen_ai.tool.call.arguments": names.OI_INPUT,
    "gen_ai.tool.call.result": names.OI_OUTPUT,
    "gen_ai.retrieval.query.text": names.OI_INPUT,
    "gen_ai.retrieval.documents": names.OI_OUTPUT,
    "pydantic_ai.all_messages": names.OI_INPUT,
    "final_result": names.OI_OUTPUT,
    "traceloop.association.properties.session_id": names.SESSION_ID,
    "traceloop.association.properties.user_id": names.USER_ID,
    names.CONVERSATION_ID: names.SESSION_ID,
}
"""Another's name for what is the same; where ours is there too, ours stays."""
_PARAMETERS = {
    "temperature": "temperature", "top_p": "top_p", "max_tokens": "max_tokens", "seed": "seed",
    "max_completion_tokens": "max_tokens", "max_output_tokens": "max_tokens",
    "frequency_penalty": "frequency_penalty", "presence_penalty": "presence_penalty",
}  # fmt: skip
_FLAT = re.compile(
    r"(?:llm\.(?P<side>input|output)_messages\.(?P<number>\d{1,6})\.message\.(?P<rest>.+)"
    r"|gen_ai\.(?P<old>prompt|completion)\.(?P<old_number>\d{1,6})\.(?P<old_rest>.+)"
    r"|retrieval\.documents\.(?P<document>\d{1,6})\.document\.(?P<field>.+)"
    r"|llm\.tools\.(?P<tool>\d{1,6})\.tool\.json_schema)\Z"
)
_CALL = re.compile(r"(?:message\.)?tool_calls\.(\d{1,6})\.(?:tool_call\.)?(?:function\.)?(id|name|arguments)\Z")
_PIECE = re.compile(r"contents\.(\d{1,6})\.message_content\.(.+)\Z")


def kind_of(attributes: Mapping[str, Any]) -> Kind | None:
    """What a span with these attributes is about; None where it isn't about what we record."""
    if names.KIND in attributes:
        return None  # ours
    found = _KINDS_OF_OPENINFERENCE.get(str(attributes.get(names.OI_KIND)))
    found = found or _KINDS_OF_OPERATIONS.get(str(attributes.get(names.OPERATION)))
    found = found or _KINDS_OF_OPENLLMETRY.get(str(attributes.get("traceloop.span.kind")))
    if found is None and ("llm.request.type" in attributes or "gen_ai.system" in attributes):
        return "embedding" if attributes.get("llm.request.type") == "embedding" else "llm"
    return found


def translated(attributes: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """The attributes in our names; what has no name of ours stays as it is."""
    flat = _Flat()
    found: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for name, value in attributes.items():
        if name in _SAME:
            others.setdefault(_SAME[name], value)
        elif not flat.takes(name, value):
            found[name] = value
    found = {**others, **found, **flat.values()}
    found[names.KIND] = kind
    if kind in ("llm", "embedding"):
        _complete_call(found, kind)
    else:
        for said, ours in ((names.INPUT_MESSAGES, names.OI_INPUT), (names.OUTPUT_MESSAGES, names.OI_OUTPUT)):
            if said in found:
                found.setdefault(ours, found.pop(said))
    for value, mime in ((names.OI_INPUT, names.OI_INPUT_TYPE), (names.OI_OUTPUT, names.OI_OUTPUT_TYPE)):
        if value in found:
            found.setdefault(mime, "application/json" if str(found[value])[:1] in ("{", "[") else "text/plain")
    return found


def _complete_call(found: dict[str, Any], kind: Kind) -> None:
    """What a model call of ours must say, and what it says elsewhere."""
    found.setdefault(names.PROVIDER, "_OTHER")
    if names.OPERATION not in found:
        found[names.OPERATION] = "embeddings" if kind == "embedding" else "chat"
    system = _json(found.pop("gen_ai.system_instructions", None), list)
    if system:
        told = _json(found.get(names.INPUT_MESSAGES), list)
        found[names.INPUT_MESSAGES] = json.dumps([{"role": "system", "parts": system}, *told])
    asked = _json(found.pop("llm.invocation_parameters", None), dict)
    for theirs, ours in _PARAMETERS.items():
        if theirs in asked:
            found.setdefault(names.REQUEST_PREFIX + ours, asked[theirs])
    reason = found.pop("llm.finish_reason", None)
    if reason is not None:
        found.setdefault(names.FINISH_REASONS, (str(reason),))
    if names.INPUT_MESSAGES in found:  # the same again, as a text
        found.pop(names.OI_INPUT, None)
        found.pop(names.OI_INPUT_TYPE, None)
    if names.OUTPUT_MESSAGES in found:
        found.pop(names.OI_OUTPUT, None)
        found.pop(names.OI_OUTPUT_TYPE, None)


class _Flat:
    """Lists that were flattened into attributes with numbers in their names, put together again."""

    def __init__(self) -> None:
        self._messages: dict[str, dict[int, _Message]] = {"input": {}, "output": {}}
        self._documents: defaultdict[int, dict[str, Any]] = defaultdict(dict)
        self._tools: dict[int, Any] = {}

    def takes(self, name: str, value: Any) -> bool:
        """Whether it is one of those; then it is kept here."""
        match = _FLAT.match(name)
        if match is None:
            return False
        if match["side"]:
            self._message(match["side"], int(match["number"])).take(match["rest"], value)
        elif match["old"]:
            side = "input" if match["old"] == "prompt" else "output"
            self._message(side, int(match["old_number"])).take(match["old_rest"], value)
        elif match["document"]:
            self._documents[int(match["document"])][match["field"]] = value
        else:
            self._tools[int(match["tool"])] = _json(value, dict)
        return True

    def values(self) -> dict[str, Any]:
        """By our names, as JSON."""
        found: dict[str, Any] = {}
        for side, name in (("input", names.INPUT_MESSAGES), ("output", names.OUTPUT_MESSAGES)):
            messages = self._messages[side]
            if messages:
                told = [messages[number].told(output=side == "output") for number in sorted(messages)]
                found[name] = json.dumps(told)
        if self._documents:
            found[names.OI_OUTPUT] = json.dumps([self._documents[number] for number in sorted(self._documents)])
            found[names.OI_OUTPUT_TYPE] = "application/json"
        if self._tools:
            found[names.TOOL_DEFINITIONS] = json.dumps([self._tools[number] for number in sorted(self._tools)])
        return found

    def _message(self, side: str, number: int) -> _Message:
        default = "user" if side == "input" else "assistant"
        return self._messages[side].setdefault(number, _Message(default))


class _Message:
    def __init__(self, role: str) -> None:
        self._role = role
        self._content: Any = None
        self._reason: str | None = None
        self._call_id: str | None = None
        self._pieces: defaultdict[int, dict[str, Any]] = defaultdict(dict)
        self._calls: defaultdict[int, dict[str, Any]] = defaultdict(dict)

    def take(self, rest: str, value: Any) -> None:
        call, piece = _CALL.match(rest), _PIECE.match(rest)
        if call is not None:
            self._calls[int(call[1])][call[2]] = value
        elif piece is not None:
            self._pieces[int(piece[1])][piece[2]] = value
        elif rest == "role":
            self._role = str(value)
        elif rest == "content":
            self._content = value
        elif rest == "finish_reason":
            self._reason = str(value)
        elif rest == "tool_call_id":
            self._call_id = str(value)

    def told(self, *, output: bool) -> dict[str, Any]:
        parts = list(self._parts())
        told: dict[str, Any] = {"role": self._role, "parts": parts}
        return {**told, "finish_reason": self._reason or ""} if output else told

    def _parts(self) -> Iterator[dict[str, Any]]:
        if self._call_id is not None or self._role == "tool":
            yield {"type": "tool_call_response", "id": self._call_id, "response": self._content}
        elif self._content:
            yield {"type": "text", "content": self._content}
        for number in sorted(self._pieces):
            piece = self._pieces[number]
            if "text" in piece:
                yield {"type": "text", "content": piece["text"]}
            elif "image.image.url" in piece:
                yield {"type": "uri", "uri": piece["image.image.url"], "mime_type": "image/*"}
            else:
                yield {"type": str(piece.get("type")), "content": dict(piece)}
        for number in sorted(self._calls):
            call = self._calls[number]
            arguments = call.get("arguments")
            known = _json(arguments, dict) if isinstance(arguments, str) else arguments
            yield {"type": "tool_call", "id": call.get("id"), "name": call.get("name"), "arguments": known or arguments}


def _json(text: Any, shape: type[Any]) -> Any:
    """What a text says as JSON; nothing of its shape where it says something else."""
    try:
        value = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return shape()
    return value if isinstance(value, shape) else shape()
