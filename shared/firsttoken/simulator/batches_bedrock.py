"""A fake of Amazon Bedrock's ``*ModelInvocationJob`` operations, over a bucket that is given to it.

Statuses, names and files are those of AWS's service model and User Guide: the output is
``{s3Uri}{job id}/{input}.out``, beside it ``manifest.json.out``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from itertools import count
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from firsttoken.simulator.batches import Ask, Asked, Bucket, Item, Reply, Work, json_reply, keep, message_of
from firsttoken.simulator.profile import Profile

_JOB = re.compile(r"/model-invocation-job(?:/(arn:.+?)(/stop)?)?")  # an ARN has slashes
_JOBS = "/model-invocation-jobs"
_ROLE = re.compile(r"arn:aws(-[^:]+)?:iam::([0-9]{12})?:role/.+")
_NAME = re.compile(r"[a-zA-Z0-9]{1,63}(-*[a-zA-Z0-9+\-.]){0,63}")
_S3 = re.compile(r"s3://([a-z0-9][-.a-z0-9]{1,61}[a-z0-9])/(.+)")
_STATUS = {
    "waiting": "Submitted",
    "running": "InProgress",
    "cancelling": "Stopping",
    "done": "Completed",
    "expired": "PartiallyCompleted",
    "cancelled": "Stopped",
    "failed": "Failed",
}


class BedrockBatches:
    """All jobs of one account."""

    def __init__(self, ask: Ask, profile: Callable[[], Profile], bucket: Bucket) -> None:
        self._ask = ask
        self._profile = profile
        self._bucket = bucket
        self._jobs: dict[str, Work] = {}
        self._numbers = count(1)

    async def answer(self, asked: Asked) -> Reply | None:
        """Answer a request for one of the paths of this API, or return None for another one."""
        if asked.path == _JOBS:
            part = asked.query.get("nameContains", "")
            listed = [_shown(work) for work in self._jobs.values() if part in work.name]
            return json_reply({"invocationJobSummaries": listed})
        found = _JOB.fullmatch(unquote(asked.path))
        if found is None:
            return None
        if not found[1]:
            return self._create(msgspec.json.decode(asked.body))
        return await self._one(found[1], stop=bool(found[2]))

    async def _one(self, arn: str, *, stop: bool) -> Reply:
        work = self._jobs.get(arn)
        if work is None:
            return _error(404, "ResourceNotFoundException", "The job does not exist.")
        if not stop:
            await self._look(work)
            return json_reply(_shown(work))
        if work.ended:
            return _error(409, "ConflictException", "The job has ended.")
        work.cancel()
        return json_reply({})

    def _create(self, wanted: dict[str, Any]) -> Reply:
        for work in self._jobs.values():
            if (
                wanted.get("clientRequestToken")
                and work.about["clientRequestToken"] == wanted["clientRequestToken"]
            ):
                return json_reply({"jobArn": work.id})
        source = _S3.fullmatch(wanted["inputDataConfig"]["s3InputDataConfig"]["s3Uri"])
        sink = _S3.fullmatch(wanted["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"])
        named = _NAME.fullmatch(wanted["jobName"]) and _ROLE.fullmatch(wanted["roleArn"])
        if not (source and sink and named):
            return _error(400, "ValidationException", "A name, role or S3 URI is wrong.")
        arn = f"arn:aws:bedrock:us-east-1:123456789012:model-invocation-job/{next(self._numbers):012d}"
        about = {**wanted, "source": source.groups(), "sink": sink.groups(), "at": time.time()}
        keep(self._jobs, arn, Work(arn, wanted["jobName"], [], about))
        return json_reply({"jobArn": arn})

    async def _look(self, work: Work) -> None:
        if work.ended:
            return
        if not work.items and not await self._read(work):
            work.state = "failed"
            work.about["message"] = "The input cannot be read, or a record is wrong."
            return
        await work.look(self._ask, self._profile())
        if work.ended:
            await self._write(work)

    async def _read(self, work: Work) -> bool:
        data = await self._bucket.get(*work.about["source"])
        converse = work.about.get("modelInvocationType") == "Converse"
        if not data or not converse:
            return False
        path = f"/model/{quote(work.about['modelId'], safe='')}/converse"
        try:
            rows = [msgspec.json.decode(raw) for raw in data.splitlines()]
            work.items = [Item(row["recordId"], path, msgspec.json.encode(row["modelInput"])) for row in rows]
        except (msgspec.DecodeError, KeyError, TypeError):
            return False
        return True

    async def _write(self, work: Work) -> None:
        rows, good, bad = [], 0, 0
        for item in work.items:
            row: dict[str, Any] = {"recordId": item.key, "modelInput": msgspec.Raw(item.body)}
            if item.status == 200:
                good += 1
                rows.append({**row, "modelOutput": msgspec.Raw(item.answer)})
            elif item.status:
                bad += 1
                error = {"errorCode": item.status, "errorMessage": message_of(item.answer)}
                rows.append({**row, "error": error})
        bucket, prefix = work.about["sink"]
        folder = f"{prefix.rstrip('/')}/{work.id.rpartition('/')[2]}"
        name = work.about["source"][1].rpartition("/")[2]
        output = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
        await self._bucket.put(bucket, f"{folder}/{name}.out", output)
        manifest = {
            "totalRecordCount": len(work.items),
            "processedRecordCount": good + bad,
            "successRecordCount": good,
            "errorRecordCount": bad,
        }
        await self._bucket.put(bucket, f"{folder}/manifest.json.out", msgspec.json.encode(manifest))


def _shown(work: Work) -> dict[str, Any]:
    given = ("jobName", "modelId", "roleArn", "clientRequestToken", "inputDataConfig", "outputDataConfig")
    return {
        "jobArn": work.id,
        **{name: work.about[name] for name in given if name in work.about},
        "status": _STATUS[work.state],
        "message": work.about.get("message", ""),
        "submitTime": work.about["at"],
    }


def _error(status: int, kind: str, message: str) -> Reply:
    reply = json_reply({"message": message}, status)
    return msgspec.structs.replace(reply, headers={**reply.headers, "x-amzn-errortype": kind})
