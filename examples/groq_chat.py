"""Groq's own client, recorded. Offline: leave out `http_client` and the key to ask the real one."""

import httpx
from groq import Groq

import loopkit

CHOICE = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "cards"}}
USAGE = {"prompt_tokens": 12, "completion_tokens": 1, "total_tokens": 13}
BODY = {"id": "c-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [CHOICE], "usage": USAGE}
offline = httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200, json=BODY)))

loopkit.init(service="helpdesk")
client = loopkit.wrap(Groq(api_key="offline", http_client=offline))
messages = [{"role": "user", "content": "My card was declined. Which queue?"}]
response = client.chat.completions.create(model="llama-3.3-70b-versatile", messages=messages)
loopkit.feedback(response, "helpful", True)

call = loopkit.open_store().spans(kind="llm")[0].model_call
print(call.provider, call.output[0].text, call.usage.output_tokens)
