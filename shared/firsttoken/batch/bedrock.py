"""Batch inference of Amazon Bedrock: JSON lines in a bucket in, JSON lines in the bucket out.

Sources: AWS's service model ``bedrock`` (2023-04-20), operations ``*ModelInvocationJob``; the Amazon Bedrock
User Guide, "Process multiple prompts with batch inference", its pages on data, jobs and results. Records are
Converse requests. Batch inference with them takes no tools.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import count
from typing import TYPE_CHECKING, cast
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Raw, Struct

from firsttoken.batch.aws import AwsSigner
from firsttoken.batch.batch import Batch, derived
from firsttoken.batch.lines import Line
from firsttoken.batch.link import Link
from firsttoken.batch.openai import is_said, read, read_row
from firsttoken.batch.provider import Ended, Lines, Progress, Result
from firsttoken.batch.translate import UNKNOWN, Translator, key_of, number_of
from firsttoken.errors import UnsupportedFieldError, UpstreamRefusedError
from firsttoken.providers.bedrock import SERVICE
from firsttoken.settings import BedrockProvider
from firsttoken.settings.batch import BedrockBatch as Settings
from firsttoken.wire import codec_of, openai_chat

if TYPE_CHECKING:
    from firsttoken.batch.batches import Batches

HOURS = 24
"""After which a job times out; the least that can be asked for."""
_ENDED: dict[str, Ended] = {
    "Completed": "done",
    "PartiallyCompleted": "expired",
    "Expired": "expired",
    "Failed": "failed",
    "Stopped": "cancelled",
}
_JSON = [("content-type", "application/json")]


class _Job(Struct, frozen=True, rename="camel"):
    job_arn: str
    job_name: str = ""
    status: str = ""
    message: str = ""


class _Page(Struct, frozen=True, rename="camel"):
    invocation_job_summaries: list[_Job] = []


class _Error(Struct, frozen=True, rename="camel"):
    error_code: int = 500
    error_message: str = ""


class _Row(Struct, frozen=True, rename="camel"):
    record_id: str = ""
    model_output: Raw = Raw(b"")
    error: _Error | None = None


class BedrockBatch:
    """One job there. ``base`` and ``s3`` are the addresses of the control plane and of the bucket."""

    partial = False

    def __init__(  # noqa: PLR0913, PLR0917 - two services
        self,
        batch: Batch,
        jobs: Link,
        objects: Link,
        base: str,
        s3: str,
        settings: Settings,
        translator: Translator,
    ) -> None:
        self._batch = batch
        self._jobs = jobs
        self._objects = objects
        self._base = base
        self._s3 = s3
        self._settings = settings
        self._translator = translator
        self._folder = f"{settings.prefix}{batch.id}"

    def check(self, line: Line) -> None:
        """Raise UnsupportedFieldError for what a Converse record has no word for, and for tools."""
        request, _ = openai_chat.read_request(line.body)
        if request.tools:
            message = "tools: batch inference of this target takes none; leave them out."
            raise UnsupportedFieldError(message, param="body.tools")
        self._translator.request(line)

    async def submit(self, lines: Lines) -> str:
        """Put the records into the bucket and make a job of them. Memory: all records.

        The token makes a second request for the same batch no second job.
        """
        rows = [self._row(line) async for line in lines(0)]
        await self._objects.ask("PUT", f"{self._s3}/{self._folder}/input.jsonl", b"".join(rows))
        place = f"s3://{self._settings.bucket}/{self._folder}"
        wanted = {
            "jobName": self._name(),
            "clientRequestToken": derived(self._batch, "job"),
            "roleArn": self._settings.role,
            "modelId": self._translator.model,
            "modelInvocationType": "Converse",
            "inputDataConfig": {
                "s3InputDataConfig": {"s3InputFormat": "JSONL", "s3Uri": f"{place}/input.jsonl"}
            },
            "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": f"{place}/output/"}},
            "timeoutDurationInHours": HOURS,
        }
        url = f"{self._base}/model-invocation-job"
        answer = await self._jobs.ask("POST", url, msgspec.json.encode(wanted), _JSON)
        return str(read(answer.body, _Job).job_arn)

    async def find(self) -> str:
        """Return the handle of the job that has our name."""
        query = urlencode({"maxResults": "10", "nameContains": self._name()})
        answer = await self._jobs.ask("GET", f"{self._base}/model-invocation-jobs?{query}")
        jobs = read(answer.body, _Page).invocation_job_summaries
        return next((str(job.job_arn) for job in jobs if job.job_name == self._name()), "")

    async def poll(self, handle: str) -> Progress:
        """Return how far it is."""
        answer = await self._jobs.ask("GET", self._url(handle))
        job = read(answer.body, _Job)
        return Progress(_ENDED.get(job.status, ""), job.message[:500] or "The provider says no more.")

    async def results(self, handle: str, start: int) -> AsyncGenerator[Result]:
        """Yield what the output says, if there is any."""
        place = count()
        folder = quote(handle.rpartition("/")[2], safe="")
        url = f"{self._s3}/{self._folder}/output/{folder}/input.jsonl.out"
        try:
            async with aclosing(self._objects.lines(url)) as lines:
                async for line in lines:
                    if next(place) >= start:
                        yield self._result(line)
        except UpstreamRefusedError as error:
            if error.status != 404:
                raise

    async def cancel(self, handle: str) -> None:
        """Ask to stop it; one that has ended already is left as it is."""
        try:
            await self._jobs.ask("POST", f"{self._url(handle)}/stop")
        except UpstreamRefusedError:
            if not (await self.poll(handle)).ended:
                raise

    def _url(self, handle: str) -> str:
        return f"{self._base}/model-invocation-job/{quote(handle, safe='')}"

    def _name(self) -> str:
        return f"firsttoken-{derived(self._batch, 'name')}"

    def _row(self, line: Line) -> bytes:
        request = Raw(self._translator.request(line))
        return msgspec.json.encode({"recordId": key_of(line.number), "modelInput": request}) + b"\n"

    def _result(self, line: bytes) -> Result:
        row = read_row(line, _Row)
        number = number_of(row.record_id) if row else UNKNOWN
        if row is None or number == UNKNOWN:
            return Result(UNKNOWN)
        if is_said(row.model_output) and row.error is None:
            return self._translator.answer(number, bytes(row.model_output))
        error = row.error or _Error()
        status = error.error_code if 400 <= error.error_code < 600 else 500
        return self._translator.error(number, status, msgspec.json.encode({"message": error.error_message}))


def create(batches: Batches, batch: Batch) -> BedrockBatch:
    """Return a job at a Bedrock provider."""
    name, _, model = batch.target.partition("/")
    provider = cast("BedrockProvider", batches.settings.providers[name])
    settings, region = batches.own.bedrock[name], provider.region
    codec = codec_of("bedrock")
    base = settings.endpoint.rstrip("/") or f"https://bedrock.{region}.amazonaws.com"
    s3 = settings.s3_endpoint.rstrip("/") or f"https://s3.{region}.amazonaws.com"
    jobs = Link(batches.client, codec, AwsSigner(SERVICE, region).sign)
    objects = Link(batches.client, codec, AwsSigner("s3", region).sign)
    bucket = f"{s3}/{settings.bucket}"
    return BedrockBatch(batch, jobs, objects, base, bucket, settings, Translator(batch, codec, model))
