"""A LangChain chain, recorded as a tree. Needs OPENAI_API_KEY, and OPENAI_BASE_URL for your own server."""

import os

import loopkit

loopkit.init(service="helpdesk")
loopkit.instrument("langchain", "openai")

from langchain_core.prompts import ChatPromptTemplate  # noqa: E402
from langchain_openai import ChatOpenAI  # noqa: E402

prompt = ChatPromptTemplate.from_messages([("system", "Name the queue."), ("user", "{ticket}")])
chain = prompt | ChatOpenAI(model="smollm2", max_tokens=8, base_url=os.environ.get("OPENAI_BASE_URL"))
with loopkit.span("triage", task="triage") as span:
    answer = chain.invoke({"ticket": "My card was declined."})
loopkit.feedback(span, "helpful", True)

spans = loopkit.open_store().spans(trace_id=span.trace_id)
names = {each.span_id: each.name for each in spans}
for each in spans:
    print(each.kind, each.name, "in", names.get(each.parent_id))
