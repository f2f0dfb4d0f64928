"""A router in the place of a model's name: `model=router.model`, in a call of a wrapped client."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol

from loopkit.capture.chain import Call, Plan
from loopkit.errors import InvalidInput
from loopkit.types import Variant

TEXT = "input"
"""The input's name, as policies see it."""


class Chosen(Protocol):
    """What a router has chosen for one call."""

    def attempts(self) -> Iterable[AbstractContextManager[Variant, bool]]:
        """The variants to be asked in turn, each as a block around its call."""
        ...


class RoutedModel(str):
    """A model's name that a wrapped client's call puts another one in the place of."""

    interceptor: Routed

    @classmethod
    def of(cls, task: str, choose: Callable[..., Chosen]) -> RoutedModel:
        """That of a task's router; `choose` is the router's, which is given the call's inputs by name."""
        made = cls(f"loopkit/{task}")
        made.interceptor = Routed(choose)
        return made


class Routed:
    """Chooses the model of one call, and another where that fails, as long as nothing of an answer has come."""

    name = "router"

    def __init__(self, choose: Callable[..., Chosen]) -> None:
        self._choose = choose

    def around(self, call: Call) -> Plan:
        """See `Interceptor.around`."""
        said = "\n".join(each.text for each in call.asks() if each.of == "words")
        for attempt in self._choose(**{TEXT: said}).attempts():
            with attempt as variant:
                return (yield replace(call, request=_request(call.request, variant)))
        raise AssertionError("the last attempt answers, or raises")


def _request(request: Mapping[str, Any], variant: Variant) -> dict[str, Any]:
    """The request with the variant's model and parameters; its words are the application's."""
    if variant.model is None:
        raise InvalidInput("a variant without a model can't stand in the place of router.model: use router.call()")
    return {**request, **variant.parameters, "model": variant.model}
