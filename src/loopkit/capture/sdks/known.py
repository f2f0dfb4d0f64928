"""All SDKs whose clients can be recorded."""

from __future__ import annotations

from typing import Any

from loopkit.capture.sdks._protocol import Instrumented, Sdk
from loopkit.capture.sdks.bedrock import Bedrock
from loopkit.capture.sdks.cohere import Cohere
from loopkit.capture.sdks.google import GoogleGenAI
from loopkit.capture.sdks.huggingface import HuggingFace
from loopkit.capture.sdks.litellm import LiteLLM
from loopkit.capture.sdks.mistral import Mistral
from loopkit.capture.sdks.ollama import Ollama
from loopkit.capture.sdks.stainless import PACKAGES
from loopkit.capture.sdks.transport import Transport

_OWN = (GoogleGenAI(), Mistral(), Bedrock(), Ollama(), Cohere(), HuggingFace())
SDKS: tuple[Sdk, ...] = (*PACKAGES, *_OWN, Transport())
"""Whose clients can be wrapped."""
PATCHED: tuple[Instrumented, ...] = (*PACKAGES, *_OWN, LiteLLM())
"""Which can be instrumented as a whole."""


def sdk_of(client: Any) -> Sdk | None:
    """The SDK that a client is of; None where we know none."""
    return next((sdk for sdk in SDKS if sdk.knows(client)), None)
