"""Anthropic's messages, recorded. Offline: leave out `http_client` and the key to ask the real one."""

import anthropic
import httpx2

import loopkit

ANSWER = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5", "stop_reason": "end_turn",
    "stop_sequence": None, "content": [{"type": "text", "text": "cards"}],
    "usage": {"input_tokens": 12, "output_tokens": 2, "cache_read_input_tokens": 100},
}  # fmt: skip
offline = httpx2.Client(transport=httpx2.MockTransport(lambda request: httpx2.Response(200, json=ANSWER)))

loopkit.init(service="helpdesk")
client = loopkit.wrap(anthropic.Anthropic(api_key="offline", http_client=offline))
message = client.messages.create(
    model="claude-sonnet-4-5",
    max_tokens=16,
    messages=[{"role": "user", "content": "My card was declined. Which queue?"}],
)
loopkit.feedback(message, "helpful", True)

call = loopkit.open_store().spans(kind="llm")[0].model_call
print(call.provider, call.response_id, call.usage.input_tokens, call.usage.cache_read_tokens, call.output[0].text)
