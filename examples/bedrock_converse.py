"""AWS Bedrock through boto3, recorded. Offline: leave out the handler, and have credentials, to ask the real one."""

import io
import json

import boto3
from botocore.awsrequest import AWSResponse

import loopkit

ANSWER = {
    "output": {"message": {"role": "assistant", "content": [{"text": "cards"}]}}, "stopReason": "end_turn",
    "usage": {"inputTokens": 12, "outputTokens": 2, "totalTokens": 14}, "metrics": {"latencyMs": 7},
}  # fmt: skip


class Body(io.BytesIO):
    """botocore reads it in pieces."""

    def stream(self, *_, **__):
        yield self.read()


client = boto3.client("bedrock-runtime", "eu-west-1", aws_access_key_id="a", aws_secret_access_key="b")
client.meta.events.register(
    "before-send.bedrock-runtime.*",
    lambda request, **_: AWSResponse(
        request.url, 200, {"content-type": "application/json", "x-amzn-RequestId": "req-1"},
        Body(json.dumps(ANSWER).encode()),
    ),
)  # fmt: skip

loopkit.init(service="helpdesk")
loopkit.wrap(client)
answer = client.converse(
    modelId="amazon.nova-lite-v1:0", messages=[{"role": "user", "content": [{"text": "Card declined. Which queue?"}]}]
)
loopkit.feedback(answer, "helpful", True)
call = loopkit.open_store().spans(kind="llm")[0].model_call
print(call.provider, call.model, call.response_id, call.output[0].text)
