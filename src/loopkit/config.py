"""Settings: what `init()` was told, what the environment says, and the defaults, in that order, read once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import unquote, urlsplit

from loopkit.errors import InvalidSetting

Content = Literal["local", "off", "export"]
Redactor = Callable[[str], str]

ENVIRONMENT: Final = {
    "LOOPKIT_HOME": "directory of the local store and the spool; default .loopkit in the working directory",
    "LOOPKIT_DISABLED": "1 turns recording off; guards and routers go on working",
    "OTEL_SDK_DISABLED": "true turns recording off, as LOOPKIT_DISABLED",
    "OTEL_SERVICE_NAME": "the service's name, where init() is given none",
    "OTEL_RESOURCE_ATTRIBUTES": "key=value pairs, comma-separated, for the resource of every span",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "base URL of a collector; /v1/traces is appended",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "full URL for spans; used as it is",
    "OTEL_EXPORTER_OTLP_HEADERS": "key=value pairs, comma-separated, sent with every export",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "the same, for spans",
    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY or SPAN_AND_EVENT: content goes over OTLP too",
}
"""Every environment variable that loopkit reads."""

_CONTENT = ("local", "off", "export")
_MIB = 1 << 20


class Unset:
    """The type of `DEFAULT`: an argument that was not given, where None has a meaning of its own."""

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = Unset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where spans go over OTLP/HTTP besides the local store."""

    endpoint: str
    """The full URL, such as http://127.0.0.1:4318/v1/traces."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    content: bool | None = None
    """Whether inputs and outputs go along; None follows the `content` setting."""
    timeout: float = 10.0
    spool_bytes: int = 256 * _MIB
    """At most this much waits on disk; beyond it the oldest batches are dropped and counted."""

    def __post_init__(self) -> None:
        _check_url("the destination's endpoint", self.endpoint)


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
    sample: float = 1.0
    strict: bool = False
    disabled: bool = False
    resource: Mapping[str, str] = field(default_factory=dict[str, str])
    append_delay: float = 0.2
    """Seconds that a finished span waits at most before it is on disk."""
    queue_limit: int = 20_000
    exit_timeout: float = 2.0


def settings(
    service: str | None = None,
    *,
    store: str | os.PathLike[str] | Unset | None = DEFAULT,
    export: Iterable[str | Destination] | None = None,
    content: str | None = None,
    redact: Redactor | None = None,
    sample: float = 1.0,
    strict: bool = False,
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
    if not isinstance(sample, (int, float)) or isinstance(sample, bool) or not 0 <= sample <= 1:
        raise InvalidSetting(f"sample is {sample!r}: it is a probability between 0 and 1")
    if redact is not None and not callable(redact):
        raise InvalidSetting(f"redact is {redact!r}: it is a function from text to text, or None for the default")
    home = home_directory(env)
    return Settings(
        service=name,
        home=home,
        store=_store_path(store, home),
        destinations=_destinations(export, env),
        content=_content(content, env),
        redact=redact,
        sample=float(sample),
        strict=strict,
        disabled=_is_true(env.get("LOOPKIT_DISABLED")) or _is_true(env.get("OTEL_SDK_DISABLED")),
        resource={**resource, "service.name": name},
    )


def home_directory(environ: Mapping[str, str] | None = None) -> Path:
    """`LOOPKIT_HOME`, else `.loopkit` in the working directory."""
    env = os.environ if environ is None else environ
    return Path(env.get("LOOPKIT_HOME") or ".loopkit").absolute()


def parse_pairs(name: str, text: str) -> dict[str, str]:
    """`a=1,b=2` as OpenTelemetry's variables have it, percent-decoded."""
    pairs: dict[str, str] = {}
    for item in filter(None, (piece.strip() for piece in text.split(","))):
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise InvalidSetting(f"{name} has the item {item!r}: write it as key=value, comma-separated")
        pairs[key.strip()] = unquote(value.strip())
    return pairs


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
    repeated = [endpoint for endpoint, count in Counter(item.endpoint for item in found).items() if count > 1]
    if repeated:
        raise InvalidSetting(f"export names {repeated[0]!r} twice: every span would go there twice")
    endpoint = env.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    variable = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    if not endpoint and (base := env.get("OTEL_EXPORTER_OTLP_ENDPOINT")):
        endpoint = base.rstrip("/") + "/v1/traces"
        variable = "OTEL_EXPORTER_OTLP_ENDPOINT"
    if endpoint and all(item.endpoint != endpoint for item in found):
        _check_url(variable, endpoint)
        headers: dict[str, str] = {}
        for name in ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"):
            headers.update(parse_pairs(name, env.get(name, "")))
        found.append(Destination(endpoint=endpoint, headers=headers))
    return tuple(found)


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
