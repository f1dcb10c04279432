"""What an Azure function app reads about its host."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from firsttoken.errors import ConfigError
from firsttoken.runtimes.azure import function_timeout, hide_worker_pages, queue_of, seconds, until
from firsttoken.settings import MemoryQueue, ServiceBusQueue, Settings, StorageQueue


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ('{"functionTimeout": "00:10:00"}', 600.0),
        ('{"functionTimeout": "1.00:00:00.5"}', 86_400.5),
        ('{"functionTimeout": "-1"}', None),
        ('{"version": "2.0"}', None),
    ],
)
def test_function_timeout_is_the_hosts(tmp_path: Path, host: str, expected: float | None) -> None:
    """The limit is what host.json beside the app says; -1 and silence mean none."""
    (tmp_path / "host.json").write_text(host)
    assert function_timeout(tmp_path / "function_app.py") == expected


@pytest.mark.parametrize(
    "host", ["not json", '{"functionTimeout": 600}', '{"functionTimeout": "10 minutes"}', None]
)
def test_a_bad_host_file_is_named(tmp_path: Path, host: str | None) -> None:
    """A missing or wrong host.json stops the start, naming the file."""
    if host is not None:
        (tmp_path / "host.json").write_text(host)
    with pytest.raises(ConfigError, match=r"host\.json"):
        function_timeout(tmp_path / "function_app.py")


@pytest.mark.parametrize(
    ("text", "expected"), [("00:00:02", 2.0), ("00:00:00.2", 0.2), ("2.01:00:00", 176_400.0)]
)
def test_time_spans_are_dotnets(text: str, expected: float) -> None:
    """Days and fractions are read as .NET writes them."""
    assert seconds(text, "x") == expected


@pytest.mark.parametrize(
    ("queue", "name"),
    [
        (None, "firsttoken-jobs"),
        (MemoryQueue(), "firsttoken-jobs"),
        (StorageQueue(name="calls", connection="x"), "calls"),
        (ServiceBusQueue(name="Team/Calls", connection="x"), "Team/Calls"),
    ],
)
def test_triggers_listen_to_the_configured_queue(queue: object, name: str) -> None:
    """The name comes from the settings, so it cannot differ from where calls are sent."""
    assert queue_of(Settings(queue=queue)) == name


def test_a_call_ends_when_the_host_ends_it() -> None:
    """The moment is one of the event loop's clock; without a limit there is none."""

    async def main() -> None:
        now = asyncio.get_running_loop().time()
        assert now + 600 <= until(600.0) < now + 660
        assert until(None) is None

    asyncio.run(main())


def test_the_workers_web_app_gets_no_pages_of_its_own() -> None:
    """The web app that the extension makes later has no schema, hence no documentation pages."""
    extension = SimpleNamespace(FastAPI=dict)
    hide_worker_pages(extension)
    assert extension.FastAPI() == {"openapi_url": None}
