"""The Model Context Protocol's client: each call of a tool, with what went in, what came out, and whose tool it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry import trace as otel_trace

from loopkit import _host
from loopkit.capture import slot
from loopkit.capture.dialects._content import sequence
from loopkit.capture.live import LiveSpan
from loopkit.capture.recording import Recording
from loopkit.capture.sdks._protocol import Undo, replace_method
from loopkit.capture.snapshot import snapshot
from loopkit.wire import names

_shield = _host.Shielded("recording a tool call")
_SERVER, _SERVER_VERSION = "mcp.server.name", "mcp.server.version"


class Mcp:
    """See `Instrumented`."""

    name = "mcp"
    module = "mcp.client.session"
    extra = "mcp"

    def patch(self, module: Any) -> Undo:
        """`ClientSession.call_tool` is under every way to call one, frameworks' too."""
        return replace_method(module.ClientSession, "call_tool", _recorded)


def _recorded(original: Any, is_on: Callable[[], bool]) -> Any:
    async def call_tool(client: Any, name: str, arguments: Any = None, *args: Any, **kwargs: Any) -> Any:
        recording = _started(client, name, arguments) if is_on() else None
        if recording is None:
            return await original(client, name, arguments, *args, **kwargs)
        token = recording.enter()
        try:
            result = await original(client, name, arguments, *args, **kwargs)
        except BaseException as error:
            recording.raised(error)
            raise
        finally:
            recording.leave(token)
        with _shield:
            _ended(recording, result)
        return result

    return call_tool


def _started(client: Any, name: str, arguments: Any) -> Recording | None:
    recorder = slot.recorder
    if recorder is None:
        return None
    with _shield:
        server = getattr(client, "server_info", None)
        here = otel_trace.get_current_span()
        if isinstance(here, LiveSpan) and _tells_of(here, name, arguments):
            _say_whose(here, server)
            return None
        live = recorder.start(name, "tool")
        if live is not None:
            _say_whose(live, server)
            if not live.bare:
                live.input = snapshot(arguments or {})
        return Recording(recorder, live)
    return None


def _tells_of(live: LiveSpan, name: str, arguments: Any) -> bool:
    """Whether a framework's span above is of this call, and of no other yet."""
    if live.kind != "tool" or live.name != name or not live.is_recording() or names.TOOL_TYPE in live.attributes:
        return False
    return live.input is None or not live.input.startswith("{") or live.input == snapshot(arguments or {})


def _say_whose(live: LiveSpan, server: Any) -> None:
    if server is not None:
        live.set_attribute(_SERVER, str(server.name))
        live.set_attribute(_SERVER_VERSION, str(server.version))
    live.set_attribute(names.TOOL_TYPE, "extension")


def _ended(recording: Recording, result: Any) -> None:
    live = recording.live
    if live is None:
        return
    texts = [block.text for block in sequence(getattr(result, "content", None)) if hasattr(block, "text")]
    if getattr(result, "is_error", getattr(result, "isError", False)):
        live.set_status(otel_trace.StatusCode.ERROR, "\n".join(texts))
    said = getattr(result, "structured_content", None)
    if not live.bare:
        live.output = snapshot(said if said is not None else "\n".join(texts))
    recording.remember(result)
    live.finish()
