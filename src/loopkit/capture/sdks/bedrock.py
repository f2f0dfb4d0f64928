"""boto3's client of bedrock-runtime: one method is under every operation."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

from loopkit import _host
from loopkit.capture import slot
from loopkit.capture.chain import Call, Interceptor, must_see
from loopkit.capture.dialects._content import json_or_text, mapping
from loopkit.capture.dialects._protocol import Conversation, Dialect
from loopkit.capture.dialects.bedrock import embeds
from loopkit.capture.dialects.known import CONVERSE, INVOKE, INVOKE_EMBEDDING
from loopkit.capture.hooked import HookedCall
from loopkit.capture.hooked import begin as begin_call
from loopkit.capture.sdks._protocol import Begin, Begun, Patched, Undo, replace_methods
from loopkit.capture.stream import RecordedIterator, watch_garbage

_closing = _host.Shielded("recording a body that was closed")
_OPERATIONS: Mapping[str, tuple[Dialect, bool]] = {
    "Converse": (CONVERSE, False),
    "ConverseStream": (CONVERSE, True),
    "InvokeModel": (INVOKE, False),
    "InvokeModelWithResponseStream": (INVOKE, True),
}
"""By operation: what speaks there, and whether it streams."""


class Bedrock(Patched):
    """See `Sdk`."""

    name = "boto3"
    module = "botocore.client"
    extra = "bedrock"
    conversation: Conversation | None = CONVERSE

    def knows(self, client: Any) -> bool:
        """See `Sdk.knows`."""
        return any(cls.__module__ == "botocore.client" for cls in type(client).__mro__) and _is_bedrock(client)

    def wrap(self, client: Any, interceptors: tuple[Interceptor, ...], provider: str | None) -> None:
        """See `Sdk.wrap`."""
        begins = _begins(interceptors, provider)
        self.remember(client, replace_methods(client, begins, is_guarded=must_see(interceptors)))

    def patch(self, module: Any) -> Undo:
        """See `Sdk.patch`."""
        return replace_methods(module.BaseClient, _begins((), None))


def _is_bedrock(client: Any) -> bool:
    return bool(client.meta.service_model.service_name == "bedrock-runtime")


def _begins(interceptors: tuple[Interceptor, ...], provider: str | None) -> dict[str, Begin]:
    def begin(client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Begun | None:
        given = {**dict(zip(("operation_name", "api_params"), args, strict=False)), **kwargs}
        operation, params = given["operation_name"], given["api_params"]
        known = _OPERATIONS.get(operation)
        if known is None or (slot.recorder is None and not interceptors) or not _is_bedrock(client):
            return None
        dialect, streams = known
        if interceptors and "body" in params:
            params = {**params, "body": _whole(params["body"])}
        asked = _asked(params, streams=streams)
        if dialect is INVOKE and embeds(asked):
            dialect = INVOKE_EMBEDDING
        served = provider or "aws.bedrock"
        server = client.meta.endpoint_url
        hooked = begin_call(dialect, served, asked, stream=streams, interceptors=interceptors, server=server)
        opened = _opened if operation == "InvokeModel" and interceptors else None
        return Begun(hooked, lambda call: ((operation, _sent(hooked, call, params)), {}), _received(hooked), opened)

    return {"_make_api_call": begin}


def _whole(body: Any) -> Any:
    """A file's or a view's bytes, which are sent as they were read."""
    given: Any = body  # isinstance makes `body` a view of an unknown type; this stays Any
    return given.read() if hasattr(given, "read") else bytes(given) if isinstance(body, memoryview) else given


def _asked(params: Mapping[str, Any], *, streams: bool) -> dict[str, Any]:
    """The arguments as data: the body of a model's maker is JSON in bytes."""
    asked = dict(params)
    body = asked.get("body")
    if isinstance(body, (bytes, bytearray)):
        body = bytes(body).decode(json.detect_encoding(body), errors="replace")
    if isinstance(body, str):
        asked["body"] = json_or_text(body)
    return {**asked, "stream": True} if streams else asked


def _sent(hooked: HookedCall, call: Call, params: Any) -> Any:
    """boto3's arguments, with the request as the interceptors left it."""
    if not hooked.is_changed(call):
        return params
    changed = dict(call.request)
    changed.pop("stream", None)
    if isinstance(changed.get("body"), (dict, list)):
        changed["body"] = json.dumps(changed["body"])
    return changed


def _received(hooked: HookedCall) -> Callable[[Any], Any]:
    def received(result: Any) -> Any:
        whole: Any = result  # isinstance makes `result` a dict of unknown types; this stays Any
        if not isinstance(result, dict):  # an interceptor's own answer
            return hooked.received_whole(whole)
        result = whole
        if _RESULT in result:
            return _closed(result, hooked)
        name = next((name for name in ("stream", "body") if hasattr(result.get(name), "_event_generator")), None)
        if name is not None:
            _watch(result[name], hooked)
        elif hasattr(result.get("body"), "_raw_stream"):
            _watch_body(result, hooked)
        else:
            hooked.received_whole(result)
        return result

    return received


_RESULT = "\0result"
"""In what interceptors see of an invocation: boto3's own result, and the body as it came."""


def _opened(result: dict[str, Any]) -> dict[str, Any]:
    """An invocation's answer as interceptors are to see it: its body can be read once."""
    data: bytes = result["body"].read()
    told = _told(result, data)
    return {**told, _RESULT: (result, data, told["answer"])}


def _closed(opened: dict[str, Any], hooked: HookedCall) -> dict[str, Any]:
    """What boto3 gave, with a body to be read by the application, as the interceptors left it."""
    result, data, answer = opened[_RESULT]
    hooked.received_whole(_told(result, data))
    if opened["answer"] != answer:
        data = json.dumps(opened["answer"]).encode()
    body_of: Any = import_module("botocore.response").StreamingBody
    return {**result, "body": body_of(io.BytesIO(data), len(data))}


def _told(result: Mapping[str, Any], data: bytes) -> dict[str, Any]:
    """What an invocation says: the answer of the model's maker, and how many tokens AWS counted."""
    about = mapping(result.get("ResponseMetadata"))
    headers = mapping(about.get("HTTPHeaders"))
    counts = {side: str(headers.get(f"x-amzn-bedrock-{side}-token-count")) for side in ("input", "output")}
    return {
        "requestId": about.get("RequestId"),
        "answer": json_or_text(data.decode(errors="replace")),
        "counts": {side: int(count) for side, count in counts.items() if count.isdigit()},
    }


def _watch_body(result: Mapping[str, Any], hooked: HookedCall) -> None:
    """Recorded when the application has read it."""
    raw: Any = result["body"]._raw_stream
    length = str(getattr(result["body"], "_content_length", ""))
    told = functools.partial(_told, result)
    result["body"]._raw_stream = _Watched(raw, hooked, told, int(length) if length.isdigit() else None)
    watch_garbage(result["body"], hooked.recording)
    hooked.recording.remember(result["body"])


class _Watched:
    """A body's own stream, which keeps what passes."""

    def __init__(self, raw: Any, hooked: HookedCall, told: Callable[[bytes], Any], length: int | None) -> None:
        self._raw = raw
        self._hooked = hooked
        self._told = told
        self._length = length
        """Of the whole body, where the server said so."""
        self._kept = bytearray()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def read(self, amount: int | None = None, *args: Any, **kwargs: Any) -> bytes:
        """As urllib3's, and watched."""
        try:
            data: bytes = self._raw.read(amount, *args, **kwargs)
        except BaseException as error:
            self._hooked.recording.raised(error)
            raise
        is_whole = amount is None or amount < 0
        self._keep(data, ended=is_whole or (amount is not None and self._is_last(data, amount)))
        return data

    def readinto(self, buffer: Any) -> int:
        """The same, into a buffer."""
        size: int = self._raw.readinto(buffer)
        self._keep(bytes(memoryview(buffer)[:size]), ended=not size and len(buffer) > 0)
        return size

    def readlines(self, *args: Any) -> list[bytes]:
        """All of it."""
        lines: list[bytes] = self._raw.readlines(*args)
        self._keep(b"".join(lines), ended=True)
        return lines

    def readline(self, *args: Any) -> bytes:
        """A line."""
        line: bytes = self._raw.readline(*args)
        self._keep(line, ended=not line)
        return line

    def read1(self, amount: int = -1) -> bytes:
        """What is there."""
        data: bytes = self._raw.read1(amount)
        self._keep(data, ended=not data and amount != 0)
        return data

    def __iter__(self) -> Iterator[bytes]:
        """As the raw stream goes: line by line, or as it comes."""
        for piece in self._raw:
            self._keep(piece, ended=False)
            yield piece
        self._keep(b"", ended=True)

    def stream(self, *args: Any, **kwargs: Any) -> Any:
        """Piece by piece."""
        for piece in self._raw.stream(*args, **kwargs):
            self._keep(piece, ended=False)
            yield piece
        self._keep(b"", ended=True)

    def close(self) -> None:
        """What has been read is kept; the rest nobody wants."""
        recording = self._hooked.recording
        if self._kept and recording.exchange is not None:
            with _closing:
                recording.exchange.answer_with(self._told(bytes(self._kept)))
        recording.abandoned()
        self._raw.close()

    def _is_last(self, data: bytes, wanted: int) -> bool:
        """Where the server gave no length, the end is where there was less than was wanted."""
        return wanted > 0 and (not data or (self._length is None and len(data) < wanted))

    def _keep(self, data: bytes, *, ended: bool) -> None:
        self._kept += data
        if ended or (self._length is not None and len(self._kept) >= self._length):
            self._hooked.received_whole(self._told(bytes(self._kept)))


def _watch(stream: Any, hooked: HookedCall) -> None:
    """An event stream keeps its type; `iter()` asks the class, so that is swapped."""
    cls: Any = stream.__class__
    iterator = RecordedIterator(cls.__iter__(stream), hooked.recording, hooked.filters(), stream.close)
    stream.__class__ = _watched(cls)
    stream._loopkit = iterator
    hooked.recording.remember(stream)
    watch_garbage(stream, hooked.recording)


@functools.cache
def _watched(cls: type[Any]) -> type[Any]:
    return type(cls.__name__, (cls,), {"__iter__": _iterate, "close": _close_of(cls)})


def _iterate(stream: Any) -> Any:
    return stream._loopkit


def _close_of(cls: Any) -> Callable[[Any], None]:
    def close(stream: Any) -> None:
        cls.close(stream)
        stream._loopkit.abandoned()

    return close
