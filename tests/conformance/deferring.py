"""Behaviours of deferred calls: an outage, a queue, its function, and the answer in the client's hands."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
from behaviours import behaviour, sdk
from endpoints import KEY, Endpoint, set_profile

LATER: dict[str, Any] = {"model": "later", "messages": [{"role": "user", "content": "Any planets?"}]}
DOWN = "fault=status, status=503"
_AUTHORIZED = {"authorization": f"Bearer {KEY}"}
_PATIENCE = 60


async def submit(endpoint: Endpoint, session: aiohttp.ClientSession, prefer: str) -> dict[str, Any]:
    """Send a call that may become a job, see that it does, and return where it is."""
    headers = {**_AUTHORIZED, "prefer": prefer}
    url = f"{endpoint.url}/v1/chat/completions"
    async with session.post(url, json=LATER, headers=headers) as answer:
        job = await answer.json()
        assert answer.status == 202, job
        assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
        assert answer.headers["preference-applied"].startswith("respond-async")
        assert int(answer.headers["retry-after"]) >= 1
    return dict(job)


async def fetch(endpoint: Endpoint, session: aiohttp.ClientSession, name: str) -> dict[str, Any]:
    """Return a job as its client sees it."""
    async with session.get(f"{endpoint.url}/v1/jobs/{name}", headers=_AUTHORIZED) as answer:
        assert answer.status == 200, await answer.text()
        return dict(await answer.json())


@behaviour("a call in an outage is queued, answered by the queue's function, and fetched")
async def recovered(endpoint: Endpoint, possible: bool) -> None:
    """202 while no target answers; the job ends once one does; another tenant's key finds nothing."""
    assert possible
    await set_profile(endpoint, DOWN)
    try:
        async with aiohttp.ClientSession() as session:
            job = await submit(endpoint, session, "respond-async, wait=20")
            assert (await fetch(endpoint, session, job["id"]))["state"] in ("queued", "running")
            await set_profile(endpoint, "")
            async with asyncio.timeout(_PATIENCE):
                while (job := await fetch(endpoint, session, job["id"]))["state"] in ("queued", "running"):
                    await asyncio.sleep(0.2)
            assert job["state"] == "done", job
            said = job["answer"]["choices"][0]["message"]["content"]
            assert said.startswith("You said: Any planets?")
            url = f"{endpoint.url}/v1/jobs/{job['id']}"
            async with session.get(url, headers={"authorization": "Bearer other"}) as answer:
                assert answer.status == 401
    finally:
        await set_profile(endpoint, "")


@behaviour("a deferred call is followed as a stream")
async def followed(endpoint: Endpoint, possible: bool) -> None:
    """Its events wait for the function that answers it, then they are those of the call itself."""
    assert possible
    async with aiohttp.ClientSession() as session:
        job = await submit(endpoint, session, "respond-async")
        url = f"{endpoint.url}/v1/jobs/{job['id']}/events"
        async with asyncio.timeout(_PATIENCE), session.get(url, headers=_AUTHORIZED) as answer:
            assert answer.status == 200
            assert answer.content_type == "text/event-stream"
            data = (await answer.content.read()).decode()
    events = [event[6:] for event in data.split("\n\n") if event.startswith("data: {")]
    words = [json.loads(event)["choices"] for event in events]
    assert "".join(c[0]["delta"].get("content") or "" for c in words if c).startswith(
        "You said: Any planets?"
    )
    assert data.endswith("data: [DONE]\n\n")


@behaviour("a background response of the OpenAI SDK is polled until it is complete")
async def background(endpoint: Endpoint, possible: bool) -> None:
    """Created at once, completed by the queue's function."""
    assert possible
    async with sdk(endpoint) as client:
        response = await client.responses.create(model="later", input="Any planets?", background=True)
        assert response.status in ("queued", "in_progress", "completed")
        async with asyncio.timeout(_PATIENCE):
            while response.status in ("queued", "in_progress"):
                await asyncio.sleep(0.2)
                response = await client.responses.retrieve(response.id)
    assert response.status == "completed"
    assert response.output_text.startswith("You said: Any planets?")
