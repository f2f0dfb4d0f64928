"""LlamaIndex and DSPy, through OpenInference and the span processor, in an environment of their own: openai 2."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

import loopkit
from loopkit import frameworks
from loopkit.testing import MemorySink, chat_completion
from loopkit.types import Span

pytestmark = pytest.mark.filterwarnings("ignore")


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        body = json.dumps(chat_completion("[[ ## answer ## ]]\nfine\n\n[[ ## completed ## ]]")).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()


@pytest.fixture
def provider() -> TracerProvider:
    made = TracerProvider()
    made.add_span_processor(frameworks.span_processor())
    return made


def check(spans: list[Span], tokens: int | None) -> None:
    """One tree, and the model's call in it once."""
    (call,) = [span for span in spans if span.kind == "llm"]
    assert call.model_call is not None
    assert call.model_call.usage.input_tokens == tokens
    assert "fine" in call.model_call.output[0].text
    ids = {span.span_id for span in spans}
    assert sum(span.parent_id not in ids for span in spans) == 1


@pytest.mark.parametrize("instrumented", [True, False])
def test_llama_index(instrumented: bool, url: str, provider: TracerProvider, recorded: MemorySink) -> None:
    pytest.importorskip("llama_index.core", reason="llama-index is not installed: make test-litellm")
    from llama_index.core import SummaryIndex
    from llama_index.core.schema import TextNode
    from llama_index.llms.openai import OpenAI
    from openinference.instrumentation.llama_index import LlamaIndexInstrumentor

    instrumentor: Any = LlamaIndexInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    if instrumented:
        loopkit.instrument("openai")
    try:
        index = SummaryIndex(nodes=[TextNode(text="about cards", id_="d-1")])
        model = OpenAI(model="gpt-4.1", api_key="test", api_base=url)
        assert "fine" in str(index.as_query_engine(llm=model).query("What is a card?"))
    finally:
        instrumentor.uninstrument()
        loopkit.uninstrument()
    spans = recorded.spans()
    check(spans, 12)
    found = [span.output for span in spans if span.kind == "retrieval"]
    documents = [output[0] for output in found if isinstance(output, list) and isinstance(output[0], dict)]
    assert documents[0]["content"] == "about cards"


def test_dspy(url: str, provider: TracerProvider, recorded: MemorySink) -> None:
    dspy: Any = pytest.importorskip("dspy", reason="dspy is not installed: make test-litellm")
    from openinference.instrumentation.dspy import DSPyInstrumentor

    instrumentor: Any = DSPyInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    try:
        dspy.configure(lm=dspy.LM("openai/gpt-4.1", api_key="test", api_base=url, cache=False))
        assert dspy.Predict("question -> answer")(question="What is a card?").answer == "fine"
    finally:
        instrumentor.uninstrument()
    check(recorded.spans(), None)  # which OpenInference doesn't tell of DSPy
