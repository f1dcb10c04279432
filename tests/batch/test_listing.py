"""Lists of names in the store, which many change at the same time."""

from __future__ import annotations

import asyncio

from batch.batching import TENANT, batches_with, requests, settings_of
from jobs.world import Fault, Faulty
from virtual_time import run, wall

from firsttoken.batch.listing import Listing
from firsttoken.errors import RequestError, StoreError
from firsttoken.gateway import Gateway
from firsttoken.settings import Batch as BatchSettings
from firsttoken.settings import MemoryStore as StoreSettings
from firsttoken.stores.memory import MemoryStore


def shared_store() -> Faulty:
    """Return a store whose every operation lets others go first."""
    return Faulty(MemoryStore(StoreSettings()), Fault(10**9, "error"), StoreError)


def test_many_who_add_at_once_all_succeed() -> None:
    """Those who come second wait for a moment, ever longer, and try again."""

    async def within() -> None:
        listing = Listing(shared_store(), "list", 100, 60.0)  # type: ignore[arg-type]
        names = [f"name-{number}" for number in range(50)]
        assert all(await asyncio.gather(*[listing.add(name) for name in names]))
        assert sorted(await listing.names()) == sorted(names)
        await asyncio.gather(*[listing.remove({name}) for name in names])
        assert await listing.names() == []

    run(within())


def test_a_tenant_has_no_more_open_batches_however_it_asks() -> None:
    """Not by asking for many at the same moment either: the list is everybody's."""

    async def within() -> None:
        gateway = Gateway(settings_of(batch=BatchSettings(max_open_tenant=3)))
        batches = batches_with(gateway, wall, store=shared_store())
        file = await batches.files.create(TENANT, "x", "batch", requests(1))
        asked = [batches.create(TENANT, file.id, None) for _ in range(20)]
        made = await asyncio.gather(*asked, return_exceptions=True)
        refused = [one for one in made if isinstance(one, RequestError)]
        assert (len(made) - len(refused), len(await batches.open.names())) == (3, 3)
        assert {one.code for one in refused} == {"too_many_batches"}
        await gateway.aclose()

    run(within())
