"""`Router`: chooses a variant for every call, logs the choice with its probability, and serves it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from loopkit import _host
from loopkit.capture import slot
from loopkit.capture.ambient import ambient
from loopkit.capture.decorator import live_span, span
from loopkit.errors import Blocked, InvalidInput, NoDeployment
from loopkit.prompts.template import version
from loopkit.route.answer import Kitchen, check_variant
from loopkit.route.deployments import DEFAULT_RETRY, Retries, pools_of
from loopkit.route.dropin import RoutedModel
from loopkit.route.policy import Ask, Decision, Policy, Shares, StickyBy, decide, learner
from loopkit.route.source import Serving, VariantSource
from loopkit.types import Variant
from loopkit.wire import names

DEFAULT_NAME = "default"


class Router:
    """Serves a task with the variant that the registry, or else `default`, says.

        router = loopkit.Router("triage", default=small, client=client)
        queue = router.call(ticket=ticket)

    The registry is the only truth about what is served; where it says nothing of the task, and before `init()`,
    `default` serves, and `variants` by their names where the policy gives them a share. `default` also answers where
    the chosen variant fails. `policy` says how likely each variant is (default: the registry's shares); one user's
    calls, or a session's by `sticky_by`, get the same variant while that stays. A policy that raises is counted and
    `default` serves. The registry is read in the background after the first call; a variant that retrieves loads its
    examples on its first call.
    """

    def __init__(
        self,
        task: str,
        *,
        default: Variant,
        variants: Mapping[str, Variant] | None = None,
        client: Any = None,
        policy: Policy | None = None,
        sticky_by: StickyBy = "user",
        fallbacks: Sequence[str] = (),
        retry: Any = DEFAULT_RETRY,
        source: VariantSource | None = None,
    ) -> None:
        if not isinstance(task, str) or not task.strip():
            raise InvalidInput(f"the task is {task!r}: give its name, such as 'triage'")
        self.task = task
        self.default = check_variant(default)
        if sticky_by not in get_args(StickyBy):
            raise InvalidInput(f"sticky_by is {sticky_by!r}: choose {', '.join(map(repr, get_args(StickyBy)))}")
        self.policy: Policy = policy or Shares()
        self.sticky_by: StickyBy = sticky_by
        named = {name: check_variant(variant) for name, variant in (variants or {}).items()}
        self.own = Serving(
            variants={DEFAULT_NAME: self.default, **named}, shares={DEFAULT_NAME: 1.0, **dict.fromkeys(named, 0.0)},
            salt=task,
        )  # fmt: skip
        if isinstance(fallbacks, str):
            raise InvalidInput(f"fallbacks is {fallbacks!r}: give a list of variants' names")
        self.fallbacks = tuple(fallbacks)
        self._own_source = source
        self._learns_from: VariantSource | None = None
        self._model = RoutedModel.of(task, self.choose)
        self._kitchen = Kitchen(examples=self._examples, pools=pools_of(client), retries=Retries(retry))

    def call(self, **inputs: Any) -> Any:
        """Choose a variant, serve it, and give its output.

        A provider's exception passes untouched if `default` was serving, or fails too; else `default` answers.
        """
        if not self._inside_own_task():
            with span(self.task, task=self.task, input=inputs) as s:
                output = self.choose(**inputs).call(**inputs)
                s.set(output=output)
                return output
        return self.choose(**inputs).call(**inputs)

    async def acall(self, **inputs: Any) -> Any:
        """`call`, for async clients and callables."""
        if not self._inside_own_task():
            with span(self.task, task=self.task, input=inputs) as s:
                output = await self.choose(**inputs).acall(**inputs)
                s.set(output=output)
                return output
        return await self.choose(**inputs).acall(**inputs)

    def choose(self, **inputs: Any) -> Choice:
        """The decision alone: serve it with `choice.call`, or make your own call with `choice.request`.

        Binds task, variant, prompt version and propensity to the span that runs here, and to those below it.
        """
        decision, serving = self._decide(inputs)
        choice = Choice(self, self._kitchen, decision, serving)
        with _host.Shielded("recording a choice"):
            choice.record(live_span())
        return choice

    def health(self) -> dict[str, str]:
        """Of each client's deployment by name: "ok", or the failure after which it is being left alone."""
        return self._kitchen.health()

    @property
    def model(self) -> str:
        """Stands for a model's name in a call of your own with a wrapped client of OpenAI's or Anthropic's kind: the
        call is made with the model and the parameters of the variant that is chosen, or of the next that doesn't fail.
        Its words are yours: prompts, and variants without a model, are for `call`.

            client.chat.completions.create(model=router.model, messages=messages)
        """
        return self._model

    def refresh(self) -> None:
        """Read the registry now, instead of within a second."""
        source = self._source()
        if source is not None:
            source.refresh()

    def _inside_own_task(self) -> bool:
        """Whether the span that runs here is the task's; else the call gets a span of its own."""
        live = live_span()
        return live is not None and live.task == self.task

    def _decide(self, inputs: Mapping[str, Any]) -> tuple[Decision, Serving]:
        try:
            serving = self._serving()
            if serving is self.own and len(serving.variants) == 1:
                return Decision(DEFAULT_NAME, 1.0, "default"), serving
            ask = Ask(inputs=inputs, serving=serving, around=ambient())
            return decide(self.policy, ask, self.sticky_by), serving
        except Exception as error:  # noqa: BLE001  # whatever is wrong with registry or policy, the call is served
            _host.warn_once(f"router {self.task}", f"router {self.task!r} fell back to its default: {error!r}")
            return Decision(DEFAULT_NAME, 1.0, "fallback"), self.own

    def _serving(self) -> Serving:
        source = self._source()
        if source is None:
            return self.own
        if self._learns_from is not source:
            self._learns_from = source
            learn = getattr(learner(self.policy), "learn", None)
            if learn is not None:
                source.follow(self.task, learn)
        return source.serving(self.task) or self.own

    def _source(self) -> VariantSource | None:
        if self._own_source is not None:
            return self._own_source
        recorder = slot.recorder
        found: VariantSource | None = None if recorder is None else recorder.service("variants")
        return found

    def _examples(self, dataset: str) -> Any:
        source = self._source()
        if source is None:
            raise InvalidInput(f"a variant retrieves from dataset {dataset!r}, but no registry is at hand: call init()")
        return source.examples(dataset)


class Choice:
    """One decision: `variant`, `name`, `propensity`, `reason`, and whether it is one to `explore`; bound to the span
    it was made under.

    Outside a span use it as a block: `with router.choose(...) as choice:`.
    """

    def __init__(self, router: Router, kitchen: Kitchen, decision: Decision, serving: Serving) -> None:
        self._router = router
        self._kitchen = kitchen
        self._block: Any = None
        self._serving = serving
        self.name = decision.variant
        self.variant = serving.variants[decision.variant]
        self.propensity = decision.propensity
        self.reason = self._decided = decision.reason
        self.explore = decision.explore

    def call(self, **inputs: Any) -> Any:
        """The chosen variant's output; where it fails, that of the first of the fallbacks that doesn't."""
        for attempt in self.attempts():
            with attempt as variant:
                return self._kitchen.serve(variant, inputs).output
        raise AssertionError("the last attempt answers, or raises")

    async def acall(self, **inputs: Any) -> Any:
        """`call`, awaiting what is awaitable."""
        for attempt in self.attempts():
            with attempt as variant:
                return (await self._kitchen.aserve(variant, inputs)).output
        raise AssertionError("the last attempt answers, or raises")

    def request(self, **inputs: Any) -> dict[str, Any]:
        """The arguments for a call of your own with a model variant. Raises `InvalidInput` for other variants."""
        if self.variant.model is None:
            raise InvalidInput(f"variant {self.name!r} has no model to make a request for: use choice.call(...)")
        return self._kitchen.request(self.variant, inputs)

    def record(self, live: Any) -> None:
        """Bind to the running span, and leave a span of the decision below it."""
        if live is None:
            return
        if live.task in (None, self._router.task):
            prompt = self.variant.prompt
            prompted = None if prompt is None else version(prompt, self.variant.system)
            live.bind(self.name, self._router.task, self.propensity, prompted)
            above = live.parent
            while above is not None and above.task == self._router.task and above.variant is None:
                above.bind(self.name, self._router.task, self.propensity, prompted)  # a model's call in the task's span
                above = above.parent
        with span(f"route {self._router.task}", kind="route"):
            decided = live_span()
            if decided is not None:
                decided.set_attributes(
                    {
                        names.ROUTE_REASON: self.reason,
                        names.ROUTE_CANDIDATES: sorted(self._serving.variants),
                        names.ROUTE_EXPLORE: self.explore,
                        names.VARIANT: self.name,
                        names.PROPENSITY: self.propensity,
                    }
                )

    def __enter__(self) -> Choice:
        self._block = span(self._router.task, task=self._router.task)
        self._block.__enter__()
        self.record(live_span())
        return self

    def __exit__(self, *exc: Any) -> None:
        self._block.__exit__(*exc)

    def attempts(self) -> Iterator[Attempt]:
        """The variant that was chosen, then the fallbacks, then the default: each once, as long as one fails."""
        self.reason = self._decided
        known = {**self._router.own.variants, **self._serving.variants}
        wanted = [(self.name, self.variant), *((name, known[name]) for name in self._router.fallbacks if name in known)]
        wanted.append((DEFAULT_NAME, self._router.default))
        chain = [each for at, each in enumerate(wanted) if each[1] not in [before for _, before in wanted[:at]]]
        failures: list[Exception] = []
        for number, (name, variant) in enumerate(chain, start=1):
            yield Attempt(self, name, variant, failures, is_last=number == len(chain))

    def failed(self, name: str, error: Exception) -> None:
        """Note that somebody else is asked."""
        _host.warn_once(
            f"variant {self._router.task}/{name}",
            f"variant {name!r} of {self._router.task!r} failed, another one is asked: {error!r}",
        )
        # The call stays in the arm that was drawn: else a rollout would only see the candidate's survivors.
        self.reason = f"fallback after {type(error).__name__}"
        self._mark({names.ROUTE_FALLBACK: True})

    def answered(self, name: str) -> None:
        """Note who did."""
        if name != self.name:
            self._mark({names.ROUTE_ANSWERED_BY: name})

    def _mark(self, attributes: Mapping[str, Any]) -> None:
        """On the task's spans."""
        with _host.Shielded("recording a fallback"):
            live = live_span()
            while live is not None and live.task == self._router.task:
                live.set_attributes(attributes)
                live = live.parent


class Attempt:
    """As a block: the variant to be served now. A failure in it goes no further where there is another to be asked."""

    def __init__(
        self, choice: Choice, name: str, variant: Variant, failures: list[Exception], *, is_last: bool
    ) -> None:
        self._choice = choice
        self._name = name
        self._variant = variant
        self._failures = failures
        self._is_last = is_last

    def __enter__(self) -> Variant:
        return self._variant

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if error is None:
            self._choice.answered(self._name)
            return False
        if not isinstance(error, Exception) or isinstance(error, Blocked):
            return False
        if not self._is_last:
            self._failures.append(error)
            self._choice.failed(self._name, error)
            return True
        said = [each for each in self._failures if not isinstance(each, NoDeployment)]
        if isinstance(error, NoDeployment) and said:
            raise said[-1] from None  # by a provider, rather than that nobody is left to be asked
        return False
