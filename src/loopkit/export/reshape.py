"""What one destination wants otherwise: fewer spans, other names, shorter texts.

Only destinations that ask for it pay for reading their spans once more.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from loopkit import _host
from loopkit._pseudonyms import pseudonym
from loopkit.capture.finish import OURS
from loopkit.config import Destination, Limits
from loopkit.wire.decode import decode_span
from loopkit.wire.names import CONVERSATION_ID, OUR_PREFIXES, SESSION_ID, USER_ID

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue

_PEOPLE = (USER_ID, SESSION_ID, CONVERSATION_ID)


class Reshape:
    """For one destination."""

    def __init__(self, destination: Destination, limits: Limits, service: str, home: Path) -> None:
        self._filter = destination.filter
        self._renames = destination.renames
        self._most = limits.attributes
        self._longest = limits.attribute_length
        self._service = service
        self._key_home = home if destination.pseudonyms else None
        changes = bool(self._renames) or self._key_home is not None or self._longest is not None
        self._rewrites = changes or self._most < OURS
        self._where = f"the filter of {destination.endpoint}"

    def __call__(self, span: bytes, *, crowded: bool, service: str | None = None) -> bytes | None:
        """The span as it goes there, or None. `service` is that of another process that recorded it."""
        if self._filter is not None and not self._passes(span, service or self._service):
            return None
        return self._rewritten(span) if self._rewrites or crowded else span

    def _passes(self, span: bytes, service: str) -> bool:
        """A filter that fails lets nothing pass: it may be there to keep something in."""
        assert self._filter is not None
        with _host.Shielded(self._where):
            return bool(self._filter(decode_span(span, service)))
        return False

    def _rewritten(self, span: bytes) -> bytes:
        from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

        message = OtlpSpan.FromString(span)
        if len(message.attributes) > self._most:
            # the application's own go first, the last ones of them
            ranked = sorted(message.attributes, key=lambda item: not item.key.startswith(OUR_PREFIXES))
            message.dropped_attributes_count += len(ranked) - self._most
            copies = [(item.key, item.value.SerializeToString()) for item in ranked[: self._most]]
            del message.attributes[:]
            for key, value in copies:
                item = message.attributes.add(key=key)
                item.value.ParseFromString(value)
        for item in message.attributes:
            if self._key_home is not None and item.key in _PEOPLE:
                item.value.string_value = pseudonym(item.value.string_value, self._key_home)
            item.key = self._renames.get(item.key, item.key)
            if self._longest is not None:
                _shorten(item.value, self._longest)
        return bytes(message.SerializeToString())


def _shorten(value: AnyValue, longest: int) -> None:
    if value.WhichOneof("value") == "string_value" and len(value.string_value) > longest:
        value.string_value = value.string_value[:longest]
    for item in value.array_value.values if value.HasField("array_value") else ():
        _shorten(item, longest)


def service_in(resource: bytes) -> str | None:
    """The service's name in an encoded resource."""
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource

    found = {item.key: item.value.string_value for item in Resource.FromString(resource).attributes}
    return found.get("service.name")


@functools.lru_cache(maxsize=64)
def with_resource(resource: bytes, more: tuple[tuple[str, str], ...]) -> bytes:
    """The encoded resource with these attributes added to it, or put in their place."""
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource

    names = dict(more)
    kept = [item for item in Resource.FromString(resource).attributes if item.key not in names]
    made = Resource(attributes=kept)
    for name, value in more:
        made.attributes.add(key=name).value.string_value = value
    return bytes(made.SerializeToString())
