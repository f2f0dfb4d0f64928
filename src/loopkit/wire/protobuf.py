"""The little of protobuf that a span needs, written straight to bytes.

The official encoder builds a message object per attribute; this one writes the same bytes several times faster,
which matters because encoding happens under the GIL of the host's process. Reading is done by the official
library (`opentelemetry.proto`), which is also what the tests compare against.
Field numbers: https://github.com/open-telemetry/opentelemetry-proto, trace.proto and common.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any

_SHORT = [bytes((number,)) for number in range(0x80)]
_INT64_MASK = (1 << 64) - 1
_KEY_CACHE_LIMIT = 4096
_key_cache: dict[str, bytes] = {}


def varint(number: int) -> bytes:
    """An unsigned integer, seven bits a byte, least first."""
    if number < 0x80:
        return _SHORT[number]
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def delimited(tag: bytes, payload: bytes) -> bytes:
    """A length-delimited field: strings, bytes and messages."""
    return tag + varint(len(payload)) + payload


def fixed64(tag: bytes, number: int) -> bytes:
    """A 64-bit field, as times are."""
    return tag + number.to_bytes(8, "little")


def text(value: str) -> bytes:
    """UTF-8; lone surrogates, which UTF-8 can't say, become question marks."""
    try:
        return value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "replace")


def attributes(tag: bytes, values: Mapping[str, Any]) -> bytes:
    """Each item as a KeyValue field; None values are left out."""
    parts: list[bytes] = []
    for name, value in values.items():
        if value is not None:
            if value.__class__ is str:  # as any_value would, and most are
                encoded = text(value)
                encoded = b"\x0a" + varint(len(encoded)) + encoded
            else:
                encoded = any_value(value)
            item = _key(name) + b"\x12" + varint(len(encoded)) + encoded
            parts += (tag, varint(len(item)), item)
    return b"".join(parts)


def text_attribute(tag: bytes, name: str, value: str) -> bytes:
    """One KeyValue field with a string, which is copied once."""
    data = text(value)
    length = b"\x0a" + varint(len(data))
    key = _key(name)
    size = varint(len(length) + len(data))
    return b"".join((tag, varint(len(key) + 1 + len(size) + len(length) + len(data)), key, b"\x12", size, length, data))


def any_value(value: Any) -> bytes:
    """An AnyValue message: string, bool, int, double, array or key-value list."""
    if isinstance(value, str):
        encoded = text(value)
        return b"\x0a" + varint(len(encoded)) + encoded
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            return delimited(b"\x0a", str(value).encode())
        return b"\x18" + varint(value & _INT64_MASK)
    if isinstance(value, float):
        return b"\x21" + struct.pack("<d", value)
    given: Any = value  # isinstance makes `value` a container of unknown types; this stays Any
    if isinstance(value, Mapping):
        return delimited(b"\x32", attributes(b"\x0a", {str(k): v for k, v in given.items()}))
    if isinstance(value, Iterable) and not isinstance(value, (bytes, bytearray)):
        return delimited(b"\x2a", b"".join(delimited(b"\x0a", any_value(item)) for item in given))
    return delimited(b"\x0a", text(str(value)))


def fields(data: bytes, start: int = 0, end: int | None = None) -> list[tuple[int, int, int]]:
    """The number, start and end of each length-delimited field of a message in `data[start:end]`, without copying.

    Raises `ValueError` for what is no message, or holds fields of another kind.
    """
    found: list[tuple[int, int, int]] = []
    position, stop = start, len(data) if end is None else end
    try:
        while position < stop:
            tag = data[position]
            if tag & 0x87 != 2:  # a tag of one byte, and a length behind it
                raise ValueError(f"a field with tag {tag}, where only messages and texts are expected")
            length, shift, byte = 0, 0, 0x80
            while byte & 0x80:
                position += 1
                byte = data[position]
                length |= (byte & 0x7F) << shift
                shift += 7
            found.append((tag >> 3, position + 1, position + 1 + length))
            position += 1 + length
    except IndexError as error:
        raise ValueError("a message that ends within a number") from error
    return found


def _key(name: str) -> bytes:
    """The encoded key field. Names repeat, so their bytes are kept, up to a bound."""
    encoded = _key_cache.get(name)
    if encoded is None:
        encoded = delimited(b"\x0a", text(name))
        if len(_key_cache) < _KEY_CACHE_LIMIT:
            _key_cache[name] = encoded
    return encoded
