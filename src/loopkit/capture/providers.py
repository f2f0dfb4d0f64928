"""Which provider a client speaks to, in OpenTelemetry's names where it has one."""

from __future__ import annotations

import functools
from typing import Any
from urllib.parse import urlsplit

_HOSTS = {
    "api.openai.com": "openai",
    "api.groq.com": "groq",
    "api.anthropic.com": "anthropic",
    "api.together.xyz": "together",
    "api.together.ai": "together",
    "api.fireworks.ai": "fireworks",
    "api.deepseek.com": "deepseek",
    "api.mistral.ai": "mistral_ai",
    "api.x.ai": "x_ai",
    "api.cohere.com": "cohere",
    "api.cohere.ai": "cohere",
    "api.perplexity.ai": "perplexity",
    "api.cerebras.ai": "cerebras",
    "api.moonshot.ai": "moonshot_ai",
    "api.moonshot.cn": "moonshot_ai",
    "openrouter.ai": "openrouter",
    "router.huggingface.co": "hugging_face",
    "generativelanguage.googleapis.com": "gcp.gemini",
}
_ENDS = {
    ".openai.azure.com": "azure.ai.openai",
    ".cognitiveservices.azure.com": "azure.ai.openai",
    ".services.ai.azure.com": "azure.ai.inference",
    ".aiplatform.googleapis.com": "gcp.vertex_ai",
    "-aiplatform.googleapis.com": "gcp.vertex_ai",
    ".amazonaws.com": "aws.bedrock",
}
_PORTS = {11434: "ollama"}
_CLASSES = {
    "AzureOpenAI": "azure.ai.openai",
    "AnthropicBedrock": "aws.bedrock",
    "AnthropicBedrockMantle": "aws.bedrock",
    "AnthropicAWS": "aws.bedrock",
    "AnthropicVertex": "gcp.vertex_ai",
    "AnthropicGoogleCloud": "gcp.vertex_ai",
    "AnthropicFoundry": "azure.ai.inference",
}


_OTHERS_NAMES = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "amazon_bedrock": "aws.bedrock",
    "bedrock": "aws.bedrock",
    "vertex_ai": "gcp.vertex_ai",
    "google_vertexai": "gcp.vertex_ai",
    "gemini": "gcp.gemini",
    "google_genai": "gcp.gemini",
    "mistral": "mistral_ai",
    "mistralai": "mistral_ai",
    "xai": "x_ai",
    "together_ai": "together",
    "fireworks_ai": "fireworks",
    "huggingface": "hugging_face",
    "moonshot": "moonshot_ai",
}
"""LangChain's and litellm's, where they are others than OpenTelemetry's."""


def provider_known_as(name: str) -> str:
    """A provider by the name that a framework has for it."""
    return _OTHERS_NAMES.get(name, name)


def provider_of(client: type[Any], base_url: str, otherwise: str) -> str:
    """By the client's class, else by its base URL; `otherwise` where neither is known."""
    for cls in client.__mro__:
        name = cls.__name__.removeprefix("Async")
        if name in _CLASSES:
            return _CLASSES[name]
    return provider_at(base_url) or otherwise


@functools.lru_cache(maxsize=256)
def server_at(url: str | None) -> tuple[str | None, int | None]:
    """Host and port of a URL; None for what can't be told."""
    try:
        parts = urlsplit(url or "")
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    except ValueError:
        return None, None
    return parts.hostname, port if parts.hostname else None


def provider_at(url: str) -> str | None:
    """By host, and by port for those that run where one works."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower().rstrip(".")
    if host in _HOSTS:
        return _HOSTS[host]
    for end, provider in _ENDS.items():
        if host.endswith(end):
            return provider
    try:
        return _PORTS.get(parts.port or 0)
    except ValueError:
        return None
