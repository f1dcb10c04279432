"""Gemini's Files and Batch API, simulated: uploads in two requests, files of requests and of answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import count
from typing import Any

import msgspec

from firsttoken.simulator.batches import Ask, Asked, Item, Reply, Work, json_reply, keep, message_of
from firsttoken.simulator.profile import Profile

_UPLOAD = re.compile(r"/upload/v1(?:beta)?/files")
_DOWNLOAD = re.compile(r"/v1(?:beta)?/(files/[^/:]+):download")
_CREATE = re.compile(r"/v1(?:beta)?/models/([^/:]+):batchGenerateContent")
_BATCHES = re.compile(r"/v1(?:beta)?/batches(?:/([^/:]+)(:cancel)?)?")
_STATE = {
    "waiting": "PENDING",
    "running": "RUNNING",
    "cancelling": "RUNNING",
    "done": "SUCCEEDED",
    "expired": "EXPIRED",
    "cancelled": "CANCELLED",
    "failed": "FAILED",
}


class GeminiBatches:
    """All files and batches of one provider."""

    def __init__(self, ask: Ask, profile: Callable[[], Profile]) -> None:
        self._ask = ask
        self._profile = profile
        self._files: dict[str, bytes] = {}
        self._batches: dict[str, Work] = {}
        self._numbers = count(1)

    async def answer(self, asked: Asked) -> Reply | None:
        """Answer a request for one of the paths of this API, or return None for another one."""
        if _UPLOAD.fullmatch(asked.path):
            return self._upload(asked)
        if found := _DOWNLOAD.fullmatch(asked.path):
            if found[1] not in self._files:
                return _error(404, "NOT_FOUND", "File not found.")
            return Reply(200, self._files[found[1]], {"content-type": "application/octet-stream"})
        if found := _CREATE.fullmatch(asked.path):
            return self._create(found[1], msgspec.json.decode(asked.body))
        if found := _BATCHES.fullmatch(asked.path):
            return await self._batch(found[1] or "", cancel=bool(found[2]))
        return None

    def _upload(self, asked: Asked) -> Reply:
        command = asked.headers.get("x-goog-upload-command", "")
        if command == "start":
            host, name = asked.headers.get("host", ""), f"simulated{next(self._numbers)}"
            place = f"http://{host}{asked.path}?upload_id={name}"
            return Reply(200, b"", {"x-goog-upload-url": place, "x-goog-upload-status": "active"})
        if "finalize" not in command or "upload_id" not in asked.query:
            return _error(400, "INVALID_ARGUMENT", "Expected an upload that was started.")
        name = f"files/{asked.query['upload_id']}"
        keep(self._files, name, asked.body)
        reply = json_reply({"file": {"name": name, "sizeBytes": str(len(asked.body)), "state": "ACTIVE"}})
        return msgspec.structs.replace(reply, headers={**reply.headers, "x-goog-upload-status": "final"})

    def _create(self, model: str, wanted: dict[str, Any]) -> Reply:
        batch = wanted.get("batch", {})
        data = self._files.get(batch.get("inputConfig", {}).get("fileName", ""))
        if data is None or not batch.get("displayName"):
            return _error(400, "INVALID_ARGUMENT", "Expected a displayName and an input file that is there.")
        path = f"/v1beta/models/{model}:generateContent"
        rows = [msgspec.json.decode(raw) for raw in data.splitlines()]
        items = [Item(row["key"], path, msgspec.json.encode(row["request"])) for row in rows]
        work = Work(f"batches/simulated{next(self._numbers)}", batch["displayName"], items, {"model": model})
        keep(self._batches, work.id, work)
        return json_reply(_shown(work))

    async def _batch(self, name: str, *, cancel: bool) -> Reply:
        if not name:
            return json_reply({"operations": [_shown(work) for work in reversed(self._batches.values())]})
        work = self._batches.get(f"batches/{name}")
        if work is None:
            return _error(404, "NOT_FOUND", "Batch not found.")
        if cancel:
            if work.ended:
                return _error(400, "FAILED_PRECONDITION", "The batch has ended.")
            work.cancel()
            return json_reply({})
        await work.look(self._ask, self._profile())
        if work.ended and not work.files:
            self._write(work)
        return json_reply(_shown(work))

    def _write(self, work: Work) -> None:
        rows = []
        for item in work.items:
            if item.status == 200:
                rows.append({"key": item.key, "response": msgspec.json.decode(item.answer)})
            elif item.status:
                error = {"code": 3 if item.status == 400 else 13, "message": message_of(item.answer)}
                rows.append({"key": item.key, "error": error})
        name = f"files/{work.id.rpartition('/')[2]}-answers"
        if rows:
            work.files["answers"] = name
            keep(self._files, name, b"".join(msgspec.json.encode(row) + b"\n" for row in rows))


def _shown(work: Work) -> dict[str, Any]:
    output = {"responsesFile": work.files["answers"]} if work.files else {}
    shown: dict[str, Any] = {
        "name": work.id,
        "metadata": {
            "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
            "model": f"models/{work.about['model']}",
            "displayName": work.name,
            "state": f"BATCH_STATE_{_STATE[work.state]}",
            "output": output,
        },
    }
    if work.ended:
        shown["done"] = True
        shown["response"] = output
    return shown


def _error(status: int, word: str, message: str) -> Reply:
    return json_reply({"error": {"code": status, "message": message, "status": word}}, status)
