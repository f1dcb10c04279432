"""One invocation as an ASGI conversation: the app's ``receive`` and ``send`` over the Runtime API.

A streamed answer goes out as one socket write per body message; a buffered one is posted when it is complete.
"""

from __future__ import annotations

import asyncio

from firsttoken.runtimes.asgi import Message
from firsttoken.runtimes.aws_api import LAST_CHUNK, Reply, RuntimeApi, RuntimeApiError, chunk, trailers
from firsttoken.runtimes.aws_events import HttpRequest, prelude, proxy_response


class IncompleteAnswerError(RuntimeError):
    """The app returned before it completed its answer."""


class Exchange:
    """The two ends that an app is called with, and what became of its answer."""

    def __init__(self, api: RuntimeApi, invocation_id: str, request: HttpRequest) -> None:
        self._api = api
        self._id = invocation_id
        self._request = request
        self._body: bytes | None = request.body
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._collected: list[bytes] = []
        self._begun = False
        self._complete = False
        # Nothing arrives here before our answer is complete; anything that does is the end of it.
        self._reply = asyncio.ensure_future(api.reply())

    async def receive(self) -> Message:
        """Hand over the request's body, then wait for the end of the answer or of the client's interest."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await asyncio.wait(
            {self._reply}
        )  # unlike awaiting it, this leaves it running when the app stops waiting
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Take one message of the answer; it is dropped when nobody reads it any more."""
        if message["type"] == "http.response.start":
            self._status, self._headers = message["status"], list(message.get("headers", ()))
            return
        if message["type"] != "http.response.body" or self._complete:
            return
        if not self._status:
            raise RuntimeError("the app sent a body before its status")
        if self._reply.done():
            return  # the app learns from `receive` that nobody reads this
        more = message.get("more_body", False)
        if self._request.streams:
            self._api.write(self._frame(message.get("body", b""), more=more))
            self._begun = True
            self._complete = not more
            await self._drain()
        else:
            self._collect(message.get("body", b""), more=more)

    async def finish(self, error: BaseException | None) -> Reply | None:
        """Complete the exchange after the app ended; return the Runtime API's reply, or None if it is gone.

        An app that fails before its first byte fails the invocation; later, its stream ends in trailers.
        """
        if error is None and not self._complete:
            error = IncompleteAnswerError("the app returned before it completed its answer")
        if error is not None and not self._complete and not self._reply.done():
            if self._begun:
                self._api.write(trailers(error))
            else:
                self._api.post_error(self._id, error)
        try:
            return await self._reply
        except RuntimeApiError:
            return None

    def abandon(self) -> None:
        """Stop reading: this process is about to end."""
        self._reply.cancel()

    @property
    def client_gone(self) -> bool:
        """Whether the answer ended before it was complete."""
        return self._reply.done() and not self._complete

    async def _drain(self) -> None:
        try:
            await self._api.drain()
        except ConnectionError:
            await asyncio.wait({self._reply})

    def _frame(self, body: bytes, *, more: bool) -> bytes:
        if not self._begun:
            body = prelude(self._status, self._headers) + body
        framed = chunk(body) if body else b""
        if not self._begun:
            framed = self._api.stream_head(self._id) + framed
        return framed if more else framed + LAST_CHUNK

    def _collect(self, body: bytes, *, more: bool) -> None:
        self._collected.append(body)
        if more:
            return
        whole = b"".join(self._collected)
        multi_value = self._request.multi_value
        self._api.post_response(
            self._id, proxy_response(self._status, self._headers, whole, multi_value=multi_value)
        )
        self._complete = True
