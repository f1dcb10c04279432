"""The probe app as an Azure function app, with a function for each trigger that the emulator can run."""

from __future__ import annotations

import azure.functions as func
import probe
from azurefunctions.extensions.http.fastapi import Request, web

from firsttoken.runtimes.azure import function_timeout, hide_worker_pages
from firsttoken.runtimes.starlette import AsgiResponse

hide_worker_pages(web)
app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)


@app.route(route="{*path}", methods=list(func.HttpMethod))
async def chat(req: Request) -> AsgiResponse:
    """Serve the probe app."""
    return AsgiResponse(probe.app, timeout=function_timeout(__file__))


@app.route(route="items/{name}", methods=["GET"])
async def item(req: Request) -> AsgiResponse:
    """Note the route's parameters."""
    probe.MESSAGES.append({"function": "item", "route": dict(req.path_params)})
    return AsgiResponse(probe.app)


@app.queue_trigger(arg_name="message", queue_name="%PROBE_QUEUE%", connection="AzureWebJobsStorage")
async def recover(message: func.QueueMessage) -> None:
    """Note a queue message; one of them cannot be answered."""
    body = message.get_body().decode()
    seen = {"function": "recover", "body": body, "id": message.id, "attempt": message.dequeue_count}
    probe.MESSAGES.append({**seen, "inserted": str(message.insertion_time)})
    if body == "poison":
        error = "cannot be answered"
        raise RuntimeError(error)


@app.service_bus_queue_trigger(arg_name="message", queue_name="jobs", connection="ServiceBusConnection")
async def recover_bus(message: func.ServiceBusMessage) -> None:
    """Note a Service Bus message."""
    seen = {"function": "recover_bus", "body": message.get_body().decode(), "id": message.message_id}
    probe.MESSAGES.append({**seen, "attempt": message.delivery_count, "properties": message.user_properties})


@app.timer_trigger(arg_name="timer", schedule="0 */5 * * * *")
async def scheduled(timer: func.TimerRequest) -> None:
    """Note a timer event."""
    probe.MESSAGES.append({"function": "scheduled", "past_due": timer.past_due})
