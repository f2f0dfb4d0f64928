"""Settings: what `init()` was told, what the environment says, and the defaults, in that order, read once."""

from __future__ import annotations

import base64
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args
from urllib.parse import unquote, urlsplit, urlunsplit

from loopkit.errors import InvalidSetting
from loopkit.types import Span

Content = Literal["local", "off", "export"]
Protocol = Literal["http/protobuf", "grpc"]
Compression = Literal["none", "gzip"]
Drop = Literal["oldest", "newest", "sampled"]
FeedbackBy = Literal["span", "phoenix", "langfuse", "mlflow", "langsmith", "braintrust", "datadog"]
Redactor = Callable[[str], str]

ENVIRONMENT: Final = {
    "LOOPKIT_HOME": "directory of the local store and the spool; default .loopkit in the working directory",
    "LOOPKIT_FEEDBACK_KEYS": "secrets that sign feedback tokens, comma-separated: the first signs, all are accepted",
    "LOOPKIT_DISABLED": "1 turns recording off; guards and routers go on working",
    "OTEL_SDK_DISABLED": "true turns recording off, as LOOPKIT_DISABLED",
    "OTEL_SERVICE_NAME": "the service's name, where init() is given none",
    "OTEL_RESOURCE_ATTRIBUTES": "key=value pairs, comma-separated, for the resource of every span",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "base URL of a collector; /v1/traces is appended",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "full URL for spans; used as it is",
    "OTEL_EXPORTER_OTLP_HEADERS": "key=value pairs, comma-separated, sent with every export",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "the same, for spans",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf (the default) or grpc",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "the same, for spans",
    "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip, or none (the default)",
    "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "the same, for spans",
    "OTEL_EXPORTER_OTLP_TIMEOUT": "seconds that one export may take; default 10",
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "the same, for spans",
    "OTEL_TRACES_SAMPLER": "always_on, always_off or traceidratio, also with parentbased_; init(sample=) goes first",
    "OTEL_TRACES_SAMPLER_ARG": "the probability, for traceidratio",
    "OTEL_EXPORTER_OTLP_CERTIFICATE": "a file with the certificates to trust, for https",
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE": "the same, for spans",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": "a file with our own certificate, where the collector asks for one",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE": "the same, for spans",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY": "a file with the key of our own certificate",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY": "the same, for spans",
    "OTEL_BSP_MAX_QUEUE_SIZE": "finished spans that wait in memory at most; default 20000",
    "OTEL_BSP_SCHEDULE_DELAY": "milliseconds that a finished span waits before it is on disk; default 200",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "attributes that an exported span may have; default 128",
    "OTEL_ATTRIBUTE_COUNT_LIMIT": "the same, where the one for spans isn't set",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "characters of an exported attribute's text; no limit by default",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "the same, where the one for spans isn't set",
    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY or SPAN_AND_EVENT: content goes over OTLP too",
}
"""Every environment variable that loopkit reads."""

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\t\x20-\x7e]*")
_CONTENT = ("local", "off", "export")
_MIB = 1 << 20


class Unset:
    """The type of `DEFAULT`: an argument that was not given, where None has a meaning of its own."""

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = Unset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where spans go over OTLP besides the local store."""

    endpoint: str
    """The full URL, such as http://127.0.0.1:4318/v1/traces; for gRPC such as http://127.0.0.1:4317."""
    protocol: Protocol = "http/protobuf"
    compression: Compression = "none"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    content: bool | None = None
    """Whether inputs and outputs go along; None follows the `content` setting."""
    timeout: float = 10.0
    spool_bytes: int = 256 * _MIB
    """At most this much waits on disk; beyond it batches are dropped and counted."""
    spool_batches: int = 500_000
    """And at most so many batches: one for every append delay in which something was recorded."""
    drop: Drop = "oldest"
    """Which go then: the oldest, the newest, or either by chance ("sampled")."""
    feedback: FeedbackBy | None = "span"
    """How feedback goes there: as a small span below the one it is about, by that backend's own API, or, with None,
    not at all. The APIs want the local store; without one it goes as a span."""
    feedback_url: str | None = None
    """The base URL of that API; None takes the endpoint's, without the path of its OTLP."""
    filter: Callable[[Span], bool] | None = None
    """Which spans go there, by what may go there of them; None sends all."""
    renames: Mapping[str, str] = field(default_factory=dict[str, str])
    """Attributes that this backend calls otherwise, by our name."""
    pseudonyms: bool = False
    """Whether user and session ids go there as keyed hashes: the same for the same person, and not to be turned back
    without the key, which stays in the home directory. Tags and metadata go as they are."""
    resource: Mapping[str, str] = field(default_factory=dict[str, str])
    """Attributes of the process that this backend wants besides ours."""
    certificate: str | None = None
    """A file with the certificates to trust, for https; None trusts the system's."""
    client_certificate: str | None = None
    client_key: str | None = None
    """Files with our own certificate and its key, where the receiver asks for one."""

    name: str | None = None
    """Tells two accounts or projects at one endpoint apart; by default the user name in the URL, if there is one."""
    from_environment: bool = False
    """Named by OpenTelemetry's variables: where the application has a tracer provider, that one serves it."""

    @property
    def place(self) -> str:
        """What tells it from all others: the endpoint, and the name where it has one."""
        return self.endpoint if self.name is None else f"{self.endpoint} {self.name}"

    def __post_init__(self) -> None:
        _check_url("the destination's endpoint", self.endpoint)
        _one_of("the destination's protocol", self.protocol, get_args(Protocol))
        _one_of("the destination's compression", self.compression, get_args(Compression))
        _one_of("the destination's drop", self.drop, get_args(Drop))
        if self.feedback is not None:
            _one_of("the destination's feedback", self.feedback, get_args(FeedbackBy))
        if self.protocol == "grpc" and self.feedback not in (None, "span") and self.feedback_url is None:
            raise InvalidSetting(
                f"feedback={self.feedback!r} goes over HTTP, and the destination is gRPC: give feedback_url"
            )
        if self.feedback_url is not None:
            _check_url("the destination's feedback_url", self.feedback_url)
        self._take_credentials()
        for name, value in self.headers.items():
            if not isinstance(value, str) or not _HEADER.fullmatch(f"{name}: {value}"):
                raise InvalidSetting(f"the destination's header {name!r} is {value!r}: headers are ASCII, encode it")
        for name in ("spool_bytes", "spool_batches", "timeout"):
            _above_zero(f"the destination's {name}", getattr(self, name))
        if self.filter is not None and not callable(self.filter):
            raise InvalidSetting(f"the destination's filter is {self.filter!r}: give a function from a Span to a bool")
        for name in ("certificate", "client_certificate", "client_key"):
            _file(f"the destination's {name}", getattr(self, name))
        if self.client_key is not None and self.client_certificate is None:
            raise InvalidSetting("the destination has a client_key and no client_certificate: give both, or neither")
        if self.certificate or self.client_certificate:
            self._check_certificates()

    def _take_credentials(self) -> None:
        """A name and password in the URL become a header: the URL is shown and written in many places."""
        parts = urlsplit(self.endpoint)
        if "@" not in parts.netloc:
            return
        who, _, place = parts.netloc.rpartition("@")
        basic = base64.b64encode(unquote(who).encode()).decode()
        object.__setattr__(self, "endpoint", urlunsplit(parts._replace(netloc=place)))
        if not any(name.lower() == "authorization" for name in self.headers):
            object.__setattr__(self, "headers", {"authorization": f"Basic {basic}", **self.headers})
        if self.name is None:
            object.__setattr__(self, "name", unquote(who).partition(":")[0])

    def _check_certificates(self) -> None:
        import ssl

        try:
            context = ssl.create_default_context(cafile=self.certificate)
            if self.client_certificate is not None:
                context.load_cert_chain(self.client_certificate, self.client_key, password=_no_pass_phrase)
        except OSError as error:  # ssl's errors are
            raise InvalidSetting(f"the destination's certificates can't be used: {error}") from error


def _no_pass_phrase() -> str:
    """In the place of asking for one at the terminal."""
    raise InvalidSetting("the destination's client_key has a pass phrase: give it a key without one")


STORE_BYTES: Final = 1024 * _MIB
STORE_DAYS: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What recording may take: memory, time, processor. Variables of OpenTelemetry's give other defaults."""

    queue_items: int = 20_000
    """Finished spans and feedback that wait in memory at most (`OTEL_BSP_MAX_QUEUE_SIZE`)."""
    queue_bytes: int = 64 * _MIB
    """What those with more than 4,096 characters of content may hold together."""
    drop: Drop = "newest"
    """Which spans go when the queue is full: the newest, the oldest, or either by chance ("sampled")."""
    append_delay: float = 0.2
    """Seconds that a finished span waits at most before it is on disk (`OTEL_BSP_SCHEDULE_DELAY`, in milliseconds)."""
    exit_timeout: float = 2.0
    """Seconds that the end of the process may wait for delivery; the rest stays on disk."""
    budget: float = 0.5
    """The share of one processor that recording's own threads may take: beyond it content is left out, then traces."""
    media_bytes: int = 16 * _MIB
    """Of one picture, sound or file that is kept; of larger ones the hash is (0: of all)."""
    store_bytes: int = STORE_BYTES
    """What the local store may hold: beyond it the oldest spans go. Feedback and datasets stay."""
    store_days: float = STORE_DAYS
    """How long the local store keeps a span after it was recorded."""
    attributes: int = 128
    """Attributes that one span may have where it is exported (`OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT`)."""
    attribute_length: int | None = None
    """Characters of one attribute's text where it is exported (`OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT`)."""

    def __post_init__(self) -> None:
        _one_of("the limits' drop", self.drop, get_args(Drop))
        may_lack = {"media_bytes": 0, "attribute_length": None, "drop": self.drop}
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name not in may_lack or value != may_lack[each.name]:
                _above_zero(f"the limits' {each.name}", value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Which traces are recorded, and which of those are kept.

    The head decides before a call: what it leaves out costs nothing, is not recorded and can't come back. The tail
    decides afterwards: of the ordinary traces it keeps a share, and of those that failed, were slow or large, tripped a
    guard or got feedback, all. What it leaves out waits on disk for feedback until `ring_seconds` are over.
    Figures weigh each call by the probability with which it is there.
    """

    head: float = 1.0
    """The share of traces that is recorded: by trace id, as OpenTelemetry's traceidratio has it."""
    tasks: Mapping[str, float] = field(default_factory=dict[str, float])
    """The same for traces that begin with a span of such a task."""
    by: Literal["trace", "user"] = "trace"
    """"user" records all traces of a user or none: by the user id, where there is one."""
    tail: float = 1.0
    """The share of ordinary traces that is kept."""
    slow: float | None = None
    """Traces with a local root that took so many seconds are kept; None for no limit."""
    tokens: int | None = None
    """Traces with a model call of so many tokens, in and out together, are kept; None for no limit."""
    ring_seconds: float = 86_400.0
    ring_bytes: int = 256 * _MIB
    """At most this much waits for feedback; beyond it the oldest goes."""

    def __post_init__(self) -> None:
        if not isinstance(self.tasks, Mapping):
            raise InvalidSetting(f"the sampling's tasks is {self.tasks!r}: give a dict from tasks to probabilities")
        for name, value in (("head", self.head), ("tail", self.tail), *self.tasks.items()):
            _probability(f"the sampling of {name}", value)
        _one_of("the sampling's by", self.by, ("trace", "user"))
        for limit in ("slow", "tokens", "ring_seconds", "ring_bytes"):
            if getattr(self, limit) is not None or limit.startswith("ring"):
                _above_zero(f"the sampling's {limit}", getattr(self, limit))
        for name in ("head", "tail", "ring_seconds"):  # a whole number is written otherwise than a fraction
            object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "tasks", {task: float(value) for task, value in self.tasks.items()})


Level = Literal["span", "trace", "session", "document", "range"]
_LEVELS = get_args(Level)
_TYPES: Final = {"bool": bool, "int": int, "float": float, "str": str}


@dataclass(frozen=True, slots=True)
class Signal:
    """What may be said under one name, for those who want it checked: `Signal("helpful", type=bool, optimize="max")`.

    Given to `init(signals=[...])`. Names that nobody declares take any value.
    """

    name: str
    type: Literal["bool", "int", "float", "str"] | type[bool | int | float | str] | None = None
    """bool, int, float or str; None takes any value."""
    optimize: Literal["max", "min"] | None = None
    """Whether more of it is better, or less; None where it only describes."""
    range: tuple[Any, ...] = ()
    """Of numbers the least and the greatest, both allowed; of texts all that are allowed."""
    level: Level | None = None
    """What it is said of; None for anything. A join key or a response's id may stand for any of them."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise InvalidSetting(f"the signal's name is {self.name!r}: give a non-empty string, such as 'helpful'")
        what = f"the signal {self.name!r}"
        names = {kind: name for name, kind in _TYPES.items()}
        kind = names.get(self.type, self.type) if isinstance(self.type, type) else self.type
        _one_of(f"{what}'s type", kind, tuple(_TYPES))
        object.__setattr__(self, "type", kind)
        _one_of(f"{what}'s optimize", self.optimize, ("max", "min"))
        _one_of(f"{what}'s level", self.level, _LEVELS)
        if not isinstance(self.range, (list, tuple)):
            raise InvalidSetting(f"{what}'s range is {self.range!r}: give (least, greatest), or the texts allowed")
        object.__setattr__(self, "range", tuple(self.range))
        if not self.range:
            return
        texts = kind == "str" and all(isinstance(each, str) for each in self.range)
        numbers = kind in ("int", "float") and len(self.range) == 2 and all(map(_is_number, self.range))
        if not texts and not (numbers and self.range[0] <= self.range[1]):
            raise InvalidSetting(
                f"{what}'s range is {self.range!r}: give (least, greatest) with type=int or float, "
                "or the texts allowed with type=str"
            )

    @property
    def allowed(self) -> str:
        """Which values fit, in words."""
        if self.type == "str" and self.range:
            return f"one of {', '.join(map(repr, self.range))}"
        words = {"bool": "True or False", "int": "a whole number", "float": "a number", "str": "a text"}
        between = f" from {self.range[0]:g} to {self.range[1]:g}" if self.range else ""
        return f"{words[str(self.type)]}{between}" if self.type else "any value"

    def fits(self, value: Any) -> bool:
        """Whether this may be said."""
        if self.type in (None, "bool", "str"):
            known = self.type is None or isinstance(value, _TYPES[str(self.type)])
            return known and (not self.range or value in self.range)
        if not _is_number(value) or (self.type == "int" and value != int(value)):
            return False
        return not self.range or self.range[0] <= value <= self.range[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a recorder is made from."""

    service: str
    home: Path
    store: Path | None
    """The directory of the local store; None keeps none."""
    destinations: tuple[Destination, ...] = ()
    content: Content = "local"
    redact: Redactor | None = None
    """None redacts the built-in patterns."""
    sampling: Sampling = field(default_factory=Sampling)
    strict: bool = False
    disabled: bool = False
    resource: Mapping[str, str] = field(default_factory=dict[str, str])
    limits: Limits = field(default_factory=Limits)
    signals: Mapping[str, Signal] = field(default_factory=dict[str, Signal])
    """Those that are declared, by name."""

    def sends_content(self, destination: Destination | None) -> bool:
        """Whether inputs and outputs go to it; None is the application's own OpenTelemetry."""
        asked = None if destination is None else destination.content
        return self.content == "export" if asked is None else asked and self.content != "off"


def settings(
    service: str | None = None,
    *,
    store: str | os.PathLike[str] | Unset | None = DEFAULT,
    export: Iterable[str | Destination] | None = None,
    content: str | None = None,
    redact: Redactor | None = None,
    sample: float | Sampling | None = None,
    strict: bool = False,
    limits: Limits | None = None,
    signals: Iterable[Signal] = (),
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Arguments, then environment, then defaults. Raises `InvalidSetting`, naming what is wrong."""
    env = os.environ if environ is None else environ
    resource = parse_pairs("OTEL_RESOURCE_ATTRIBUTES", env.get("OTEL_RESOURCE_ATTRIBUTES", ""))
    name = service or env.get("OTEL_SERVICE_NAME") or resource.get("service.name", "")
    if not isinstance(name, str) or not name.strip():
        raise InvalidSetting(
            f"the service's name is {service!r}: give init() a non-empty string, or set OTEL_SERVICE_NAME"
        )
    if sample is None:
        sample = _sampler(env)
    if not isinstance(sample, Sampling):
        _probability("sample", sample)
        sample = Sampling(head=float(sample))
    if redact is not None and not callable(redact):
        raise InvalidSetting(f"redact is {redact!r}: it is a function from text to text, or None for the default")
    if limits is not None and not isinstance(limits, Limits):
        raise InvalidSetting(f"limits is {limits!r}: give a loopkit.Limits")
    home = home_directory(env)
    directory = _store_path(store, home)
    destinations = _destinations(export, env)
    if directory is None:  # the APIs are told what the store's log says
        destinations = tuple(replace(each, feedback=each.feedback and "span") for each in destinations)
    return Settings(
        service=name,
        home=home,
        store=directory,
        destinations=destinations,
        content=_content(content, env),
        redact=redact,
        sampling=sample,
        strict=strict,
        disabled=_is_true(env.get("LOOPKIT_DISABLED")) or _is_true(env.get("OTEL_SDK_DISABLED")),
        resource={**resource, "service.name": name},
        limits=_limits(env) if limits is None else limits,
        signals=_signals(signals),
    )


def home_directory(environ: Mapping[str, str] | None = None) -> Path:
    """`LOOPKIT_HOME`, else `.loopkit` in the working directory."""
    env = os.environ if environ is None else environ
    return Path(env.get("LOOPKIT_HOME") or ".loopkit").absolute()


def feedback_keys(environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """`LOOPKIT_FEEDBACK_KEYS`, those that are there."""
    env = os.environ if environ is None else environ
    return tuple(each.strip() for each in env.get("LOOPKIT_FEEDBACK_KEYS", "").split(",") if each.strip())


def parse_pairs(name: str, text: str) -> dict[str, str]:
    """`a=1,b=2` as OpenTelemetry's variables have it, percent-decoded."""
    pairs: dict[str, str] = {}
    for item in filter(None, (piece.strip() for piece in text.split(","))):
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise InvalidSetting(f"{name} has the item {item!r}: write it as key=value, comma-separated")
        pairs[key.strip()] = unquote(value.strip())
    return pairs


def _signals(given: Any) -> dict[str, Signal]:
    found: list[Any] = list(given) if hasattr(given, "__iter__") else [None]
    if not all(isinstance(each, Signal) for each in found):
        raise InvalidSetting(f"signals is {given!r}: give a list of loopkit.Signal")
    twice = [name for name, count in Counter(each.name for each in found).items() if count > 1]
    if twice:
        raise InvalidSetting(f"signals has {twice[0]!r} twice: declare it once")
    return {each.name: each for each in found}


def _store_path(store: object, home: Path) -> Path | None:
    if isinstance(store, Unset):
        return home
    if store is None:
        return None
    given: Any = store  # isinstance makes `store` a PathLike of an unknown type; this stays Any
    if not isinstance(store, (str, os.PathLike)) or "\0" in str(given):
        raise InvalidSetting(f"store is {given!r}: name a directory, or None for no store")
    path = Path(given).absolute()
    if path.exists() and not path.is_dir():
        raise InvalidSetting(f"store is {str(path)!r}, which is a file: name a directory, or None for no store")
    return path


def _destinations(export: Iterable[str | Destination] | None, env: Mapping[str, str]) -> tuple[Destination, ...]:
    if export is not None and (isinstance(export, str) or not isinstance(export, Iterable)):
        raise InvalidSetting(f"export is {export!r}: give a list of URLs or Destinations, such as [{export!r}]")
    found = [Destination(endpoint=item) if isinstance(item, str) else item for item in export or ()]
    for item in found:
        if not isinstance(item, Destination):
            raise InvalidSetting(f"export has {item!r}: give URLs or Destinations")
    counts = Counter((item.endpoint, item.name) for item in found)
    repeated = [endpoint for (endpoint, _), count in counts.items() if count > 1]
    if repeated:
        raise InvalidSetting(
            f"export names {repeated[0]!r} twice: every span would go there twice; give two accounts a name each"
        )
    named = _named_by_environment(env)
    if named is not None and all(item.endpoint != named.endpoint for item in found):
        found.append(named)
    return tuple(found)


def _named_by_environment(env: Mapping[str, str]) -> Destination | None:
    """The destination that OpenTelemetry's variables name, or None; those for spans go before the general ones."""

    def given(name: str) -> tuple[str, str]:
        for variable in (f"OTEL_EXPORTER_OTLP_TRACES_{name}", f"OTEL_EXPORTER_OTLP_{name}"):
            if value := env.get(variable, "").strip():
                return variable, value
        return "", ""

    variable, endpoint = given("ENDPOINT")
    if not endpoint:
        return None
    _check_url(variable, endpoint)
    protocol: Protocol = _one_of(*given("PROTOCOL"), get_args(Protocol)) or "http/protobuf"
    if protocol != "grpc" and not variable.endswith("TRACES_ENDPOINT"):
        endpoint = endpoint.rstrip("/") + "/v1/traces"
    headers: dict[str, str] = {}
    for name in ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"):
        headers.update(parse_pairs(name, env.get(name, "")))
    variable, seconds = given("TIMEOUT")
    certificate, client_certificate, client_key = (
        _file(*given(name)) for name in ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")
    )
    return Destination(
        endpoint=endpoint,
        protocol=protocol,
        compression=_one_of(*given("COMPRESSION"), get_args(Compression)) or "none",
        headers=headers,
        timeout=_number(variable, seconds) if seconds else 10.0,
        from_environment=True,
        certificate=certificate,
        client_certificate=client_certificate,
        client_key=client_key,
    )


def _sampler(env: Mapping[str, str]) -> float:
    """What OpenTelemetry's sampler variables say. Ours is always by the parent, whose decision its children share."""
    name = env.get("OTEL_TRACES_SAMPLER", "").strip().removeprefix("parentbased_")
    if name == "traceidratio":
        share = _number("OTEL_TRACES_SAMPLER_ARG", env.get("OTEL_TRACES_SAMPLER_ARG") or "1")
        _probability("OTEL_TRACES_SAMPLER_ARG", share)
        return share
    _one_of("OTEL_TRACES_SAMPLER", name, ("always_on", "always_off", "traceidratio"))
    return 0.0 if name == "always_off" else 1.0


def _limits(env: Mapping[str, str]) -> Limits:
    """The defaults, as far as OpenTelemetry's variables don't say otherwise; what is for spans goes first."""
    found: dict[str, Any] = {}
    for name, variables, unit in _LIMITS:
        for variable in variables:
            if text := env.get(variable, "").strip():
                number = _number(variable, text) * unit
                _above_zero(variable, number)
                _above_zero(variable, number if name == "append_delay" else int(number))
                found[name] = number if name == "append_delay" else int(number)
                break
    return Limits(**found)


_LIMITS: Final = (
    ("queue_items", ("OTEL_BSP_MAX_QUEUE_SIZE",), 1),
    ("append_delay", ("OTEL_BSP_SCHEDULE_DELAY",), 0.001),
    ("attributes", ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"), 1),
    ("attribute_length", ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"), 1),
)


def _file(name: str, path: str | None) -> str | None:
    """The path, where there is such a file, or None where none is named."""
    if not path:
        return None
    if not Path(path).is_file():
        raise InvalidSetting(f"{name} is {path!r}: there is no such file")
    return path


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")


def _probability(name: str, value: Any) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= 1:
        raise InvalidSetting(f"{name} is {value!r}: it is a probability between 0 and 1")


def _above_zero(name: str, value: Any) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < float("inf"):
        raise InvalidSetting(f"{name} is {value!r}: give a number above 0")


def _one_of(name: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    """The value, where it is allowed, or empty."""
    if value and value not in allowed:
        raise InvalidSetting(f"{name} is {value!r}: choose one of {', '.join(map(repr, allowed))}")
    return value


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InvalidSetting(f"{name} is {text!r}: give a number") from error


def _content(content: str | None, env: Mapping[str, str]) -> Content:
    if content is None:
        asked = env.get("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "").upper()
        return "export" if asked in ("SPAN_ONLY", "SPAN_AND_EVENT") else "local"
    for allowed in _CONTENT:
        if content == allowed:
            return allowed  # type: ignore[return-value]  # mypy doesn't narrow a str by a tuple of literals
    raise InvalidSetting(f"content is {content!r}: choose one of {', '.join(map(repr, _CONTENT))}")


def _check_url(name: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (TypeError, ValueError, AttributeError):
        good = False
    if not good:
        raise InvalidSetting(f"{name} is {url!r}: write a full URL, such as http://127.0.0.1:4318")


def _is_true(value: str | None) -> bool:
    return (value or "").strip().lower() in ("1", "true", "yes", "on")
