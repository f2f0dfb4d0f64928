"""What a check is: one question about one text, and how a guard goes about asking it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypedDict, get_args

from loopkit.capture.ambient import ambient
from loopkit.capture.breaker import Breaker
from loopkit.capture.chain import Call
from loopkit.capture.dialects._content import INSTRUCT, SPOKE, changed_texts, plain_texts, sequence
from loopkit.errors import InvalidInput
from loopkit.types import Message, Stage

if TYPE_CHECKING:
    from typing_extensions import Unpack as Unpack

Action = Literal["flag", "redact", "replace", "retry", "hold", "block"]
ACTIONS: Final[tuple[str, ...]] = get_args(Action)
When = Literal["before", "parallel", "after"]
OnError = Literal["open", "closed"]


@dataclass(frozen=True, slots=True)
class Trip:
    """What a check found: what to do about it, and why."""

    action: Action
    reason: str
    text: str | None = None
    """What goes on instead, with "redact" and "replace"; what the model is told, with "retry"."""
    score: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a check may know besides the text."""

    stage: Stage = "input"
    tool: str | None = None
    """Whose call or result it is."""
    call: Call | None = None
    """Around which the guard stands."""
    task: str | None = None
    """The task that the call is about."""
    records: bool = True
    """Whether what comes of it is kept; not where a guard is only tried out."""

    @property
    def system_prompts(self) -> list[str]:
        """What the model was told by whoever built the application."""
        return [message.text for message in self._asked() if message.role in INSTRUCT and message.text]

    @property
    def inputs(self) -> Mapping[str, Any]:
        """What an evaluator is given: what a function was called with, by name, or a model's `messages`, as it was
        sent; of an answer that another gave, such as a cache, as it would have been. Nothing while it is being asked
        about itself."""
        sent = self._sent()
        if sent is None:
            return {}
        if sent.dialect is None:
            return _copied(sent.request)
        asked = sent.dialect.asked(sent.request)
        return {"messages": [{"role": message.role, "content": _content(message)} for message in asked]}

    @property
    def read(self) -> list[str]:
        """What an answer can rest on, as it was sent (see `inputs`): what the model was asked, with what tools gave it;
        a function's arguments, what is no text as JSON."""
        sent = self._sent()
        if sent is None:
            return []
        if sent.dialect is None:
            return [line for value in _copied(sent.request).values() for line in _lines(value)]
        asked = sent.dialect.asked(sent.request)
        told = [message for message in asked if message.role not in (*INSTRUCT, *SPOKE)]
        return [text for message in told for part in message.parts for text in plain_texts(part.content)]

    @property
    def has_read_from_tools(self) -> bool:
        """Whether the model has read what tools gave, at any turn of the conversation."""
        return any(part.type == "tool_call_response" for message in self._asked() for part in message.parts)

    def _sent(self) -> Call | None:
        if self.call is None:
            return None
        answered = ("output", "tool_result" if self.call.dialect is None else "tool_call")
        if self.stage not in answered:  # parallel checks would see it or not, by chance
            return None
        return self.call.sent or self.call

    def _asked(self) -> tuple[Message, ...]:
        if self.call is None or self.call.dialect is None:
            return ()
        return self.call.dialect.asked(self.call.request)

    @property
    def user_id(self) -> str | None:
        """Who asks, as `loopkit.context` has it."""
        return ambient().user_id


def _copied(request: Mapping[str, Any]) -> dict[str, Any]:
    """What is given is nobody's to change."""
    copied: dict[str, Any] = changed_texts(dict(request), lambda text: text)
    return copied


def _content(message: Message) -> str:
    """With what tools gave, and what they were called with."""
    said = [part.content if part.type != "tool_call" else part.arguments for part in message.parts]
    return "\n".join(each if isinstance(each, str) else _json(each) for each in said if each is not None)


def _lines(value: Any) -> list[str]:
    """Texts, those of lists too; other data as JSON, its numbers and names with it."""
    if isinstance(value, (list, tuple)):
        return [line for item in sequence(value) for line in _lines(item)]
    return [value if isinstance(value, str) else _json(value)] if value not in (None, "") else []


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


ALONE: Final = Seen()


ASKED: Final = "guard."
"""What the tasks of checks' own questions to models begin with."""


class NoAnswer(ValueError):
    """Whom a check asks has answered, though nothing that can be used: this text has no verdict. Raised by a check, it
    is a failure, but none for which the check is left alone: whoever wrote the text may have brought it about. What it
    says is written down, so it mustn't quote the text."""


class Check(Protocol):
    """One question about one text. It may be async, and a method `check(text)` will do.

    It may also have `how` (see `How`), and, for streams, a `window`, or `find(text)`, `open_at(text, start)`,
    `why(found)` and `action` (see `SpanCheck`); without them it is asked about a text as a whole. With `once_a_call` it
    is asked about a call, not about its texts, at the stage "input". With `used` it is told what models used (see
    `Meter`). With `follow()` it looks at streams as they come (see `Follower`). Provisional.
    """

    @property
    def name(self) -> str:
        """Stands on verdicts, spans and feedback."""
        ...

    @property
    def on_error(self) -> OnError:
        """What a failure of the check itself means: let the text pass, or stop it."""
        ...

    def check(self, text: str, seen: Seen, /) -> Trip | Awaitable[Trip | None] | None:
        """What was found, or None."""
        ...


class Options(TypedDict, total=False):
    """How a guard goes about a check, as the checks' functions take it: see `How`."""

    run: When
    timeout: float | None
    on_error: OnError | None
    shadow: bool
    sample: float
    priority: int
    tasks: Iterable[str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How a guard goes about a check."""

    run: When = "before"
    """"before": the text goes no further until the check has been asked. "parallel": the call is made meanwhile, and
    nothing of it is given out before. "after": when all is over; the verdict is only recorded."""
    timeout: float | None = None
    """Seconds that a check may take which waits for something. Computing can't be timed out."""
    on_error: OnError | None = None
    """What its failure means, where that isn't what its class says."""
    shadow: bool = False
    """On trial: its verdicts are recorded, and nothing is done about them."""
    sample: float = 1.0
    """The share of texts that it is asked about."""
    priority: int = 0
    """The higher is asked first; then in the order in which they were given."""
    tasks: frozenset[str] | None = None
    """Whose calls it is asked about, and those of no known task; None is any."""

    @staticmethod
    def of(options: Mapping[str, Any]) -> How:
        """Raises `InvalidInput`."""
        unknown = sorted(set(options) - set(Options.__annotations__))
        if unknown:
            raise InvalidInput(f"a check got {', '.join(unknown)}: choose from {', '.join(Options.__annotations__)}")
        tasks = options.get("tasks")
        if tasks is not None:
            named: list[Any] = [] if isinstance(tasks, str) or not hasattr(tasks, "__iter__") else [*tasks]
            if not named or not all(isinstance(each, str) for each in named):
                raise InvalidInput(f"tasks is {tasks!r}: give a list of tasks' names")
            options = {**options, "tasks": frozenset(named)}
        how = How(**options)
        if how.run not in get_args(When):
            raise InvalidInput(f"run is {how.run!r}: choose before, parallel or after")
        if how.on_error not in (None, "open", "closed"):
            raise InvalidInput(f"on_error is {how.on_error!r}: choose open or closed")
        if how.timeout is not None and not _is_number(how.timeout, 0, None):
            raise InvalidInput(f"timeout is {how.timeout!r}: give seconds, more than none")
        share_of("sample", how.sample)
        return how


PLAINLY: Final = How()


def _is_number(value: Any, above: float, most: float | None) -> bool:
    is_one = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_one and value > above and (most is None or value <= most)


@dataclass(slots=True, eq=False)
class Placed:
    """A check in its place in a guard."""

    check: Check
    how: How
    on_error: OnError
    is_async: bool
    takes_seen: bool
    is_of_calls: bool = False
    """Whether it is asked once a call."""
    breaker: Breaker = field(default_factory=Breaker)

    @property
    def waits(self) -> bool:
        """Whether it waits for something outside: it is asked beside others, not in line."""
        return self.is_async or self.how.timeout is not None or self.how.run == "parallel"

    def looks_at(self, task: str | None) -> bool:
        """Whether it is asked about this task's calls. Without `init()` a client's call is of no known task."""
        return self.how.tasks is None or task is None or task in self.how.tasks

    def ask(self, text: str, seen: Seen) -> Any:
        """Put the question: gives a trip, None, or an awaitable of these."""
        asked: Any = self.check.check
        return asked(text, seen) if self.takes_seen else asked(text)


def placed(stage: str, checks: Iterable[Check]) -> tuple[Placed, ...]:
    """Checks in the order in which they are asked. Raises `InvalidInput` for what is no check."""
    given = tuple(checks) if isinstance(checks, Iterable) else (checks,)
    found = [_placed(stage, each) for each in given]
    return tuple(sorted(found, key=lambda each: -each.how.priority))


def _placed(stage: str, check: Any) -> Placed:
    if not (callable(getattr(check, "check", None)) and isinstance(getattr(check, "name", None), str)):
        raise InvalidInput(
            f"Guard({stage}=...) has {check!r}, which is no check: use loopkit.checks, or checks.passes(f)"
        )
    how = getattr(check, "how", PLAINLY)
    on_error = how.on_error or getattr(check, "on_error", None)
    if on_error not in ("open", "closed"):
        raise InvalidInput(f"{check.name} says on_error is {on_error!r}: its class has to say open or closed")
    action = getattr(check, "action", None)
    if how.run == "parallel" and action in ("redact", "replace"):
        raise InvalidInput(
            f"{check.name} can't {action} in parallel, since what it would change has been sent: use run='before', or"
            " action='block'"
        )
    _check_reach(check, action)
    if stage in ("input", "tool_result") and action == "retry":
        raise InvalidInput(f"{check.name} can't have a model try again at {stage}: choose another action there")
    is_of_calls = stage == "input" and getattr(check, "once_a_call", False)
    return Placed(check, how, on_error, inspect.iscoroutinefunction(check.check), _takes_two(check.check), is_of_calls)


def _check_reach(check: Any, action: Any) -> None:
    """What a check that sees less than the whole has to have."""
    is_bad = action not in ACTIONS or action == "replace" or not callable(getattr(check, "why", None))
    if is_bad and hasattr(check, "find") and hasattr(check, "open_at"):
        raise InvalidInput(
            f"{check.name} finds places in a text: it needs why(found), and an action, {_choices(('replace',))}; it has"
            f" {action!r}"
        )
    window = getattr(check, "window", 0)
    if not isinstance(window, int) or isinstance(window, bool) or window < 0 or window == 1:
        raise InvalidInput(f"{check.name} has the window {window!r}: give a number of characters, 2 or more")


def _takes_two(function: Any) -> bool:
    try:
        inspect.signature(function).bind("", ALONE)
    except TypeError:
        return False
    except ValueError:  # it has none that could be read
        return True
    return True


def texts_of(what: str, given: Any) -> tuple[str, ...]:
    """One text, or several. Raises `InvalidInput` for what is neither."""
    is_one = isinstance(given, str) or not hasattr(given, "__iter__")
    texts: tuple[Any, ...] = (given,) if is_one else tuple(given)
    strange = [each for each in texts if not isinstance(each, str)]
    if strange:
        raise InvalidInput(f"{what} got {strange[0]!r}: give texts")
    return texts


def action_of(action: Any, *, but: tuple[str, ...] = (), why: str = "") -> Action:
    """Raises `InvalidInput` for what is no action, or one that this check can't take."""
    if action in but:
        raise InvalidInput(f"action is {action!r}, but {why}: choose {_choices(but)}")
    if action not in ACTIONS:
        raise InvalidInput(f"action is {action!r}: choose {_choices(but)}")
    return action  # type: ignore[no-any-return]


def share_of(name: str, value: Any) -> float:
    """Raises `InvalidInput` for what is none."""
    if not _is_number(value, 0, 1):
        raise InvalidInput(f"{name} is {value!r}: give a share, more than 0 and at most 1")
    return float(value)


def whole_action(action: Any, why: str) -> Action:
    """Of a check that has no place to show for what it finds: raises `InvalidInput`, and says why, for one that would
    change the text."""
    return action_of(action, but=("redact", "replace"), why=why)


def _choices(but: tuple[str, ...]) -> str:
    *others, last = [each for each in ACTIONS if each not in but]
    return f"{', '.join(others)} or {last}"
