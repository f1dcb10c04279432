"""An ASGI app whose paths behave well and badly, for the AWS emulators to run."""
# ruff: noqa: ASYNC220, ASYNC240, T201 - one request at a time: nobody waits for a blocking call

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qsl


async def app(scope, receive, send):
    """Serve the lifespan, and one behaviour a path."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    query = dict(parse_qsl(scope["query_string"].decode()))
    await _BEHAVIOURS[scope["path"]](scope, receive, send, query)


async def _lifespan(receive, send):
    await receive()
    if "FAIL_AT_START" in os.environ:
        await send({"type": "lifespan.startup.failed", "message": "told to fail"})
        return
    await send({"type": "lifespan.startup.complete"})
    await receive()
    if "DOWN" in os.environ:
        Path(os.environ["DOWN"]).write_text("down")
    await send({"type": "lifespan.shutdown.complete"})


async def _start(send, status=200, headers=()):
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


async def _body(send, body, *, more=False):
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def _opened(gate):
    while not Path(gate).exists():
        await asyncio.sleep(0.005)


async def _chunks(scope, receive, send, query):
    """Send a piece, then the next one when the file ``gate`` exists."""
    await _start(send)
    await _body(send, str(os.getpid()).encode(), more=True)
    await _opened(query["gate"])
    await _body(send, b"two")
    if "done" in query:
        Path(query["done"]).write_text("done")


async def _metadata(scope, receive, send, query):
    await _start(send, 201, [(b"x-one", b"1"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")])
    await _body(send, b"made")


async def _echo(scope, receive, send, query):
    message = await receive()
    seen = {
        "method": scope["method"],
        "path": scope["path"],
        "query": scope["query_string"].decode(),
        "headers": {name.decode(): value.decode() for name, value in scope["headers"]},
        "body": message["body"].decode("latin-1"),
        "left": scope["extensions"]["firsttoken"]["deadline"] - asyncio.get_running_loop().time(),
        "environ": {
            name: value
            for name, value in os.environ.items()
            if "LAMBDA" in name or name in {"TZ", "_HANDLER"}
        },
    }
    await _start(send, headers=[(b"content-type", b"application/json")])
    await _body(send, json.dumps(seen).encode())


async def _pid(scope, receive, send, query):
    print("asked for the pid", file=sys.stderr, flush=True)
    await _start(send)
    await _body(send, str(os.getpid()).encode())


async def _child(scope, receive, send, query):
    """Start a process that outlives the request and answer its id."""
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    await _start(send)
    await _body(send, str(child.pid).encode())


async def _error(scope, receive, send, query):
    raise ValueError("before the first byte")


async def _late(scope, receive, send, query):
    await _start(send)
    await _body(send, b"good", more=True)
    await _opened(query["gate"])
    raise ValueError("after the first byte")


async def _crash(scope, receive, send, query):
    if "gate" in query:
        await _start(send)
        await _body(send, b"good", more=True)
        await _opened(query["gate"])
    os._exit(3)


async def _hang(scope, receive, send, query):
    if "start" in query:
        await _start(send)
        await _body(send, b"good", more=True)
    await asyncio.Event().wait()


async def _large(scope, receive, send, query):
    await _start(send)
    for _ in range(int(query["mib"])):
        await _body(send, b"x" * 1048576, more=True)
    await _body(send, b"")


async def _empty(scope, receive, send, query):
    await _start(send, 204)
    await _body(send, b"")


_BEHAVIOURS = {
    "/chunks": _chunks,
    "/metadata": _metadata,
    "/echo": _echo,
    "/pid": _pid,
    "/child": _child,
    "/error": _error,
    "/late": _late,
    "/crash": _crash,
    "/hang": _hang,
    "/large": _large,
    "/empty": _empty,
}
