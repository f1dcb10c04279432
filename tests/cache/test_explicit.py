"""Gemini's explicit caches, over HTTP, against a fake of the documented API."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from cache.cached_contents import Gemini

from firsttoken.cache.break_even import Ledger
from firsttoken.cache.explicit import explicit_of
from firsttoken.cache.explicit_http import cached_contents
from firsttoken.cache.prefix import Prefixed, PrefixSavings
from firsttoken.cache.prefix_rules import rules_of
from firsttoken.chat import ChatRequest, Message, Text, ToolChoice
from firsttoken.errors import StoreError, UpstreamRefusedError
from firsttoken.model import Call, Source, Usage
from firsttoken.policies.shadow import MAX_PENDING, Shadow
from firsttoken.providers import gemini
from firsttoken.providers.http import HttpClient, Timeouts
from firsttoken.providers.upstream import Connection
from firsttoken.settings import AnthropicProvider, GeminiProvider, MemoryStore, Prefix, VertexProvider
from firsttoken.stores.memory import MemoryStore as Memory
from firsttoken.telemetry.record import Record
from firsttoken.wire import codec_of

MODEL = "gemini-3.8-flash"
INSTRUCTIONS = "Be exact, brief and kind. " * 800
"""5,200 tokens."""


class Instance:
    """One process: a target with its explicit caches, in front of the fake."""

    def __init__(self, api: Gemini, store: Any) -> None:
        self.api = api
        self.client = HttpClient()
        self.shadow = Shadow()
        self.savings = PrefixSavings()
        provider = GeminiProvider(base_url=api.url, api_key="secret")
        rules = partial(rules_of, provider)
        self.explicit = explicit_of(
            f"g/{MODEL}",
            provider,
            "5m",
            rules(MODEL),
            client=self.client,
            store=store,
            shadow=self.shadow,
            savings=self.savings,
            ledger=lambda _name: Ledger(1e9),
        )
        self.explicit._wall = lambda: api.now
        upstream = gemini.chat("g", provider, MODEL, Connection(self.client, Timeouts()))
        name, savings = f"g/{MODEL}", self.savings
        self.model = Prefixed(upstream, Prefix(), rules, name=name, savings=savings, explicit=self.explicit)

    async def ask(self, text: str = "Hello", *, tenant: str = "a", **fields: Any) -> Usage:
        """Send a call and let what it began in the background end."""
        said = fields.pop("system", INSTRUCTIONS)
        messages = (Message("system", (Text(said),)), Message("user", (Text(text),)))
        request = ChatRequest("m", messages, **fields)
        call = Call(request, Source("openai-chat", b"{}"), "1", asyncio.get_running_loop().time() + 30)
        call.tenant, call.record = tenant, Record()
        chunks = [chunk async for chunk in self.model.stream(call)]
        assert "".join(chunk.text for chunk in chunks) == "Hi"
        await self.shadow.settle(5)
        self.api.now += 10
        return next(chunk.usage for chunk in chunks if chunk.usage)

    async def aclose(self) -> None:
        await self.client.aclose()


def against(
    work: Callable[..., Awaitable[None]], *, instances: int = 1, store: Any = None, **options: Any
) -> None:
    """Run ``work`` with the fake and so many instances that share a store."""

    async def scenario() -> None:
        async with Gemini(**options) as api:
            shared = store or Memory(MemoryStore())
            all_of_them = [Instance(api, shared) for _ in range(instances)]
            try:
                await work(api, *all_of_them)
            finally:
                for instance in all_of_them:
                    await instance.aclose()

    asyncio.run(scenario())


def test_a_cache_is_made_when_calls_come_often_and_used_from_then_on() -> None:
    """The second call makes the cache beside itself; from the third on the prompt is read from it."""

    async def work(api: Gemini, one: Instance) -> None:
        used = [await one.ask() for _ in range(5)]
        assert [bool(usage.cached) for usage in used] == [False, False, True, True, True]
        assert api.count("POST", "cachedContents") == 1
        assert api.count("POST", "generateContent") == 5
        created = next(body for _, path, body in api.log if path.endswith("cachedContents"))
        assert created["model"] == f"models/{MODEL}"
        assert created["ttl"] == "300s"
        last = api.log[-1][2]
        assert last["cachedContent"].startswith("cachedContents/")
        assert set(last) == {"contents", "cachedContent"}
        row = one.savings.view()[f"g/{MODEL}"]
        assert row["cached_tokens"] > 15_000

    against(work)


def test_one_instance_makes_it_and_all_of_them_use_it() -> None:
    """The lease keeps others from making the same cache, the store tells them its name."""

    async def work(api: Gemini, *instances: Instance) -> None:
        for _ in range(3):
            await asyncio.gather(*(instance.ask() for instance in instances))
        assert api.count("POST", "cachedContents") == 1
        used = [await instance.ask() for instance in instances]
        assert all(usage.cached for usage in used)

    against(work, instances=4)


def test_tenants_have_caches_of_their_own() -> None:
    """The same instructions of another tenant are another cache; so are those with another tool choice."""

    async def work(api: Gemini, one: Instance) -> None:
        one.explicit.ledger.balance = 1e9
        for _ in range(3):
            await one.ask(tenant="a")
            await one.ask(tenant="b")
            await one.ask(tenant="b", tool_choice=ToolChoice("none"))
        assert api.count("POST", "cachedContents") == 3
        assert len({body["cachedContent"] for *_, body in api.log if "cachedContent" in (body or {})}) == 3

    against(work)


def test_rare_calls_make_none() -> None:
    """Where the next call comes later than a cache would live, none is made."""

    async def work(api: Gemini, one: Instance) -> None:
        for _ in range(6):
            assert not (await one.ask()).cached
            api.now += 400
        assert api.count("POST", "cachedContents") == 0

    against(work)


def test_short_instructions_make_none() -> None:
    """A prefix below the model's minimum is not even looked at."""

    async def work(api: Gemini, one: Instance) -> None:
        for _ in range(4):
            await one.ask(system="Be brief.")
        assert api.count("POST", "cachedContents") == 0

    against(work)


def test_what_the_provider_caches_by_itself_is_not_paid_for() -> None:
    """Where implicit caching reads nearly all, an explicit cache cannot pay."""

    async def work(api: Gemini, one: Instance) -> None:
        one.explicit.ledger.balance = 0.0  # so that the first calls only look
        for _ in range(30):
            await one.ask()
        one.explicit.ledger.balance = 1e9
        for _ in range(6):
            await one.ask()
        assert api.count("POST", "cachedContents") == 0

    against(work, implicit=True)


def test_a_cache_in_use_is_renewed() -> None:
    """As long as calls come it never ends; renewing costs storage only."""

    async def work(api: Gemini, one: Instance) -> None:
        for _ in range(80):
            await one.ask()
        assert api.count("POST", "cachedContents") == 1
        assert 4 <= api.count("PATCH", "cachedContents/") <= 6
        assert one.explicit.ledger.reserved == pytest.approx(0)
        assert one.explicit.ledger.balance > 0

    against(work)


@pytest.mark.parametrize("gone", [404, 403])
def test_a_cache_that_is_gone_costs_no_answer(gone: int) -> None:
    """The call that notices is sent in full, and another cache is made when that pays."""

    async def work(api: Gemini, one: Instance) -> None:
        for _ in range(8):
            await one.ask()
        api.caches.clear()
        assert not (await one.ask()).cached
        assert not (await one.ask()).cached
        used = [await one.ask() for _ in range(2)]
        assert api.count("POST", "cachedContents") == 2
        assert used[-1].cached

    against(work, gone=gone)


def test_an_unused_cache_is_deleted() -> None:
    """What nobody uses for half of its time is deleted with the next call, of whatever prefix."""

    async def work(api: Gemini, one: Instance) -> None:
        for _ in range(4):
            await one.ask()
        assert api.caches
        api.now += 200
        await one.ask(system="Something else. " * 1_200)
        assert api.count("DELETE", "cachedContents/") == 1
        assert not api.caches

    against(work)


def test_a_cache_that_another_instance_renewed_is_not_deleted() -> None:
    """The store says who was last; only a value that has not changed may be deleted."""

    async def work(api: Gemini, one: Instance, two: Instance) -> None:
        for _ in range(3):
            await one.ask()
            await two.ask()
        for _ in range(20):
            await two.ask()
        await one.ask(system="Something else. " * 1_200)
        assert api.count("DELETE", "cachedContents/") == 0
        assert api.caches

    against(work, instances=2)


def test_a_refused_cache_is_not_asked_for_again_and_again() -> None:
    """A provider that has no caches for a model is asked every ten minutes at most."""

    async def work(api: Gemini, one: Instance) -> None:
        api.refuse = 400
        for _ in range(20):
            await one.ask()
        assert api.count("POST", "cachedContents") == 1
        assert one.explicit.ledger.reserved == 0

    against(work)


def test_a_refusal_of_the_request_itself_is_the_clients() -> None:
    """What is refused with the cache and in full is told to the client, and the cache stays."""

    async def work(api: Gemini, one: Instance) -> None:
        for _ in range(3):
            await one.ask()
        answer = api._generate

        def refuse(_body: Any) -> tuple[int, Any]:
            return 400, {"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "no"}}

        api._generate = refuse
        with pytest.raises(UpstreamRefusedError):
            await one.ask()
        api._generate = answer
        assert (await one.ask()).cached

    against(work)


class Broken(Memory):
    """A store that is down."""

    async def get(self, key: str) -> bytes | None:
        raise StoreError(f"{key}: down")


def test_without_the_store_no_cache_is_made() -> None:
    """Where instances cannot agree, calls are sent in full, and nothing stays reserved."""

    async def work(api: Gemini, one: Instance) -> None:
        for _ in range(5):
            await one.ask()
        assert api.count("POST", "cachedContents") == 0
        assert one.explicit.ledger.reserved == 0

    against(work, store=Broken(MemoryStore()))


def test_no_room_in_the_background_means_no_cache() -> None:
    """Work that is dropped is forgotten, and tried again later."""

    async def work(api: Gemini, one: Instance) -> None:
        await one.ask()
        gate = asyncio.Event()
        for _ in range(MAX_PENDING):
            one.shadow.run(gate.wait())
        asyncio.get_running_loop().call_later(0.05, gate.set)
        await one.ask()
        assert api.count("POST", "cachedContents") == 0
        assert one.explicit.ledger.reserved == 0
        await one.ask()
        assert api.count("POST", "cachedContents") == 1

    against(work)


def test_a_client_of_the_same_format() -> None:
    """A Gemini client's own body loses what the cache holds, in either spelling, and keeps the rest."""

    async def work(_api: Gemini, one: Instance) -> None:
        codec = codec_of("gemini")
        body = (
            b'{"system_instruction": {"parts": [{"text": "%s"}]}, "contents": [{"role": "user",'
            b' "parts": [{"text": "Hi"}]}], "generationConfig": {"temperature": 0.5}}'
        ) % INSTRUCTIONS.encode()
        for number in range(4):
            request, source = codec.read_request(body, MODEL)
            call = Call(request, source, "1", asyncio.get_running_loop().time() + 30, record=Record())
            chunks = [chunk async for chunk in one.model.stream(call)]
            await one.shadow.settle(5)
            assert bool(chunks[-1].usage.cached) is (number > 1)
        assert set(one.api.log[-1][2]) == {"contents", "generationConfig", "cachedContent"}
        own, source = codec.read_request(body[:-1] + b', "cachedContent": "cachedContents/x"}', MODEL)
        assert source.unknown
        call = Call(own, source, "1", 0.0)
        assert one.explicit.apply(call) == (call, None, False)

    against(work)


def test_vertex_addresses() -> None:
    """On Vertex AI caches and models are resources of the project's location."""

    async def scenario() -> None:
        provider = VertexProvider(project="p1", location="europe-west4", api_key="t")
        client = HttpClient()
        api = cached_contents("v", provider, MODEL, client)
        place = "projects/p1/locations/europe-west4"
        assert api.model == f"{place}/publishers/google/models/{MODEL}"
        host = "https://europe-west4-aiplatform.googleapis.com"
        assert api._collection == f"{host}/v1/{place}/cachedContents"
        await client.aclose()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("provider", "name"),
    [
        (GeminiProvider(api_key="k"), "g/*"),
        (GeminiProvider(api_key="k"), "g/gemini-unheard-of"),
        (VertexProvider(project="p", api_key="k"), "g/claude-sonnet-5-5"),
        (AnthropicProvider(), "g/claude-sonnet-5-5"),
    ],
)
def test_who_has_none(provider: Any, name: str) -> None:
    """Without a known price of storage nobody can tell whether a cache pays."""
    rules = rules_of(provider, name.partition("/")[2])
    parts: Any = {"client": None, "store": None, "shadow": None, "savings": None, "ledger": None}
    assert explicit_of(name, provider, "5m", rules, **parts) is None


def test_vertex_has_them() -> None:
    """Gemini on Vertex AI, too; an hour where an hour is configured."""
    provider = VertexProvider(project="p", api_key="k")
    parts: Any = {"client": None, "store": None, "shadow": None, "savings": PrefixSavings()}
    parts["ledger"] = lambda _name: Ledger()
    explicit = explicit_of(f"v/{MODEL}", provider, "1h", rules_of(provider, MODEL), **parts)
    assert explicit is not None
    assert explicit._ttl == 3600
    explicit._paid(1_000_000)
    assert parts["savings"].view()[f"v/{MODEL}"]["saved"] == pytest.approx(-rules_of(provider, MODEL).price)
