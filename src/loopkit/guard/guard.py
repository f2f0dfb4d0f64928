"""`Guard`: checks around a call, as an interceptor of functions and of wrapped clients."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, Final, get_args

from loopkit.capture.ambient import ambient
from loopkit.capture.breaker import Breaker
from loopkit.capture.chain import Call, Came, Effect, Filter, Interrupt, Pause, Plan, Read, filtered
from loopkit.capture.dialects._content import Listener, ReachingBack, Said, heard
from loopkit.capture.dialects._protocol import Streaming
from loopkit.capture.drive import asettle, settle
from loopkit.capture.stream import is_readable, unread
from loopkit.errors import Blocked, InvalidInput
from loopkit.guard.check import Check, Placed, Seen, placed
from loopkit.guard.examine import Beside, Examination, Tripped, error_of, finds_spans, stop
from loopkit.guard.filters import ChunkStream, TextStream, WholeStream
from loopkit.guard.gate import Looks
from loopkit.guard.learning import Fitted, Labelled, fitted
from loopkit.guard.metering import Meter, Metered, Tally, folded, said_in
from loopkit.types import Stage, Verdict

NO_ANSWER: Final = object()
_SAID: Final[tuple[Stage, ...]] = ("output", "tool_call")
_IN: Final[tuple[Stage, ...]] = ("input", "tool_result")
_SLICE: Final = 4_000
_OUT: Final = ("before", "parallel")
"""How checks run of what comes back: those that are parallel are asked beside each other."""


class Guard:
    """Checks on what goes in and what comes out.

        guard = loopkit.Guard(input=[checks.injection()], output=[checks.secrets()])
        client = loopkit.wrap(OpenAI(), guard=guard)      # or @loopkit.trace(guard=guard), or guard.check(text)

    Around a client, `input` sees the turns since the model last spoke, `output` what it says, `tool_result` also what
    tools gave it, and `tool_call` also what it has tools do. Around a function of kind "tool", `tool_call` sees its
    arguments, as JSON, and `tool_result` what it returns.

    A check that finds something flags, redacts or replaces, has the model try again (so many `retries`), holds or
    blocks. Blocking raises `Blocked` with its verdict, holding `Held`, or both give `answer` where one was set, as it
    is: for a wrapped client set one of the SDK's shape. A provider's stream that is blocked always raises. A check that
    fails itself stops the text, unless it says otherwise. `budget` is how many seconds all checks of a call that wait
    for something may take together. Every verdict but "allow" is recorded as a span and as feedback on what it was
    about. Works without `init()` too.
    """

    name = "guard"

    def __init__(
        self,
        *,
        input: Iterable[Check] = (),
        output: Iterable[Check] = (),
        tool_call: Iterable[Check] = (),
        tool_result: Iterable[Check] = (),
        answer: Any = NO_ANSWER,
        retries: int = 1,
        budget: float | None = None,
    ) -> None:
        if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
            raise InvalidInput(f"retries is {retries!r}: give a number, 0 or more")
        if budget is not None and not (isinstance(budget, (int, float)) and budget > 0):
            raise InvalidInput(f"budget is {budget!r}: give seconds, more than none")
        self._places: dict[Stage, tuple[Placed, ...]] = {
            "input": placed("input", input),
            "output": placed("output", output),
            "tool_call": placed("tool_call", tool_call),
            "tool_result": placed("tool_result", tool_result),
        }
        self._meters = _meters(self._places)
        self.answer = answer
        self._retries = retries
        self._budget = budget

    @property
    def sees_output(self) -> bool:
        """See `Interceptor`."""
        return bool(self._places["output"] or self._places["tool_call"] or self._meters)

    def check(
        self, text: str, *, stage: Stage = "input", tool: str | None = None, task: str | None = None,
        record: bool = True,
    ) -> Verdict:  # fmt: skip
        """The verdict on one text: a block is a verdict too; to try it out, `record=False` keeps nothing of it. Raises
        `InvalidInput` only for what is no text."""
        verdict: Verdict = settle(self._checked(text, Seen(stage=stage, tool=tool, task=task, records=record)))
        return verdict

    async def acheck(
        self, text: str, *, stage: Stage = "input", tool: str | None = None, task: str | None = None,
        record: bool = True,
    ) -> Verdict:  # fmt: skip
        """`check`, awaiting; a long text lets the event loop go on meanwhile."""
        verdict: Verdict = await asettle(self._checked(text, Seen(stage=stage, tool=tool, task=task, records=record)))
        return verdict

    def fit(
        self, labels: Mapping[str, Sequence[Labelled]], *, most_false: float | None = None
    ) -> tuple[Guard, dict[str, Fitted]]:
        """A guard whose checks have learnt from labelled texts, by the check's name, and what came of it; this one
        stays as it is. A check is replaced where that makes it better, judged on texts that were kept back.
        `most_false` is the share of good texts that may be stopped; without it recall and false alarms weigh the same.

            guard, learnt = guard.fit({"injection": loopkit.guard_labels("injection")}, most_false=0.02)

        Raises `InvalidInput` for a check that isn't there or has no weights, and for fewer than 25 different texts of
        each kind.
        """
        is_share = isinstance(most_false, (int, float)) and 0 <= most_false < 1
        if most_false is not None and not is_share:
            raise InvalidInput(f"most_false is {most_false!r}: give a share, 0 or more and less than 1")
        mine: dict[str, list[Check]] = {}
        for place in [place for places in self._places.values() for place in places]:
            mine.setdefault(place.check.name, []).append(place.check)
        learnt: dict[str, Fitted] = {}
        if not isinstance(labels, Mapping):
            raise InvalidInput(f"fit() got {type(labels).__name__}: give the labelled texts by the check's name")
        for name, rows in labels.items():
            if name not in mine:
                raise InvalidInput(f"this guard has no check {name!r}: it has {', '.join(sorted(mine)) or 'none'}")
            first, *others = mine[name]
            if any(getattr(each, "weights", None) != getattr(first, "weights", None) for each in others):
                raise InvalidInput(f"this guard has checks {name!r} with different weights: fit each in one of its own")
            learnt[name] = fitted(first, rows, most_false=most_false)
        made = copy(self)
        made._places = {
            stage: placed(stage, [_taught(place.check, learnt) for place in places])
            for stage, places in self._places.items()
        }
        made._meters = _meters(made._places)
        return made, learnt

    def around(self, call: Call) -> Plan:
        """See `Interceptor.around`."""
        try:
            return (yield from self._guarded(call))
        except Blocked:
            if self.answer is NO_ANSWER or (call.dialect is not None and call.stream):
                raise
            return self.answer

    def filter(self, call: Call) -> Filter | None:
        """See `Interceptor`."""
        checked, meters = self._checking_filter(call), self._meters_of(call)
        is_counted = call.course.read is not None
        return Metered(checked, meters, call, ambient().user_id) if meters and not is_counted else checked

    def _checking_filter(self, call: Call) -> Filter | None:
        stages: tuple[Stage, ...] = ("output", "tool_result" if call.kind == "tool" else "tool_call")
        if not any(self._places[stage] for stage in stages):
            return None
        examination = Examination(self._budget)

        def looks_at(said: Said) -> Looks:
            return self._looks_out(call, said)

        if call.dialect is None:
            return TextStream(examination, looks_at, self._instead_of)
        if isinstance(call.dialect, Streaming):
            return ChunkStream(examination, looks_at, call.dialect)
        return WholeStream(examination, looks_at, call)

    def _instead_of(self, blocked: Blocked) -> list[Any]:
        if self.answer is NO_ANSWER:
            raise blocked
        return [self.answer]

    def _guarded(self, call: Call) -> Plan:
        examination = Examination(self._budget)
        asked = yield from self._passed(examination, call)
        came = self._looked_at(asked)
        beside = yield from examination.begin_beside(came)
        given = self._given_stream if call.stream else self._given
        with Tally(self._meters_of(call), call, ambient().user_id) as tally:
            left = self._retries
            while True:
                result = yield from self._result_of(asked, beside)
                yield from self._joined(examination, asked, beside)
                beside = []
                tally.catch_up()
                verdict, result, words = yield from given(examination, asked, result, is_last=not left)
                if verdict is None:
                    break
                left -= 1
                asked = asked.told(verdict.text or verdict.reason, words)
        if not call.stream and self._looks_after:
            said = asked.says(result)
            came += [(places, text.text, seen) for text in said for places, seen in self._looks_out(asked, text)]
        yield from examination.ask_after(came)
        return result

    @property
    def _looks_after(self) -> bool:
        return any(each.how.run == "after" for places in self._places.values() for each in places)

    def _meters_of(self, call: Call) -> list[Meter]:
        counted = [] if call.dialect is None else [each for each in self._meters if each.looks_at(call.task)]
        return [each.check for each in counted if isinstance(each.check, Meter)]

    def _result_of(self, call: Call, beside: Sequence[Beside]) -> Plan:
        """What a call gives, unless a check beside it stops it."""
        try:
            return (yield call)
        except Interrupt as interrupt:
            if not isinstance(interrupt.error, Tripped) or interrupt.running not in [b.running for b in beside]:
                raise
            raise error_of(interrupt.error.verdict) from None

    @staticmethod
    def _joined(examination: Examination, call: Call, beside: Iterable[Beside]) -> Generator[Effect, Any, None]:
        """Wait for the checks beside the call. A stream that they block nobody will read."""
        try:
            yield from examination.join_beside(beside)
        except Blocked:
            if call.stream and call.course.read is None:
                call.course.came.append({})
            raise

    def _given_stream(
        self, examination: Examination, call: Call, stream: Any, *, is_last: bool
    ) -> Generator[Effect, Any, tuple[Verdict | None, Any, str]]:
        """`_given`, of a stream: one of which a check may want another answer is read to its end here, all others when
        their reader reads them."""
        asks = any(_asks_again(place) for stage in _SAID for place in self._places[stage] if place.looks_at(call.task))
        if is_last or not asks or call.dialect is None or not is_readable(stream):
            return None, stream, ""
        read = Read(stream)
        try:
            came: Came = yield read
        finally:
            if call.course.read is None:  # else it has been counted
                call.course.came.append(folded(call, read.chunks))
        passed, error = came.passed, came.error
        checking = self._checking_filter(call)
        if error is None and checking is not None:
            passed, error = yield from filtered((checking,), came.passed)
            if isinstance(error, Blocked) and error.verdict.action == "retry":
                return error.verdict, None, said_in(call, came.passed)
        call.course.read = Came(came.chunks, passed, error, came.depth + 1)
        return None, unread(stream, came.chunks), ""

    def _passed(self, examination: Examination, call: Call) -> Generator[Effect, Any, Call]:
        """The call as it goes on, where it may."""
        for places, seen in self._looks_once(call):
            verdict, _ = yield from examination.of(places, "", seen)
            stop(verdict)
        cleaned: dict[Said, str] = {}
        for said in dict.fromkeys(call.asks()) if self._looks_in(call, Said("", "tool_result")) else ():
            text = said.text
            for places, seen in self._looks_in(call, said):
                verdict, text = yield from examination.of(places, text, seen)
                stop(verdict)
            cleaned[said] = text
        if any(said.text != text for said, text in cleaned.items()):
            call = call.with_input(Listener(lambda said: cleaned.get(said, said.text)))
        call = yield from self._with_clean_past(examination, call, frozenset(cleaned.values()))
        if call.kind == "tool" and self._places["tool_call"]:
            call = yield from self._passed_arguments(examination, call)
        return call

    def _with_clean_past(
        self, examination: Examination, call: Call, clean: frozenset[str]
    ) -> Generator[Effect, Any, Call]:
        """The call with the turns before cleaned too: what was taken out when they were new, the application sends
        again. Nothing is said of it twice."""
        cleaners = {place for stage in _IN for place in self._places[stage] if _cleans(place)}
        if call.dialect is None or not cleaners:
            return call
        cleaned: dict[Said, str] = {}
        looked = 0
        for said in dict.fromkeys(heard(call.with_input, ReachingBack)):
            if said.text in clean:
                continue
            text = said.text
            for places, seen in self._looks_in(call, said):
                mine = [place for place in places if place in cleaners]
                verdict, text = yield from examination.of(mine, text, replace(seen, records=False))
                stop(verdict)
            cleaned[said] = text
            looked += len(text)
            if looked > _SLICE:
                looked = 0
                yield Pause()
        if any(said.text != text for said, text in cleaned.items()):
            return call.with_input(ReachingBack(lambda said: cleaned.get(said, said.text)))
        return call

    def _passed_arguments(self, examination: Examination, call: Call) -> Generator[Effect, Any, Call]:
        """A tool's arguments, as a model would have written them."""
        came = text = _as_json(call)
        verdict = None
        for places, seen in self._looks(call, call.name, ("tool_call",)):
            verdict, text = yield from examination.of(places, came, seen, _OUT)
            stop(verdict)
        if verdict is None or text == came:
            return call
        try:
            before, after = json.loads(came), json.loads(text)
            changes = {name: value for name, value in after.items() if value != before[name]}
        except (ValueError, KeyError, AttributeError):
            why = f"what {verdict.check} made of the arguments is no JSON object of the same names"
            raise Blocked(replace(verdict, action="block", reason=why, text=None)) from None
        return replace(call, request={**call.request, **changes})

    def _given(
        self, examination: Examination, call: Call, result: Any, *, is_last: bool
    ) -> Generator[Effect, Any, tuple[Verdict | None, Any, str]]:
        """The result as it goes on; or the verdict that says that the model is to try again, and what it said."""
        cleaned: dict[Said, str] = {}
        for each in dict.fromkeys(call.says(result)):
            text = each.text
            for places, seen in self._looks_out(call, each):
                verdict, text = yield from examination.of(places, text, seen, _OUT)
                if verdict.action == "retry" and not is_last:
                    return verdict, result, call.words(result)
                stop(verdict)
            cleaned[each] = text
        if any(each.text != text for each, text in cleaned.items()):
            result = call.with_output(result, Listener(lambda each: cleaned.get(each, each.text)))
        return None, result, ""

    def _checked(self, text: str, seen: Seen) -> Generator[Effect, Any, Verdict]:
        if not isinstance(text, str):
            raise InvalidInput(f"guard.check() got {type(text).__name__}: give it a text")
        if seen.stage not in get_args(Stage):
            raise InvalidInput(f"stage is {seen.stage!r}: choose {', '.join(get_args(Stage))}")
        places = self._places_of(seen)
        if not seen.records:  # trying out changes nothing: neither by chance, nor for those who are guarded meanwhile
            places = tuple(replace(each, how=replace(each.how, sample=1.0), breaker=Breaker()) for each in places)
        verdict, _ = yield from Examination(self._budget).of(places, text, seen, (*_OUT, "after"))
        return verdict

    def _looks_in(self, call: Call, said: Said) -> Looks:
        """Who looks at what a model or function is asked."""
        stages: tuple[Stage, ...] = ("input", "tool_result") if said.of == "tool_result" else ("input",)
        return self._looks(call, said.tool, stages)

    def _looks_out(self, call: Call, said: Said) -> Looks:
        """Who looks at what comes back."""
        stages: tuple[Stage, ...] = ("output",)
        if said.of == "tool_call":
            stages = ("output", "tool_call")
        elif call.kind == "tool":
            stages = ("output", "tool_result")
        return self._looks(call, said.tool, stages)

    def _looks(self, call: Call, tool: str | None, stages: Iterable[Stage]) -> Looks:
        tool = tool or (call.name if call.kind == "tool" else None)
        seen = [Seen(stage=each, tool=tool, call=call, task=call.task) for each in stages if self._places[each]]
        looks = ((tuple(p for p in self._places_of(each) if not p.is_of_calls), each) for each in seen)
        return [look for look in looks if look[0]]

    def _looks_once(self, call: Call) -> Looks:
        """Who looks at a call, whatever its texts."""
        seen = Seen(stage="input", call=call, task=call.task)
        places = tuple(each for each in self._places_of(seen) if each.is_of_calls)
        return [(places, seen)] if places else []

    def _places_of(self, seen: Seen) -> tuple[Placed, ...]:
        """Its checks, of this stage and task."""
        return tuple(each for each in self._places[seen.stage] if each.looks_at(seen.task))

    def _looked_at(self, call: Call) -> list[tuple[tuple[Placed, ...], str, Seen]]:
        """What checks see that look beside the call, or after it."""
        if not any(each.how.run != "before" for places in self._places.values() for each in places):
            return []
        texts = [(places, said.text, seen) for said in call.asks() for places, seen in self._looks_in(call, said)]
        return [(places, "", seen) for places, seen in self._looks_once(call)] + texts


def _meters(places: Mapping[Stage, tuple[Placed, ...]]) -> list[Placed]:
    """Those that count what models use, each once."""
    found = {id(each.check): each for placed in places.values() for each in placed if isinstance(each.check, Meter)}
    return list(found.values())


def _cleans(place: Placed) -> bool:
    """Whether what its check finds is taken out before anything goes on."""
    how = place.how
    is_sure = how.run == "before" and not how.shadow and how.sample >= 1
    return is_sure and finds_spans(place) and getattr(place.check, "action", None) == "redact"


def _asks_again(place: Placed) -> bool:
    """Whether its check may have the model try again."""
    how = place.how
    return how.run != "after" and not how.shadow and getattr(place.check, "action", None) == "retry"


def _taught(check: Any, learnt: Mapping[str, Fitted]) -> Check:
    found: Any = learnt.get(check.name)
    taught: Check = replace(check, weights=found.check.weights) if found is not None and found.is_better else check
    return taught


def _as_json(call: Call) -> str:
    return json.dumps(dict(call.request), default=str, ensure_ascii=False)
