"""Print models of one of Microsoft's management packages as JSON: each property's name in Azure and its type.

    python -IS scripts/azure_models.py FOLDER MODULE MODEL...

Two generations of generated code are read: models with an attribute map, and models of annotated fields. A
type is string, int, float, bool, any, enum:A|B, ref:MODEL, list:TYPE or map:TYPE; ``!`` at its end means
required, and ``-`` set by the service alone.
"""

from __future__ import annotations

import enum
import importlib
import json
import re
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any

PLAIN = {
    "str": "string",
    "int": "int",
    "long": "int",
    "float": "float",
    "bool": "bool",
    "iso-8601": "string",
    "duration": "string",
    "rfc-1123": "string",
    "bytearray": "string",
    "base64": "string",
    "object": "any",
}


class Models:
    """The models reached so far, by name; ``@@`` stands for the package."""

    def __init__(self, module: str) -> None:
        self.package = importlib.import_module(module)
        private = [name for name in ("_models_py3", "_models") if name in vars(self.package)]
        self.scope = vars(importlib.import_module(f"{module}.{private[0]}"))
        self.scope = {**self.scope, "_models": self.package, "JSON": dict}
        self.found: dict[str, dict[str, Any]] = {}

    def add(self, name: str) -> str:
        """Add a model and what it refers to. Returns the reference."""
        if name not in self.found:
            self.found[name] = {}
            model = self.scope.get(name) or getattr(self.package, name)
            if hasattr(model, "_attribute_map"):
                self._add_mapped(name, model)
            else:
                self._add_annotated(name, model)
        return f"ref:@@.{name}"

    def _add_mapped(self, name: str, model: type) -> None:
        rules = getattr(model, "_validation", {})
        hints = typing.get_type_hints(model.__init__, globalns=self.scope)  # the map says "str" of an enum
        for attribute, entry in model._attribute_map.items():  # noqa: SLF001 - generated code has no other
            rule = rules.get(attribute, {})
            path = [part.replace("\\.", ".") for part in re.split(r"(?<!\\)\.", entry["key"])]
            if not path[0]:  # what newer versions may add
                continue
            target = self.found[name]
            for depth, part in enumerate(path[:-1]):  # a flattened property is nested in Azure
                inner = ".".join([name, *path[: depth + 1]])
                target.setdefault(part, f"ref:@@.{inner}")
                target = self.found.setdefault(inner, {})
            mark = "!" if rule.get("required") and len(path) == 1 else ""
            kind = self._hinted_type(hints[attribute]) if attribute in hints else ""
            kind = kind if kind.startswith("enum:") else self._mapped_type(entry["type"])
            target[path[-1]] = kind + ("-" if rule.get("readonly") else mark)
        for attribute, kinds in getattr(model, "_subtype_map", {}).items():
            key = model._attribute_map[attribute]["key"].replace("\\.", ".")  # noqa: SLF001
            self.found[name]["?"] = {key: {value: self.add(kind) for value, kind in kinds.items()}}

    def _mapped_type(self, text: str) -> str:
        if text.startswith("["):
            return "list:" + self._mapped_type(text[1:-1])
        if text.startswith("{"):
            return "map:" + self._mapped_type(text[1:-1])
        if text in PLAIN:
            return PLAIN[text]
        found = getattr(self.package, text, None)
        if isinstance(found, type) and issubclass(found, enum.Enum):
            return _enum(found)
        return self.add(text) if found or text in self.scope else "any"

    def _add_annotated(self, name: str, model: type) -> None:
        hints = typing.get_type_hints(model, globalns=self.scope, localns=None)
        for parent in reversed(model.__mro__):
            for attribute, field in list(vars(parent).items()):
                if type(field).__name__ != "_RestField":
                    continue
                hint = hints[attribute]
                optional = type(None) in typing.get_args(hint)
                key = field._rest_name_input or attribute  # noqa: SLF001
                mark = "-" if field._visibility == ["read"] else "" if optional else "!"  # noqa: SLF001
                self.found[name][key] = self._hinted_type(hint) + mark

    def _hinted_type(self, hint: Any) -> str:
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin in (typing.Union, types.UnionType):
            kinds = [kind for kind in arguments if kind is not type(None)]
            enums = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, enum.Enum)]
            return _enum(enums[0]) if enums else self._hinted_type(kinds[0])
        if origin is list:
            return "list:" + self._hinted_type(arguments[0])
        if origin in (dict, Mapping):
            return "map:" + self._hinted_type(arguments[1])
        if isinstance(hint, type) and hint.__module__.startswith("azure."):
            return _enum(hint) if issubclass(hint, enum.Enum) else self.add(hint.__name__)
        text = origin is typing.Literal or getattr(hint, "__module__", "") == "datetime"
        return "string" if text else PLAIN.get(getattr(hint, "__name__", ""), "any")


def _enum(kind: type[enum.Enum]) -> str:
    return "enum:" + "|".join(str(member.value) for member in kind)


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    models = Models(sys.argv[2])
    for wanted in sys.argv[3:]:
        models.add(wanted)
    print(json.dumps({f"@@.{name}": properties for name, properties in models.found.items()}))
