"""The same decorated function traced by others: CPU of all threads for each call until it was delivered.

Each in a process of its own, against a server on loopback that says yes to everything, in an environment made with
`pip install -e . -r benchmarks/peers.txt`. What isn't installed, or doesn't run without its own servers, says so.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CALLS = 3000
_TRACED = "def work(ticket):\n    return 'x' * 500\n"
PEERS = {
    "bare": _TRACED + "flush = lambda: None",
    "otel-manual": """
        from benchmarks.decorated import batching, by_hand
        provider, processor = batching(URL + "/v1/traces")
        call = by_hand(provider)
        work = lambda ticket: call()
        flush = processor.force_flush
    """,
    "loopkit": """
        import loopkit
        loopkit.init("bench", export=[loopkit.Destination(endpoint=URL + "/v1/traces", content=True)])
        @loopkit.trace
        def work(ticket):
            return "x" * 500
        flush = lambda: loopkit.flush(30, delivered=True)
    """,
    "langfuse": """
        from langfuse import Langfuse, get_client, observe
        Langfuse(public_key="pk-lf-1", secret_key="sk-lf-1", host=URL)
        @observe()
        def work(ticket):
            return "x" * 500
        flush = get_client().flush
    """,
    "logfire": """
        import logfire
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        processor = BatchSpanProcessor(OTLPSpanExporter(endpoint=URL + "/v1/traces"), max_queue_size=100_000)
        logfire.configure(send_to_logfire=False, console=False, additional_span_processors=[processor])
        @logfire.instrument(extract_args=True, record_return=True)
        def work(ticket):
            return "x" * 500
        flush = processor.force_flush
    """,
    "langsmith": """
        import os
        os.environ.update(LANGSMITH_TRACING="true", LANGSMITH_ENDPOINT=URL, LANGSMITH_API_KEY="k")
        from langsmith import Client, traceable
        client = Client()
        @traceable(client=client)
        def work(ticket):
            return "x" * 500
        flush = client.flush
    """,
    "mlflow-tracing": """
        import os
        os.environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = URL + "/v1/traces"
        os.environ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] = "http/protobuf"
        os.environ["MLFLOW_TRACKING_URI"] = URL
        import mlflow
        from mlflow.tracing.provider import provider
        @mlflow.trace
        def work(ticket):
            return "x" * 500
        flush = lambda: provider.get().force_flush()
    """,
    "opik": """
        import os
        os.environ.update(OPIK_URL_OVERRIDE=URL, OPIK_WORKSPACE="default", OPIK_CHECK_TLS_CERTIFICATE="false")
        import opik
        @opik.track
        def work(ticket):
            return "x" * 500
        flush = opik.flush_tracker
    """,
    "braintrust": """
        import braintrust
        logger = braintrust.init_logger(project="p", api_key="k", app_url=URL)
        @braintrust.traced
        def work(ticket):
            return "x" * 500
        flush = logger.flush
    """,
    "openinference": """
        from openinference.instrumentation import TracerProvider
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        provider = TracerProvider()
        processor = BatchSpanProcessor(OTLPSpanExporter(endpoint=URL + "/v1/traces"), max_queue_size=100_000)
        provider.add_span_processor(processor)
        tracer = provider.get_tracer("bench")
        @tracer.chain
        def work(ticket):
            return "x" * 500
        flush = processor.force_flush
    """,
    "traceloop": """
        import os
        os.environ.update(TRACELOOP_TELEMETRY="false")
        from traceloop.sdk import Traceloop
        from traceloop.sdk.decorators import task
        Traceloop.init(app_name="bench", api_endpoint=URL, api_key="k", instruments=set())
        @task(name="work")
        def work(ticket):
            return "x" * 500
        from opentelemetry import trace
        flush = trace.get_tracer_provider().force_flush
    """,
    "weave": """
        import os
        os.environ.update(WANDB_API_KEY="k" * 40, WANDB_BASE_URL=URL, WF_TRACE_SERVER_URL=URL)
        import weave
        client = weave.init("bench")
        @weave.op
        def work(ticket):
            return "x" * 500
        flush = client.flush
    """,
}
_MEASURE = f"""
import json, time
for _ in range(100):
    work({{"subject": "card", "body": "declined"}})
flush()
began = time.process_time()
for _ in range({CALLS}):
    work({{"subject": "card", "body": "declined"}})
flush()
print("COST", json.dumps((time.process_time() - began) / {CALLS} * 1e6))
import os
os._exit(0)
"""


def rows() -> list[dict[str, object]]:
    """Five processes each, in turn; medians over the bare function's cost."""
    costs: dict[str, list[float]] = {name: [] for name in PEERS}
    why_not: dict[str, str] = {}
    with _yes_to_everything() as url:
        for _ in range(5):
            for name in PEERS:
                if name not in why_not:
                    found = _run(name, url)
                    costs[name].append(found) if isinstance(found, float) else why_not.setdefault(name, found)
    bare = statistics.median(costs["bare"])
    own = statistics.median(costs["loopkit"]) - bare
    table: list[dict[str, object]] = []
    for name, found in costs.items():
        if name in why_not or name == "bare":
            continue
        extra = statistics.median(found) - bare
        table.append({"traced by": name, "CPU of all threads, µs": round(extra, 1), "× loopkit": round(extra / own, 1)})
    for name, reason in why_not.items():
        table.append({"traced by": name, "CPU of all threads, µs": f"did not run: {reason}", "× loopkit": "–"})
    return table


def _run(name: str, url: str) -> float | str:
    code = f"URL = {url!r}\n{textwrap.dedent(PEERS[name])}\n{_MEASURE}"
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "LOOPKIT_HOME": home, "HOME": home}
        try:
            done = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment
            )
        except subprocess.TimeoutExpired:
            return "it took over a minute"
    for line in done.stdout.splitlines():
        if line.startswith("COST "):
            return float(json.loads(line[5:]))
    said = done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"]
    return said[-1][:100].replace("|", "/")


@contextmanager
def _yes_to_everything() -> Generator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            if self.headers.get("transfer-encoding") == "chunked":
                while size := int(self.rfile.readline() or b"0", 16):
                    self.rfile.read(size + 2)
                self.rfile.readline()
            self.rfile.read(length)
            otlp = self.path.endswith("/v1/traces")
            self._answer(b"" if otlp else json.dumps(_answers(self.path, url)).encode())

        do_GET = do_PUT = do_PATCH = do_POST  # noqa: N815  # http.server calls them so

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("content-type", "application/json" if body else "application/x-protobuf")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield url
    finally:
        server.shutdown()


def _answers(path: str, url: str) -> dict[str, Any]:
    """What some of them want to hear before they begin."""
    if "graphql" in path:
        entity = {"id": "e", "name": "e"}
        viewer = {"id": "v", "username": "v", "email": "v", "admin": False, "entity": "e", "flags": "{}"}
        project = {"id": "p", "name": "bench", "entityName": "e", "entity": entity}
        teams = {"edges": []}
        return {
            "data": {
                "viewer": {**viewer, "defaultEntity": entity, "teams": teams, "organizations": []},
                "serverInfo": {"cliVersionInfo": {}, "latestLocalVersionInfo": {}},
                "upsertModel": {"model": project, "project": project, "inserted": True},
                "project": project,
                "model": project,
            }
        }
    if "login" in path:
        return {"org_info": [{"id": "o", "name": "o", "api_url": url, "proxy_url": url}]}
    if "register" in path:
        return {"project": {"id": "p", "name": "p"}, "org_id": "o"}
    return {"min_required_weave_python_version": "0.0.1"} if "server_info" in path else {}
