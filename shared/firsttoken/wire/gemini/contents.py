"""The turns of a request: Google's contents and parts in the neutral vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import msgspec
from msgspec import Struct

from firsttoken.chat import Image, Message, Opaque, Part, Reasoning, Role, Text, ToolResult, ToolUse
from firsttoken.wire.gemini.signatures import standard, unpack

WIRE = "gemini"
MADE_ID = "gcall_"
"""How the ids begin that are made here for calls without one; the API that left them out never sees them."""

WireRole = Literal["user", "model", "function", "tool"]
ROLES = ", ".join(get_args(WireRole))


class Blob(Struct, frozen=True, rename="camel"):
    """Inline data: base64, in either alphabet."""

    mime_type: str = ""
    data: str = ""


class File(Struct, frozen=True, rename="camel"):
    """Data by its address."""

    file_uri: str = ""
    mime_type: str = ""


class FunctionCall(Struct, frozen=True):
    """A call that the model made."""

    name: str
    id: str = ""
    args: dict[str, Any] | None = None


class FunctionResponse(Struct, frozen=True):
    """What a function answered."""

    name: str
    id: str = ""
    response: dict[str, Any] | None = None
    parts: list[dict[str, Any]] = []


class WirePart(Struct, frozen=True, rename="camel"):
    """A part: one kind of content, and what is said about it."""

    text: str | None = None
    thought: bool = False
    thought_signature: str = ""
    inline_data: Blob | None = None
    file_data: File | None = None
    function_call: FunctionCall | None = None
    function_response: FunctionResponse | None = None


class Content(Struct, frozen=True):
    """One turn."""

    parts: list[WirePart] = []
    role: WireRole = "user"


_ABOUT = frozenset(
    {
        *("videoMetadata", "mediaResolution", "mediaProcessing", "partMetadata", "speechMetadata"),
        *("documentMetadata", "spreadsheetMetadata", "audioMetadata", "displayName"),
    }
)
"""Fields that say something about a part's content; any other unknown field is a kind of content."""


class ContentsReader:
    """Reads the turns in their order; it pairs function responses with their calls, as ids are optional.

    ``arguments`` are those of the calls in their order, as they were written.
    """

    def __init__(self, unknown: list[str], arguments: Iterator[str]) -> None:
        self.unknown = unknown
        self._arguments = arguments
        self._waiting: list[ToolUse] = []
        self._made = 0
        self._turns: list[tuple[Role, list[Part]]] = []

    def read(self, contents: list[Content], raw: list[dict[str, Any]]) -> tuple[Message, ...]:
        """Return the messages. ``raw`` holds the same contents with all their fields."""
        for position, (content, fields) in enumerate(zip(contents, raw, strict=True)):
            begins = True
            pairs = zip(content.parts, fields.get("parts") or (), strict=True)
            for place, (part, all_fields) in enumerate(pairs):
                where = f"contents[{position}].parts[{place}]"
                for read in self._part(part, all_fields, where):
                    self._add(content.role, read, begins=begins)
                    begins = False
        return tuple([Message(role, tuple(parts)) for role, parts in self._turns])

    def system(self, content: Content, raw: Mapping[str, Any]) -> Message:
        """Return the system instruction as a message."""
        pairs = zip(content.parts, raw.get("parts") or (), strict=True)
        parts = [
            read
            for place, (part, fields) in enumerate(pairs)
            for read in self._part(part, fields, f"systemInstruction.parts[{place}]")
        ]
        return Message("system", tuple(parts))

    def _add(self, wire_role: WireRole, part: Part, *, begins: bool) -> None:
        """Add a part to the turn it belongs to.

        Turns of the model in a row are one (streams are kept in pieces by clients), and so are the responses
        to parallel calls; what the user says in separate contents stays separate.
        """
        role: Role = (
            "tool" if isinstance(part, ToolResult) else "assistant" if wire_role == "model" else "user"
        )
        last = self._turns[-1] if self._turns else None
        if last is None or last[0] != role or (begins and role == "user"):
            self._turns.append((role, [part]))
            return
        parts = last[1]
        joined = _joined(parts[-1], part) if role == "assistant" else None
        if joined is None:
            parts.append(part)
        else:
            parts[-1] = joined

    def _part(self, part: WirePart, fields: Mapping[str, Any], where: str) -> list[Part]:
        strange = [name for name in fields if name not in _KNOWN and fields[name] is not None]
        self.unknown.extend([f"{where}.{name}" for name in strange if name in _ABOUT])
        signature, redacted = unpack(part.thought_signature)
        if part.function_call:
            self._name_extras(fields["functionCall"], FunctionCall, f"{where}.functionCall")
            return [self._call(part.function_call, signature)]
        if part.function_response:
            self._name_extras(fields["functionResponse"], FunctionResponse, f"{where}.functionResponse")
            return [self._result(part.function_response)]
        kinds = [name for name in strange if name not in _ABOUT]
        read: list[Part] = [Opaque(WIRE, f"part of type {name}") for name in kinds]
        if part.thought:
            read.append(Reasoning(part.text or "", signature, redacted))
            return read
        if part.text or (part.text is not None and not part.thought_signature):
            read.append(Text(part.text))
        if part.inline_data:
            read.append(_inline(part.inline_data))
        if part.file_data:
            read.append(_file(part.file_data))
        if signature or redacted:
            read.append(Reasoning("", signature, redacted))
        return read

    def _name_extras(self, fields: Mapping[str, Any], known: type[Struct], where: str) -> None:
        names = [name for name in fields if name not in known.__struct_fields__]
        self.unknown.extend([f"{where}.{name}" for name in names if fields[name] not in (None, False)])

    def _call(self, wire: FunctionCall, signature: str) -> ToolUse:
        arguments = next(self._arguments, "") or msgspec.json.encode(wire.args or {}).decode()
        call = ToolUse(wire.id or self._id(), wire.name, arguments, signature)
        self._waiting.append(call)
        return call

    def _result(self, wire: FunctionResponse) -> ToolResult:
        """Read a response; without an id it belongs to the first call of its name that has none yet."""
        answered = next(
            (c for c in self._waiting if (c.id == wire.id if wire.id else c.name == wire.name)), None
        )
        if answered:
            self._waiting.remove(answered)
        text, is_error = _said(wire.response or {})
        images = [image for part in wire.parts if isinstance(image := _inner(part), Image)]
        if len(images) < len(wire.parts):
            self.unknown.append("functionResponse.parts")
        used = wire.id or (answered.id if answered else self._id())
        return ToolResult(used, (Text(text), *images), name=wire.name, is_error=is_error)

    def _id(self) -> str:
        self._made += 1
        return f"{MADE_ID}{self._made}"


_KNOWN = frozenset(WirePart.__struct_encode_fields__)


def _joined(before: Part, part: Part) -> Part | None:
    """Return two pieces of what a model said as one, or None when they are two things."""
    if isinstance(before, Text) and isinstance(part, Text):
        return Text(before.text + part.text)
    if not (isinstance(before, Reasoning) and isinstance(part, Reasoning)):
        return None
    if before.signature or before.redacted or part.redacted:
        return None
    return Reasoning(before.text + part.text, part.signature)


def _said(response: Mapping[str, Any]) -> tuple[str, bool]:
    """Return the text of a response, and whether it is an error.

    Source: the Gemini API reference, "FunctionResponse": ``output`` and ``error`` are the function's output,
    without them the whole of it is.
    """
    for name in ("output", "error"):
        if response.keys() == {name}:
            value = response[name]
            text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
            return text, name == "error"
    return msgspec.json.encode(response).decode(), False


def _inline(blob: Blob) -> Part:
    if blob.mime_type.startswith("image/"):
        return Image(data=standard(blob.data), media_type=blob.mime_type)
    return Opaque(WIRE, f"inlineData part of type {blob.mime_type or 'unknown'}")


def _file(file: File) -> Part:
    if (file.mime_type or media_type_of(file.file_uri)).startswith("image/"):
        return Image(url=file.file_uri, media_type=file.mime_type)
    return Opaque(WIRE, f"fileData part of type {file.mime_type or 'unknown'}")


def _inner(part: Mapping[str, Any]) -> Part | None:
    try:
        read = msgspec.convert(part, WirePart)
    except msgspec.ValidationError:
        return None
    if read.inline_data:
        return _inline(read.inline_data)
    return _file(read.file_data) if read.file_data else None


_MEDIA_TYPES = {"jpg": "jpeg", "jpeg": "jpeg", "png": "png", "webp": "webp", "gif": "gif", "heic": "heic"}


def media_type_of(url: str) -> str:
    """Return the media type of a picture by the end of its address's path, or nothing."""
    name = url.partition("?")[0].partition("#")[0].rpartition("/")[2]
    kind = _MEDIA_TYPES.get(name.rpartition(".")[2].lower())
    return f"image/{kind}" if kind else ""


__all__ = ["MADE_ID", "ROLES", "WIRE", "Content", "ContentsReader", "WireRole", "media_type_of"]
