"""OpenAI's background responses with the official SDK, on a real server; a worker shares its files."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
import uvicorn
from api.deferred import work
from support import make_app

from firsttoken.app import App
from firsttoken.gateway import Gateway
from firsttoken.jobs.job import JobError
from firsttoken.settings import Jobs, Route, SimulatedProvider, SqliteQueue, SqliteStore

ERROR = JobError(503, "upstream_error", "The target is not available.", "target_unavailable")


def serve(app: App) -> Iterator[str]:
    """Serve an application on a socket, in a thread of its own."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none"))
    ready = threading.Event()
    startup = server.startup

    async def announced(sockets: Any = None) -> None:
        await startup(sockets)
        ready.set()

    server.startup = announced
    thread = threading.Thread(target=server.run)
    thread.start()
    assert ready.wait(10)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    server.should_exit = True
    thread.join(10)


class Place:
    """A server with a queue, and what its workers need."""

    def __init__(self, folder: Path) -> None:
        profile = "ttft_ms=400,itl_ms=40,tokens=12"
        self._sections: dict[str, Any] = {
            "providers": {"simulated": SimulatedProvider(profile=profile)},
            "models": {"m": Route(target="simulated/m")},
            "store": SqliteStore(path=str(folder / "store.db")),
            "queue": SqliteQueue(path=str(folder / "queue.db")),
            "jobs": Jobs(retry_after=1),
        }
        self.app = make_app(**self._sections)
        self.url = ""

    @asynccontextmanager
    async def gateway(self) -> AsyncIterator[Gateway]:
        """Open what a worker in another process has."""
        gateway = make_app(**self._sections).gateway
        try:
            await gateway.store.open()
            yield gateway
        finally:
            await gateway.aclose()

    def work(self, error: JobError | None = None) -> None:
        """Answer the next job, or let it fail."""

        async def once() -> None:
            async with self.gateway() as gateway:
                await work(gateway, error=error)

        asyncio.run(once())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("background"))
    for url in serve(place.app):
        place.url = url
        yield place


@pytest.fixture
def client(place: Place) -> Iterator[openai.OpenAI]:
    options: Any = {"max_retries": 0, "timeout": 20, "default_headers": {"x-firsttoken-timeout": "15"}}
    with openai.OpenAI(base_url=place.url, api_key="k", **options) as client:
        yield client


def create(client: openai.OpenAI, **fields: Any) -> Any:
    return client.responses.create(model="m", input="Say naïve", background=True, **fields)


def test_create_and_retrieve(place: Place, client: openai.OpenAI) -> None:
    """A response is queued, and later it is there, under the same id."""
    created = create(client, metadata={"a": "b"}, instructions="Be brief.")
    assert (created.status, created.background, created.output_text) == ("queued", True, "")
    assert created.id.startswith("resp_")
    waiting = client.responses.retrieve(created.id)
    assert (waiting.status, waiting.id, waiting.created_at) == ("queued", created.id, created.created_at)
    place.work()
    done = client.responses.retrieve(created.id)
    assert (done.status, done.id, done.background) == ("completed", created.id, True)
    assert done.output_text
    assert (done.metadata, done.instructions, done.created_at) == (
        {"a": "b"},
        "Be brief.",
        created.created_at,
    )
    assert done.usage is not None
    assert client.responses.retrieve(created.id) == done


def test_incomplete(place: Place, client: openai.OpenAI) -> None:
    """An answer that was cut short says so."""
    created = create(client, max_output_tokens=2)
    place.work()
    assert client.responses.retrieve(created.id).status == "incomplete"


def test_failed(place: Place, client: openai.OpenAI) -> None:
    """A response that no model gave is fetched with its error."""
    created = create(client)
    place.work(ERROR)
    failed = client.responses.retrieve(created.id)
    assert (failed.status, failed.output) == ("failed", [])
    assert failed.error is not None
    assert (failed.error.code, failed.error.message) == ("target_unavailable", "The target is not available.")
    with client.responses.retrieve(created.id, stream=True) as stream:
        events = list(stream)
    assert [event.type for event in events] == ["response.created", "response.queued", "response.failed"]
    assert events[-1].response.error == failed.error


def test_cancel_and_delete(client: openai.OpenAI) -> None:
    """Cancelling twice is one; what was deleted is not found."""
    created = create(client)
    assert client.responses.cancel(created.id).status == "cancelled"
    again = client.responses.cancel(created.id)
    assert (again.status, again.error) == ("cancelled", None)
    with client.responses.retrieve(created.id, stream=True) as stream:
        last = list(stream)[-1]
    assert (last.type, last.response.status) == ("response.failed", "cancelled")
    client.responses.delete(created.id)
    for ask in (client.responses.retrieve, client.responses.cancel, client.responses.delete):
        with pytest.raises(openai.NotFoundError, match=created.id):
            ask(created.id)


def test_stream_live_and_again(place: Place, client: openai.OpenAI) -> None:
    """A stream is numbered, and the same however often: from the start, or behind what was seen."""
    with create(client, stream=True) as stream:
        events = [next(stream), next(stream)]
        worker = threading.Thread(target=place.work)
        worker.start()
        events += list(stream)
        worker.join(20)
    kinds = [event.type for event in events]
    assert kinds[:3] == ["response.created", "response.queued", "response.in_progress"]
    assert (kinds.count("response.created"), kinds.count("response.in_progress")) == (1, 1)
    assert kinds[-1] == "response.completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert {event.response.id for event in events if hasattr(event, "response")} == {events[0].response.id}
    name = events[0].response.id
    with client.responses.retrieve(name, stream=True) as stream:
        assert list(stream) == events
    for after in (0, 2, len(events) - 2, len(events) - 1, 10_000):
        with client.responses.retrieve(name, stream=True, starting_after=after) as stream:
            assert list(stream) == events[after + 1 :]
    kept = client.responses.retrieve(name)
    assert (kept.output_text, kept.usage) == (events[-1].response.output_text, events[-1].response.usage)
    assert kept.completed_at == events[-1].response.completed_at


def test_the_helper_for_streams(place: Place, client: openai.OpenAI) -> None:
    """The SDK's helper, which checks ids and the order of events, puts the answer together."""
    created = create(client)
    place.work()
    with client.responses.stream(response_id=created.id) as stream:
        assert stream.get_final_response().output_text == client.responses.retrieve(created.id).output_text


def test_a_dropped_stream_is_taken_up_again(place: Place, client: openai.OpenAI) -> None:
    """Who left goes on behind the last event, and has all of the answer."""
    with create(client, stream=True) as stream:
        first = next(stream)
    worker = threading.Thread(target=place.work)
    worker.start()
    with client.responses.retrieve(first.response.id, stream=True, starting_after=0) as stream:
        rest = list(stream)
    worker.join(20)
    assert [event.sequence_number for event in rest] == list(range(1, len(rest) + 1))
    assert rest[-1].type == "response.completed"


def test_a_stream_that_ends_before_its_response(client: openai.OpenAI) -> None:
    """The error says that the response goes on; nothing of it is lost."""
    headers = {"x-firsttoken-timeout": "1"}
    created = create(client)
    with (
        pytest.raises(openai.APIError, match="the job goes on"),
        client.responses.retrieve(created.id, stream=True, extra_headers=headers) as stream,
    ):
        list(stream)
    assert client.responses.cancel(created.id).status == "cancelled"


@pytest.mark.parametrize(
    ("fields", "param"), [({"store": False}, "store"), ({"tools": [{"type": "web_search"}]}, None)]
)
def test_what_cannot_be_kept_is_refused(client: openai.OpenAI, fields: Any, param: str | None) -> None:
    """Keeping nothing and fetching it later exclude each other; other fields are judged by the target."""
    if param is None:
        assert client.responses.cancel(create(client, store=True, **fields).id).status == "cancelled"
        return
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, **fields)
    assert caught.value.param == param


@pytest.mark.parametrize("query", ["starting_after=x", "starting_after=-1", "stream=true&starting_after="])
def test_a_wrong_query_is_named(client: openai.OpenAI, query: str) -> None:
    """The number of an event is a number."""
    name = create(client).id
    with pytest.raises(openai.BadRequestError, match="starting_after"):
        client.get(f"/responses/{name}?{query}", cast_to=object)
    client.responses.cancel(name)


def test_without_a_queue_it_is_refused() -> None:
    """``background`` is a demand: it is not answered as if it had not been said."""
    for url in serve(make_app()):
        with openai.OpenAI(base_url=url, api_key="k", max_retries=0) as client:
            with pytest.raises(openai.BadRequestError) as caught:
                create(client)
            assert (caught.value.code, caught.value.param) == ("unsupported_field", "background")
            plain = client.responses.create(model="m", input="Hi", background=False)
            assert plain.status == "completed"
