"""Mistral's chat, recorded, streamed too. Offline: leave out `client` and the key to ask the real one."""

import json

import httpx2
from mistralai.client import Mistral

import loopkit

HEAD = {"id": "cmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "mistral-small-latest"}
PIECES = [{"index": 0, "delta": {"content": piece}, "finish_reason": None} for piece in ("car", "ds")]
USAGE = {"prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 14}
LAST = {**HEAD, "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}], "usage": USAGE}
EVENTS = [*({**HEAD, "choices": [piece]} for piece in PIECES), LAST]
BODY = "".join(f"data: {json.dumps(event)}\n\n" for event in EVENTS) + "data: [DONE]\n\n"
KIND = {"content-type": "text/event-stream"}
offline = httpx2.Client(transport=httpx2.MockTransport(lambda request: httpx2.Response(200, headers=KIND, text=BODY)))

loopkit.init(service="helpdesk")
client = loopkit.wrap(Mistral(api_key="offline", client=offline))
messages = [{"role": "user", "content": "My card was declined. Which queue?"}]
with client.chat.stream(model="mistral-small-latest", messages=messages) as stream:
    print("".join(event.data.choices[0].delta.content for event in stream))

span = loopkit.open_store().spans(kind="llm")[0]
print(span.model_call.provider, span.model_call.usage.output_tokens, span.model_call.time_to_first_token is not None)
