"""What the dialects share: parts of messages that are JSON text, of a provider's own type, or to be rewritten."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, Literal, NamedTuple

from loopkit.types import Message, Part

Change = Callable[[str], str]
Whose = Literal["words", "tool_call", "tool_result"]


class Said(NamedTuple):
    """A text on its way to a model or from it, and what it is."""

    text: str
    of: Whose = "words"
    tool: str | None = None


INSTRUCT: Final = ("system", "developer")
"""The roles of whoever built the application."""
SPOKE: Final = ("assistant", "model")
"""The model's."""


class Listener:
    """A change of texts that is told what each is. A dialect that can't tell gives it all as words."""

    reaches_back = False
    """Whether it is given the whole conversation, where others get the turns since the model last spoke."""

    def __init__(self, change: Callable[[Said], str], of: Whose = "words", tool: str | None = None) -> None:
        self._change = change
        self.of: Whose = of
        self._tool = tool

    def __call__(self, text: str) -> str:
        """The text as it goes on."""
        return self._change(Said(text, self.of, self._tool))

    def of_tool(self, of: Whose, tool: Any) -> Listener:
        """For what a tool is to get, or has given."""
        return Listener(self._change, of, tool if isinstance(tool, str) else None)


def for_tool(change: Change, of: Whose, tool: Any = None) -> Change:
    """The change for what a tool is to get, or has given."""
    return change.of_tool(of, tool) if isinstance(change, Listener) else change


def is_of_call(change: Change) -> bool:
    """Whether what it is told is for a tool."""
    return isinstance(change, Listener) and change.of == "tool_call"


def _for_block(block: Mapping[str, Any], change: Change) -> Change:
    """The change for what is in a part of a message, or in a message."""
    kind = str(block.get("type") or "")
    if block.get("role") == "tool" or kind.endswith(("tool_result", "_call_output")):
        return for_tool(change, "tool_result", block.get("name"))
    if kind.endswith(("tool_use", "_call")):
        return for_tool(change, "tool_call", block.get("name"))
    return change


_CALLS = frozenset(("toolUse", "functionCall", "function_call"))
_RESULTS = frozenset(("toolResult", "functionResponse", "function_response"))


def _for_field(name: Any, value: Any, change: Change) -> Change:
    """The same where a field says it."""
    if name in _CALLS or name in _RESULTS:
        fields: Mapping[str, Any] = mapping(value) or getattr(value, "__dict__", {})
        change = for_tool(change, "tool_call" if name in _CALLS else "tool_result", fields.get("name"))
        if is_of_call(change) and all(fields.get(said) is None for said in _WHOLLY_SAID):
            change("{}")  # its name is to be heard all the same
    return change


def mapping(value: Any) -> Mapping[str, Any]:
    """An object of the provider's JSON; empty where it gave none, or something else."""
    whole: Any = value  # isinstance makes `value` a mapping of unknown types; this stays Any
    return whole if isinstance(value, Mapping) else {}


def sequence(value: Any) -> Sequence[Any]:
    """An array of the provider's JSON; empty where it gave none, or something else."""
    whole: Any = value
    return whole if isinstance(value, (list, tuple)) else ()


def objects(value: Any) -> list[Mapping[str, Any]]:
    """The objects in an array of the provider's JSON."""
    return [mapping(item) for item in sequence(value) if isinstance(item, Mapping)]


def json_object(text: str | None) -> dict[str, Any]:
    """What a recorded request or response says; nothing where there was none, or one of another shape."""
    value: Any = None if text is None else json.loads(text)  # isinstance makes a dict of unknown types; this stays Any
    whole: dict[str, Any] = value
    return whole if isinstance(value, dict) else {}


def json_or_text(text: Any) -> Any:
    """A tool call's arguments are JSON text, which a model may have left unfinished."""
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def other_part(piece: Mapping[str, Any]) -> Part:
    """A piece of a type that we have no field for, kept as it is."""
    return Part(type=str(piece.get("type")), content={key: value for key, value in piece.items() if key != "type"})


def tool_definitions(request: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The tools that a model may call, in the conventions' shape; a provider's own tools as it has them."""
    given = objects(request.get("tools")) or objects(mapping(request.get("toolConfig")).get("tools"))
    found: list[Mapping[str, Any]] = []
    for tool in given:
        declared = tool.get("functionDeclarations") or tool.get("function_declarations")
        inner = objects(declared) or [mapping(tool.get("function")) or mapping(tool.get("toolSpec")) or tool]
        found += [_definition(each) for each in inner]
    return tuple(found)


def _definition(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    schemas = ("parameters", "input_schema", "parametersJsonSchema", "parameters_json_schema", "inputSchema")
    schema = next((tool[name] for name in schemas if name in tool), None)
    if schema is None or not isinstance(tool.get("name"), str):
        return tool
    about = {"description": tool["description"]} if tool.get("description") else {}
    whole = mapping(schema)
    return {"type": "function", "name": tool["name"], **about, "parameters": whole.get("json", whole)}


def as_tool_turn(message: Message) -> Message:
    """A turn that holds nothing but tools' results is the tools', whoever the provider says it is by."""
    all_results = all(part.type == "tool_call_response" for part in message.parts)
    return replace(message, role="tool") if message.parts and all_results else message


def heard(change_all: Callable[[Change], object], listener: type[Listener] = Listener) -> list[Said]:
    """What something would change, in order, each with what it is."""
    found: list[Said] = []

    def hear(said: Said) -> str:
        found.append(said)
        return said.text

    change_all(listener(hear))
    return found


def texts_in(change_all: Callable[[Callable[[str], str]], object]) -> list[str]:
    """The texts that something would change, in order. A tool's call is several here, and one to a `Listener`."""
    said: list[str] = []

    def see(text: str) -> str:
        said.append(text)
        return text

    change_all(see)
    return said


def count(value: Any) -> int | None:
    """A number of tokens, where it is one."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def total(*counts: Any) -> int | None:
    """Their sum; None where the first isn't known."""
    known = [count(each) for each in counts]
    return None if known[0] is None else sum(each or 0 for each in known)


NOT_SAID = frozenset(
    ("type", "role", "id", "call_id", "tool_call_id", "tool_use_id", "toolUseId", "name", "status", "signature",
     "format", "media_type", "mime_type", "mimeType", "detail", "index", "object", "cache_control", "cachePoint",
     "item_id", "logprobs", "obfuscation",
     "file_id", "fileUri", "file_uri", "encrypted_content", "thoughtSignature", "thought_signature", "server_label")
)  # fmt: skip
"""What of a message's parts names and points, and is read by machines alone."""
_WHOLLY_SAID = frozenset(("input", "arguments", "args", "response", "json", "parameters"))
"""Below which the names are a tool's own."""
_CARRIES = frozenset(("data", "bytes", "file_data", "url", "image_url", "document_url", "uri"))
"""What holds base64 or an address, unless it is words."""


def changed_arguments(value: Any, change: Change) -> Any:
    """A tool's arguments with what is changed in them. Who listens hears them as a whole, in JSON."""
    if not isinstance(change, Listener):
        return changed_texts(value, change)
    whole = json.dumps(value, ensure_ascii=False, default=str)
    text = change(whole)
    if text == whole:
        return value
    made = json_or_text(text)
    return made if isinstance(made, type(value)) else value.__class__()


def changed(value: Any, change: Callable[[str], str]) -> Any:
    """A copy of what is said in a text, a message's part, or lists of those: whatever its shape, and new ones too."""
    if isinstance(value, str):
        return change(value)
    inside: Any = value  # isinstance makes `value` a mapping of unknown types; this stays Any
    if isinstance(value, Mapping):
        change = _for_block(inside, change)
        return {
            name: _changed_field(name, item, inside, _for_field(name, item, change)) for name, item in inside.items()
        }
    return [changed(item, change) for item in inside] if isinstance(value, (list, tuple)) else inside


def _changed_field(name: Any, item: Any, around: Mapping[str, Any], change: Callable[[str], str]) -> Any:
    if name in _WHOLLY_SAID and isinstance(item, (dict, list)):
        return changed_arguments(item, change) if is_of_call(change) else changed_texts(item, change)
    return changed(item, change) if _is_said(name, item, around) else item


def change_within(thing: Any, change: Callable[[str], str]) -> None:
    """The same in an SDK's object, which is changed itself."""
    fields: dict[str, Any] = getattr(thing, "__dict__", None) or {}
    extra: dict[str, Any] = getattr(thing, "model_extra", None) or {}
    whole = _for_block(fields, change)
    for place in (fields, extra):
        for name, value in list(place.items()):
            if not _is_said(name, value, fields):
                continue
            change = _for_field(name, value, whole)
            if isinstance(value, (str, dict)):
                place[name] = _changed_field(name, value, fields, change)
            elif isinstance(value, list):
                place[name] = [_within(item, change) for item in sequence(value)]
            else:
                change_within(value, change)


def _within(item: Any, change: Callable[[str], str]) -> Any:
    if isinstance(item, (str, dict, list)):
        return changed(item, change)
    change_within(item, change)
    return item


def _is_said(name: Any, value: Any, around: Mapping[str, Any]) -> bool:
    if name in _CARRIES and isinstance(value, str):
        return around.get("type") == "text" or any(map(str.isspace, value))
    return name not in NOT_SAID


def some(thing: Any, name: str) -> list[Any]:
    """What an SDK's object has of that name, where that is a list: a server may have answered anything."""
    return [item for item in sequence(getattr(thing, name, None)) if item is not None]


class ReachingBack(Listener):
    """One that is given what was asked before, too: applications send it anew with each call."""

    reaches_back = True


def since_the_model_spoke(
    messages: Sequence[Mapping[str, Any]], change: Callable[[str], str] | None = None
) -> list[int]:
    """The turns after the model's last one, or all that aren't its own for a change that reaches back; a prefill at the
    very end is not a turn of the model's yet.

    What is no turn, since a server will say so, is passed over.
    """
    if getattr(change, "reaches_back", False):
        turns = range(len(messages))
        return [at for at in turns if mapping(messages[at]).get("role") not in (None, "assistant")]
    end = len(messages)
    while end and mapping(messages[end - 1]).get("role") == "assistant":
        end -= 1
    start = end
    while start and mapping(messages[start - 1]).get("role") != "assistant":
        start -= 1
    return [index for index in range(start, end) if isinstance(messages[index], Mapping)]


def changed_texts(value: Any, change: Callable[[str], str]) -> Any:
    """A copy of plain data with every text in it changed; other objects are left as they are."""
    if isinstance(value, str):
        return change(value)
    inside: Any = value  # isinstance makes `value` a dict of unknown types; this stays Any
    if isinstance(value, dict):
        return {key: changed_texts(item, change) for key, item in inside.items()}
    if type(inside) in (list, tuple):
        return type(inside)(changed_texts(item, change) for item in inside)
    return value


def plain_texts(value: Any) -> list[str]:
    """The texts in plain data, but for blank ones."""
    return [text for text in texts_in(partial(changed_texts, value)) if text.strip()]
