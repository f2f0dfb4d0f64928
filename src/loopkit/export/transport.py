"""How a batch gets to its receiver: OTLP over HTTP or gRPC. Both send the spool's bytes as they are.

https://opentelemetry.io/docs/specs/otlp/ (failures, throttling, partial success). httpx is imported here, on the thread
that calls `init()`, and not later on ours: openai 3 looks into `sys.modules` for httpx while it is being imported, and
fails when it finds it half-imported by another thread.
"""

from __future__ import annotations

import gzip
import math
import time
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import httpx

from loopkit.config import Destination

_RETRYABLE = frozenset((429, 502, 503, 504))
_RETRYABLE_CODES = frozenset(("CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"))
_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class NotNow(Exception):  # a state, not an error
    """The receiver can't take it now."""

    def __init__(self, why: str, seconds: float | None = None) -> None:
        super().__init__(why)
        self.seconds = seconds
        """How long it asked us to wait."""


class Refused(Exception):
    """The receiver will never take it."""


class Rejected(NamedTuple):
    """What a receiver did not take of a batch that it acknowledged."""

    spans: int
    said: str


class Transport(Protocol):
    """Sends batches to one destination."""

    def send(self, data: bytes) -> Rejected:
        """Raises `NotNow` or `Refused`."""
        ...

    def close(self) -> None:
        """Give back connections."""
        ...


def asked(client: httpx.Client, method: str, url: str, **request: Any) -> httpx.Response:
    """The whole answer, of at most a megabyte, in at most twice the client's timeout. Raises `NotNow`."""
    until = time.monotonic() + 2 * (client.timeout.read or 0.0)
    try:
        with client.stream(method, url, **request) as response:
            body = bytearray()
            for piece in response.iter_bytes():
                body += piece
                if len(body) > _LARGEST_ANSWER:
                    raise NotNow(f"it answered more than {_LARGEST_ANSWER} bytes")
                if time.monotonic() > until:
                    raise NotNow("its answer took too long")
            headers = [pair for pair in response.headers.raw if pair[0].lower() not in _OF_BODY]
            return httpx.Response(response.status_code, headers=headers, content=bytes(body))
    except (httpx.TransportError, httpx.DecodingError) as error:
        raise NotNow(f"{type(error).__name__}: {error}") from error


_LARGEST_ANSWER = 1 << 20
_OF_BODY = (b"content-encoding", b"content-length", b"transfer-encoding")
"""What was true of it before it was read."""


class HttpTransport:
    """OTLP/HTTP with protobuf."""

    def __init__(self, destination: Destination, transport: httpx.BaseTransport | None = None) -> None:
        self._url = destination.endpoint
        self._zipped = destination.compression == "gzip"
        self._headers = {
            "content-type": "application/x-protobuf",
            **({"content-encoding": "gzip"} if self._zipped else {}),
            **destination.headers,
        }
        # Without TLS no certificates are loaded, which takes longer than sending thousands of spans.
        verify: Any = urlsplit(self._url).scheme == "https" and trust(destination)
        self._client = httpx.Client(transport=transport, timeout=destination.timeout, verify=verify)

    def send(self, data: bytes) -> Rejected:
        """See `Transport.send`."""
        # Level and time are fixed, so that a batch that is sent again is the same to the byte.
        body = gzip.compress(data, compresslevel=5, mtime=0) if self._zipped else data
        response = asked(self._client, "POST", self._url, content=body, headers=self._headers)
        if response.is_success:
            return _rejected(response.content) if "protobuf" in response.headers.get("content-type", "") else _NOTHING
        raise failure(response)

    def close(self) -> None:
        """See `Transport.close`."""
        self._client.close()


class GrpcTransport:
    """OTLP/gRPC, for collectors that listen on 4317 alone."""

    def __init__(self, destination: Destination) -> None:
        import grpc  # type: ignore[import-untyped]

        parts = urlsplit(destination.endpoint)
        target = f"{parts.hostname}:{parts.port or 4317}"
        options = (("grpc.enable_retries", 0),)  # ours wait longer, and know the spool
        if parts.scheme == "https":
            credentials = grpc.ssl_channel_credentials(
                _bytes(destination.certificate), _bytes(destination.client_key), _bytes(destination.client_certificate)
            )
            self._channel: Any = grpc.secure_channel(target, credentials, options)
        else:
            self._channel = grpc.insecure_channel(target, options)
        self._export = self._channel.unary_unary(_METHOD)  # without serializers: bytes in, bytes out
        self._metadata = tuple((name.lower(), value) for name, value in destination.headers.items())
        self._compression = (
            grpc.Compression.Gzip if destination.compression == "gzip" else grpc.Compression.NoCompression
        )
        self._timeout = destination.timeout
        self._error: type[Exception] = grpc.RpcError

    def send(self, data: bytes) -> Rejected:
        """See `Transport.send`."""
        try:
            answer: bytes = self._export(
                data, timeout=self._timeout, metadata=self._metadata, compression=self._compression
            )
        except self._error as error:
            failure: Any = error  # a failed call is both the error and the call
            code, details, pause = failure.code().name, failure.details() or "", _pushback(failure)
            # RESOURCE_EXHAUSTED passes only if the receiver says when: it may also mean that a batch is too large.
            if code in _RETRYABLE_CODES or (code == "RESOURCE_EXHAUSTED" and pause is not None):
                raise NotNow(f"{code}: {details}", pause) from error
            raise Refused(f"{code}: {details[:500]}") from error
        return _rejected(answer)

    def close(self) -> None:
        """See `Transport.close`."""
        self._channel.close()


def trust(destination: Destination) -> Any:
    """Whom to trust and who we are, over TLS."""
    if destination.certificate is None and destination.client_certificate is None:
        return True
    import ssl

    context = ssl.create_default_context(cafile=destination.certificate)
    if destination.client_certificate is not None:
        context.load_cert_chain(destination.client_certificate, destination.client_key)
    return context


def _bytes(file: str | None) -> bytes | None:
    return None if file is None else Path(file).read_bytes()


def transport_to(destination: Destination, http: httpx.BaseTransport | None = None) -> Transport:
    """The transport that speaks the destination's protocol; `http` replaces httpx's own below it."""
    return GrpcTransport(destination) if destination.protocol == "grpc" else HttpTransport(destination, http)


_NOTHING = Rejected(0, "")


def _rejected(answer: bytes) -> Rejected:
    """What a partial success says. A receiver that answers with something else has taken the batch all the same."""
    if not answer:
        return _NOTHING
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    try:
        partial = ExportTraceServiceResponse.FromString(answer).partial_success
    except DecodeError:
        return _NOTHING
    return Rejected(partial.rejected_spans, partial.error_message)


def failure(response: httpx.Response) -> NotNow | Refused:
    """What an answer means that is no success."""
    said = f"HTTP {response.status_code}: {response.text[:500]}"
    return NotNow(said, _retry_after(response)) if response.status_code in _RETRYABLE else Refused(said)


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds, by number; a date would depend on two clocks, so then our own waiting serves."""
    try:
        seconds = float(response.headers.get("retry-after", ""))
    except ValueError:
        return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _pushback(failure: Any) -> float | None:
    for name, value in failure.trailing_metadata() or ():
        if name == "grpc-retry-pushback-ms":
            return max(int(value) / 1000, 0.0)
    return None
