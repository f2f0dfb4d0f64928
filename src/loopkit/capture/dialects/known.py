"""The dialects by name, and recorded requests and responses read with them.

What a provider was asked and answered is kept as it was; messages are made of it when somebody reads them, which costs
the application nothing and lets a dialect that has learned something read old calls better.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from loopkit import _host
from loopkit.capture.dialects._content import json_object, tool_definitions
from loopkit.capture.dialects._protocol import Dialect
from loopkit.capture.dialects.anthropic_messages import Messages
from loopkit.capture.dialects.bedrock import Converse, Invoke, InvokeEmbedding
from loopkit.capture.dialects.cohere_chat import CohereChat, CohereEmbed, CohereRerank
from loopkit.capture.dialects.google_content import GenerateContent, GoogleEmbeddings
from loopkit.capture.dialects.hugging_face import HuggingFaceChat
from loopkit.capture.dialects.mistral_chat import MistralChat, MistralEmbeddings, MistralFill
from loopkit.capture.dialects.neutral import Neutral
from loopkit.capture.dialects.ollama_api import OllamaChat, OllamaEmbed, OllamaGenerate
from loopkit.capture.dialects.openai_chat import OpenAIChat
from loopkit.capture.dialects.openai_endpoints import (
    Batches,
    Completions,
    Embeddings,
    Images,
    Moderations,
    Speech,
    Transcriptions,
)
from loopkit.capture.dialects.openai_responses import Responses
from loopkit.types import ModelCall, Span, Usage
from loopkit.wire.media import with_references

CHAT, RESPONSES, MESSAGES = OpenAIChat(), Responses(), Messages()
NEUTRAL = Neutral()
EMBEDDINGS, COMPLETIONS = Embeddings(), Completions()
GENERATE_CONTENT, GOOGLE_EMBEDDINGS = GenerateContent(), GoogleEmbeddings()
CONVERSE, INVOKE, INVOKE_EMBEDDING = Converse(), Invoke(), InvokeEmbedding()
MISTRAL_CHAT, MISTRAL_FILL, MISTRAL_EMBEDDINGS = MistralChat(), MistralFill(), MistralEmbeddings()
HUGGING_FACE_CHAT = HuggingFaceChat()
COHERE_CHAT, COHERE_EMBED, COHERE_RERANK = CohereChat(), CohereEmbed(), CohereRerank()
OLLAMA_CHAT, OLLAMA_GENERATE, OLLAMA_EMBED = OllamaChat(), OllamaGenerate(), OllamaEmbed()
OPENAI_PATHS: Mapping[str, Dialect] = {
    "/chat/completions": CHAT,
    "/responses": RESPONSES,
    "/embeddings": EMBEDDINGS,
    "/completions": COMPLETIONS,
    "/images/generations": (_images := Images()),
    "/images/edits": _images,
    "/images/variations": _images,
    "/audio/speech": Speech(),
    "/audio/transcriptions": (_transcriptions := Transcriptions()),
    "/audio/translations": _transcriptions,
    "/moderations": Moderations(),
    "/batches": Batches(),
}
"""Which dialect speaks at a path of OpenAI's API, below /v1, and of all that took it over."""
_ALL: tuple[Dialect, ...] = (
    *OPENAI_PATHS.values(), MESSAGES, GENERATE_CONTENT, GOOGLE_EMBEDDINGS, CONVERSE, INVOKE, INVOKE_EMBEDDING,
    MISTRAL_CHAT, MISTRAL_FILL, MISTRAL_EMBEDDINGS, OLLAMA_CHAT, OLLAMA_GENERATE, OLLAMA_EMBED,
    COHERE_CHAT, COHERE_EMBED, COHERE_RERANK, HUGGING_FACE_CHAT, NEUTRAL,
)  # fmt: skip
DIALECTS: Mapping[str, Dialect] = {dialect.name: dialect for dialect in _ALL}


def facts(dialect: Dialect, provider: str, request: str | None, response: str | None) -> ModelCall:
    """The call without its messages, from the JSON texts; what a provider wrote in another shape is left out."""
    with _reading:
        return _facts(dialect, provider, json_object(request), json_object(response))
    return dialect.facts(provider, {}, {})


def _facts(dialect: Dialect, provider: str, asked: Mapping[str, Any], answered: Mapping[str, Any]) -> ModelCall:
    call = dialect.facts(provider, asked, answered)
    usage = Usage(**{name: _checked(getattr(call.usage, name), int) for name in _USAGE})
    reasons = tuple(reason for reason in call.finish_reasons if isinstance(reason, str))
    texts = {name: _checked(getattr(call, name), str) for name in _TEXTS}
    if usage == call.usage and reasons == call.finish_reasons and all(getattr(call, n) == v for n, v in texts.items()):
        return call
    return replace(
        call,
        usage=usage,
        finish_reasons=reasons,
        model=texts["model"],
        response_model=texts["response_model"],
        response_id=texts["response_id"],
        system_fingerprint=texts["system_fingerprint"],
    )


_TEXTS = ("model", "response_model", "response_id", "system_fingerprint")
_USAGE = tuple(field.name for field in fields(Usage))


def _checked(value: Any, kind: type[Any]) -> Any:
    return value if isinstance(value, kind) and not isinstance(value, bool) else None


def with_facts(span: Span) -> Span:
    """The span, with what is to be known of its model call but the messages, as far as nobody has read it yet."""
    return _with_call(span, messages=False)


def with_messages(span: Span) -> Span:
    """The same with messages and tools too."""
    return _with_call(span, messages=True)


def _with_call(span: Span, *, messages: bool) -> Span:
    call = span.model_call
    if call is None or call.native_format is None:
        return span
    return replace(span, model_call=_read(call, messages=messages))


def translated(call: ModelCall) -> ModelCall:
    """A call with facts and messages read from its provider's own shapes; as it is where they can't be read."""
    return _read(call, messages=True)


def _read(call: ModelCall, *, messages: bool) -> ModelCall:
    dialect = DIALECTS.get(call.native_format or "")
    if dialect is None:
        unknown = call.native_format
        _host.warn_once(f"dialect {unknown}", f"calls recorded as {unknown!r} can't be read here: upgrade loopkit")
        return call
    with _reading:
        asked, answered = json_object(call.native_request), json_object(call.native_response)
        known = call
        with _reading:  # facts that can't be read don't cost the messages, nor the other way round
            known = _facts(dialect, call.provider, asked, answered)
        told: dict[str, Any] = {"input": (), "output": (), "tools": ()}
        if messages:
            with _reading:
                told["input"] = with_references(dialect.asked(asked))
            with _reading:
                told["output"] = with_references(dialect.answered(answered))
            with _reading:
                told["tools"] = tool_definitions(asked)
        return replace(
            known,
            **told,
            cost=known.cost if call.cost is None else call.cost,
            time_to_first_token=call.time_to_first_token,
            server_address=call.server_address,
            server_port=call.server_port,
            native_format=call.native_format,
            native_request=call.native_request,
            native_response=call.native_response,
        )
    return call


_reading = _host.Shielded("reading a recorded call")
