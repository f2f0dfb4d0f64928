"""Whether a correction has the shape that the call's answer was asked to have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from loopkit import _host
from loopkit._extras import require
from loopkit._json import canonical
from loopkit.capture.dialects._content import mapping
from loopkit.errors import MissingExtra

_CUT = 200


def why_not(correction: Any, schema: Mapping[str, Any]) -> str | None:
    """In words where it breaks the schema; None where it fits, or can't be judged.

    A text may be JSON, and a message's content too: what fits in one of these readings fits.
    """
    try:
        jsonschema = require("jsonschema", "schemas")
    except MissingExtra as missing:
        _host.warn_once("schemas", f"corrections are not held against the schemas of their calls: {missing}")
        return None
    try:
        validator = _validator(canonical(schema))
        faults = [jsonschema.exceptions.best_match(validator.iter_errors(each)) for each in _readings(correction)]
    except Exception:  # noqa: BLE001  # a schema that is none, or refers to what isn't there, judges nothing
        return None
    if not all(faults):
        return None
    fault = faults[-1]
    message = fault.message if len(fault.message) <= _CUT else fault.message[:_CUT] + "…"
    return f"{fault.json_path}: {message}"


@lru_cache(maxsize=64)
def _validator(schema: str) -> Any:
    """Checking that a schema is one costs much more than holding a correction against it."""
    jsonschema, read = require("jsonschema", "schemas"), json.loads(schema)
    kind = jsonschema.validators.validator_for(read, default=jsonschema.Draft202012Validator)
    kind.check_schema(read)
    return kind(read, registry=require("referencing", "schemas").Registry())  # which fetches nothing


def _readings(correction: Any) -> list[Any]:
    """What it may be meant as, the likeliest last."""
    found = [correction]
    message = mapping(correction)
    said = message.get("content") if "role" in message else correction
    if said is not correction:
        found.append(said)
    if isinstance(said, str):
        try:
            found.append(json.loads(said))
        except ValueError:
            pass
    return found
