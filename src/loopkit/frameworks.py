"""What hangs into frameworks by hand, where `loopkit.instrument()` is not what you want."""

from __future__ import annotations

from typing import Any

__all__ = ["agents_processor", "langchain_handler", "span_processor"]


def langchain_handler() -> Any:
    """A LangChain callback handler: `chain.invoke(..., config={"callbacks": [frameworks.langchain_handler()]})`.

    Raises `MissingExtra` where LangChain isn't installed.
    """
    from loopkit.capture.frameworks.langchain import handler_class

    return handler_class()()


def agents_processor() -> Any:
    """A trace processor of the OpenAI Agents SDK: `agents.add_trace_processor(frameworks.agents_processor())`.

    Raises `MissingExtra` where the SDK isn't installed.
    """
    from loopkit.capture.frameworks.agents import processor_class

    return processor_class()()


def span_processor() -> Any:
    """A span processor for your OpenTelemetry provider that reads other instrumentations' spans into the local store.

    What they tell of models, tools, agents and retrieval, by OpenTelemetry's GenAI conventions, OpenInference's or
    OpenLLMetry's, becomes spans of ours; a model call that both they and a wrapped client see is there once.

        provider.add_span_processor(frameworks.span_processor())
    """
    from loopkit.capture.frameworks.otel import OthersProcessor

    return OthersProcessor()
