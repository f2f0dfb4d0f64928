"""See your calls, say what was good, look at it. Needs OPENAI_API_KEY, and OPENAI_BASE_URL for your own server."""

from openai import OpenAI

import loopkit

loopkit.init(service="quickstart")
client = loopkit.wrap(OpenAI())


@loopkit.trace(task="greet")
def greet(name: str) -> str:
    response = client.chat.completions.create(
        model="smollm2", messages=[{"role": "user", "content": f"Greet {name} in five words."}], max_tokens=16
    )
    loopkit.feedback(response, "friendly", True)
    return response.choices[0].message.content or ""


with loopkit.context(user_id="u-1", session_id="s-1"):
    print(greet("Ada"))

for row in loopkit.figures("greet"):
    print(f"{row.calls} calls, {row.judged} judged, right in {row.right:.0%}, p95 {row.latency_p95:.2f} s")

call = loopkit.open_store().spans(task="greet", kind="task", newest=1)[0]
print(f"look further:  loopkit show {call.id}")
