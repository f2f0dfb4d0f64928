"""Hugging Face's inference client, recorded. Without `set_client_factory` it asks the server."""

import httpx2
from huggingface_hub import InferenceClient, set_client_factory

import loopkit

CHOICE = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "cards"}}
USAGE = {"prompt_tokens": 12, "completion_tokens": 1, "total_tokens": 13}
BODY = {"id": "c-1", "created": 1, "model": "m", "choices": [CHOICE], "usage": USAGE}
offline = httpx2.MockTransport(lambda request: httpx2.Response(200, json=BODY if request.method == "POST" else {}))
set_client_factory(lambda: httpx2.Client(transport=offline))

loopkit.init(service="helpdesk")
client = loopkit.wrap(InferenceClient(base_url="http://127.0.0.1:8080/v1"))
messages = [{"role": "user", "content": "My card was declined. Which queue?"}]
response = client.chat_completion(messages, model="HuggingFaceTB/SmolLM2-135M-Instruct")
loopkit.feedback(response, "helpful", True)

call = loopkit.open_store().spans(kind="llm")[0].model_call
print(call.provider, call.output[0].text, call.usage.output_tokens)
