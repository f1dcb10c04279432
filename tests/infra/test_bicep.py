"""The reading of Bicep that the rules about Azure stand on."""

from pathlib import Path
from typing import Any

import pytest
from infra.bicep_build import Later, build
from infra.bicep_check import check_symbols, check_types
from infra.bicep_tree import BicepError

IDENTITY = "Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30"


def _output(folder: Path, expression: str, before: str = "") -> Any:
    (folder / "main.bicep").write_text(f"{before}\noutput value object = {{ is: {expression} }}\n")
    return build(folder / "main.bicep", {}).outputs["value"]["is"]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("7 - 2 - 1", 4),
        ("1 < 2 && !(3 == 4)", True),
        ("true || false && false", True),
        ("false ? 1 : true ? 2 : 3", 2),
        ("null ?? 'b'", "b"),
        (r"'it\'s ${'a'}-${1 + 1}-${true} \${x}'", "it's a-2-true ${x}"),
        ("'${empty('') ? '}' : '{'}'", "}"),
        ("'''\nraw ${x}'''", "raw ${x}"),
        ("[1, 2][1]", 2),
        ("{ a: { b: 3 } }.a.b", 3),
        ("{ 'a-b': 4 }['a-b']", 4),
        ("[for (x, i) in ['a', 'b']: '${x}${i}']", ["a0", "b1"]),
        ("map(range(0, 3), i => i * 2)", [0, 2, 4]),
        ("toObject(['a'], x => x, x => '${x}!')", {"a": "a!"}),
        ("union({ a: 1 }, { b: 2 })", {"a": 1, "b": 2}),
        ("items({ b: 1, a: 2 })[0].key", "a"),
        ("[\n  'a' // one\n  'b' /* two */\n]", ["a", "b"]),
    ],
)
def test_expression(expression: str, value: object, tmp_path: Path) -> None:
    """Expressions have the value that Bicep gives them."""
    assert _output(tmp_path, expression) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("var a = 'b", "no end"),
        ("var a = {", "end of the file"),
        ("var a = [1 2]", "a comma, a new line or ]"),
        ("var a = 1 var b = 2", "the end of the line"),
        ("vary a = 1", "a statement"),
        ("var a = #", "not understood"),
        ("resource a b = {}", "a text"),
    ],
)
def test_syntax_error(text: str, said: str, tmp_path: Path) -> None:
    """What is not understood is said, with the file and the line."""
    (tmp_path / "main.bicep").write_text(text)
    with pytest.raises(BicepError, match=rf"main\.bicep:1: .*{said}") as caught:
        build(tmp_path / "main.bicep", {})
    assert caught.value.rule == "syntax"


def test_symbols_that_need_each_other(tmp_path: Path) -> None:
    """A circle of variables is an error, not an endless search."""
    with pytest.raises(BicepError, match="needs itself"):
        _output(tmp_path, "a", "var a = b\nvar b = a")


def test_condition_leaves_a_resource_out(tmp_path: Path) -> None:
    """A resource whose condition does not hold is not deployed."""
    text = f"resource a '{IDENTITY}' = if (1 > 2) {{\n  name: 'a'\n  location: 'x'\n}}\n"
    (tmp_path / "main.bicep").write_text(text)
    assert build(tmp_path / "main.bicep", {}).resources == []


def test_what_only_azure_knows(tmp_path: Path) -> None:
    """A property that the service sets stands as a text of its own, and what is set here as it is."""
    before = f"resource a '{IDENTITY}' = {{\n  name: 'a'\n  location: 'x'\n}}"
    assert isinstance(_output(tmp_path, "a.properties.clientId", before), Later)
    assert _output(tmp_path, "a.location", before) == "x"
    assert _output(tmp_path, "a.id", before).endswith("/userAssignedIdentities/a")


def test_children_have_their_parents_name(tmp_path: Path) -> None:
    """A child's name and id begin with its parent's, a module's group is that of its scope."""
    (tmp_path / "part.bicep").write_text(
        "resource a 'Microsoft.Storage/storageAccounts@2025-06-01' = {\n  name: 'st'\n}\n"
        "resource b 'Microsoft.Storage/storageAccounts/blobServices@2025-06-01' = {\n"
        "  parent: a\n  name: 'default'\n}\n"
    )
    (tmp_path / "main.bicep").write_text(
        "resource g 'Microsoft.Resources/resourceGroups@2022-09-01' = {\n  name: 'rg'\n  location: 'x'\n}\n"
        "module m 'part.bicep' = {\n  name: 'm'\n  scope: g\n}\n"
    )
    *_, child = build(tmp_path / "main.bicep", {}).resources
    assert child.name == "st/default"
    assert child.id.endswith(
        "/resourceGroups/rg/providers/Microsoft.Storage/storageAccounts/st/blobServices/default"
    )


def test_names_of_loops_end_with_them(tmp_path: Path) -> None:
    """The name of a loop or lambda is known inside it and nowhere else."""
    (tmp_path / "main.bicep").write_text("output a array = [for x in [1]: x]\noutput b int = x\n")
    assert [fault.message for fault in check_symbols(tmp_path)] == ["main.bicep:2: there is no x"]


def test_types_are_followed(tmp_path: Path) -> None:
    """A property is looked up in the model that the one above it refers to."""
    schema = {
        "resources": {"A/b@1": "m.B"},
        "models": {"m.B": {"properties": "ref:m.P"}, "m.P": {"on": "bool!", "of": "list:enum:x|y"}},
    }
    (tmp_path / "main.bicep").write_text(
        "resource a 'A/b@1' = {\n  name: 'a'\n  properties: { of: ['x', 'z'], off: true }\n}\n"
    )
    faults = list(check_types(build(tmp_path / "main.bicep", {}), schema))
    assert [fault.rule for fault in faults] == ["wrong-type", "unknown-property", "missing-property"]
