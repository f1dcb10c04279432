"""A stand-in for Terraform's Google provider that knows the schema and nothing else, for a real Terraform.

Terraform asks a provider over gRPC on a Unix socket what its resources look like and then checks a
configuration against it by itself; nothing is downloaded, and no account is asked. The messages are few and
simple enough to be written by hand.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

LIST, SERVING = 2, b"\x08\x01"


@contextmanager
def provider(schema: dict[str, Any], folder: Path) -> Iterator[dict[str, str]]:
    """Serve ``schema`` from a socket in ``folder``; yields the environment that tells Terraform of it."""
    told = encode_schema(schema)
    answers = {
        "/tfplugin5.Provider/GetSchema": lambda _request: told,
        "/tfplugin5.Provider/PrepareProviderConfig": lambda request: request,  # field 1 in both
        "/tfplugin5.Provider/ValidateResourceTypeConfig": lambda _request: b"",
        "/tfplugin5.Provider/ValidateDataSourceConfig": lambda _request: b"",
        "/tfplugin5.Provider/Stop": lambda _request: b"",
        "/grpc.health.v1.Health/Check": lambda _request: SERVING,
    }

    class Handler(grpc.GenericRpcHandler):
        def service(self, call: Any) -> Any:
            if (answer := answers.get(call.method)) is None:
                return None
            return grpc.unary_unary_rpc_method_handler(lambda request, _context: answer(request))

    server = grpc.server(ThreadPoolExecutor(4), handlers=[Handler()])
    socket = folder / "provider.sock"
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    attached = {
        "Protocol": "grpc",
        "ProtocolVersion": 5,
        "Pid": os.getpid(),
        "Test": True,
        "Addr": {"Network": "unix", "String": str(socket)},
    }
    try:
        yield {"TF_REATTACH_PROVIDERS": json.dumps({"registry.terraform.io/hashicorp/google": attached})}
    finally:
        server.stop(None).wait()


def terraform(command: list[str], folder: Path, environ: dict[str, str]) -> str:
    """Return what a Terraform command says of the configuration in ``folder``; empty if it is content."""
    asked = {"PATH": os.environ["PATH"], "HOME": str(folder), "CHECKPOINT_DISABLE": "1", **environ}
    done = subprocess.run(
        ["terraform", *command, "-no-color"],
        cwd=folder,
        env=asked,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def encode_schema(schema: dict[str, Any]) -> bytes:
    """Return the answer to GetSchema."""
    config = {
        "attributes": {"project": ["string", "optional"], "region": ["string", "optional"]},
        "blocks": {},
    }
    parts = [_field(1, _schema(config))]
    for number, kind in ((2, "resource"), (3, "data")):
        for name, block in schema[kind].items():
            parts.append(_field(number, _field(1, name.encode()) + _field(2, _schema(block))))
    return b"".join(parts)


def _schema(block: dict[str, Any]) -> bytes:
    return _field(2, _block(block))


def _block(block: dict[str, Any]) -> bytes:
    parts = [_field(2, _attribute(name, *said[:2])) for name, said in block["attributes"].items()]
    for name, inner in block["blocks"].items():
        nested = _field(1, name.encode()) + _field(2, _block(inner)) + _number(3, LIST)
        nested += _number(4, int(inner["required"])) + _number(5, 0 if inner["many"] else 1)
        parts.append(_field(3, nested))
    return b"".join(parts)


def _attribute(name: str, shape: Any, mode: str) -> bytes:
    # What may be given is also told by the cloud where it is not given.
    given = {"required": _number(4, 1), "optional": _number(5, 1) + _number(6, 1), "computed": _number(6, 1)}
    return _field(1, name.encode()) + _field(2, json.dumps(shape).encode()) + given[mode]


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
