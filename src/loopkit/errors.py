"""The errors of loopkit, by how a caller would react.

    LoopkitError
    ├── InvalidInput         (ValueError)    an argument is wrong: fix the call
    │   └── InvalidSetting                   a setting or an environment variable is wrong: fix the configuration
    ├── NotFound             (LookupError)   no such task, variant, dataset, span or rollout: check the name
    ├── UnsupportedClient    (TypeError)     wrap() doesn't know this client: decorate the function that calls it
    ├── MissingExtra         (ImportError)   an optional package is missing: the message is the pip line
    ├── StoreUnusable        (OSError)       the local store can't be opened or read: the message says what to do
    ├── NoDeployment                         a router has nobody left to ask: each is left alone after failures
    ├── Unguarded                            a guard could not see a call or an answer, which goes no further
    └── Blocked                              a guard stopped the call: `verdict` says which check, where and why
        └── Held                             it waits for somebody's approval

Recording never raises any of these into the host application; only explicit calls do.
A provider's own exceptions pass through untouched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loopkit.types import Verdict

__all__ = [
    "Blocked",
    "Held",
    "InvalidInput",
    "InvalidSetting",
    "LoopkitError",
    "MissingExtra",
    "NoDeployment",
    "NotFound",
    "StoreUnusable",
    "Unguarded",
    "UnsupportedClient",
]


class LoopkitError(Exception):
    """The root of all errors that loopkit raises on purpose."""


class InvalidInput(LoopkitError, ValueError):
    """An argument has a wrong value; the message names the value and what is allowed."""


class InvalidSetting(InvalidInput):
    """A setting or environment variable has a wrong value; the message names it."""


class NotFound(LoopkitError, LookupError):
    """What was asked for by name isn't there; the message lists what is."""


class UnsupportedClient(LoopkitError, TypeError):
    """`wrap()` was given a client that no dialect knows."""


class MissingExtra(LoopkitError, ImportError):
    """An optional package is missing; the message is the pip line that installs it."""


class StoreUnusable(LoopkitError, OSError):
    """The local store can't be opened: not a store, written by a newer version, or no permission."""


class NoDeployment(LoopkitError):
    """All deployments that could serve a variant are being left alone; the message says how each failed last."""


class Unguarded(LoopkitError):
    """What a guard was to check could not be given to it: it is not given to anybody."""


class Blocked(LoopkitError):
    """A guard stopped this call before its content went on.

    `verdict.check` names the check, `verdict.stage` where it stood, `verdict.reason` why. The blocked text
    itself is not part of the message.
    """

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(f"{self._done} by {verdict.check!r} at {verdict.stage}: {verdict.reason}")
        self.verdict = verdict

    _done = "blocked"


class Held(Blocked):
    """A guard holds this call back until somebody has looked at it: say so, and ask again when they have."""

    _done = "held"
