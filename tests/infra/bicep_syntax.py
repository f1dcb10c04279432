"""Bicep's syntax, as far as deployments here use it: a file becomes statements and their expressions.

What is written in another way is a `BicepError`. A real parser (pycep) has the last word on what Bicep is;
its tree does not tell a name from a text, which is what looking symbols up needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from infra.bicep_tree import (
    Access,
    Array,
    BicepError,
    Call,
    For,
    If,
    Lambda,
    Literal,
    Name,
    Object,
    Operation,
    Statement,
    Text,
)

_TOKEN = re.compile(
    r"(?P<space>[ \t\r]+|//[^\n]*|/\*.*?\*/)|(?P<line>\n)|(?P<number>\d+)|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<text>')|(?P<sign>=>|==|!=|=~|!~|<=|>=|&&|\|\||\?\?|::|[{}\[\]()<>=:.,?!@+\-*/%|])",
    re.DOTALL,
)
_PRIORITY = {"??": 1, "||": 2, "&&": 3, "==": 4, "!=": 4, "=~": 4, "!~": 4, "<": 5, ">": 5, "<=": 5, ">=": 5}
_PRIORITY |= {"+": 6, "-": 6, "*": 7, "/": 7, "%": 7}
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "'": "'", "\\": "\\", "$": "$"}


@dataclass(frozen=True)
class _Token:
    kind: str
    value: Any
    line: int
    first: bool
    """Whether it is the first of its line."""


def read(path: Path) -> list[Statement]:
    """Return the statements of a file. Raises BicepError with the rule ``syntax``."""
    return _read(path.read_text(), path.name)


@lru_cache(maxsize=256)
def _read(text: str, file: str) -> list[Statement]:
    return _Parser(text, file).statements()


class _Parser:
    def __init__(self, text: str, file: str, line: int = 1) -> None:
        self._file = file
        self._tokens = list(self._scan(text, line))
        self._at = 0

    def statements(self) -> list[Statement]:
        found = []
        while self._peek().kind != "end":
            decorators = {}
            while self._take("@"):
                call = self._primary()
                decorators[call.name] = call.arguments[0] if call.arguments else None
            found.append(self._statement(decorators))
        return found

    def expression(self) -> Any:
        if names := self._lambda_names():
            return Lambda(names, self.expression())
        condition = self._binary(0)
        if not self._take("?"):
            return condition
        chosen = self.expression()
        self._need(":")
        return Operation("?", (condition, chosen, self.expression()))

    def _statement(self, decorators: dict[str, Any]) -> Statement:
        start = self._next()
        kind, name, kind_of = start.value, "", ""
        if kind not in ("targetScope", "param", "var", "resource", "module", "output"):
            raise self._error(start, "a statement")
        if kind != "targetScope":
            name = self._name()
        if kind in ("param", "output"):
            kind_of = self._name()
        elif kind in ("resource", "module"):
            kind_of = self._plain_text()
        existing = kind == "resource" and self._word("existing")
        value = None
        if self._take("="):
            value = self._conditional() if kind in ("resource", "module") else self.expression()
        elif kind != "param":
            raise self._error(self._peek(), "=")
        if not self._peek().first and self._peek().kind != "end":
            raise self._error(self._peek(), "the end of the line")
        return Statement(kind, name, kind_of, value, start.line, existing, decorators)

    def _conditional(self) -> Any:
        if not self._word("if"):
            return self.expression()
        self._need("(")
        condition = self.expression()
        self._need(")")
        return If(condition, self.expression())

    def _lambda_names(self) -> tuple[str, ...]:
        """The names before ``=>``, or nothing where no lambda begins."""
        start, names = self._at, []
        several = self._take("(")
        while self._peek().kind == "name":
            names.append(self._name())
            if not several or not self._take(","):
                break
        if (not several or self._take(")")) and self._take("=>"):
            return tuple(names)
        self._at = start
        return ()

    def _binary(self, least: int) -> Any:
        left = self._unary()
        while (priority := _PRIORITY.get(self._peek().value, 0)) > least and self._peek().kind == "sign":
            sign = self._next().value
            left = Operation(sign, (left, self._binary(priority)))
        return left

    def _unary(self) -> Any:
        if self._peek().kind == "sign" and self._peek().value in ("!", "-"):
            return Operation(self._next().value, (self._unary(),))
        return self._postfix(self._primary())

    def _postfix(self, node: Any) -> Any:
        while (token := self._peek()).kind == "sign" and not token.first:
            if self._take("."):
                self._take("?")
                name = self._name()
                if self._peek().value == "(" and not self._peek().first:
                    node = Call(f".{name}", (node, *self._arguments()), token.line)
                else:
                    node = Access(node, Literal(name), token.line)
            elif self._take("["):
                self._take("?")
                node = Access(node, self.expression(), token.line)
                self._need("]")
            elif token.value == "!":  # says that a value is not null
                self._next()
            else:
                break
        return node

    def _primary(self) -> Any:
        token = self._next()
        if token.kind in ("number", "text"):
            return Literal(int(token.value)) if token.kind == "number" else token.value
        if token.kind == "name":
            return self._named(token)
        if token.value == "(":
            inner = self.expression()
            self._need(")")
            return inner
        if token.value == "[":
            return self._for() if self._word("for") else Array(tuple(self._list("]", self._element)))
        if token.value == "{":
            return Object(tuple(self._list("}", self._pair)))
        raise self._error(token, "an expression")

    def _named(self, token: _Token) -> Any:
        if token.value in ("true", "false", "null"):
            return Literal({"true": True, "false": False, "null": None}[token.value])
        if self._peek().value == "(" and not self._peek().first:
            return Call(token.value, self._arguments(), token.line)
        return Name(token.value, token.line)

    def _for(self) -> For:
        names = [self._name()] if self._peek().kind == "name" else []
        if not names:
            self._need("(")
            names = [self._name()]
            self._need(",")
            names.append(self._name())
            self._need(")")
        if not self._word("in"):
            raise self._error(self._peek(), "in")
        source = self.expression()
        self._need(":")
        body = self._conditional()
        self._need("]")
        return For(tuple(names), source, body)

    def _arguments(self) -> tuple[Any, ...]:
        self._need("(")
        found = []
        while not self._take(")"):
            found.append(self.expression())
            self._take(",")
        return tuple(found)

    def _list(self, end: str, item: Any) -> Iterator[Any]:
        while not self._take(end):
            yield item()
            if not self._take(",") and not self._peek().first and self._peek().value != end:
                raise self._error(self._peek(), f"a comma, a new line or {end}")

    def _element(self) -> Any:
        return self.expression()

    def _pair(self) -> tuple[Any, Any]:
        token = self._next()
        if token.kind not in ("name", "text"):
            raise self._error(token, "the name of a property")
        self._need(":")
        key = Literal(token.value) if token.kind == "name" else token.value
        return key, self._conditional()

    def _plain_text(self) -> str:
        token = self._next()
        if not isinstance(token.value, Literal):
            raise self._error(token, "a text")
        return str(token.value.value)

    def _name(self) -> str:
        token = self._next()
        if token.kind != "name":
            raise self._error(token, "a name")
        return str(token.value)

    def _word(self, word: str) -> bool:
        found = self._peek().kind == "name" and self._peek().value == word
        self._at += found
        return found

    def _take(self, sign: str) -> bool:
        found = self._peek().kind == "sign" and self._peek().value == sign
        self._at += found
        return found

    def _need(self, sign: str) -> None:
        if not self._take(sign):
            raise self._error(self._peek(), sign)

    def _peek(self) -> _Token:
        return self._tokens[self._at]

    def _next(self) -> _Token:
        token = self._peek()
        self._at += token.kind != "end"
        return token

    def _error(self, token: _Token, expected: str) -> BicepError:
        shown = "the end of the file" if token.kind == "end" else repr(token.value)
        return BicepError("syntax", f"{self._file}:{token.line}: {shown}, where {expected} was expected")

    def _scan(self, text: str, line: int) -> Iterator[_Token]:
        at, first = 0, True
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise BicepError("syntax", f"{self._file}:{line}: {text[at]!r} is not understood")
            kind, value = str(match.lastgroup), match.group()
            at = match.end()
            if kind == "text":
                start = line
                value, at, line = self._text(text, at, line)
                yield _Token(kind, value, start, first)
            elif kind not in ("space", "line"):
                yield _Token(kind, value, line, first)
            first = kind == "line" or (first and kind == "space")
            line += value.count("\n") if kind in ("space", "line") else 0
        yield _Token("end", None, line, first=True)

    def _text(self, text: str, at: int, line: int) -> tuple[Any, int, int]:
        """Read a text from behind its quote: its node, where it ends, and the line there."""
        if text.startswith("''", at):
            end = text.index("'''", at + 2)
            return Literal(text[at + 2 : end].removeprefix("\n")), end + 3, line + text[at:end].count("\n")
        parts: list[Any] = []
        while at < len(text) and text[at] not in "'\n":
            if text.startswith("${", at):
                end = _closing(text, at + 2)
                parts.append(_Parser(text[at + 2 : end], self._file, line).expression())
                at = end + 1
                continue
            step = 2 if text[at] == "\\" else 1
            letter = _ESCAPES.get(text[at + 1], "?") if step == 2 else text[at]
            parts = (
                [*parts[:-1], parts[-1] + letter]
                if parts and isinstance(parts[-1], str)
                else [*parts, letter]
            )
            at += step
        if at >= len(text) or text[at] == "\n":
            raise BicepError("syntax", f"{self._file}:{line}: a text has no end")
        if all(isinstance(part, str) for part in parts):
            return Literal("".join(parts)), at + 1, line
        return Text(tuple(parts)), at + 1, line


def _closing(text: str, at: int) -> int:
    """Where the expression in a text ends: at the brace that closes it."""
    depth, quoted = 0, False
    for index in range(at, len(text)):
        letter = text[index]
        quoted ^= letter == "'"
        if not quoted and letter == "}" and not depth:
            return index
        depth += (letter == "{") - (letter == "}") if not quoted else 0
    raise BicepError("syntax", "an expression in a text has no end")
