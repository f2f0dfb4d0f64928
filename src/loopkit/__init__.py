"""loopkit closes the continuous-learning loop of an LLM application, in the application's own process.

    import loopkit
    loopkit.init(service="helpdesk")
    client = loopkit.wrap(OpenAI())

Names are loaded when first used: importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from loopkit._version import __version__

if TYPE_CHECKING:
    from loopkit._assemble import aflush as aflush
    from loopkit._assemble import ashutdown as ashutdown
    from loopkit._assemble import flush as flush
    from loopkit._assemble import health as health
    from loopkit._assemble import init as init
    from loopkit._assemble import shutdown as shutdown
    from loopkit.capture.ambient import carried as carried
    from loopkit.capture.ambient import context as context
    from loopkit.capture.clients import unwrap as unwrap
    from loopkit.capture.clients import wrap as wrap
    from loopkit.capture.decorator import current_span as current_span
    from loopkit.capture.decorator import span as span
    from loopkit.capture.decorator import trace as trace
    from loopkit.capture.logs import LogIds as LogIds
    from loopkit.capture.patching import instrument as instrument
    from loopkit.capture.patching import uninstrument as uninstrument
    from loopkit.capture.retrieved import RetrievedContext as RetrievedContext
    from loopkit.capture.told import record_model_call as record_model_call
    from loopkit.config import Destination as Destination
    from loopkit.config import Limits as Limits
    from loopkit.config import Sampling as Sampling
    from loopkit.config import Signal as Signal
    from loopkit.datasets.dataset import Dataset as Dataset
    from loopkit.deploy.registry import Registry as Registry
    from loopkit.deploy.rollout import Rollout as Rollout
    from loopkit.deploy.routing import fit_router as fit_router
    from loopkit.deploy.routing import routes as routes
    from loopkit.deploy.routing import simulate_router as simulate_router
    from loopkit.deploy.trail import lineage as lineage
    from loopkit.errors import Blocked as Blocked
    from loopkit.errors import Held as Held
    from loopkit.errors import LoopkitError as LoopkitError
    from loopkit.evals.experiment import evaluate as evaluate
    from loopkit.evals.scoring import evaluator as evaluator
    from loopkit.export.place import spools as spools
    from loopkit.guard.guard import Guard as Guard
    from loopkit.imports.load import import_traces as import_traces
    from loopkit.imports.statements import export_feedback as export_feedback
    from loopkit.imports.statements import import_feedback as import_feedback
    from loopkit.observe.annotations import annotate as annotate
    from loopkit.observe.calibrating import calibrate as calibrate
    from loopkit.observe.forgetting import forget as forget
    from loopkit.observe.guarding import guard_labels as guard_labels
    from loopkit.observe.guarding import replay_guard as replay_guard
    from loopkit.observe.look import confusion as confusion
    from loopkit.observe.look import failures as failures
    from loopkit.observe.look import figures as figures
    from loopkit.observe.page import report as report
    from loopkit.observe.prices import cost as cost
    from loopkit.observe.prices import set_price as set_price
    from loopkit.observe.sensing import sense as sense
    from loopkit.route.answer import Answer as Answer
    from loopkit.route.deployments import Deployment as Deployment
    from loopkit.route.router import Router as Router
    from loopkit.signals.say import afeedback as afeedback
    from loopkit.signals.say import feedback as feedback
    from loopkit.signals.say import feedback_batch as feedback_batch
    from loopkit.signals.say import retract as retract
    from loopkit.signals.say import supersede as supersede
    from loopkit.signals.sensors import accepted as accepted
    from loopkit.signals.sensors import outcome as outcome
    from loopkit.signals.state import held as held
    from loopkit.signals.state import orphans as orphans
    from loopkit.signals.tokens import feedback_token as feedback_token
    from loopkit.store.locate import open_store as open_store
    from loopkit.store.outbox import resend as resend
    from loopkit.store.outbox import untold as untold
    from loopkit.tuning.adapters import tune as tune
    from loopkit.types import Example as Example
    from loopkit.types import Feedback as Feedback
    from loopkit.types import Message as Message
    from loopkit.types import ModelCall as ModelCall
    from loopkit.types import Score as Score
    from loopkit.types import Span as Span
    from loopkit.types import Variant as Variant

_HOMES = {
    "_assemble": (
        "aflush",
        "ashutdown",
        "flush",
        "health",
        "init",
        "shutdown",
    ),
    "capture.ambient": (
        "carried",
        "context",
    ),
    "capture.logs": ("LogIds",),
    "capture.clients": (
        "unwrap",
        "wrap",
    ),
    "capture.patching": (
        "instrument",
        "uninstrument",
    ),
    "capture.retrieved": ("RetrievedContext",),
    "capture.told": ("record_model_call",),
    "capture.decorator": (
        "current_span",
        "span",
        "trace",
    ),
    "config": (
        "Destination",
        "Limits",
        "Sampling",
        "Signal",
    ),
    "datasets.dataset": ("Dataset",),
    "deploy.registry": ("Registry",),
    "deploy.rollout": ("Rollout",),
    "deploy.routing": (
        "fit_router",
        "routes",
        "simulate_router",
    ),
    "deploy.trail": ("lineage",),
    "errors": (
        "Blocked",
        "Held",
        "LoopkitError",
    ),
    "evals.experiment": ("evaluate",),
    "evals.scoring": ("evaluator",),
    "export.place": ("spools",),
    "guard.guard": ("Guard",),
    "imports.statements": (
        "export_feedback",
        "import_feedback",
    ),
    "imports.load": ("import_traces",),
    "observe.annotations": ("annotate",),
    "observe.forgetting": ("forget",),
    "observe.look": (
        "confusion",
        "failures",
        "figures",
    ),
    "observe.guarding": (
        "guard_labels",
        "replay_guard",
    ),
    "observe.page": ("report",),
    "observe.calibrating": ("calibrate",),
    "observe.sensing": ("sense",),
    "observe.prices": (
        "cost",
        "set_price",
    ),
    "route.answer": ("Answer",),
    "route.deployments": ("Deployment",),
    "route.router": ("Router",),
    "signals.sensors": (
        "accepted",
        "outcome",
    ),
    "signals.state": (
        "held",
        "orphans",
    ),
    "signals.say": (
        "afeedback",
        "feedback",
        "feedback_batch",
        "retract",
        "supersede",
    ),
    "signals.tokens": ("feedback_token",),
    "store.locate": ("open_store",),
    "store.outbox": (
        "resend",
        "untold",
    ),
    "tuning.adapters": ("tune",),
    "types": (
        "Example",
        "Feedback",
        "Message",
        "ModelCall",
        "Score",
        "Span",
        "Variant",
    ),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME)]  # pyright: ignore[reportUnsupportedDunderAll]  # loaded lazily, by name


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'loopkit' has no attribute {name!r}")
    value = getattr(import_module(f"loopkit.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
