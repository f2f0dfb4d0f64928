"""Ollama's own client, recorded. Offline: leave out `transport` to ask the real one."""

import json

import httpx
import ollama

import loopkit

PIECES = [{"model": "llama3.2", "message": {"role": "assistant", "content": piece}, "done": False} for piece in "ok"]
LAST = {"model": "llama3.2", "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"}
BODY = "\n".join(json.dumps(each) for each in (*PIECES, {**LAST, "prompt_eval_count": 12, "eval_count": 2}))
offline = httpx.MockTransport(lambda request: httpx.Response(200, text=BODY))

loopkit.init(service="helpdesk")
client = loopkit.wrap(ollama.Client(transport=offline))
messages = [{"role": "user", "content": "Is the card back?"}]
print("".join(piece.message.content for piece in client.chat("llama3.2", messages, stream=True)))

call = loopkit.open_store().spans(kind="llm")[0].model_call
print(call.provider, call.output[0].text, call.usage.output_tokens)
