"""The demo's service, as its author would write it: it says which desk a news item belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import loopkit
from loopkit import checks
from loopkit.cli.demo.newsroom import DESKS, Item, Reader

TASK = "route"
SYSTEM = "You route news headlines to a desk."
PROMPTS = (
    "Answer with one word: business, entertainment, politics, sports or tech.\n\n{headline}",
    "Classify the news headline into one category: business, entertainment, politics, sports, tech.\n"
    "Headline: {headline}\nCategory:",
    "business is companies and the economy, entertainment is film, music and television, politics is government "
    "and parties, sports is matches and athletes, tech is computers, phones and games.\n"
    "The topic of this headline is one word: {headline}",
)
"""What the base prompt is chosen from. Yours: loopkit demo --prompt "... {headline}"."""


@dataclass(slots=True)
class Reply:
    """What the service tells its front end: the desk, and what feedback can name later."""

    desk: str = ""
    span_id: str = ""
    stream: Any = None
    """The provider's stream, where the answer was streamed."""
    response_id: str = ""


def base_variant(prompt: str) -> loopkit.Variant:
    """The model with a prompt, constrained to the five desks. Each variant has a llama.cpp slot of its own."""
    words = " | ".join(f'"{desk}"' for desk in DESKS)
    return loopkit.Variant(
        model="smollm2-135m-instruct",
        system=SYSTEM,
        prompt=prompt,
        parameters={
            "temperature": 0.0,
            "max_tokens": 6,
            "extra_body": {"grammar": f"root ::= {words}", "cache_prompt": True, "id_slot": 0},
        },
    )


class Newsdesk:
    """The service."""

    def __init__(self, base_url: str, default: loopkit.Variant) -> None:
        from openai import OpenAI

        self.client = loopkit.wrap(OpenAI(base_url=base_url, api_key="none", max_retries=0))
        self.router = loopkit.Router(TASK, default=default, client=self.client)
        guard = loopkit.Guard(input=[checks.injection(weights=None)])
        self._route = loopkit.trace(task=TASK, guard=guard, exclude=["reply", "stream"])(self._routed)

    def handle(self, item: Item, reader: Reader, *, stream: bool = False, article: str | None = None) -> Reply:
        """One request from one reader. Raises `loopkit.Blocked` for an item that tries to take over the model."""
        reply = Reply()
        extra = {} if article is None else {"article": article}
        with loopkit.context(user_id=reader.user_id, session_id=reader.session_id, segment=reader.segment, **extra):
            reply.desk = self._route(headline=item.headline, paragraph=item.paragraph, reply=reply, stream=stream)
        return reply

    def _routed(self, headline: str, paragraph: str, reply: Reply, stream: bool) -> str:
        reply.span_id = loopkit.current_span().id
        inputs = {"headline": headline, "paragraph": paragraph}
        if not stream:
            desk: str = self.router.call(**inputs)
            return desk
        choice = self.router.choose(**inputs)
        reply.stream = self.client.chat.completions.create(
            stream=True, stream_options={"include_usage": True}, **choice.request(**inputs)
        )
        words: list[str] = []
        for chunk in reply.stream:
            reply.response_id = chunk.id
            words += [part.delta.content for part in chunk.choices if part.delta.content]
        return "".join(words)
