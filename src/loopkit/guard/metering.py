"""What model calls used, for checks that count it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final, Protocol, runtime_checkable

from loopkit import _host
from loopkit.capture.chain import Call, Filter, Passing
from loopkit.capture.dialects._content import mapping
from loopkit.capture.dialects._protocol import Dialect
from loopkit.types import Message, ModelCall

_counting = _host.Shielded("counting what a call used")
_CHARACTERS: Final = 4
"""A token, roughly: https://help.openai.com/en/articles/4936856-what-are-tokens-and-how-to-count-them"""


@runtime_checkable
class Meter(Protocol):
    """A check that counts what models use."""

    def used(self, call: ModelCall, user: str | None) -> None:
        """One call is over, however it ended. Where its provider doesn't say what it used, that is estimated. Called
        from any thread, even amid the collection of garbage: it must not wait for a lock."""
        ...


def tell(meters: Iterable[Meter], call: Call, response: Any, user: str | None) -> None:
    """What a model call used, by its request and what came back: the SDK's object, plain data, or nothing."""
    dialect = _dialect_of(call)
    kept = dialect.kept(response)
    dump = getattr(kept, "model_dump", None)
    came = mapping(kept if dump is None else dump(warnings=False))
    facts = dialect.facts(call.provider, call.request, came)
    said = facts.usage
    if said.input_tokens is None:
        said = replace(said, input_tokens=_tokens(dialect.asked(call.request)))
    if said.output_tokens is None or not facts.finish_reasons:  # what is said amid a stream is a beginning
        said = replace(said, output_tokens=max(said.output_tokens or 0, _tokens(dialect.answered(came))))
    facts = replace(facts, usage=said)
    for each in meters:
        each.used(facts, user)


class Tally:
    """Counts what came of a call's attempts, each once. As a context: what came until it is left."""

    def __init__(self, meters: Iterable[Meter], call: Call, user: str | None) -> None:
        self._meters = tuple(meters)
        self._call = call
        self._user = user
        self._told = len(call.course.came)

    def catch_up(self) -> None:
        """Count what has come since."""
        came = self._call.course.came if self._meters else ()
        while self._told < len(came):
            with _counting:
                self._told += 1
                tell(self._meters, self._call, came[self._told - 1], self._user)

    def __enter__(self) -> Tally:
        return self

    def __exit__(self, *_: object) -> None:
        self.catch_up()


def folded(call: Call, chunks: Iterable[Any]) -> Any:
    """What chunks of a stream amount to, as far as they can be read."""
    fold = _dialect_of(call).fold()
    with _counting:
        for chunk in chunks:
            fold.feed(chunk)
        return fold.result()
    return {}


def said_in(call: Call, chunks: Iterable[Any]) -> str:
    """What a model said in these chunks."""
    with _counting:
        return "".join(message.text for message in _dialect_of(call).answered(folded(call, chunks)))
    return ""


def _dialect_of(call: Call) -> Dialect:
    assert call.dialect is not None, "functions use nothing"
    return call.dialect


def _tokens(messages: Iterable[Message]) -> int:
    said = sum(len(str(part.content or part.arguments or "")) for message in messages for part in message.parts)
    return -(-said // _CHARACTERS)


class Metered:
    """A stream that is counted when it is over, filtered by another or not at all."""

    def __init__(self, inner: Filter | None, meters: Iterable[Meter], call: Call, user: str | None) -> None:
        self._inner = inner
        self._meters = meters
        self._call = call
        self._fold = _dialect_of(call).fold()
        self._user = user

    def feed(self, chunk: Any) -> list[Any] | Passing:
        """See `Filter.feed`."""
        with _counting:
            self._fold.feed(chunk)
        return [chunk] if self._inner is None else self._inner.feed(chunk)

    def end(self) -> list[Any] | Passing:
        """See `Filter.end`."""
        return [] if self._inner is None else self._inner.end()

    def close(self) -> None:
        """See `Filter`."""
        tell(self._meters, self._call, self._fold.result(), self._user)
