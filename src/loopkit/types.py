"""The six nouns of the loop, and what they are made of.

A call becomes a `Span`; what was said about it, by a user, an evaluator, a reviewer or a guard, is `Feedback`;
spans with feedback become an `Example`; a tuner turns examples into a `Variant`; an evaluator gives a `Score`,
which is stored as Feedback again. A span of kind "llm" carries a `ModelCall`. Every room of the package meets
the others in these values. They are frozen, and need nothing but the standard library.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "JSON",
    "Example",
    "Feedback",
    "Kind",
    "Message",
    "ModelCall",
    "Part",
    "Score",
    "Span",
    "SpanError",
    "Stage",
    "Usage",
    "Variant",
    "Verdict",
]

JSON = Any
"""A JSON value: None, bool, int, float, str, or lists and string-keyed dicts of those."""

Kind = Literal["task", "llm", "tool", "retrieval", "embedding", "agent", "guardrail", "route", "evaluation"]
"""What a span is about."""

Source = Literal["user", "reviewer", "code", "judge", "guardrail", "system"]
"""Who or what made a statement."""

Stage = Literal["input", "output", "tool_call", "tool_result"]
"""Where a guard looks: at what a model is asked, at what it says, at what it has tools do, at what they give."""

CorrectionStatus = Literal["proposed", "accepted", "rejected"]

FeedbackKind = Literal["explicit", "implicit", "inferred"]
"""Said outright, shown by behaviour, or read out of something else."""


_PART = re.compile(r"(?s)#((?:document|position|range)=.*)\Z")


def split_target(target: str) -> tuple[str, str | None]:
    """What a target names, and the part of it that is meant: `document=` an id, `position=` a number, `range=…-…`."""
    found = _PART.search(target) if "#" in target else None
    return (target, None) if found is None else (target[: found.start()], found[1])


def _empty() -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One piece of a message. `type` says which of the other fields hold something."""

    type: str
    """text, reasoning, tool_call, tool_call_response, uri, blob, file, or a provider's own."""
    content: JSON = None
    """The text, the tool's result, or the provider's own shape."""
    id: str | None = None
    name: str | None = None
    arguments: JSON = None
    uri: str | None = None
    mime_type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn: who speaks, and what in."""

    role: str
    parts: tuple[Part, ...] = ()
    name: str | None = None
    finish_reason: str | None = None
    """Only in a model's answers: stop, length, tool_call, content_filter, error; None when not known."""
    logprobs: tuple[float, ...] = ()
    """Of a model's answer, one a token, where they were asked for; kept in the local store only."""
    token_ids: tuple[int, ...] = ()
    """The same of the tokens' numbers in the model's vocabulary."""

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(str(part.content) for part in self.parts if part.type == "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens as the provider reported them; None where it reported nothing (never guessed)."""

    input_tokens: int | None = None
    """All input tokens, the cached ones included."""
    output_tokens: int | None = None
    """All output tokens, the reasoning ones included."""
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    audio_input_tokens: int | None = None
    """Of the input tokens, those of sound."""
    audio_output_tokens: int | None = None
    image_input_tokens: int | None = None
    """Of the input tokens, those of pictures."""
    image_output_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCall:
    """What a span of kind "llm" carries, in words that no provider owns."""

    provider: str
    operation: str
    """chat, text_completion, generate_content, embeddings, moderation, batch, rerank."""
    server_address: str | None = None
    """The host that was called."""
    server_port: int | None = None
    model: str | None = None
    """The model asked for."""
    response_model: str | None = None
    """The model that answered."""
    response_id: str | None = None
    input: tuple[Message, ...] = ()
    output: tuple[Message, ...] = ()
    parameters: Mapping[str, JSON] = field(default_factory=_empty)
    """Temperature and the like, by OpenTelemetry's names without the prefix `gen_ai.request.`."""
    tools: tuple[Mapping[str, JSON], ...] = ()
    usage: Usage = field(default_factory=Usage)
    cost: float | None = None
    """In US dollars; None when not known."""
    finish_reasons: tuple[str, ...] = ()
    time_to_first_token: float | None = None
    """In seconds, for streams."""
    system_fingerprint: str | None = None
    stream: bool = False
    output_type: Literal["text", "json", "image", "speech"] | None = None
    """What was asked for, where it isn't free text."""
    dimensions: int | None = None
    """Of the vectors, for embeddings; the vectors themselves are not kept."""
    native_format: str | None = None
    """Which API the two below belong to, such as openai.chat; None for a call that somebody else recorded."""
    native_request: str | None = None
    """The request's JSON text as the provider's SDK had it, redacted; for replay. Kept in the local store only."""
    native_response: str | None = None
    """The same of the response; a stream's is what its chunks amount to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanError:
    """Why a span failed: the exception's class name and its (redacted) message."""

    type: str
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One recorded unit of work."""

    trace_id: str
    """32 hex digits."""
    span_id: str
    """16 hex digits."""
    parent_id: str | None = None
    name: str
    kind: Kind = "task"
    started_at: int
    """Nanoseconds since the epoch."""
    ended_at: int
    status: Literal["ok", "error", "cancelled"] = "ok"
    error: SpanError | None = None
    input: JSON = None
    output: JSON = None
    model_call: ModelCall | None = None
    service: str | None = None
    task: str | None = None
    variant: str | None = None
    propensity: float | None = None
    """The probability with which a router chose `variant`; None where nothing was chosen."""
    prompt_version: str | None = None
    """Changes with the variant's prompt template; None where the variant has none."""
    user_id: str | None = None
    session_id: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, JSON] = field(default_factory=_empty)
    attributes: Mapping[str, JSON] = field(default_factory=_empty)
    """Whatever else was set: other instrumentations' and the kinds' own attributes, by their wire names."""
    sampling_probability: float = 1.0
    """With which a span of an ordinary trace is here, head and tail together."""
    head_probability: float = 1.0
    """What of it is the head's draw."""
    tail_probability: float = 1.0
    """What of it is the tail's, which a reason to keep the trace overrules."""
    rescue_seconds: float = 0.0
    """Feedback within so many seconds after the span's end is such a reason."""
    kept_for: Literal["error", "guardrail", "slow", "tokens"] | None = None
    """Why this span alone keeps its trace."""
    inclusion_probability: float = 1.0
    """With which it is here, all told: the store finds out when it is read."""
    content_status: Literal["kept", "local", "off", "failed", "truncated", "shed"] = "kept"
    """What became of input and output: "local" means that they are in the local store alone, "failed" that a redactor
    raised and the content was dropped, "shed" that recording had spent its budget."""

    @property
    def id(self) -> str:
        """The id to pass around: trace id and span id in one string."""
        return f"{self.trace_id}-{self.span_id}"

    @property
    def duration(self) -> float:
        """In seconds."""
        return (self.ended_at - self.started_at) / 1e9

    @property
    def time_per_output_token(self) -> float | None:
        """Seconds from one token of a streamed answer to the next, on average; None where that can't be told."""
        call = self.model_call
        if call is None or call.time_to_first_token is None or (call.usage.output_tokens or 0) < 2:
            return None
        return (self.duration - call.time_to_first_token) / ((call.usage.output_tokens or 0) - 1)

    @property
    def weight(self) -> float:
        """How many spans like it it stands for: one over its inclusion probability."""
        return 1 / self.inclusion_probability if self.inclusion_probability > 0 else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """One statement about a target: an event in an append-only log. See `loopkit.signals` for how events fold."""

    id: str
    """Unique, and increasing within a process."""
    target: str
    """A span's id, `trace:…`, `session:…`, a provider's response id, or a join key such as `order:4432`; with
    `#document=…`, `#position=…` or `#range=…` behind it a part of that."""
    name: str
    value: bool | float | str | None = None
    correction: JSON = None
    """What the output should have been."""
    correction_status: CorrectionStatus | None = None
    preferred_over: str | None = None
    """The target that this one was preferred to."""
    ranking: tuple[str, ...] = ()
    """Targets, best first."""
    source: Source = "user"
    kind: FeedbackKind = "explicit"
    by: str | None = None
    """Who: an opaque name, pseudonymised unless told otherwise."""
    comment: str | None = None
    reason: str | None = None
    """Why it is said, or why a correction is rejected."""
    weight: float | None = None
    metadata: Mapping[str, JSON] = field(default_factory=_empty)
    at: int
    """When it happened, nanoseconds since the epoch, by the sender's clock."""
    arrived_at: int
    """When it was first appended, by this machine's clock."""
    key: str | None = None
    """Events with the same key are the same event."""
    supersedes: str | None = None
    """The event id that this one replaces."""
    retracts: str | None = None
    """The event id that this one takes back."""

    @property
    def whole(self) -> str:
        """The target without the part of it that is meant."""
        return split_target(self.target)[0]

    @property
    def part(self) -> str | None:
        """The part of the target that is meant, as `split_target` has it."""
        return split_target(self.target)[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One thing to learn from or to be measured on, with the way back to where it came from."""

    id: str
    """A hash of input, expected output and lineage."""
    input: Mapping[str, JSON]
    """The task's inputs by name."""
    expected: JSON = None
    """What the output should be; None when only judged outputs are known."""
    chosen: JSON = None
    rejected: JSON = None
    scores: Mapping[str, float] = field(default_factory=_empty)
    split: Literal["train", "test", "golden"] = "train"
    group: str | None = None
    """User or session: examples of one group are never on both sides of a split."""
    consent: bool = True
    spans: tuple[str, ...] = ()
    feedback: tuple[str, ...] = ()
    weight: float = 1.0
    """How much it counts: the weight of what was said, and of its part in that where several calls had one."""
    at: int = 0
    """When its span started, nanoseconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way to do a task, as data.

    Three shapes: a model with a prompt (and demonstrations, fixed or retrieved); a registered callable,
    `callable="module:function"`; a cascade, `stages=(…)`, whose stages are tried in order until one is confident.
    """

    model: str | None = None
    prompt: str | None = None
    """A template; `{name}` stands for the task's input of that name."""
    system: str | None = None
    parameters: Mapping[str, JSON] = field(default_factory=_empty)
    """Passed to the provider as they are (temperature, max_tokens, extra_body, …)."""
    demonstrations: tuple[Example, ...] = ()
    """Shown to the model before every call, as earlier turns."""
    retriever: Mapping[str, JSON] | None = None
    """`{"dataset": id, "k": n, "fields": [...]}`: the nearest training examples, per call."""
    callable: str | None = None
    """`module:function`, called with the inputs (and `parameters` as keywords)."""
    client: str | None = None
    """Which of a router's clients serves it, by name, where there are several."""
    stages: tuple[Variant, ...] = ()
    threshold: float = 0.0
    """In a cascade: a stage's answer stands when its confidence is at least this."""
    confidence: str | None = None
    """How a model's answer says how sure it is: "logprobs" (the geometric mean of its tokens' probabilities),
    "agreement" (the share of `samples` answers that say the same), or `module:function`, which is given the answer and
    the inputs and gives a number from 0 to 1, a yes or no, or a `Score`."""
    samples: int = 5
    """How often "agreement" asks."""
    provenance: Mapping[str, JSON] = field(default_factory=_empty)
    """Which tuner made it, from which dataset and which variant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What an evaluator returns; a bare bool, number or string is turned into one."""

    name: str
    value: float | None = None
    label: str | None = None
    reason: str | None = None
    error: str | None = None
    """The evaluator itself failed: a row in the report, not the end of the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a guard's check decided about one text."""

    action: Literal["allow", "flag", "redact", "replace", "retry", "hold", "block"]
    check: str
    stage: Stage
    reason: str = ""
    score: float | None = None
    text: str | None = None
    """With "redact" and "replace": the text to go on with; with "retry" what the model is told; else what was said of
    the text, which may quote it, and is not recorded."""
    mode: Literal["enforce", "shadow", "after"] = "enforce"
    """Whether it was acted on, or only recorded: by a check on trial, or by one that looks when all is over."""
    failed: bool = False
    """Whether the check itself failed, and this is what it means that it did."""
