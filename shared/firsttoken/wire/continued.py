"""The conversation that asks a model to go on with an answer that another one began."""

from __future__ import annotations

from msgspec.structs import replace

from firsttoken.chat import ChatRequest, Message, Part, Text

INSTRUCTION = (
    "The connection broke while you were answering. Go on with your last message exactly where it stops:"
    " begin with the very next character, in the middle of a word if need be. Repeat nothing, introduce"
    " nothing, and do not mention the interruption."
)
"""What a user's turn says behind the first half of an answer, to models that cannot simply be given it."""


def continued(request: ChatRequest, said: str, *, ask: bool) -> ChatRequest:
    """Return ``request`` with ``said`` as what the assistant has answered; ``ask`` adds the instruction.

    An assistant's turn that the client itself began grows; formats do not take two in a row.
    """
    messages = request.messages
    parts: tuple[Part, ...] = ()
    if messages and messages[-1].role == "assistant":
        messages, parts = messages[:-1], messages[-1].parts
    if parts and isinstance(last := parts[-1], Text):
        turn = Message("assistant", (*parts[:-1], replace(last, text=last.text + said)))
    else:
        turn = Message("assistant", (*parts, Text(said)))
    asked = (Message("user", (Text(INSTRUCTION),)),) if ask else ()
    return replace(request, messages=(*messages, turn, *asked))


def begun(request: ChatRequest) -> tuple[ChatRequest, str]:
    """Return the request before its answer began, and the text that the answer begins with: often none.

    The reverse of `continued`, as a model reads it.
    """
    messages = request.messages
    if len(messages) > 1 and messages[-1].role == "user" and messages[-1].text() == INSTRUCTION:
        messages = messages[:-1]
    if len(messages) < 2 or messages[-1].role != "assistant":
        return request, ""
    return replace(request, messages=messages[:-1]), messages[-1].text()
