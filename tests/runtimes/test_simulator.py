"""The stand-alone simulated provider: what each provider shows besides its answers, and its regions."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from botocore.eventstream import ChecksumMismatch, EventStreamBuffer
from support import Answer, ask
from wire.pairs import FORMATS, Case, bedrock_frames, events

from firsttoken.runtimes.simulator import SimulatorApp
from firsttoken.settings import SimulatedProvider

QUICK = SimulatedProvider(profile="ttft_ms=0,itl_ms=0")
CASE = Case("text", "Hello there")
formats = pytest.mark.parametrize("name", FORMATS)


def app(profile: str = "", **regions: str) -> SimulatorApp:
    return SimulatorApp(SimulatedProvider(profile=f"ttft_ms=0,itl_ms=0,{profile}"), regions)


async def one(  # noqa: PLR0913 - each is one thing that a test varies
    sim: SimulatorApp, name: str, spec: str = "", *, case: Case = CASE, stream: bool = False, region: str = ""
) -> Answer:
    """Ask in a format, in a region if one is named."""
    path = f"/regions/{region}" if region else ""
    client = FORMATS[name]
    headers = {"x-firsttoken-simulate": spec} if spec else {}
    return await ask(
        sim, client.body(case, stream=stream), path=path + client.path(stream=stream), headers=headers
    )


def run(name: str, spec: str = "", *, stream: bool = False, case: Case = CASE) -> Answer:
    return asyncio.run(one(app(), name, spec, case=case, stream=stream))


@formats
@pytest.mark.parametrize("stream", [False, True])
def test_every_format_is_answered(name: str, stream: bool) -> None:
    """The answer is the simulated model's, in the client's format."""
    answer = run(name, stream=stream)
    client = FORMATS[name]
    seen = (client.stream if stream else client.whole)(answer.body)
    assert (answer.status, seen.finish) == (200, "stop")
    assert seen.text.startswith("You said: Hello there")


SAID = {
    "openai_chat": (("error", "type"), "server_error", "rate_limit_error"),
    "openai_responses": (("error", "type"), "server_error", "rate_limit_error"),
    "anthropic": (("error", "type"), "overloaded_error", "rate_limit_error"),
    "gemini": (("error", "status"), "UNAVAILABLE", "RESOURCE_EXHAUSTED"),
    "bedrock": (("__type",), "ServiceUnavailableException", "ThrottlingException"),
}


@formats
def test_errors_look_like_the_provider_s(name: str) -> None:
    """Status, body and wait are what a client of that provider expects."""
    where, unavailable, limited = SAID[name]
    for spec, status, kind in (
        ("fault=status,status=503", 503, unavailable),
        ("fault=status,status=429,retry_after=2", 429, limited),
    ):
        answer = run(name, spec)
        said = answer.json()
        for key in where:
            said = said[key]
        assert answer.status == status
        assert said == kind or name.startswith("openai")
        assert answer.headers.get("retry-after") == (None if status == 503 else "2")


@formats
@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 500, 504, 529])
def test_any_status_can_be_asked_for(name: str, status: int) -> None:
    """The status is that of the provider itself, not what an endpoint would make of it."""
    answer = run(name, f"fault=status,status={status}")
    assert answer.status == status
    assert isinstance(answer.json(), dict)


@formats
def test_an_error_in_the_middle_is_an_event_of_the_format(name: str) -> None:
    """After the first byte the error is the last event, and the stream has no good end."""
    answer = run(name, "fault=error_event,after=3", stream=True)
    assert answer.status == 200
    with pytest.raises((AssertionError, KeyError)):
        FORMATS[name].stream(answer.body)
    if name == "bedrock":
        last = bedrock_frames(answer.body)[-1]
        assert last.headers[":message-type"] == "exception"
        assert last.headers[":exception-type"].endswith("Exception")
    else:
        assert "error" in json.dumps(list(events(answer.body))[-1])


@formats
@pytest.mark.parametrize("after", [0, 2])
def test_a_malformed_frame_breaks_the_format(name: str, after: int) -> None:
    """Half a JSON value where the format is text, a wrong checksum where it is binary."""
    answer = run(name, f"fault=malformed,after={after}", stream=True)
    assert answer.status == 200
    assert answer.complete
    if name == "bedrock":
        buffer = EventStreamBuffer()
        buffer.add_data(answer.body)
        with pytest.raises(ChecksumMismatch):
            list(buffer)
    else:
        with pytest.raises(json.JSONDecodeError):
            list(events(answer.body))
    with pytest.raises(json.JSONDecodeError):
        run(name, f"fault=malformed,after={after}").json()


@formats
@pytest.mark.parametrize(("fault", "reset"), [("cut", False), ("reset", True)])
def test_faults_below_http(name: str, fault: str, reset: bool) -> None:
    """The connection is dropped before the answer is complete."""
    dropped: list[bool] = []

    async def call() -> Answer:
        client = FORMATS[name]
        return await ask(
            app(),
            client.body(CASE, stream=True),
            path=client.path(stream=True),
            headers={"x-firsttoken-simulate": f"fault={fault},after=2"},
            extensions={"firsttoken.drop": lambda *, reset: dropped.append(reset)},
        )

    answer = asyncio.run(call())
    assert dropped == [reset]
    assert not answer.complete
    assert len(answer.pieces) >= 2


@formats
def test_limits_are_told_and_kept(name: str) -> None:
    """Who asks too often gets the provider's 429 with the time to wait, and its headers say what is left."""

    async def calls() -> list[Answer]:
        sim = app("rpm=2,tpm=100000")
        return [await one(sim, name, stream=stream) for stream in (False, True, False)]

    first, second, third = asyncio.run(calls())
    assert [answer.status for answer in (first, second, third)] == [200, 200, 429]
    assert int(third.headers["retry-after"]) in range(20, 31)
    if name.startswith("openai"):
        told = [answer.headers["x-ratelimit-remaining-requests"] for answer in (first, second, third)]
        assert told == ["1", "0", "0"]
        assert first.headers["x-ratelimit-limit-tokens"] == "100000"
        assert 20_000 < int(third.headers["retry-after-ms"]) <= 30_000
    elif name == "anthropic":
        assert first.headers["anthropic-ratelimit-requests-remaining"] == "1"
        assert first.headers["anthropic-ratelimit-tokens-reset"].endswith("Z")
        assert first.headers["request-id"] == first.headers["x-request-id"]


def test_tokens_count_when_the_request_arrives() -> None:
    """Prompt and wanted output together; a request that asks for more than a minute has names no wait."""

    async def calls() -> tuple[Answer, Answer]:
        sim = app("tpm=1500")
        small = await one(sim, "openai_chat", case=Case("small", "Hi", limit=1000))
        return small, await one(sim, "openai_chat", case=Case("large", "Hi", limit=2000))

    small, large = asyncio.run(calls())
    assert (small.status, large.status) == (200, 429)
    assert "retry-after" not in large.headers


def cached_prompt(name: str) -> dict[str, Any]:
    """Return a body with a long system prompt, marked where the format has markers."""
    body = FORMATS[name].body(Case("cache", "Hello"), stream=False)
    words = "rule " * 1200 + "end"
    if name == "anthropic":
        body["system"] = [{"type": "text", "text": words, "cache_control": {"type": "ephemeral"}}]
    elif name == "bedrock":
        body["system"] = [{"text": words}, {"cachePoint": {"type": "default"}}]
    elif name == "gemini":
        body["systemInstruction"] = {"parts": [{"text": words}]}
    elif name == "openai_responses":
        body["instructions"] = words
    else:
        body["messages"][0]["content"] = words
    return body


COUNTS: dict[str, Any] = {
    "openai_chat": lambda a: (a["usage"]["prompt_tokens_details"]["cached_tokens"], 0),
    "openai_responses": lambda a: (a["usage"]["input_tokens_details"]["cached_tokens"], 0),
    "anthropic": lambda a: (a["usage"]["cache_read_input_tokens"], a["usage"]["cache_creation_input_tokens"]),
    "gemini": lambda a: (a["usageMetadata"].get("cachedContentTokenCount", 0), 0),
    "bedrock": lambda a: (a["usage"]["cacheReadInputTokens"], a["usage"]["cacheWriteInputTokens"]),
}


@formats
def test_prompt_caches_are_billed_as_the_provider_does(name: str) -> None:
    """Written, then read, with markers; read in steps of 128 without, and nothing is said to be written."""

    async def calls() -> list[tuple[int, int]]:
        sim, client = app(), FORMATS[name]
        answers = [await ask(sim, cached_prompt(name), path=client.path(stream=False)) for _ in range(2)]
        return [COUNTS[name](answer.json()) for answer in answers]

    size = 1201 + 4
    expected = [(0, size), (size, 0)] if name in ("anthropic", "bedrock") else [(0, 0), (1152, 0)]
    assert asyncio.run(calls()) == expected


def test_regions_are_providers_of_their_own() -> None:
    """Each has its profile, its limits and its counts; an unknown one is named."""

    async def calls() -> None:
        sim = app("tokens=5", eu="tokens=7,rpm=1", us="fault=status,status=503")
        eu = [(await one(sim, "openai_chat", region="eu")) for _ in range(2)]
        assert [answer.status for answer in eu] == [200, 429]
        assert eu[0].json()["usage"]["completion_tokens"] == 7
        assert (await one(sim, "anthropic", region="us")).status == 503
        assert (await one(sim, "bedrock")).json()["usage"]["outputTokens"] == 5
        unknown = await one(sim, "openai_chat", region="mars")
        assert (unknown.status, "eu, us" in unknown.body.decode()) == (404, True)
        state = await ask(sim, method="GET", path="/regions/eu/simulator/state")
        assert (state.json()["requests"], state.json()["failed"]) == (2, 1)

    asyncio.run(calls())


def test_an_outage_begins_and_ends() -> None:
    """The profile of one region is changed while it runs; an empty one brings the first back."""

    async def calls() -> list[int]:
        sim = app(eu="tokens=3")
        seen = []
        for spec in (None, b"fault=status,status=503", b""):
            if spec is not None:
                changed = await ask(sim, spec, method="PUT", path="/regions/eu/simulator/profile")
                assert changed.status == 200
            seen.append((await one(sim, "gemini", region="eu")).status)
        assert (await ask(sim, b"color=red", method="PUT", path="/simulator/profile")).status == 400
        assert (await ask(sim, b"", method="POST", path="/simulator/profile")).status == 405
        return seen

    assert asyncio.run(calls()) == [200, 503, 200]


def test_a_share_of_the_calls_fails() -> None:
    """Partial outages: the same calls fail each time, as the seed says."""

    async def calls() -> list[int]:
        sim = app("fault=status,status=503,share=0.3")
        return [(await one(sim, "openai_chat")).status for _ in range(40)]

    statuses = asyncio.run(calls())
    assert 4 <= statuses.count(503) <= 20
    assert statuses == asyncio.run(calls())


@pytest.mark.parametrize("stream", [False, True])
def test_azure_and_vertex_serve_the_formats_at_their_addresses(stream: bool) -> None:
    """OpenAI's below /openai, Google's and Anthropic's below a project and a location."""
    place = "/v1/projects/p/locations/global/publishers"
    claude = FORMATS["anthropic"].body(CASE, stream=stream)
    del claude["model"]
    claude["anthropic_version"] = "vertex-2023-10-16"
    action = "streamRawPredict" if stream else "rawPredict"
    gemini = "streamGenerateContent?alt=sse" if stream else "generateContent"
    rows = [
        ("openai_chat", "/openai/v1/chat/completions", FORMATS["openai_chat"].body(CASE, stream=stream)),
        ("anthropic", f"{place}/anthropic/models/claude-x:{action}", claude),
        ("gemini", f"{place}/google/models/gemini-x:{gemini}", FORMATS["gemini"].body(CASE, stream=stream)),
    ]
    for name, path, body in rows:
        answer = asyncio.run(ask(app(), body, path=path))
        client = FORMATS[name]
        seen = (client.stream if stream else client.whole)(answer.body)
        assert seen.text.startswith("You said: Hello there")
    bad = asyncio.run(ask(app(), b"[", path=rows[1][1]))
    assert bad.status == 400


def test_bytes_are_sliced_when_asked_for() -> None:
    """Characters and events are cut anywhere."""
    answer = run("openai_chat", "slice=40", stream=True)
    assert max(map(len, answer.pieces)) <= 40
    assert FORMATS["openai_chat"].stream(answer.body).finish == "stop"
