"""Every attribute name that loopkit writes or reads, once.

gen_ai.* follows the OpenTelemetry GenAI conventions (repository semantic-conventions-genai, registry at commit
0387091683b4, stability: development); openinference.*, input.* and output.* are the small OpenInference overlay
that most LLM backends read; loopkit.* is for what has no standard. The docs page of all names is made from this
module: the comment after a name is its meaning.
"""

from __future__ import annotations

OPERATION = "gen_ai.operation.name"  # chat, embeddings, execute_tool, retrieval, invoke_agent, invoke_workflow, …
PROVIDER = "gen_ai.provider.name"  # openai, anthropic, groq, …
REQUEST_MODEL = "gen_ai.request.model"  # the model asked for
REQUEST_STREAM = "gen_ai.request.stream"  # true when the answer was streamed
REQUEST_PREFIX = "gen_ai.request."  # temperature, top_p, max_tokens, seed, stop_sequences, …
RESPONSE_MODEL = "gen_ai.response.model"  # the model that answered
RESPONSE_ID = "gen_ai.response.id"  # the provider's id of the answer
FINISH_REASONS = "gen_ai.response.finish_reasons"  # one per answer
TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"  # seconds, for streams
INPUT_TOKENS = "gen_ai.usage.input_tokens"  # all, cached ones included
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"  # all, reasoning ones included
CACHE_READ_TOKENS = "gen_ai.usage.cache_read.input_tokens"  # of the input tokens, read from the provider's cache
CACHE_WRITE_TOKENS = "gen_ai.usage.cache_write.input_tokens"  # of the input tokens, written to it
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"  # of the output tokens
AUDIO_INPUT_TOKENS = "gen_ai.usage.audio.input_tokens"  # of the input tokens, those of sound
AUDIO_OUTPUT_TOKENS = "gen_ai.usage.audio.output_tokens"  # of the output tokens, those of sound
IMAGE_INPUT_TOKENS = "gen_ai.usage.image.input_tokens"  # of the input tokens, those of pictures
IMAGE_OUTPUT_TOKENS = "gen_ai.usage.image.output_tokens"  # of the output tokens, those of pictures
OUTPUT_TYPE = "gen_ai.output.type"  # json, image or speech, where that was asked for
DIMENSIONS = "gen_ai.embeddings.dimension.count"  # of the vectors
ENCODING_FORMATS = "gen_ai.request.encoding_formats"  # of the vectors: float, base64
INPUT_MESSAGES = "gen_ai.input.messages"  # content: JSON list of messages
OUTPUT_MESSAGES = "gen_ai.output.messages"  # content: JSON list of messages, each with its finish_reason
TOOL_DEFINITIONS = "gen_ai.tool.definitions"  # content: JSON list
TOOL_NAME = "gen_ai.tool.name"  # of a tool span
TOOL_TYPE = "gen_ai.tool.type"  # of a tool span: extension where another process runs it
TOOL_CALL_ID = "gen_ai.tool.call.id"  # of a tool span: the id that the model gave the call
TOOL_ARGUMENTS = "gen_ai.tool.call.arguments"  # content, exported only: of a tool span, JSON
TOOL_RESULT = "gen_ai.tool.call.result"  # content, exported only: of a tool span, JSON or text
RETRIEVAL_QUERY = "gen_ai.retrieval.query.text"  # content, exported only: of a retrieval span
RETRIEVAL_DOCUMENTS = "gen_ai.retrieval.documents"  # content, exported only: of a retrieval span, JSON
AGENT_NAME = "gen_ai.agent.name"  # of an agent span
WORKFLOW_NAME = "gen_ai.workflow.name"  # of a task span
DATA_SOURCE = "gen_ai.data_source.id"  # of a retrieval span
PROMPT_NAME = "gen_ai.prompt.name"  # the task, where the variant that a router chose has a prompt
PROMPT_VERSION = "gen_ai.prompt.version"  # eight hex digits that change with the prompt's text
CONVERSATION_ID = "gen_ai.conversation.id"  # the session id, on llm and agent spans
SERVER_ADDRESS = "server.address"  # the host that a model call went to
SERVER_PORT = "server.port"  # and its port
SYSTEM_FINGERPRINT = "openai.response.system_fingerprint"  # which build of the provider's model answered

SESSION_ID = "session.id"  # the session id, on every span
USER_ID = "user.id"  # the user id, on every span
ERROR_TYPE = "error.type"  # the exception's class; "cancelled" where the caller stopped listening
FLAG_KEY = "feature_flag.key"  # the task, where a router chose
FLAG_VARIANT = "feature_flag.result.variant"  # the variant it chose

OI_KIND = "openinference.span.kind"  # LLM, CHAIN, TOOL, RETRIEVER, EMBEDDING, AGENT, GUARDRAIL, EVALUATOR
OI_INPUT = "input.value"  # content: what went in
OI_INPUT_TYPE = "input.mime_type"  # content: of input.value
OI_OUTPUT = "output.value"  # content: what came out
OI_OUTPUT_TYPE = "output.mime_type"  # content: of output.value
OI_TAGS = "tag.tags"  # the tags, a list
OI_METADATA = "metadata"  # the metadata, JSON

KIND = "loopkit.span.kind"  # task, llm, tool, retrieval, embedding, agent, guardrail, route, evaluation
TASK = "loopkit.task"  # the task that spans, variants, datasets and rollouts share
VARIANT = "loopkit.variant"  # the registry's name of the variant that served the call
PROPENSITY = "loopkit.router.propensity"  # the probability with which it was chosen
ROUTE_REASON = "loopkit.router.reason"  # why it was chosen: share, sticky, rule, default, fallback
ROUTE_FALLBACK = "loopkit.router.fallback"  # true where the chosen variant failed and the default answered
ROUTE_DEPLOYMENT = "loopkit.router.deployment"  # which of several clients answered, by name
ROUTE_ATTEMPTS = "loopkit.router.attempts"  # how many attempts it took
ROUTE_ANSWERED_BY = "loopkit.router.answered_by"  # the variant that answered, where the chosen one failed
ROUTE_EXPLORE = "loopkit.router.explore"  # true where a variant was tried that the policy doesn't think best
ROUTE_CANDIDATES = "loopkit.router.candidates"  # what could have been chosen, a list
SAMPLING_PROBABILITY = "loopkit.sampling.probability"  # with which this span was kept as one of an ordinary trace
SAMPLING_HEAD = "loopkit.sampling.head_probability"  # what of it is the head's draw, where there is a tail too
SAMPLING_TAIL = "loopkit.sampling.tail_probability"  # what of it is the tail's draw, which a reason to keep overrules
SAMPLING_RESCUE = "loopkit.sampling.rescue_seconds"  # feedback within this time after its end keeps its trace
SAMPLING_REASON = "loopkit.sampling.reason"  # why this span keeps its trace: error, guardrail, slow, tokens
COST = "loopkit.cost.usd"  # of the call, where the price is known
CONTENT_STATUS = (
    "loopkit.content.status"  # local, off, failed (redactor raised), truncated, shed (budget); absent when kept
)
CANCELLED = "loopkit.cancelled"  # true where a stream or call was stopped before its end
EVALUATION_NAME = "gen_ai.evaluation.name"  # of a statement: its name, such as helpful
EVALUATION_SCORE = "gen_ai.evaluation.score.value"  # of a statement: its number; 1 and 0 for true and false
EVALUATION_LABEL = "gen_ai.evaluation.score.label"  # of a statement: true, false, or its text (a text is content)
EVALUATION_EXPLANATION = "gen_ai.evaluation.explanation"  # content: the comment of a statement
FEEDBACK_ID = "loopkit.feedback.id"  # of a statement: the event's
FEEDBACK_TARGET = "loopkit.feedback.target"  # of a statement: what it is about, as it was given
FEEDBACK_SOURCE = "loopkit.feedback.source"  # of a statement: user, reviewer, code, judge, guardrail, system
FEEDBACK_KIND = "loopkit.feedback.kind"  # of a statement: explicit, implicit, inferred
FEEDBACK_BY = "loopkit.feedback.by"  # of a statement: a pseudonym of whoever made it
FEEDBACK_WEIGHT = "loopkit.feedback.weight"  # of a statement: its weight
FEEDBACK_CORRECTION = "loopkit.feedback.correction"  # content: what the output should have been, JSON or a text
FEEDBACK_PREFERRED_OVER = "loopkit.feedback.preferred_over"  # of a preference: the other target
FEEDBACK_RANKING = "loopkit.feedback.ranking"  # of a ranking: the targets, best first
FEEDBACK_SUPERSEDES = "loopkit.feedback.supersedes"  # of a statement: the event that it replaces
FEEDBACK_RETRACTS = "loopkit.feedback.retracts"  # of a retraction: the event that it takes back
GUARD_NAME = "loopkit.guardrail.name"  # the check
GUARD_STAGE = "loopkit.guardrail.stage"  # input, output, tool_call, tool_result
GUARD_OUTCOME = "loopkit.guardrail.outcome"  # allow, flag, redact, replace, retry, hold, block, error
GUARD_REASON = "loopkit.guardrail.reason"  # why
GUARD_SCORE = "loopkit.guardrail.score"  # how sure the check is
GUARD_MODE = "loopkit.guardrail.mode"  # enforce; shadow: recorded only; after: recorded only, when all was over
GUARD_ON_ERROR = "loopkit.guardrail.on_error"  # open or closed: what a failure of the check means
GUARD_SECONDS = "loopkit.guardrail.seconds"  # how long a check took that was waited for
INTERRUPTED = "loopkit.interrupted"  # true: a guard gave the call up before its end; usage may be missing
NATIVE_FORMAT = "loopkit.native.format"  # local store only: which API the next two belong to, such as openai.chat
NATIVE_REQUEST = "loopkit.request.body"  # local store only: the provider-native request, JSON
NATIVE_RESPONSE = "loopkit.response.body"  # local store only: the provider-native response, JSON
PARAMETERS = "loopkit.request.parameters"  # content: parameters that have no gen_ai.request name, JSON

OUR_PREFIXES = (
    "gen_ai.", "loopkit.", "openinference.", "input.", "output.", "session.", "user.", "error.", "feature_flag.",
    "tag.tags", "metadata", "openai.",
)  # fmt: skip
"""What the names above begin with."""

_SAID = (
    "input.value", "input.mime_type", "output.value", "output.mime_type", "gen_ai.input.messages",
    "gen_ai.output.messages", "gen_ai.system_instructions", "gen_ai.tool.definitions", "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result", "gen_ai.retrieval.", "gen_ai.prompt", "gen_ai.completion", "loopkit.request.",
    "loopkit.response.", "llm.input_messages", "llm.output_messages", "llm.prompts", "llm.choices", "llm.tools",
    "llm.invocation_parameters", "llm.prompt_template", "retrieval.documents", "reranker.", "embedding.embeddings",
    "tool.parameters", "tool.json_schema", "tool_call.", "event.",
)  # fmt: skip


def is_content(name: str) -> bool:
    """Whether an attribute of this name, anybody's, says what was said."""
    return name.startswith(_SAID) and name not in (PROMPT_NAME, PROMPT_VERSION)


OTHER_ERROR = "_OTHER"
"""OpenTelemetry's error.type where nothing more is known."""

OI_KINDS = {
    "task": "CHAIN",
    "llm": "LLM",
    "tool": "TOOL",
    "retrieval": "RETRIEVER",
    "embedding": "EMBEDDING",
    "agent": "AGENT",
    "guardrail": "GUARDRAIL",
    "route": "CHAIN",
    "evaluation": "EVALUATOR",
}
"""Our kinds in OpenInference's words; a router is a CHAIN there (its DECISION is for typed answers)."""

OPERATIONS = {
    "task": "invoke_workflow",
    "tool": "execute_tool",
    "retrieval": "retrieval",
    "agent": "invoke_agent",
    "guardrail": "guardrail",
    "route": "route",
    "evaluation": "evaluate",
}
"""The operation name of a kind whose spans have no model call; the last three are ours, which the spec allows."""

NAME_KEYS = {"task": WORKFLOW_NAME, "tool": TOOL_NAME, "agent": AGENT_NAME, "retrieval": DATA_SOURCE}
"""Where a span's own name goes, by kind."""
