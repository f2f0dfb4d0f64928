"""All SDKs whose clients can be recorded."""

from __future__ import annotations

from typing import Any

from loopkit.capture.sdks._protocol import Instrumented, Sdk
from loopkit.capture.sdks.bedrock import Bedrock
from loopkit.capture.sdks.google import GoogleGenAI
from loopkit.capture.sdks.litellm import LiteLLM
from loopkit.capture.sdks.mistral import Mistral
from loopkit.capture.sdks.stainless import PACKAGES
from loopkit.capture.sdks.transport import Transport

_GOOGLE, _MISTRAL, _BEDROCK = GoogleGenAI(), Mistral(), Bedrock()
SDKS: tuple[Sdk, ...] = (*PACKAGES, _GOOGLE, _MISTRAL, _BEDROCK, Transport())
"""Whose clients can be wrapped."""
PATCHED: tuple[Instrumented, ...] = (*PACKAGES, _GOOGLE, _MISTRAL, _BEDROCK, LiteLLM())
"""Which can be instrumented as a whole."""


def sdk_of(client: Any) -> Sdk | None:
    """The SDK that a client is of; None where we know none."""
    return next((sdk for sdk in SDKS if sdk.knows(client)), None)
