"""The process of the Azure emulator: the worker's engine, the emulated host around it, the queue listeners.

``python -m firsttoken.emulators.azure_process --root functions/azure --port 7071``
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from firsttoken.emulators.azure_host import Host, HostSettings, read_host_settings
from firsttoken.emulators.azure_queue import QueuePump, connection_string
from firsttoken.emulators.azure_worker import Worker, stop_worker
from firsttoken.emulators.child import EmulatorError


class _Front(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone: `_run` ends this server and the worker's."""
        yield


async def _run(root: Path, host: str, port: int) -> None:
    """Start worker, queue listeners and front, and run until a signal."""
    settings, worker, stopped = read_host_settings(root), Worker(), asyncio.Event()
    await worker.start(root)
    await _accepting(worker.http_uri)
    # Only now: the worker's server took the signals when it started, and would end nothing but itself.
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    application = Host(worker, settings)
    config = uvicorn.Config(
        application,
        host=host,
        port=port,
        lifespan="off",
        log_config=None,
        server_header=False,
        date_header=False,
    )
    works = [
        _Front(config).serve(),
        stopped.wait(),
        *(pump.pump() for pump in _pumps(application, worker, settings)),
    ]
    tasks = [asyncio.create_task(work) for work in works]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    logging.disable(logging.ERROR)  # the worker's server reports its own cancellation as an error
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await application.aclose()
    stop_worker()
    for task in done:
        task.result()


def _pumps(host: Host, worker: Worker, settings: HostSettings) -> list[QueuePump]:
    """Return a pump for each queue function whose storage account is configured."""
    functions = [item for item in worker.functions.values() if item.trigger["type"] == "queueTrigger"]
    pumps = []
    for function in functions:
        connection = connection_string(function.trigger.get("connection", "AzureWebJobsStorage"))
        if connection is None:
            logging.getLogger("azure.host").info(
                "%s: no queue is polled, its connection is not set", function.name
            )
        else:
            pumps.append(QueuePump(function, connection, settings.extensions.queues, host.run))
    return pumps


async def _accepting(uri: str) -> None:
    """Wait until the worker's web server, if the app has one, takes connections."""
    host, _, port = uri.removeprefix("http://").partition(":")
    while uri:
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            await asyncio.sleep(0.01)
        else:
            writer.close()
            return


def main(arguments: list[str] | None = None) -> int:
    """Run the emulated host; the exit status is 1 when the function app does not start."""
    parser = argparse.ArgumentParser(prog="python -m firsttoken.emulators.azure_process", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder of function_app.py and host.json")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=7071)
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Both servers announce themselves and each request; a filter outlives uvicorn's own set-up of its logs.
    for name in ("azure.functions", "azure.core", "uvicorn.access", "uvicorn.error"):
        logging.getLogger(name).addFilter(lambda record: record.levelno >= logging.WARNING)
    try:
        os.chdir(root)
        asyncio.run(_run(root, options.host, options.port))
    except (EmulatorError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
