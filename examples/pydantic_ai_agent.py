"""An agent of Pydantic AI, through its own OpenTelemetry. Offline: put a model's name in the place of `TestModel`."""

from opentelemetry.sdk.trace import TracerProvider
from pydantic_ai import Agent
from pydantic_ai.models.instrumented import InstrumentationSettings
from pydantic_ai.models.test import TestModel

import loopkit
from loopkit import frameworks

provider = TracerProvider()  # your own, with your exporters
provider.add_span_processor(frameworks.span_processor())
Agent.instrument_all(InstrumentationSettings(tracer_provider=provider))
loopkit.init(service="helpdesk")

agent = Agent(TestModel(), name="helper", system_prompt="Be brief.")


@agent.tool_plain
def balance(account: str) -> str:
    """Look a balance up."""
    return f"{account} has 12 euros"


print(agent.run_sync("How much is left?").output)
for each in loopkit.open_store().spans():
    print(each.kind, each.name, each.status)
