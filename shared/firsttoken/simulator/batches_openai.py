"""OpenAI's Files and Batch API, simulated: what the official SDK and a gateway need of it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from email.parser import BytesParser
from email.policy import HTTP
from itertools import count
from typing import Any

import msgspec

from firsttoken.simulator.batches import Ask, Asked, Item, Reply, Work, json_reply, keep
from firsttoken.simulator.profile import Profile

_FILES = re.compile(r"/v1/files(?:/([^/]+)(/content)?)?")
_BATCHES = re.compile(r"/v1/batches(?:/([^/]+)(/cancel)?)?")
_STATUS = {"waiting": "validating", "running": "in_progress", "done": "completed"}


class OpenAIBatches:
    """All files and batches of one provider."""

    def __init__(self, ask: Ask, profile: Callable[[], Profile]) -> None:
        self._ask = ask
        self._profile = profile
        self._files: dict[str, tuple[dict[str, Any], bytes]] = {}
        self._batches: dict[str, Work] = {}
        self._numbers = count(1)

    async def answer(self, asked: Asked) -> Reply | None:
        """Answer a request for one of the paths of this API, or return None for another one."""
        if found := _FILES.fullmatch(asked.path):
            return self._file(asked, found[1] or "", content=bool(found[2]))
        if found := _BATCHES.fullmatch(asked.path):
            return await self._batch(asked, found[1] or "", cancel=bool(found[2]))
        return None

    def _file(self, asked: Asked, name: str, *, content: bool) -> Reply:
        if asked.method == "POST" and not name:
            return self._upload(asked)
        if not name:
            return json_reply({"object": "list", "data": [about for about, _ in self._files.values()]})
        if name not in self._files:
            return _error(404, f"No such File object: {name}")
        about, data = self._files[name]
        if asked.method == "DELETE":
            del self._files[name]
            return json_reply({"id": name, "object": "file", "deleted": True})
        return (
            Reply(200, data, {"content-type": "application/octet-stream"}) if content else json_reply(about)
        )

    def _upload(self, asked: Asked) -> Reply:
        head = f"content-type: {asked.headers.get('content-type', '')}\r\n\r\n".encode()
        form = BytesParser(policy=HTTP).parsebytes(head + asked.body)
        parts = {part.get_param("name", header="content-disposition"): part for part in form.iter_parts()}
        if {"file", "purpose"} - set(parts):
            return _error(400, "'file' and 'purpose' are required properties")
        data = parts["file"].get_payload(decode=True)
        purpose = parts["purpose"].get_payload(decode=True)
        if not isinstance(data, bytes) or purpose != b"batch":
            return _error(400, "'purpose' must be 'batch' here")
        return json_reply(self._keep_file(data, parts["file"].get_filename() or "file", "batch"))

    def _keep_file(self, data: bytes, filename: str, purpose: str) -> dict[str, Any]:
        about = {
            "id": f"file-simulated{next(self._numbers)}",
            "object": "file",
            "bytes": len(data),
            "created_at": int(time.time()),
            "filename": filename,
            "purpose": purpose,
            "status": "processed",
        }
        keep(self._files, str(about["id"]), (about, data))
        return about

    async def _batch(self, asked: Asked, name: str, *, cancel: bool) -> Reply:
        if asked.method == "POST" and not name:
            return self._create(msgspec.json.decode(asked.body))
        if not name:
            return self._listed(asked)
        work = self._batches.get(name)
        if work is None:
            return _error(404, f"No batch found with id '{name}'.")
        if cancel:
            if work.ended:
                return _error(409, f"Cannot cancel a batch with status '{work.state}'.")
            work.cancel()
        else:
            await work.look(self._ask, self._profile())
            if work.ended and not work.files:
                self._write(work)
        return json_reply(self._shown(work))

    def _create(self, wanted: dict[str, Any]) -> Reply:
        _, data = self._files.get(wanted.get("input_file_id", ""), ({}, b""))
        if not data:
            return _error(400, "Invalid 'input_file_id'")
        work = Work(f"batch_simulated{next(self._numbers)}", wanted["input_file_id"], [], wanted)
        seen: set[str] = set()
        for raw in data.splitlines():
            row = msgspec.json.decode(raw)
            path = row["url"] if row["url"].startswith("/v1/") else f"/v1{row['url']}"
            wrong = row["url"] != wanted["endpoint"] or row["method"] != "POST" or row["custom_id"] in seen
            if wrong:
                work.state = "failed"
            seen.add(row["custom_id"])
            work.items.append(Item(row["custom_id"], path, msgspec.json.encode(row["body"])))
        keep(self._batches, work.id, work)
        return json_reply(self._shown(work))

    def _listed(self, asked: Asked) -> Reply:
        works = list(self._batches.values())[::-1]
        if after := asked.query.get("after"):
            works = works[[work.id for work in works].index(after) + 1 :]
        limit = int(asked.query.get("limit", "20"))
        rows = [self._shown(work) for work in works[:limit]]
        return json_reply({"object": "list", "data": rows, "has_more": len(works) > limit})

    def _write(self, work: Work) -> None:
        """Write both files of a batch that has ended, in reverse order: it is not that of the input."""
        good, bad = b"", b""
        for item in reversed(work.items):
            row: dict[str, Any] = {
                "id": f"batch_req_{item.key}",
                "custom_id": item.key,
                "response": None,
                "error": None,
            }
            if item.status:
                body = msgspec.json.decode(item.answer)
                row["response"] = {"status_code": item.status, "request_id": "req_simulated", "body": body}
            elif work.state == "expired":
                message = "This request could not be executed before the completion window expired."
                row["error"] = {"code": "batch_expired", "message": message}
            else:
                continue
            line = msgspec.json.encode(row) + b"\n"
            good, bad = (good + line, bad) if item.status == 200 else (good, bad + line)
        for which, data in (("output_file_id", good), ("error_file_id", bad)):
            if data:
                work.files[which] = self._keep_file(data, f"{work.id}.jsonl", "batch_output")["id"]

    def _shown(self, work: Work) -> dict[str, Any]:
        failed = {"object": "list", "data": [{"code": "invalid", "message": "A line is wrong.", "line": 1}]}
        answered = [item.status for item in work.items if item.status]
        good = answered.count(200)
        counts = {"total": len(work.items), "completed": good, "failed": len(answered) - good}
        return {
            "id": work.id,
            "object": "batch",
            "endpoint": work.about["endpoint"],
            "errors": failed if work.state == "failed" else None,
            "input_file_id": work.name,
            "completion_window": work.about["completion_window"],
            "status": _STATUS.get(work.state, work.state),
            "output_file_id": work.files.get("output_file_id"),
            "error_file_id": work.files.get("error_file_id"),
            "created_at": 1,
            "request_counts": counts,
            "metadata": work.about.get("metadata"),
        }


def _error(status: int, message: str) -> Reply:
    said = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return json_reply({"error": said}, status)
