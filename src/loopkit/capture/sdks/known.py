"""All SDKs whose clients can be recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from loopkit.capture.sdks._protocol import Sdk, Undo
from loopkit.capture.sdks.bedrock import Bedrock
from loopkit.capture.sdks.google import GoogleGenAI
from loopkit.capture.sdks.litellm import LiteLLM
from loopkit.capture.sdks.mistral import Mistral
from loopkit.capture.sdks.stainless import PACKAGES

SDKS: tuple[Sdk, ...] = (*PACKAGES, GoogleGenAI(), Mistral(), Bedrock(), LiteLLM())


class Instrumented(Protocol):
    """What `instrument()` can patch: an SDK or a framework."""

    name: str
    module: str
    extra: str

    def patch(self, module: Any) -> Undo:
        """Record all that goes through it."""
        ...


INSTRUMENTED: Mapping[str, Instrumented] = {each.name: each for each in SDKS}
"""By name."""


def sdk_of(client: Any) -> Sdk | None:
    """The SDK that a client is of; None where we know none."""
    return next((sdk for sdk in SDKS if sdk.knows(client)), None)
