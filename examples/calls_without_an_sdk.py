"""Model calls over plain HTTP, and those that you tell of yourself. Needs OPENAI_BASE_URL."""

import os

import httpx

import loopkit

loopkit.init(service="helpdesk")
url = os.environ["OPENAI_BASE_URL"]
http = loopkit.wrap(httpx.Client(), provider="llama_cpp")
asked = {"model": "smollm2", "messages": [{"role": "user", "content": "Which queue?"}], "max_tokens": 8}
answer = http.post(f"{url}/chat/completions", json=asked, timeout=60).json()

loopkit.set_price("acme", "acme-1", input=0.5, output=1.5)
loopkit.record_model_call(
    provider="acme",
    model="acme-1",
    input="Which queue?",
    output="cards",
    usage={"input_tokens": 400, "output_tokens": 1},
)

for span in loopkit.open_store().spans(kind="llm"):
    print(span.model_call.provider, span.model_call.output[0].text, loopkit.cost(span))
