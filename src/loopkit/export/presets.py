"""Destinations for well-known backends: where they take OTLP, how they want to be addressed, what they call otherwise.

Each takes what `Destination` takes besides, such as `content=True`. What isn't given is read from the environment
variables that the backends' own packages read.
"""

from __future__ import annotations

import base64
import os
from typing import Any

from loopkit.config import Destination
from loopkit.errors import InvalidSetting
from loopkit.wire import names

PHOENIX_PROJECT = "openinference.project.name"
_CACHE_WRITE = {names.CACHE_WRITE_TOKENS: "gen_ai.usage.cache_creation.input_tokens"}
"""Renamed in the conventions after these backends learned it."""


def collector(endpoint: str = "http://127.0.0.1:4318", **more: Any) -> Destination:
    """An OpenTelemetry collector, or whatever takes OTLP over HTTP: `endpoint` is its base URL."""
    return _destination(endpoint, "", more)


def phoenix(
    endpoint: str | None = None, *, api_key: str | None = None, project: str | None = None, **more: Any
) -> Destination:
    """Arize Phoenix. Else `PHOENIX_COLLECTOR_ENDPOINT` (or localhost), `PHOENIX_API_KEY`, `PHOENIX_PROJECT_NAME`."""
    base = endpoint or os.environ.get("PHOENIX_COLLECTOR_ENDPOINT") or "http://127.0.0.1:6006"
    key = api_key or os.environ.get("PHOENIX_API_KEY")
    named = project or os.environ.get("PHOENIX_PROJECT_NAME")
    return _destination(
        base,
        "",
        more,
        headers={"authorization": f"Bearer {key}"} if key else {},
        resource={PHOENIX_PROJECT: named} if named else {},
        renames=_CACHE_WRITE,
        feedback="phoenix",
    )


def langfuse(
    endpoint: str | None = None, *, public_key: str | None = None, secret_key: str | None = None, **more: Any
) -> Destination:
    """Langfuse. Else `LANGFUSE_BASE_URL` (or its EU cloud), `LANGFUSE_PUBLIC_KEY` and `LANGFUSE_SECRET_KEY`."""
    base = endpoint or os.environ.get("LANGFUSE_BASE_URL") or os.environ.get("LANGFUSE_HOST")
    public = _needed("langfuse's public_key", public_key, "LANGFUSE_PUBLIC_KEY")
    secret = _needed("langfuse's secret_key", secret_key, "LANGFUSE_SECRET_KEY")
    basic = base64.b64encode(f"{public}:{secret}".encode()).decode()
    return _destination(
        base or "https://cloud.langfuse.com",
        "/api/public/otel",
        more,
        headers={"authorization": f"Basic {basic}", "x-langfuse-ingestion-version": "4"},
        renames={
            **_CACHE_WRITE,
            names.PROMPT_NAME: "langfuse.observation.prompt.name",
            names.PROMPT_VERSION: "langfuse.observation.prompt.version",
        },
        feedback="langfuse",
    )


def mlflow(endpoint: str | None = None, *, experiment_id: str | None = None, **more: Any) -> Destination:
    """An MLflow tracking server. Else `MLFLOW_TRACKING_URI` (or localhost) and `MLFLOW_EXPERIMENT_ID` (or 0)."""
    base = endpoint or os.environ.get("MLFLOW_TRACKING_URI") or "http://127.0.0.1:5000"
    experiment = experiment_id or os.environ.get("MLFLOW_EXPERIMENT_ID") or "0"
    return _destination(base, "", more, headers={"x-mlflow-experiment-id": str(experiment)}, feedback="mlflow")


def logfire(endpoint: str | None = None, *, token: str | None = None, **more: Any) -> Destination:
    """Pydantic Logfire. Else its US region and `LOGFIRE_TOKEN`; the EU's is https://logfire-eu.pydantic.dev."""
    key = _needed("logfire's token", token, "LOGFIRE_TOKEN")
    return _destination(endpoint or "https://logfire-us.pydantic.dev", "", more, headers={"authorization": key})


def datadog(endpoint: str | None = None, *, api_key: str | None = None, **more: Any) -> Destination:
    """Datadog's LLM Observability, without an agent. Else otlp. and `DD_SITE` (or datadoghq.com), and `DD_API_KEY`."""
    key = _needed("datadog's api_key", api_key, "DD_API_KEY")
    site = os.environ.get("DD_SITE") or "datadoghq.com"
    return _destination(
        endpoint or f"https://otlp.{site}",
        "",
        more,
        headers={"dd-api-key": key, "dd-otlp-source": "llmobs"},
        feedback="datadog",
        feedback_url=f"https://api.{site}",
    )


def langsmith(
    endpoint: str | None = None, *, api_key: str | None = None, project: str | None = None, **more: Any
) -> Destination:
    """LangSmith. Else `LANGSMITH_ENDPOINT` (or its US cloud), `LANGSMITH_API_KEY`, `LANGSMITH_PROJECT`."""
    key = _needed("langsmith's api_key", api_key, "LANGSMITH_API_KEY")
    named = project or os.environ.get("LANGSMITH_PROJECT")
    return _destination(
        endpoint or os.environ.get("LANGSMITH_ENDPOINT") or "https://api.smith.langchain.com",
        "/otel",
        more,
        headers={"x-api-key": key, **({"langsmith-project": named} if named else {})},
        feedback="langsmith",
    )


def braintrust(
    endpoint: str | None = None, *, api_key: str | None = None, project_id: str | None = None, **more: Any
) -> Destination:
    """Braintrust. Else `BRAINTRUST_API_URL` (or its US data plane), `BRAINTRUST_API_KEY`, `BRAINTRUST_PROJECT_ID`."""
    key = _needed("braintrust's api_key", api_key, "BRAINTRUST_API_KEY")
    project = _needed("braintrust's project_id", project_id, "BRAINTRUST_PROJECT_ID")
    return _destination(
        endpoint or os.environ.get("BRAINTRUST_API_URL") or "https://api.braintrust.dev",
        "/otel",
        more,
        headers={"authorization": f"Bearer {key}", "x-bt-parent": f"project_id:{project}"},
        feedback="braintrust",
    )


def honeycomb(
    endpoint: str | None = None, *, api_key: str | None = None, dataset: str | None = None, **more: Any
) -> Destination:
    """Honeycomb. Else its US region and `HONEYCOMB_API_KEY`; the EU's is https://api.eu1.honeycomb.io.

    `dataset` is only for Honeycomb Classic.
    """
    key = _needed("honeycomb's api_key", api_key, "HONEYCOMB_API_KEY")
    headers = {"x-honeycomb-team": key, **({"x-honeycomb-dataset": dataset} if dataset else {})}
    return _destination(endpoint or "https://api.honeycomb.io", "", more, headers=headers)


def _destination(base: str, path: str, more: dict[str, Any], **own: Any) -> Destination:
    """The backend's own, with what was given added to it or put in its place."""
    merged = {**own, **more}
    for name in ("headers", "resource", "renames"):
        if name in own or name in more:
            merged[name] = {**own.get(name, {}), **more.get(name, {})}
    base = base.rstrip("/")
    return Destination(endpoint=base if base.endswith("/v1/traces") else f"{base}{path}/v1/traces", **merged)


def _needed(what: str, given: str | None, variable: str) -> str:
    found = given or os.environ.get(variable)
    if not found:
        raise InvalidSetting(f"{what} is missing: give it, or set {variable}")
    return found
