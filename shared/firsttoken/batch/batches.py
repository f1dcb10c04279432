"""Batches as the rest of the product sees them: create, fetch, list, cancel; `tick` moves them on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec.structs import replace

from firsttoken import config
from firsttoken.batch.batch import Batch, new_id
from firsttoken.batch.book import Book
from firsttoken.batch.files import Files
from firsttoken.batch.listing import Listing
from firsttoken.cache.crypto import seal_of
from firsttoken.errors import ConfigError, NotFoundError, RequestError
from firsttoken.objects.objects import Objects
from firsttoken.settings import Route, Settings
from firsttoken.stores.store import Store

if TYPE_CHECKING:
    from firsttoken.batch.local import Stream
    from firsttoken.gateway import Gateway
    from firsttoken.jobs.jobs import Jobs
    from firsttoken.providers.http import HttpClient

LISTED = 500
"""Batches of a tenant that can be listed: the latest ones."""
KINDS = ("openai", "azure", "gemini", "bedrock")
"""Kinds of providers whose batch API is known here."""


class Batches:
    """All batches of a deployment. Every method may raise StoreError. Holds no state but the store's."""

    def __init__(  # noqa: PLR0913, PLR0917 - what a batch needs of the gateway
        self,
        settings: Settings,
        store: Store,
        objects: Objects,
        client: HttpClient,
        stream: Stream,
        jobs: Jobs | None,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        own = self.own = settings.batch
        self.settings = settings
        self.store = store
        self.client = client
        self.stream = stream
        self.jobs = jobs
        self.wall = wall
        seal = seal_of(config.secret(settings.jobs.encryption_key, "jobs.encryption_key"), "")
        self.files = Files(store, objects, own, seal, wall)
        self.book = Book(store, own.keep)
        self.open = Listing(store, "batches-open", own.max_open, own.keep)
        """``ID TENANT`` of each batch that has no end yet."""

    async def create(
        self, tenant: str, input_file: str, metadata: dict[str, str] | None, keep: float = 0.0
    ) -> Batch:
        """Make a batch of a file. Raises RequestError where there is no such file, or too much is open."""
        file = await self.files.get(tenant, input_file)
        if file is None or file.purpose != "batch":
            message = f"input_file_id: there is no file {input_file[:80]!r} with the purpose batch."
            raise RequestError(message, param="input_file_id", code="invalid_input_file")
        now, own = self.wall(), self.own
        batch = Batch(
            id=new_id(),
            tenant=tenant,
            input_file=input_file,
            input_parts=file.parts,
            created=now,
            expires=now + own.window,
            metadata=metadata,
            keep=keep,
        )
        await self.book.create(batch)
        if not await self.open.add(f"{batch.id} {tenant}", fits=self._has_room(tenant)):
            await self.book.take_back(batch)
            most = f"expected at most {own.max_open_tenant} of yours, {own.max_open} of all"
            message = f"Too many batches have no end yet; {most}. Try again when one has."
            raise RequestError(message, code="too_many_batches")
        await self._list(tenant).add(batch.id, push=True)
        return batch

    async def get(self, tenant: str, name: str) -> Batch:
        """Return a batch. Raises NotFoundError."""
        return _found(await self.book.find(tenant, name), name)

    async def listed(self, tenant: str, after: str, limit: int) -> tuple[list[Batch], bool]:
        """Return up to ``limit`` batches behind ``after``, newest first, and whether there are more."""
        names = (await self._list(tenant).names())[::-1]
        if after:
            if after not in names:
                message = f"after: there is no batch {after[:80]!r}."
                raise RequestError(message, param="after", code="invalid_value")
            names = names[names.index(after) + 1 :]
        return await self.book.find_many(tenant, names[:limit]), len(names) > limit

    async def cancel(self, tenant: str, name: str) -> Batch:
        """Have a batch stopped. Raises NotFoundError, and RequestError where it has its results already."""

        def step(batch: Batch) -> Batch | None:
            if batch.state not in ("validating", "in_progress"):
                return None
            return replace(batch, state="cancelling", cancelling=self.wall())

        batch = _found(await self.book.change(tenant, name, step), name)
        if batch.state not in ("cancelling", "cancelled"):
            message = f"The batch {batch.id} is {batch.state}; only one that is in progress can be cancelled."
            raise RequestError(message, code="batch_not_cancellable")
        return batch

    async def delete_file(self, tenant: str, file_id: str) -> bool:
        """Delete a file; say whether there was one. Raises RequestError where a batch at work needs it."""
        open_names = [name.partition(" ") for name in await self.open.names()]
        mine = [batch_id for batch_id, _, owner in open_names if owner == tenant]
        for batch in await self.book.find_many(tenant, mine):
            if batch.input_file == file_id and not batch.is_final:
                message = f"The batch {batch.id} still needs this file; cancel it first, or wait for its end."
                raise RequestError(message, code="file_in_use")
        return await self.files.delete(tenant, file_id)

    def target_of(self, model: str, lines: int) -> str:
        """Return the target whose own batch API answers so many lines for a model; empty where we do.

        Raises NotFoundError where no route has the name.
        """
        route = self._route(model)
        for item in route.all_targets():
            name = item.target.partition("/")[0]
            s3 = self.own.bedrock.get(name)
            if name in self.own.providers and (s3 is None or lines >= s3.minimum):
                return item.target
        return ""

    def _has_room(self, tenant: str) -> Callable[[list[str]], bool]:
        """Return what says whether another batch of a tenant may join the open ones."""

        def fits(names: list[str]) -> bool:
            return [name.partition(" ")[2] for name in names].count(tenant) < self.own.max_open_tenant

        return fits

    def _route(self, model: str) -> Route:
        route = self.settings.models.get(model) or self.settings.models.get("*")
        if route is None:
            known = ", ".join(sorted(self.settings.models))
            message = f"body.model: {model!r} does not exist here; expected one of {known}."
            raise NotFoundError(message, param="body.model", code="model_not_found")
        return route

    def _list(self, tenant: str) -> Listing:
        return Listing(self.store, f"batches:{tenant}", LISTED, self.own.keep)


def batches_of(gateway: Gateway) -> Batches:
    """Return the batches of a gateway. Costs nothing worth keeping. Raises ConfigError."""
    settings = gateway.settings
    for name in settings.batch.providers:
        provider = settings.providers.get(name)
        kind = provider and str(provider.__struct_config__.tag)
        if kind not in KINDS:
            raise ConfigError(f"batch.providers: {name!r} is no provider of kind {', '.join(KINDS)}")
        if kind == "bedrock" and name not in settings.batch.bedrock:
            raise ConfigError(f"batch.bedrock.{name}: expected a section with bucket and role")
    return Batches(
        settings,
        gateway.store,
        gateway.objects,
        gateway._client,  # noqa: SLF001 - one pool of connections for all
        gateway.stream,
        gateway.jobs,
    )


def _found(batch: Batch | None, name: str) -> Batch:
    if batch is None:
        raise NotFoundError(f"There is no batch {name[:80]!r}.", code="batch_not_found")
    return batch
