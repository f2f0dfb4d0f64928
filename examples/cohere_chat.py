"""Cohere's chat, recorded. Offline: leave out `httpx_client` and the key to ask the real one."""

import cohere
import httpx

import loopkit

MESSAGE = {"role": "assistant", "content": [{"type": "text", "text": "cards"}]}
USAGE = {"tokens": {"input_tokens": 12, "output_tokens": 1}}
BODY = {"id": "c-1", "finish_reason": "COMPLETE", "message": MESSAGE, "usage": USAGE}
offline = httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200, json=BODY)))

loopkit.init(service="helpdesk")
client = loopkit.wrap(cohere.ClientV2(api_key="offline", httpx_client=offline))
messages = [{"role": "user", "content": "My card was declined. Which queue?"}]
response = client.chat(model="command-a-03-2025", messages=messages)
loopkit.feedback(response, "helpful", True)

call = loopkit.open_store().spans(kind="llm")[0].model_call
print(call.provider, call.output[0].text, call.usage.output_tokens)
