"""What an Azure Functions app has to know about its host, and what it has to mend in the worker around it."""

from __future__ import annotations

import asyncio
import re
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from firsttoken.errors import ConfigError
from firsttoken.settings import ServiceBusQueue, Settings, StorageQueue

_TIME_SPAN = re.compile(r"(?:(\d+)\.)?(\d+):(\d\d):(\d\d(?:\.\d+)?)")


class _HostFile(Struct, rename="camel"):
    function_timeout: str | None = None


def function_timeout(function_app: str | Path) -> float | None:
    """Return the seconds that ``host.json`` beside ``function_app`` grants a call, or None without a limit.

    The host enforces the limit by ending the process; the worker is not told, so the app reads the same file.
    """
    path = Path(function_app).with_name("host.json")
    try:
        text = msgspec.json.decode(path.read_bytes(), type=_HostFile).function_timeout
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(
            f"{path}: expected the JSON settings of the Azure Functions host ({error})"
        ) from error
    return None if text is None or text == "-1" else seconds(text, f"{path}: functionTimeout")


def until(timeout: float | None) -> float | None:
    """Return when a call that begins now is ended by the host, on the event loop's clock."""
    return None if timeout is None else asyncio.get_running_loop().time() + timeout


def queue_of(settings: Settings) -> str:
    """Return the queue that the triggers listen to: the configured one, so that both always agree.

    The worker tells the host when it indexes the app, so no ``%SETTING%`` of the host's own is needed.
    """
    queue = settings.queue
    return queue.name if isinstance(queue, StorageQueue | ServiceBusQueue) else StorageQueue().name


def hide_worker_pages(extension: Any) -> None:
    """Take FastAPI's own pages (/docs, /redoc, /openapi.json) out of the worker's web server.

    ``extension`` is the module ``azurefunctions.extensions.http.fastapi.web``; call before the app is
    indexed. The server would answer them without the function: the host then waits for an invocation that
    never ends, and restarts the worker, with every stream in it, once ``functionTimeout`` has passed.
    """
    extension.FastAPI = partial(extension.FastAPI, openapi_url=None)


def seconds(text: str, name: str) -> float:
    """Return the seconds of a .NET time span, ``hh:mm:ss`` or ``d.hh:mm:ss`` with an optional fraction."""
    span = _TIME_SPAN.fullmatch(text)
    if span is None:
        raise ConfigError(f"{name} is {text!r}: expected a time span such as 00:05:00")
    days, hours, minutes, rest = span.groups(default="0")
    return ((int(days) * 24 + int(hours)) * 60 + int(minutes)) * 60 + float(rest)
