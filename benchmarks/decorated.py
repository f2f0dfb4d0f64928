"""A decorated function, small dict in and 500 characters out, against the same span written by hand."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import loopkit
from benchmarks.measure import markdown, rounds
from loopkit import _assemble
from loopkit.config import Destination, settings

ANSWER = "x" * 500
CALLS = 2000


class _Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


def work(ticket: dict[str, str]) -> str:
    """What the application does."""
    return ANSWER


def by_hand(provider: TracerProvider) -> Callable[[], object]:
    """The same attributes and content as loopkit's span, by the OpenTelemetry SDK."""
    tracer = provider.get_tracer("benchmark")

    def call() -> object:
        inputs = {"ticket": {"subject": "card", "body": "declined"}}
        with tracer.start_as_current_span("work") as span:
            span.set_attributes(
                {
                    "gen_ai.operation.name": "invoke_workflow",
                    "gen_ai.workflow.name": "work",
                    "openinference.span.kind": "CHAIN",
                    "input.value": json.dumps(inputs),
                    "input.mime_type": "application/json",
                }
            )
            result = work(inputs["ticket"])
            span.set_attributes({"output.value": json.dumps(result), "output.mime_type": "application/json"})
        return result

    return call


def table() -> str:
    """The comparison."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}/v1/traces"
    provider = TracerProvider(shutdown_on_exit=False)
    processor = BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint), max_queue_size=CALLS * 2)
    provider.add_span_processor(processor)
    traced = loopkit.trace(work)
    ticket = {"subject": "card", "body": "declined"}

    def recorded(**given: object) -> Callable[[], object]:
        """Switch to a recorder of this sort for a round."""
        home = tempfile.mkdtemp()
        made = settings("bench", environ={"LOOPKIT_HOME": home}, **given)  # type: ignore[arg-type]

        def call() -> object:
            if current[0] is not made:
                _assemble.start(made)
                current[0] = made
            return traced(ticket)

        return call

    current: list[object] = [None]

    def settle(name: str) -> None:
        if name == "otel-manual":
            processor.force_flush()
        elif name.startswith("loopkit") and "off" not in name:
            loopkit.shutdown(10)  # waits until the spool is empty
            current[0] = None

    to_collector = [Destination(endpoint=endpoint, content=True)]
    costs = rounds(
        {
            "bare": lambda: work(ticket),
            "otel-manual": by_hand(provider),
            "loopkit, OTLP only": recorded(store=None, export=to_collector),
            "loopkit, OTLP and store": recorded(export=to_collector),
            "loopkit off": lambda: traced(ticket),
        },
        calls=CALLS,
        settle=settle,
    )
    server.shutdown()
    return markdown("A decorated call", costs, reference="otel-manual")
