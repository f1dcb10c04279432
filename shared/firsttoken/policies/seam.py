"""Where two halves of an answer meet: what of the second one is new.

A seam reads the chunks of the second half and returns what the client has not had yet, decoded: the target's
own bytes would begin a new answer. Of the second half's thoughts nothing is passed on, as the client has
those of the first half, or text that follows none. A place that a citation names is counted from the first
character of an answer, so those of a continuation are left out.
"""

from __future__ import annotations

from msgspec.structs import replace

from firsttoken.model import Chunk, ToolCall, Usage
from firsttoken.policies.said import Said

MIN_OVERLAP = 12
"""Characters; a shorter repetition may well be meant."""
MAX_HELD = 400
"""Characters of the second half that are held back, to see whether they repeat the end of the first."""
NOTHING = Chunk()


def says(chunk: Chunk) -> bool:
    """Return whether a chunk of a second half is worth passing on."""
    return chunk.has_content() or chunk.usage is not None or bool(chunk.citations)


class MismatchError(Exception):
    """The second answer does not begin as the first one did."""


class Seam:
    """The second half passes as it is, its usage as that of the whole answer.

    Token counts are an estimate: the input is the first target's where it told, the output is what the second
    one counted and roughly what was said before.
    """

    def __init__(self, said: Said, repeated: int = 0) -> None:
        self._said = said.tokens()
        self._input = said.first_usage
        self._repeated = repeated
        """Tokens of the second request that the client's own does not have."""

    def take(self, chunk: Chunk) -> Chunk:
        """Return what of ``chunk`` is new. Raises MismatchError where the halves do not fit."""
        closes = bool(chunk.finish or chunk.tool_calls or chunk.refusal)
        return self._decoded(chunk, self._text(chunk.text, closes=closes))

    def rest(self) -> Chunk:
        """Return what is held back when the second half ends."""
        return Chunk(text=self._text("", closes=True))

    def _text(self, text: str, *, closes: bool) -> str:  # noqa: ARG002 - others hold text back until then
        return text

    def _decoded(self, chunk: Chunk, text: str) -> Chunk:
        return Chunk(
            text=text,
            tool_calls=chunk.tool_calls,
            finish=chunk.finish,
            usage=self._usage(chunk.usage) if chunk.usage else None,
            model=chunk.model,
            refusal=chunk.refusal,
            stopped_by=chunk.stopped_by,
        )

    def _usage(self, usage: Usage) -> Usage:
        first = self._input or Usage(max(usage.input - self._repeated, 0), 0, usage.cached, usage.cache_write)
        return Usage(
            input=first.input,
            output=self._said + usage.output,
            cached=min(first.cached, first.input),
            cache_write=first.cache_write,
            reasoning=usage.reasoning,
        )


class Withheld(Seam):
    """For who went on from an assistant's turn whose closing white space was left out.

    The client has that white space: where the second half begins with it, it is dropped once. Nothing is ever
    inserted, as nobody can tell whether the first half ended in the middle of a word.
    """

    def __init__(self, said: Said, space: str, repeated: int = 0) -> None:
        super().__init__(said, repeated)
        self._space = space

    def _text(self, text: str, *, closes: bool) -> str:  # noqa: ARG002
        if not self._space or not text:
            return text
        same = 0
        while same < min(len(text), len(self._space)) and text[same] == self._space[same]:
            same += 1
        self._space = self._space[same:] if same == len(text) else ""
        return text[same:]


class Overlap(Seam):
    """For who was asked to go on and may repeat the end of what was said, which is dropped.

    Memory: `MAX_HELD` characters of both halves.
    """

    def __init__(self, said: Said, repeated: int = 0) -> None:
        super().__init__(said, repeated)
        self._tail = said.text()[-MAX_HELD:]
        self._held = ""
        self._decided = len(self._tail) < MIN_OVERLAP

    def _text(self, text: str, *, closes: bool) -> str:
        if self._decided:
            return text
        self._held += text
        if not closes and self._may_grow():
            return ""
        self._decided = True
        return self._held[self._overlap() :]

    def _may_grow(self) -> bool:
        """Return whether more text could make a (longer) repetition of what is held."""
        size = len(self._tail)
        end = min(size - 1, size - MIN_OVERLAP + len(self._held))
        return self._tail.find(self._held, 0, end) >= 0

    def _overlap(self) -> int:
        longest = min(len(self._tail), len(self._held))
        sizes = range(longest, MIN_OVERLAP - 1, -1)
        return next((size for size in sizes if self._held.startswith(self._tail[-size:])), 0)


class Replay(Seam):
    """For who was asked the same again: what is said again is compared, piece by piece, and skipped.

    Ids of tool calls stay those of the first half. Raises MismatchError at the first difference.
    """

    def __init__(self, said: Said) -> None:
        super().__init__(said)
        self._before = said.text()
        self._at = 0
        self._calls = said.calls()
        self._behind = {index: len(call.arguments) for index, call in self._calls.items()}
        """How many characters of arguments are still to be said again."""
        self._cited = len(said.citations)

    def take(self, chunk: Chunk) -> Chunk:
        """Return what of ``chunk`` is new."""
        text = self._new_text(chunk.text) if chunk.text else ""
        calls = tuple([new for call in chunk.tool_calls if (new := self._new_call(call)) is not None])
        if (chunk.finish or chunk.refusal) and not self._caught_up():
            raise MismatchError
        cited = chunk.citations[self._cited :]
        self._cited = max(self._cited - len(chunk.citations), 0)
        return replace(self._decoded(chunk, text), tool_calls=calls, citations=cited)

    def _usage(self, usage: Usage) -> Usage:
        return usage  # of the whole answer, which was made again

    def _new_text(self, text: str) -> str:
        before = self._before[self._at : self._at + len(text)]
        if not text.startswith(before):
            raise MismatchError
        self._at += len(before)
        new = text[len(before) :]
        if new and self._calls:
            raise MismatchError  # there was no more text before the first call
        return new

    def _new_call(self, call: ToolCall) -> ToolCall | None:
        known = self._calls.get(call.index)
        if known is None:
            if not self._caught_up():
                raise MismatchError
            return replace(call, signature="")
        if self._at < len(self._before) or (call.name and call.name != known.name):
            raise MismatchError
        behind = self._behind[call.index]
        start = len(known.arguments) - behind
        again = known.arguments[start : start + len(call.arguments)]
        if not call.arguments.startswith(again):
            raise MismatchError
        self._behind[call.index] = behind - len(again)
        new = call.arguments[len(again) :]
        if new and not self._caught_up():
            raise MismatchError
        return ToolCall(call.index, arguments=new) if new else None

    def _caught_up(self) -> bool:
        return self._at == len(self._before) and not any(self._behind.values())
