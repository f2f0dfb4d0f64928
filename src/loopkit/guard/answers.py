"""Answers that programs read: JSON, and of a shape."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from loopkit._extras import require
from loopkit.errors import InvalidInput
from loopkit.guard.check import ALONE, PLAINLY, Action, How, OnError, Seen, Trip, whole_action
from loopkit.guard.scanning import JsonScanner

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from loopkit.guard.check import Options

_FENCE: Final = re.compile(r"(?s)```[A-Za-z0-9_-]{0,20}[ \t]*\n?(.*?)\n?```")
_LONGEST_REPAIR: Final = 20_000


class Shape(Protocol):
    """What a value is to look like."""

    def why_not(self, value: Any) -> str | None:
        """What is wrong with it, in words; None where nothing is."""
        ...


@dataclass(frozen=True, slots=True)
class _Model:
    model: Any

    def why_not(self, value: Any) -> str | None:
        from pydantic import ValidationError

        try:
            self.model.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            return f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"
        return None


@dataclass(frozen=True, slots=True)
class _Schema:
    validator: Any

    def why_not(self, value: Any) -> str | None:
        error = next(iter(sorted(self.validator.iter_errors(value), key=lambda each: list(map(str, each.path)))), None)
        if error is None:
            return None
        return f"{'.'.join(map(str, error.path)) or 'the whole'}: {error.validator} {error.validator_value!r}"[:300]


def shape_of(given: Any) -> Shape:
    """A pydantic model's or a JSON schema's. Raises `InvalidInput` for what is neither, `MissingExtra`."""
    if isinstance(given, type) and hasattr(given, "model_validate"):
        return _Model(given)
    if not isinstance(given, Mapping):
        raise InvalidInput(f"a schema is {given!r}: give a pydantic model, or a JSON schema as a dict")
    jsonschema: Any = require("jsonschema", "schemas")
    kind = jsonschema.validators.validator_for(given, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(given)
    except jsonschema.exceptions.SchemaError as error:
        raise InvalidInput(f"this is no JSON schema, at {error.json_path}: {error.message}"[:300]) from None
    return _Schema(kind(given, registry=require("referencing", "schemas").Registry()))  # which fetches nothing


@dataclass(frozen=True, slots=True)
class JsonCheck:
    """Lets JSON pass, of a shape where one was given. Fails closed."""

    action: Action
    shape: Shape | None
    repair: bool
    incremental: bool = False
    how: How = PLAINLY
    name: str = "valid_json"
    on_error: OnError = "closed"

    def follow(self) -> JsonFollower | None:
        """See `Follower`."""
        return JsonFollower(self) if self.incremental else None

    def check(self, text: str, seen: Seen = ALONE) -> Trip | None:
        """See `Check.check`."""
        wrong = self.why_not(text)
        if wrong is None:
            return None
        mended = _mended(text) if self.repair and len(text) <= _LONGEST_REPAIR else None
        if mended is not None and self.why_not(mended) is None:
            return Trip("replace", f"mended: {wrong}", mended)
        return Trip(self.action, wrong, f"Your answer can't be used: {wrong}. Answer with JSON alone.")

    def why_not(self, text: str) -> str | None:
        """What is wrong with it, in words; None where nothing is."""
        try:
            value: Any = json.loads(text, parse_constant=_no_json)
        except RecursionError:
            return "it is nested too deep"
        except ValueError as error:
            return f"it is no JSON ({str(error)[:100]})"
        return None if self.shape is None else self.shape.why_not(value)


class JsonFollower:
    """See `Follower`: a text goes on as far as it is JSON, but for its last character, which waits for the rest."""

    def __init__(self, check: JsonCheck) -> None:
        self._check = check
        self._scanner = JsonScanner()
        self._pieces: list[str] = []
        self._fed = 0
        self._is_over = False
        self.settled = 0

    def feed(self, piece: str, *, final: bool) -> Trip | None:
        """See `Follower.feed`."""
        scanner = self._scanner
        self._fed += len(piece)
        if self._is_over:  # on trial: it has been said
            self.settled = self._fed
            return None
        if self._check.shape is not None:
            self._pieces.append(piece)
        for char in piece:
            if not scanner.takes(char):
                self.settled, self._is_over = self._passed(), True
                return Trip(self._check.action, f"it is no JSON (at character {scanner.length})")
        self.settled = self._passed()
        if not final:
            return None
        if not scanner.ends():
            return Trip(self._check.action, "it is no JSON (it ends too early)")
        wrong = None if self._check.shape is None else self._check.why_not("".join(self._pieces))
        if wrong is not None:
            return Trip(self._check.action, wrong)
        self.settled = scanner.length
        return None

    def _passed(self) -> int:
        scanner = self._scanner
        if scanner.number_at is not None:
            return scanner.number_at
        return scanner.length if scanner.end is None else min(scanner.length, scanner.end - 1)


def valid_json(
    schema: Any = None, *, action: Action | None = None, repair: bool | None = None, incremental: bool = False,
    **how: Unpack[Options],
) -> JsonCheck:  # fmt: skip
    """Answers that are JSON, and of a shape where a `schema` is given: a pydantic model or a JSON schema (`pip install
    'loopkit-sdk[schemas]'`). `repair` takes away what models like to put around it: fences, words before and after,
    commas too many. What is still wrong the model is told, and asked again (`Guard(retries=)`).

    With `incremental` a stream goes on as it comes, as far as it is JSON, and is stopped at the first character that
    can't belong to it; its last bracket waits until all of it is of the shape. Nothing is repaired then, and nobody
    asked again.
    """
    if incremental and (repair or action in ("retry", "replace", "redact")):
        given = "repair" if repair else f"action={action!r}"
        raise InvalidInput(f"valid_json() got incremental and {given}: what has left can't be taken back")
    action = ("block" if incremental else "retry") if action is None else action
    repair = not incremental if repair is None else repair
    shape = None if schema is None else shape_of(schema)
    why = "what is wrong is mended by repair, or not at all"
    return JsonCheck(whole_action(action, why), shape, bool(repair), bool(incremental), How.of(how))


def _mended(text: str) -> str | None:
    """The same without what surrounds it, and without commas too many; None where no JSON begins in it."""
    fenced = _FENCE.search(text)
    bare = (fenced[1] if fenced else text).strip()
    starts = [at for at in (bare.find("{"), bare.find("[")) if at >= 0]
    if not starts:
        return None
    ends = bare.rfind("}" if bare[min(starts)] == "{" else "]")
    return _without_commas(bare[min(starts) : ends + 1])


def _without_commas(text: str) -> str:
    """Without those that stand before a closing bracket, outside of texts."""
    pieces: list[str] = []
    for number, part in enumerate(re.split(r'("(?:[^"\\]|\\.)*")', text)):
        pieces.append(part if number % 2 else re.sub(r",(\s*[}\]])", r"\1", part))
    return "".join(pieces)


def _no_json(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
