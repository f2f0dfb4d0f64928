"""A trace that goes on from one service to the next, with the user's id, to hosts that you name."""

from fastapi import FastAPI
from fastapi.testclient import TestClient

import loopkit
from loopkit import web

loopkit.init(service="helpdesk")
app = FastAPI()
app.add_middleware(web.TraceMiddleware, trust_baggage=True)


@app.get("/queue")
def queue(ticket: str) -> str:
    with loopkit.span("look up", kind="tool", input={"ticket": ticket}):
        return "cards"


other = TestClient(app, base_url="http://api.internal")  # stands for another service
with loopkit.context(user_id="u-1"), loopkit.span("triage", task="triage") as span:
    url = "http://api.internal/queue"
    other.get(url, params={"ticket": "T-1"}, headers=web.outgoing_headers(url, baggage_to=[".internal"]))

for each in loopkit.open_store().spans(trace_id=span.trace_id):
    print(each.name, each.user_id, each.parent_id is not None)
