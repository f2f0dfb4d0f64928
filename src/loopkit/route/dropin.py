"""A router in the place of a model's name: `model=router.model`, in a call of a wrapped client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from loopkit.capture.chain import Call, Plan
from loopkit.errors import InvalidInput

if TYPE_CHECKING:
    from loopkit.route.router import Router
    from loopkit.types import Variant

TEXT = "input"
"""The input's name, as policies see it."""


class RoutedModel(str):
    """A model's name that a wrapped client's call puts another one in the place of."""

    interceptor: Routed

    @classmethod
    def of(cls, router: Router) -> RoutedModel:
        """The router's."""
        made = cls(f"loopkit/{router.task}")
        made.interceptor = Routed(router)
        return made


class Routed:
    """Chooses the model of one call, and another where that fails, as long as nothing of an answer has come."""

    name = "router"

    def __init__(self, router: Router) -> None:
        self._router = router

    def around(self, call: Call) -> Plan:
        """See `Interceptor.around`."""
        said = "\n".join(each.text for each in call.asks() if each.of == "words")
        choice = self._router.choose(**{TEXT: said})
        for attempt in choice.attempts():
            with attempt as variant:
                return (yield replace(call, request=_request(call.request, variant)))
        raise AssertionError("the last attempt answers, or raises")


def _request(request: Mapping[str, Any], variant: Variant) -> dict[str, Any]:
    """The request with the variant's model and parameters; its words are the application's."""
    if variant.model is None:
        raise InvalidInput("a variant without a model can't stand in the place of router.model: use router.call()")
    return {**request, **variant.parameters, "model": variant.model}
