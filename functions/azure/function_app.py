"""Azure Functions: one streaming HTTP function, two queue triggers and a timer."""

from __future__ import annotations

import azure.functions as func
from azurefunctions.extensions.http.fastapi import Request, web

from firsttoken.app import create_app
from firsttoken.runtimes.azure import function_timeout, hide_worker_pages, queue_of, until
from firsttoken.runtimes.starlette import AsgiResponse
from firsttoken.worker import answer_message, on_schedule

hide_worker_pages(web)
asgi = create_app(deployed=True)
gateway, timeout = asgi.gateway, function_timeout(__file__)
app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)  # the app checks its own API keys


@app.route(route="{*path}", methods=list(func.HttpMethod))
async def chat(req: Request) -> AsgiResponse:  # noqa: ARG001 - the binding's name
    """Serve the HTTP endpoints, streaming."""
    return AsgiResponse(asgi, timeout=timeout)


@app.queue_trigger(arg_name="msg", queue_name=queue_of(gateway.settings), connection="AzureWebJobsStorage")
async def recover(msg: func.QueueMessage) -> None:
    """Answer a deferred call from the Storage queue; an error has it delivered again."""
    await answer_message(gateway, msg.get_body(), delivered=msg.dequeue_count or 1, deadline=until(timeout))


@app.service_bus_queue_trigger(arg_name="msg", queue_name=queue_of(gateway.settings), connection="ServiceBus")
async def recover_bus(msg: func.ServiceBusMessage) -> None:
    """Answer a deferred call from Service Bus; an error has it delivered again."""
    await answer_message(gateway, msg.get_body(), delivered=msg.delivery_count or 1, deadline=until(timeout))


@app.timer_trigger(arg_name="timer", schedule="0 */5 * * * *")
async def scheduled(timer: func.TimerRequest) -> None:  # noqa: ARG001 - the binding's name
    """Probe the targets and move the batches on."""
    await on_schedule(gateway)
