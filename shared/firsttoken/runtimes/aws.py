"""Our streaming runtime for AWS Lambda: it calls an ASGI app for each HTTP event and streams the answer back.

Lambda's managed Python runtime cannot stream, so this one takes its place: by ``AWS_LAMBDA_EXEC_WRAPPER``
on managed Python (see ``functions/aws/bootstrap``), or as the entry point of an image. Run as
``python -m firsttoken.runtimes.aws [module.attribute]``; the default is the handler named by ``_HANDLER``.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any, cast

import msgspec

from firsttoken.runtimes.asgi import App, Lifespan
from firsttoken.runtimes.aws_api import Invocation, RuntimeApi, RuntimeApiError
from firsttoken.runtimes.aws_events import HttpRequest, UnknownEventError, http_request, ignored
from firsttoken.runtimes.aws_exchange import Exchange

if TYPE_CHECKING:
    from firsttoken.runtimes.aws_events import ResponseMode

RESERVE = 0.5
"""Seconds kept back from Lambda's deadline: a late answer can still end with an error event."""

_MODES = ("auto", "stream", "buffered")


def load_app(handler: str) -> App:
    """Import the ASGI app named ``package.module.app``, ``package/module.app`` or ``package.module:app``."""
    name = handler.replace("/", ".")
    module, _, attribute = name.rpartition(":" if ":" in name else ".")
    if not module or not attribute:
        raise ValueError(
            f"handler {handler!r}: expected module.attribute, for example functions.aws.chat.app"
        )
    app = getattr(importlib.import_module(module), attribute, None)
    if not callable(app):
        raise TypeError(f"handler {handler!r}: module {module} has no callable {attribute!r}")
    return cast("App", app)


def response_mode(value: str) -> ResponseMode:
    """Check the value of ``FIRSTTOKEN_LAMBDA_RESPONSE``."""
    if value not in _MODES:
        raise ValueError(f"FIRSTTOKEN_LAMBDA_RESPONSE={value!r}: expected one of {', '.join(_MODES)}")
    return cast("ResponseMode", value)


async def run(address: str, handler: str) -> int:
    """Load the app, then answer one invocation after the other until SIGTERM; return the exit status."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    api = RuntimeApi(address)
    try:
        return await _run(api, handler)
    except RuntimeApiError as error:
        _log("ERROR", str(error))
        return 1
    finally:
        api.close()


async def _run(api: RuntimeApi, handler: str) -> int:
    try:
        mode = response_mode(os.environ.get("FIRSTTOKEN_LAMBDA_RESPONSE", "auto"))
        app = load_app(handler)
        lifespan = Lifespan(app)
        await lifespan.startup()
    except Exception as error:  # noqa: BLE001 - outermost handler: whatever it is, Lambda must be told
        _log("ERROR", "the function could not be loaded", error=error)
        await api.init_error(error)
        return 1
    try:
        if os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start" and not await _restored(api):
            return 1
        while True:
            await _answer(api, app, lifespan.state, mode)
    finally:
        await lifespan.shutdown()


async def _answer(api: RuntimeApi, app: App, state: dict[str, Any], mode: ResponseMode) -> None:
    invocation = await api.next()
    if invocation.trace_id:
        os.environ["_X_AMZN_TRACE_ID"] = invocation.trace_id
    else:
        os.environ.pop("_X_AMZN_TRACE_ID", None)
    try:
        request = http_request(invocation.event, mode)
    except UnknownEventError as error:
        _log("WARNING", f"event ignored: {error}", invocation=invocation)
        api.post_response(invocation.id, ignored(str(error)))
        await api.reply()
        return
    await _converse(api, app, invocation, request, state)


async def _converse(
    api: RuntimeApi, app: App, invocation: Invocation, request: HttpRequest, state: dict[str, Any]
) -> None:
    scope = request.scope
    scope["state"] = state.copy()
    scope["extensions"] = {"firsttoken": {"deadline": _deadline(invocation), "request_id": invocation.id}}
    exchange = Exchange(api, invocation.id, request)
    failure: Exception | None = None
    try:
        await app(scope, exchange.receive, exchange.send)
    except asyncio.CancelledError:
        exchange.abandon()
        raise
    except Exception as error:  # noqa: BLE001 - outermost handler: the next invocation must not suffer from this one
        failure = error
    if exchange.client_gone:
        _log("INFO", "the client left before its answer was complete", invocation=invocation)
    elif failure is not None:
        _log("ERROR", "the app failed", invocation=invocation, error=failure)
    reply = await exchange.finish(failure)
    if reply is not None and reply.status != 202:
        _log("ERROR", f"the answer was refused: {reply.status} {reply.body[:300]!r}", invocation=invocation)
        api.close()  # an answer refused half-way leaves the rest of it on this connection


def _deadline(invocation: Invocation) -> float:
    """Return Lambda's deadline, less the reserve, on the clock of the running event loop."""
    now = asyncio.get_running_loop().time()
    remaining = invocation.deadline - time.time() if invocation.deadline else 900.0
    return now + max(remaining - RESERVE, 0.0)


async def _restored(api: RuntimeApi) -> bool:
    """Wait out a snapshot and run the function's hooks around it (SnapStart); say whether it worked."""
    hooks = sys.modules.get("snapshot_restore_py")  # there are hooks only if the function imported it
    try:
        for function, args, kwargs in reversed(hooks.get_before_snapshot() if hooks else []):
            function(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - outermost handler, as for loading
        _log("ERROR", "a before-snapshot hook failed", error=error)
        await api.init_error(error)
        return False
    await api.restored()
    try:
        for function, args, kwargs in hooks.get_after_restore() if hooks else []:
            function(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - outermost handler, as for loading
        _log("ERROR", "an after-restore hook failed", error=error)
        await api.restore_error(error)
        return False
    return True


def _log(
    level: str, message: str, *, invocation: Invocation | None = None, error: BaseException | None = None
) -> None:
    """Write one line of JSON to stderr, the format that Lambda's own runtimes log in."""
    line: dict[str, Any] = {"level": level, "message": message}
    if invocation is not None:
        line["requestId"] = invocation.id
    if error is not None:
        line |= {"errorType": type(error).__name__, "errorMessage": str(error)}
        line["stackTrace"] = traceback.format_exception(error)
    sys.stderr.write(msgspec.json.encode(line).decode() + "\n")
    sys.stderr.flush()


def main(argv: list[str]) -> int:
    """Run inside a Lambda execution environment; return the exit status."""
    address = os.environ.get("AWS_LAMBDA_RUNTIME_API")
    if not address:
        sys.stderr.write(
            "AWS_LAMBDA_RUNTIME_API is not set: this runs in AWS Lambda; here: firsttoken serve --cloud aws\n"
        )
        return 2
    handler = argv[0] if argv else os.environ.get("_HANDLER", "")
    try:
        return asyncio.run(run(address, handler))
    except (asyncio.CancelledError, KeyboardInterrupt):
        return 0  # told to stop


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
