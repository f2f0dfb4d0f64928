"""How backends take feedback by their own APIs: what holds now of one statement, put there, changed, or taken away.

Every statement has an id that is the same for all that one person says under one name of one target, so that sending it
twice, or something newer, leaves one of them. Phoenix and MLflow were run against the real thing; Langfuse, LangSmith,
Braintrust and Datadog follow their documented APIs, not verified against the services.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote, urlsplit, urlunsplit

import httpx

from loopkit._ids import is_span_id
from loopkit._json import as_text, canonical
from loopkit.capture.dialects._content import mapping, sequence
from loopkit.config import Destination, FeedbackBy
from loopkit.export.presets import PHOENIX_PROJECT
from loopkit.export.scores import facts_of, langfuse_score, langsmith_feedback, moment
from loopkit.export.transport import NotNow, Refused, asked, failure, trust
from loopkit.types import Feedback, split_target

_SLOT: Final = "loopkit.statement"
_KINDS: Final[Mapping[str, str]] = {"user": "HUMAN", "reviewer": "HUMAN", "judge": "LLM"}
"""Of sources, in Phoenix's and OpenInference's words; all others are CODE."""


_IDS: Final = re.compile(r"[0-9a-f]{32}(?:-[0-9a-f]{16})?")


@dataclass(frozen=True, slots=True)
class Statement:
    """What one person says under one name of one target."""

    id: str
    """32 hex digits."""
    event: Feedback
    """What holds, or, where nothing does any more, what did."""
    target: str
    """A span, trace or session, or a part of one."""
    holds: bool

    @property
    def whole(self) -> str:
        """The target without the part that is meant."""
        return split_target(self.target)[0]

    def check(self) -> None:
        """Ids go into addresses. Raises `Refused` for what only looks like one."""
        if not self.whole.startswith("session:") and not _IDS.fullmatch(self.whole.removeprefix("trace:")):
            raise Refused(f"{self.whole[:60]!r} is no trace or span")

    @property
    def trace_id(self) -> str | None:
        """32 hex digits; None for a session."""
        return None if self.whole.startswith("session:") else self.whole.removeprefix("trace:")[:32]

    @property
    def span_id(self) -> str | None:
        """Sixteen hex digits, where it is about a span."""
        return self.whole[33:] if is_span_id(self.whole) else None

    @property
    def metadata(self) -> dict[str, Any]:
        """What these systems have no fields for."""
        part = split_target(self.target)[1]
        return {**self.event.metadata, **facts_of(self.event), **({"part": part} if part else {})}


def statement_id(target: str, name: str, by: str | None, source: str) -> str:
    """Always the same for the same."""
    return uuid.uuid5(uuid.NAMESPACE_URL, canonical(["loopkit", target, name, by, source])).hex


class Api:
    """One destination's API."""

    def __init__(
        self, destination: Destination, resource: Mapping[str, str], transport: httpx.BaseTransport | None = None
    ) -> None:
        """`resource` is the service's."""
        self._may_quote = destination.content is True
        self._tell = _APIS[destination.feedback or ""]
        headers = {name.lower(): value for name, value in destination.headers.items()}
        self._options = {**resource, **destination.resource, **headers}
        parts = urlsplit(destination.endpoint)
        place = urlunsplit(parts._replace(path=_OTLP_PATH.sub("", parts.path), query="", fragment=""))
        base = destination.feedback_url or place
        self._client = httpx.Client(
            base_url=base.rstrip("/"),
            headers={name: value for name, value in headers.items() if name not in _OF_SPANS},
            timeout=destination.timeout,
            transport=transport,
            verify=trust(destination) if base.startswith("https://") else False,
        )

    def tell(self, statement: Statement) -> None:
        """Have it hold there, or hold no longer. Raises `NotNow`, `Missing` or `Refused`."""
        statement.check()
        self._tell(self._request, statement, self._options)

    def close(self) -> None:
        """Give back connections."""
        self._client.close()

    def _request(self, method: str, path: str, body: Any = None, *, gone: bool = False) -> Any:
        """The answer. With `gone`, what isn't there is as it should be."""
        response = asked(self._client, method, path, json=body)
        if response.status_code == 404:
            if gone:
                return None
            raise Missing("HTTP 404")
        if response.status_code in _MAY_PASS or response.is_redirect or response.status_code >= 502:
            raise NotNow(f"HTTP {response.status_code}")
        if not response.is_success:
            failed = failure(response)
            if isinstance(failed, Refused) and not self._may_quote:  # the answer may quote what was said
                raise Refused(f"HTTP {response.status_code}")
            raise failed
        if "html" in response.headers.get("content-type", ""):  # a page to sign in at, say
            raise NotNow(f"HTTP {response.status_code} with a page")
        try:
            return response.json()
        except ValueError:
            return None


_OTLP_PATH: Final = re.compile(r"(/api/public/otel|/otel)?/v1/traces/?\Z")
_MAY_PASS: Final = frozenset((401, 403, 408, 425, 500))
"""A key that isn't valid for a while, a server's own fault: what is said meanwhile is told later."""


class Missing(Exception):  # a state, not an error
    """The backend doesn't know the target, or doesn't know it yet."""


_Request = Callable[..., Any]
_Options = Mapping[str, str]
_OF_SPANS: Final = frozenset(
    ("x-langfuse-ingestion-version", "x-mlflow-experiment-id", "dd-otlp-source", "x-bt-parent", "langsmith-project")
)
"""Headers that are about spans alone."""


def _phoenix(request: _Request, statement: Statement, options: _Options) -> None:
    """https://arize.com/docs/phoenix: /v1/span_annotations, and those of traces and sessions."""
    event, whole = statement.event, statement.whole
    if whole.startswith("session:"):
        kind, place = "session", {"session_id": whole.removeprefix("session:")}
    elif statement.span_id is None:
        kind, place = "trace", {"trace_id": str(statement.trace_id)}
    else:
        kind, place = "span", {"span_id": statement.span_id}
    if not statement.holds:
        project = quote(options.get(PHOENIX_PROJECT, "default"), safe="")
        path = f"/v1/projects/{project}/{kind}_annotations?identifier={statement.id}&delete_all=true"
        request("DELETE", path, gone=True)
        return
    row = {
        **place,
        "name": event.name if event.name != "note" else "note_",  # that name is Phoenix's own
        "annotator_kind": _KINDS.get(event.source, "CODE"),
        "result": {"label": _label(event), "score": _number(event), "explanation": _words(event)},
        "metadata": statement.metadata,
        "identifier": statement.id,
    }
    request("POST", f"/v1/{kind}_annotations?sync=true", {"data": [row]})


def _langfuse(request: _Request, statement: Statement, options: _Options) -> None:
    """https://api.reference.langfuse.com: scores, which their id makes one."""
    if statement.holds:
        event = replace(statement.event, id=statement.id)
        request("POST", "/api/public/scores", langfuse_score(event, statement.target))
    else:
        request("DELETE", f"/api/public/scores/{statement.id}", gone=True)


def _langsmith(request: _Request, statement: Statement, options: _Options) -> None:
    """https://docs.langchain.com/langsmith: /feedback. There are none on sessions."""
    if statement.trace_id is None:
        raise Refused("LangSmith takes feedback on runs and traces, not on sessions")
    id = str(uuid.UUID(hex=statement.id))
    if not statement.holds:
        request("DELETE", f"/api/v1/feedback/{id}", gone=True)
        return
    body = langsmith_feedback(replace(statement.event, id=statement.id), statement.target)
    try:
        request("POST", "/api/v1/feedback", body)
    except Refused as refused:
        if not str(refused).startswith("HTTP 409"):
            raise
        changed = {name: body[name] for name in ("score", "value", "comment", "correction")}
        request("PATCH", f"/api/v1/feedback/{id}", changed)


def _mlflow(request: _Request, statement: Statement, options: _Options) -> None:
    """https://mlflow.org/docs/latest/api_reference/rest-api.html: assessments. Their ids are the server's: we look."""
    event = statement.event
    if statement.trace_id is None:
        raise Refused("MLflow takes feedback on spans and traces, not on sessions")
    trace = f"/api/3.0/mlflow/traces/tr-{statement.trace_id}"
    info: Any = request("GET", trace, gone=not statement.holds)
    mine = _mlflow_ids(info, statement.id)
    if not statement.holds:
        for id in mine:
            request("DELETE", f"{trace}/assessments/{quote(id, safe='')}", gone=True)
        return
    said: Any = event.value
    if said is None:
        said = event.comment or event.preferred_over or list(event.ranking)
    made: dict[str, Any] = {
        "assessment_name": event.name,
        **({"span_id": statement.span_id} if statement.span_id else {}),
        "rationale": _words(event) or "",  # named always: what isn't stays as it was
        "metadata": {**{name: as_text(each) for name, each in statement.metadata.items()}, _SLOT: statement.id},
    }
    if event.correction is not None:
        made["expectation"] = {"value": event.correction}
    else:
        made["feedback"] = {"value": said}
    other = "feedback" if event.correction is not None else "expectation"
    if mine and any(each.get(other) and each.get("assessment_id") == mine[0] for each in _mlflow_assessments(info)):
        # which can't be changed into the other
        request("DELETE", f"{trace}/assessments/{quote(mine[0], safe='')}", gone=True)
        mine = []
    if mine:
        changed = ",".join(_camel(name) for name in made if name != "span_id")
        made |= {"assessment_id": mine[0], "trace_id": f"tr-{statement.trace_id}"}
        request("PATCH", f"{trace}/assessments/{quote(mine[0], safe='')}", {"assessment": made, "update_mask": changed})
        return
    source = {"source_type": _mlflow_source(event), "source_id": event.by or event.source}
    times = {"create_time": moment(event.at), "last_update_time": moment(event.at)}
    body = {**made, **times, "trace_id": f"tr-{statement.trace_id}", "source": source}
    request("POST", f"{trace}/assessments", {"assessment": body})


def _braintrust(request: _Request, statement: Statement, options: _Options) -> None:
    """https://www.braintrust.dev/docs/api-reference: feedback on a project's logs. Scores are from 0 to 1 there."""
    parent = options.get("x-bt-parent", "")
    if not parent.startswith("project_id:"):
        raise Refused("Braintrust takes feedback by the project's id: give backends.braintrust(project_id=…)")
    if statement.span_id is None:
        raise Refused("Braintrust takes feedback on spans, not on whole traces or sessions")
    event, number = statement.event, _number(statement.event)
    fits = number is not None and 0 <= number <= 1
    said = {"value": event.value} if event.value is not None and not fits else {}
    row: dict[str, Any] = {"id": statement.span_id, "source": "external"}
    if not statement.holds:
        row |= {"scores": {event.name: None}, "comment": None}
        row |= {"expected": None} if event.correction is not None else {}
    else:
        row |= {"metadata": {**statement.metadata, **said, _SLOT: statement.id}}
        row |= {"scores": {event.name: number if fits else None}}
        row |= {"expected": event.correction} if event.correction is not None else {}
        row |= {"comment": words} if (words := _words(event)) else {}
    body = {"feedback": [row]}
    request("POST", f"/v1/project_logs/{parent.removeprefix('project_id:')}/feedback", body)


def _datadog(request: _Request, statement: Statement, options: _Options) -> None:
    """https://docs.datadoghq.com/llm_observability: external evaluations. Ids are decimal there, names ASCII."""
    event, number, label = statement.event, _number(statement.event), _label(statement.event)
    if statement.span_id is None:
        raise Refused("Datadog takes evaluations of spans, not of whole traces or sessions")
    if not statement.holds:
        raise Refused("Datadog's API takes no evaluation back: it stands there as it was")
    if isinstance(event.value, bool):
        said: dict[str, Any] = {"metric_type": "boolean", "boolean_value": event.value}
    elif number is not None:
        said = {"metric_type": "score", "score_value": number}
    else:
        said = {"metric_type": "categorical", "categorical_value": label or "given"}
    tags = [f"{name.removeprefix('loopkit.feedback.')}:{each}" for name, each in facts_of(event).items()]
    metric = {
        "join_on": {
            "span": {"span_id": str(int(statement.span_id, 16)), "trace_id": str(int(statement.trace_id or "0", 16))}
        },
        "ml_app": options.get("service.name", "loopkit"),
        "timestamp_ms": event.at // 1_000_000,
        "label": re.sub(r"[^A-Za-z0-9_]", "_", event.name if event.name[:1].isascii() else f"x{event.name}"),
        **said,
        **({"reasoning": words} if (words := _words(event)) else {}),
        "tags": tags,
    }
    body = {"data": {"type": "evaluation_metric", "attributes": {"metrics": [metric]}}}
    request("POST", "/api/intake/llm-obs/v2/eval-metric", body)


_APIS: Final[Mapping[FeedbackBy | str, Callable[[_Request, Statement, _Options], None]]] = {
    "phoenix": _phoenix,
    "langfuse": _langfuse,
    "langsmith": _langsmith,
    "mlflow": _mlflow,
    "braintrust": _braintrust,
    "datadog": _datadog,
}


def _number(event: Feedback) -> float | None:
    return float(event.value) if isinstance(event.value, (bool, float, int)) else None


def _label(event: Feedback) -> str | None:
    if isinstance(event.value, bool):
        return str(event.value).lower()
    return event.value if isinstance(event.value, str) else None


def _words(event: Feedback) -> str | None:
    """A comment, or a correction where the system has no place for one."""
    corrected = None if event.correction is None else as_text(event.correction)
    return event.comment or corrected or event.reason


def _mlflow_source(event: Feedback) -> str:
    return {"HUMAN": "HUMAN", "LLM": "LLM_JUDGE"}.get(_KINDS.get(event.source, ""), "CODE")


def _mlflow_assessments(info: Any) -> list[Mapping[str, Any]]:
    trace = mapping(mapping(mapping(info).get("trace")).get("trace_info"))
    return [mapping(each) for each in sequence(trace.get("assessments"))]


def _mlflow_ids(info: Any, statement: str) -> list[str]:
    """Of the assessments that are there the ones that are this statement: one, or none."""
    there = _mlflow_assessments(info)
    return [str(each["assessment_id"]) for each in there if mapping(each.get("metadata")).get(_SLOT) == statement]


def _camel(name: str) -> str:
    """As JSON has the names of a field mask."""
    return re.sub(r"_([a-z])", lambda found: found[1].upper(), name)
