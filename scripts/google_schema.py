"""Write tests/data/google_schema.json: what Terraform's Google provider and Cloud Run accept, as far as used.

Usage: google_schema.py

The names and types come from two packages of the Python Package Index: `cdktn-provider-google` (MPL-2.0, made
from HashiCorp's provider) and `google-api-python-client` (Apache-2.0, with Google's discovery documents).
Only facts are taken, no text: for each resource that functions/gcp/terraform has, its arguments, blocks and
attributes; of Cloud Run, what a Service may contain. Run it again when a new kind of resource is used.
"""

import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PROVIDER = "cdktn-provider-google==21.1.0"
DISCOVERY = "google-api-python-client==2.202.0"
DOCUMENT = "googleapiclient/discovery_cache/documents/run.v1.json"
LINK = re.compile(r"/google/([\d.]+)/docs/(resources|data-sources)/(\w+)#(\w+)")
VALUES = re.compile(r"Possible values:? (\[\"[^\]]+\])")
KNOWN = {
    "cdktn.IResolvable": "bool",
    "cdktn.StringMap": ["map", "string"],
    "cdktn.NumberMap": ["map", "number"],
    "cdktn.BooleanMap": ["map", "bool"],
    "cdktn.StringMapList": ["list", ["map", "string"]],
}
TYPES = {"string": "string", "number": "number", "boolean": "bool", "any": "dynamic"}


def main() -> None:
    """Fetch both packages and write what the tests need of them."""
    used = {"resource": set(), "data": set()}
    for path in (ROOT / "functions/gcp/terraform").glob("*.tf"):
        for kind, name in re.findall(r'^(resource|data) "(\w+)"', path.read_text(), re.MULTILINE):
            used[kind].add(name)
    assembly = Assembly(json.loads(_assembly(_fetch(PROVIDER))))
    schema = {
        "source": [PROVIDER, DISCOVERY],
        "provider": assembly.version,
        "resource": {name: assembly.resource("resources", name) for name in sorted(used["resource"])},
        "data": {name: assembly.resource("data-sources", name) for name in sorted(used["data"])},
        "service": _service(json.loads(_fetch(DISCOVERY).read(DOCUMENT))),
    }
    target = ROOT / "tests/data/google_schema.json"
    target.write_text(json.dumps(schema, separators=(",", ":")).replace('},"google_', '},\n"google_') + "\n")


class Assembly:
    """The provider's resources, read from the description of its bindings."""

    def __init__(self, assembly: dict[str, Any]) -> None:
        self.types = assembly["types"]
        self.configs = {}
        for name, item in self.types.items():
            if "cdktn.TerraformMetaArguments" in item.get("interfaces", ()):
                links = (_link(argument["docs"]) for argument in item.get("properties", ()))
                if link := next(filter(None, links), None):
                    self.version, kind, resource, _ = link.groups()
                    self.configs[kind, resource] = name

    def resource(self, kind: str, name: str) -> dict[str, Any]:
        """Return the arguments, blocks and attributes of a resource; ``google_`` leads its name."""
        config = self.configs[kind, name.removeprefix("google_")]
        block = self._block(config)
        known = {*block["attributes"], *block["blocks"]}
        for attribute, shape in self._computed(config.removesuffix("Config")).items():
            if attribute not in known:
                block["attributes"][attribute] = [shape, "computed"]
        return block

    def _block(self, name: str) -> dict[str, Any]:
        block: dict[str, Any] = {"attributes": {}, "blocks": {}}
        for item in self.types[name].get("properties", ()):
            docs = item["docs"]
            link = _link(docs)
            argument = link.group(4) if link else _snake(item["name"])
            required = not item.get("optional")
            shape = self._type(item["type"])
            if docs.get("summary", "").endswith(" block.") and (inner := _struct(item["type"])):
                many = "union" in item["type"] or "collection" in item["type"]
                block["blocks"][argument] = {"many": many, "required": required, **self._block(inner)}
                continue
            said = VALUES.search(docs.get("summary", "") + docs.get("remarks", ""))
            values = [json.loads(said.group(1))] if said and shape == "string" else []
            block["attributes"][argument] = [shape, "required" if required else "optional", *values]
        return block

    def _computed(self, name: str) -> dict[str, Any]:
        """Return the attributes of a class of the bindings: what a resource tells of itself."""
        return {
            _snake(item["name"]): self._type(item["type"])
            for item in self.types[name].get("properties", ())
            if not item.get("static")
            and not item["name"].endswith("Input")
            and item["name"] != "internalValue"
        }

    def _type(self, said: dict[str, Any]) -> Any:
        """Return a type as Terraform writes it in JSON."""
        if "primitive" in said:
            return TYPES[said["primitive"]]
        if "collection" in said:
            kind = {"array": "list", "map": "map"}[said["collection"]["kind"]]
            return [kind, self._type(said["collection"]["elementtype"])]
        if "union" in said:
            others = [item for item in said["union"]["types"] if item.get("fqn") != "cdktn.IResolvable"]
            return self._type(others[0])
        name = said["fqn"]
        if name in KNOWN:
            return KNOWN[name]
        if (row := name.removesuffix("List") + "OutputReference") in self.types:
            return ["list", ["object", self._computed(row)]]
        return ["object", {}]


def _struct(said: dict[str, Any]) -> str | None:
    """Return the interface that a block's type names."""
    if "union" in said:
        said = next(item for item in said["union"]["types"] if item.get("fqn") != "cdktn.IResolvable")
    name = said.get("collection", {}).get("elementtype", said).get("fqn")
    return name if name and not name.startswith("cdktn.") else None


def _link(docs: dict[str, str]) -> re.Match[str] | None:
    return LINK.search(docs.get("remarks", "")) or LINK.search(docs.get("summary", ""))


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda m: "_" + m.group(1).lower(), name)


def _service(document: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON schema of Cloud Run's Service without texts, closed to unknown names."""
    found: dict[str, Any] = {}

    def closed(item: dict[str, Any]) -> dict[str, Any]:
        if "$ref" in item:
            define(item["$ref"])
            return {"$ref": f"#/$defs/{item['$ref']}"}
        kept: dict[str, Any] = {"type": item["type"]} if item.get("type") != "any" else {}
        if "properties" in item:
            kept["properties"] = {name: closed(inner) for name, inner in item["properties"].items()}
            kept["additionalProperties"] = False
        if isinstance(item.get("additionalProperties"), dict):
            kept["additionalProperties"] = closed(item["additionalProperties"])
        if "items" in item:
            kept["items"] = closed(item["items"])
        if "enum" in item:
            kept["enum"] = item["enum"]
        return kept

    def define(name: str) -> None:
        if name not in found:
            found[name] = {}
            found[name] = closed(document["schemas"][name])

    define("Service")
    # The document tells of annotations in prose only.
    said = document["schemas"]["ObjectMeta"]["properties"]["annotations"]["description"]
    annotations = sorted(
        set(re.findall(r"`((?:run|autoscaling)\.[\w./-]+)`: [^*]*(?:Service|Revision)", said))
    )
    return {"$ref": "#/$defs/Service", "$defs": found, "annotations": annotations}


def _fetch(requirement: str) -> zipfile.ZipFile:
    """Return the wheel of a package."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check"]
        subprocess.run([*pip, "download", "--no-deps", "--dest", folder, requirement], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        return zipfile.ZipFile(io.BytesIO(wheel.read_bytes()))


def _assembly(wheel: zipfile.ZipFile) -> bytes:
    """Return the description that the bindings were made from, an archive within the wheel."""
    (name,) = (name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
    with tarfile.open(fileobj=io.BytesIO(wheel.read(name))) as archive:
        file = archive.extractfile("package/.jsii")
        return file.read() if file else b"{}"


if __name__ == "__main__":
    main()
