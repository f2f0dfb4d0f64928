"""`Guard`: checks around a call, as an interceptor of functions and of wrapped clients."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any, Literal

from loopkit import _host
from loopkit.capture import slot
from loopkit.capture.chain import Call, Filter
from loopkit.capture.decorator import live_span, span
from loopkit.capture.dialects._content import changed_texts
from loopkit.errors import Blocked, InvalidInput
from loopkit.guard.check import Check, Trip
from loopkit.types import Part, Verdict
from loopkit.wire import names
from loopkit.wire.messages import dumps

Stage = Literal["input", "output"]
NO_ANSWER = object()


class Guard:
    """Checks on what goes in and what comes out.

        guard = loopkit.Guard(input=[checks.injection()], output=[checks.secrets()])
        client = loopkit.wrap(OpenAI(), guard=guard)      # or @loopkit.trace(guard=guard), or guard.check(text)

    A check that finds something flags, redacts or blocks. Blocking raises `Blocked` with its verdict, or gives
    `answer` where one was set, as it is: for a wrapped client set one of the SDK's shape. A provider's stream that is
    blocked always raises. A check that fails itself stops the text, unless its class says otherwise. Every
    verdict but "allow" is recorded as a span and as feedback on what it stopped. Works without `init()` too.
    """

    def __init__(self, *, input: Iterable[Check] = (), output: Iterable[Check] = (), answer: Any = NO_ANSWER) -> None:
        self.input = _checked("input", input)
        self.output = _checked("output", output)
        self.answer = answer

    def check(self, text: str, *, stage: Stage = "input") -> Verdict:
        """The verdict on one text: a block is a verdict too. Raises `InvalidInput` only for what is no text."""
        if not isinstance(text, str):
            raise InvalidInput(f"guard.check() got {type(text).__name__}: give it a text")
        if stage not in ("input", "output"):
            raise InvalidInput(f"stage is {stage!r}: choose input or output")
        return self._verdict(text, stage)[0]

    def around(self, call: Call) -> Generator[Call, Any, Any]:
        """See `Interceptor.around`."""
        try:
            asked = self._passed(call) if self.input else call
            result = yield asked
            if not self.output or call.stream:
                return result
            return self._given(call, result)
        except Blocked:
            if self.answer is NO_ANSWER or (call.dialect is not None and call.stream):
                raise
            return self.answer

    def filter(self, call: Call) -> Filter | None:
        """See `Interceptor`: an output check sees a stream as a whole, so it is held back until it has passed."""
        return _WholeStream(self, call) if self.output else None

    def enforce(self, text: str, stage: Stage) -> str:
        """The text to go on with. Raises `Blocked`."""
        verdict, text = self._verdict(text, stage)
        if verdict.action == "block":
            raise Blocked(verdict)
        return text

    def _passed(self, call: Call) -> Call:
        cleaned = {text: self.enforce(text, "input") for text in call.input_texts()}
        if all(before == after for before, after in cleaned.items()):
            return call
        return call.with_input(lambda text: cleaned.get(text, text))

    def _given(self, call: Call, result: Any) -> Any:
        cleaned = {text: self.enforce(text, "output") for text in call.output_texts(result)}
        if all(before == after for before, after in cleaned.items()):
            return result
        return call.with_output(result, lambda text: cleaned.get(text, text))

    def _verdict(self, text: str, stage: Stage) -> tuple[Verdict, str]:
        """The gravest verdict, and the text as the redacting checks left it."""
        gravest = Verdict(action="allow", check="", stage=stage)
        for check in self.input if stage == "input" else self.output:
            trip = _run(check, text)
            if trip is None:
                continue
            text = trip.text if trip.text is not None else text
            verdict = Verdict(
                action=trip.action, check=check.name, stage=stage, reason=trip.reason, score=trip.score,
                text=text if trip.action == "redact" else None,
            )  # fmt: skip
            _record(verdict)
            if _GRAVITY[verdict.action] >= _GRAVITY[gravest.action]:
                gravest = verdict
            if verdict.action == "block":
                break
        return gravest, text


_GRAVITY = {"allow": 0, "flag": 1, "redact": 2, "block": 3}


class _WholeStream:
    """Holds a stream back until its whole text has passed the output checks."""

    def __init__(self, guard: Guard, call: Call) -> None:
        self.guard = guard
        self.call = call
        self._chunks: list[Any] = []
        self._fold = None if call.dialect is None else call.dialect.fold()

    def feed(self, chunk: Any) -> list[Any]:
        """See `Filter.feed`."""
        self._chunks.append(chunk)
        if self._fold is not None:
            self._fold.feed(chunk)
        return []

    def end(self) -> list[Any]:
        """See `Filter.end`."""
        if self._fold is None:
            return self._end_of_texts()
        assert self.call.dialect is not None
        answers = self.call.dialect.answered(self._fold.result())
        for text in filter(None, map(_said, (part for message in answers for part in message.parts))):
            if self.guard.enforce(text, "output") != text:
                # Rewriting a provider's chunks is not done yet; letting the text pass would be worse.
                verdict = Verdict(
                    action="block",
                    check="stream",
                    stage="output",
                    reason="a provider's stream can't be redacted",
                )
                raise Blocked(verdict)
        return self._chunks

    def _end_of_texts(self) -> list[Any]:
        """A function's stream: texts as one text, other data each by itself."""
        try:
            if all(isinstance(chunk, str) for chunk in self._chunks):
                text = "".join(self._chunks)
                cleaned = self.guard.enforce(text, "output") if text else text
                return self._chunks if cleaned == text else [cleaned]
            return [changed_texts(chunk, lambda text: self.guard.enforce(text, "output")) for chunk in self._chunks]
        except Blocked:
            if self.guard.answer is NO_ANSWER:
                raise
            return [self.guard.answer]


def _said(part: Part) -> str:
    """What a part of an answer says: its text, or a tool call's arguments."""
    said = part.arguments if part.type == "tool_call" else part.content
    return said if isinstance(said, str) else "" if said is None else dumps(said)


def _run(check: Check, text: str) -> Trip | None:
    try:
        trip = check.check(text)
        if trip is not None and not isinstance(trip, Trip):
            raise TypeError(f"it returned {type(trip).__name__}, not a Trip or None")
        return trip
    except Exception as error:  # noqa: BLE001  # a check may raise anything; its class says what that means
        _host.warn_once(
            f"check {check.name}", f"the check {check.name!r} failed ({error!r}); it fails {check.on_error}"
        )
        if check.on_error == "open":
            return None
        return Trip("block", f"the check itself failed: {type(error).__name__}")


def _record(verdict: Verdict) -> None:
    """A span for the verdict, and feedback on the call that it was about."""
    recorder = slot.recorder
    if recorder is None:
        return
    with _host.Shielded("recording a verdict"):
        about = live_span()
        with span(f"guardrail {verdict.check}", kind="guardrail"):
            live = live_span()
            if live is not None:
                live.set_attributes(
                    {
                        names.GUARD_NAME: verdict.check,
                        names.GUARD_STAGE: verdict.stage,
                        names.GUARD_OUTCOME: verdict.action,
                        names.GUARD_REASON: verdict.reason,
                    }
                )
        if about is not None:
            recorder.say(
                about.id, f"guard.{verdict.check}", verdict.action, source="guardrail", kind="inferred",
                by=verdict.check, reason=verdict.reason,
            )  # fmt: skip


def _checked(stage: str, checks: Iterable[Check]) -> tuple[Check, ...]:
    found = tuple(checks) if isinstance(checks, Iterable) else (checks,)
    for check in found:
        if not (callable(getattr(check, "check", None)) and isinstance(getattr(check, "name", None), str)):
            raise InvalidInput(
                f"Guard({stage}=...) has {check!r}, which is no check: use loopkit.checks, or checks.passes(f)"
            )
    return found
