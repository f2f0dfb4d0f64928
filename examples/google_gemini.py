"""Gemini, recorded, with each call that function calling makes. Offline: leave out `http_options` and the key."""

import httpx2
from google import genai
from google.genai import types

import loopkit

USAGE = {"promptTokenCount": 12, "candidatesTokenCount": 2, "totalTokenCount": 14}


def offline(request: httpx2.Request) -> httpx2.Response:
    used = b"functionResponse" in request.content
    part = {"text": "It is in cards."} if used else {"functionCall": {"name": "queue_of", "args": {"ticket": "T-1"}}}
    candidate = {"content": {"role": "model", "parts": [part]}, "finishReason": "STOP"}
    return httpx2.Response(200, json={"candidates": [candidate], "responseId": "r-1", "usageMetadata": USAGE})


def queue_of(ticket: str) -> str:
    """The queue that a ticket is in."""
    return "cards"


loopkit.init(service="helpdesk")
options = types.HttpOptions(client_args={"transport": httpx2.MockTransport(offline)})
client = loopkit.wrap(genai.Client(api_key="offline", http_options=options))
answer = client.models.generate_content(
    model="gemini-2.5-flash", contents="Where is T-1?", config=types.GenerateContentConfig(tools=[queue_of])
)
print(answer.text)
for span in loopkit.open_store().spans(kind="llm"):
    print(span.name, span.model_call.finish_reasons, span.model_call.usage.output_tokens)
