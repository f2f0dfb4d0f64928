"""An agent of the OpenAI Agents SDK, recorded. Needs OPENAI_API_KEY, and OPENAI_BASE_URL for your own server."""

import agents
import openai

import loopkit
from loopkit import frameworks

loopkit.init(service="helpdesk")
agents.set_trace_processors([frameworks.agents_processor()])  # the SDK's own one would send traces to OpenAI
client = loopkit.wrap(openai.AsyncOpenAI())

model = agents.OpenAIChatCompletionsModel("smollm2", openai_client=client)
triage = agents.Agent(name="triage", instructions="Name the queue.", model=model)
result = agents.Runner.run_sync(triage, "My card was declined.", run_config=agents.RunConfig(group_id="s-1"))
print(result.final_output)

for span in loopkit.open_store().spans(session_id="s-1"):
    print(span.kind, span.name)
