"""Spans of another OpenTelemetry instrumentation, read into the local store. Needs OPENAI_API_KEY."""

from openai import OpenAI
from openinference.instrumentation.openai import OpenAIInstrumentor
from opentelemetry.sdk.trace import TracerProvider

import loopkit
from loopkit import frameworks

provider = TracerProvider()  # your own, with your exporters
provider.add_span_processor(frameworks.span_processor())
OpenAIInstrumentor().instrument(tracer_provider=provider)
loopkit.init(service="helpdesk")

with loopkit.span("triage", task="triage") as span:
    messages = [{"role": "user", "content": "My card was declined. Which queue?"}]
    OpenAI().chat.completions.create(model="smollm2", messages=messages, max_tokens=8)

for each in loopkit.open_store().spans(trace_id=span.trace_id):
    print(each.kind, each.name, each.model_call and each.model_call.output[0].text)
