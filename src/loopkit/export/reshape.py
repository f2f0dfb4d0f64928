"""What one destination wants otherwise: fewer spans, other names, shorter texts.

Only destinations that ask for it pay for reading their spans once more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loopkit import _host
from loopkit.capture.finish import OURS
from loopkit.config import Destination, Limits
from loopkit.wire.decode import decode_span

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue


class Reshape:
    """For one destination."""

    def __init__(self, destination: Destination, limits: Limits, service: str) -> None:
        self._filter = destination.filter
        self._renames = destination.renames
        self._most = limits.attributes
        self._longest = limits.attribute_length
        self._service = service
        self._rewrites = bool(self._renames) or self._longest is not None or self._most < OURS
        self._where = f"the filter of {destination.endpoint}"

    def __call__(self, span: bytes) -> bytes | None:
        """The span as it goes there, or None."""
        if self._filter is not None and not self._passes(span):
            return None
        return self._rewritten(span) if self._rewrites else span

    def _passes(self, span: bytes) -> bool:
        """A filter that fails lets nothing pass: it may be there to keep something in."""
        assert self._filter is not None
        with _host.Shielded(self._where):
            return bool(self._filter(decode_span(span, self._service)))
        return False

    def _rewritten(self, span: bytes) -> bytes:
        from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

        message = OtlpSpan.FromString(span)
        for item in message.attributes:
            item.key = self._renames.get(item.key, item.key)
            if self._longest is not None:
                _shorten(item.value, self._longest)
        if len(message.attributes) > self._most:
            message.dropped_attributes_count += len(message.attributes) - self._most
            del message.attributes[self._most :]
        return bytes(message.SerializeToString())


def _shorten(value: AnyValue, longest: int) -> None:
    if value.WhichOneof("value") == "string_value" and len(value.string_value) > longest:
        value.string_value = value.string_value[:longest]
    for item in value.array_value.values if value.HasField("array_value") else ():
        _shorten(item, longest)
