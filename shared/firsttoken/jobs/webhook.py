"""Signed webhooks: how a client hears that its job is finished, and how it knows that we said so.

Headers and signature are those of Standard Webhooks (https://www.standardwebhooks.com): any of its libraries
verifies them. The address comes from a client, so it is looked up first, and only public addresses are
connected to - those very addresses, whatever the name says a moment later. Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from msgspec import Struct

from firsttoken.config import secret
from firsttoken.errors import ConfigError, FirstTokenError, RequestError, UpstreamConnectError
from firsttoken.jobs.job import Job
from firsttoken.providers.http import HttpClient, Timeouts
from firsttoken.providers.http_request import split_url
from firsttoken.settings import Webhook

MAX_URL = 2048
FIRST_DELAY, GROWTH, LONGEST_DELAY = 5.0, 5.0, 3600.0
LOOKUPS = 4
"""Hosts that are looked up at once, in threads of their own: a slow name must not keep targets waiting."""
_MIN_SECRET_BYTES = 16
_AZURE_PLATFORM = IPv4Address("168.63.129.16")
"""Public by its number, and yet the platform's own inside of Azure."""
_PROTOCOLS = IPv4Network("192.0.0.0/24")
"""For protocols, and a cloud's metadata; older Pythons take some of it for public."""
_UNICAST = IPv6Network("2000::/3")
"""What IPv6 hosts on the internet have; elsewhere are old and local forms that ``is_global`` may not know."""
_TRANSLATED = IPv6Network("64:ff9b::/96")
"""IPv4 behind a translator (NAT64): the address within is the one that counts."""


class Delivered(Struct, frozen=True):
    """What came of one delivery."""

    ok: bool
    why: str = ""
    final: bool = False
    """Whether another try would end the same way."""


class Webhooks:
    """Sends webhooks, one connection each: receivers are many, and seldom called twice in a minute."""

    def __init__(self, settings: Webhook, *, clock: Callable[[], float] = time.time) -> None:
        """Read the secrets. Raises ConfigError when one cannot be used."""
        self._settings = settings
        self._secrets = [_key(one) for one in secret(settings.secret, "webhook.secret").split()]
        self._client = HttpClient(max_idle=0, resolve=self._resolve)
        self._threads: ThreadPoolExecutor | None = None
        self._clock = clock

    @property
    def enabled(self) -> bool:
        """Return whether there is a secret to sign with."""
        return bool(self._secrets)

    def check(self, url: str) -> None:
        """Raise RequestError when ``url`` is no address that a webhook may have, as far as is known now."""
        plain = self._settings.allow_private
        try:
            (scheme, host, _), _, _ = split_url(url)
        except RequestError:
            scheme = host = ""
        if len(url) > MAX_URL or scheme not in (("http", "https") if plain else ("https",)):
            expected = "an http:// or https://" if plain else "an https://"
            message = f"The webhook is {url[:80]!r}; expected {expected} URL of at most {MAX_URL} characters."
            raise RequestError(message, param="webhook", code="invalid_value")
        if not self.enabled:
            message = "This server sends no webhooks: it has no secret to sign them with (webhook.secret)."
            raise RequestError(message, param="webhook", code="unsupported_value")
        try:
            literal = ip_address(host.strip("[]"))
        except ValueError:
            return
        if not plain and not is_public(literal):
            message = f"The webhook's address {host} is not public; expected one on the internet."
            raise RequestError(message, param="webhook", code="invalid_value")

    async def deliver(self, job: Job) -> Delivered:
        """Tell the job's client its state, once; never raises but for a cancelled task."""
        name = f"{job.id}.{job.state}"
        body = json.dumps(payload(job), separators=(",", ":")).encode()
        headers = [("content-type", "application/json"), *self.sign(name, body)]
        seconds = self._settings.timeout
        timeouts = Timeouts(connect=seconds, first_byte=seconds, gap=seconds)
        deadline = asyncio.get_running_loop().time() + seconds
        try:
            self.check(job.webhook)
            response = await self._client.request(
                "POST", job.webhook, headers=headers, body=body, timeouts=timeouts, deadline=deadline
            )
        except RequestError as error:
            return Delivered(ok=False, why=str(error), final=True)
        except FirstTokenError as error:
            return Delivered(ok=False, why=str(error))
        response.close()
        if 200 <= response.status < 300:
            return Delivered(ok=True)
        gone = response.status == 410 or 300 <= response.status < 400
        told = "a redirect, which is not followed" if 300 <= response.status < 400 else "no success"
        return Delivered(ok=False, why=f"the receiver answered {response.status}: {told}", final=gone)

    def sign(self, name: str, body: bytes) -> list[tuple[str, str]]:
        """Return the headers that name and sign ``body``; each secret makes a signature of its own."""
        stamp = str(int(self._clock()))
        signed = b"%s.%s.%s" % (name.encode(), stamp.encode(), body)
        sums = [base64.b64encode(hmac.digest(key, signed, "sha256")).decode() for key in self._secrets]
        signatures = " ".join(f"v1,{one}" for one in sums)
        return [("webhook-id", name), ("webhook-timestamp", stamp), ("webhook-signature", signatures)]

    async def aclose(self) -> None:
        """Close what is open."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False)
        await self._client.aclose()

    async def _resolve(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses of a host. Raises RequestError when one of them is not public."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(LOOKUPS, "firsttoken-webhook")
        ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        try:
            infos = await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        except (OSError, UnicodeError) as error:
            raise UpstreamConnectError("the webhook's host cannot be looked up") from error
        found = list(dict.fromkeys(str(info[4][0]) for info in infos))
        private = [one for one in found if not is_public(ip_address(one.partition("%")[0]))]
        if private and not self._settings.allow_private:
            raise RequestError(f"the webhook's host {host} is at {private[0]}, which is not public: refused")
        return found


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Return whether an address is one on the internet, looking through IPv4 within IPv6."""
    if isinstance(address, IPv4Address):
        ours = address == _AZURE_PLATFORM or address in _PROTOCOLS
        return address.is_global and not address.is_multicast and not ours
    inner = address.ipv4_mapped
    if inner is None and address in _TRANSLATED:
        inner = IPv4Address(int(address) & 0xFFFFFFFF)
    if inner is not None:
        return is_public(inner)
    tunnelled = address.sixtofour is not None or address.teredo is not None
    return address in _UNICAST and address.is_global and not tunnelled


def payload(job: Job) -> dict[str, object]:
    """Return what a webhook says: which job ended, and how; the answer is fetched with the client's key."""
    ended = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(job.finished))
    name = f"resp_{job.id.removeprefix('job_')}" if job.background else job.id
    data = {"id": name, "state": job.state, "model": job.model}
    return {"type": f"job.{job.state}", "timestamp": ended, "data": data}


def pause(notices: int) -> float:
    """Return the seconds until the next try, after so many."""
    return min(FIRST_DELAY * GROWTH ** max(notices - 1, 0), LONGEST_DELAY)


def _key(text: str) -> bytes:
    """Return the bytes of a secret, of which the standard's form is base64 behind ``whsec_``."""
    try:
        encoded = text.startswith("whsec_")
        key = base64.b64decode(text[6:], validate=True) if encoded else text.encode()
    except binascii.Error as error:
        raise ConfigError(f"webhook.secret: expected base64 after whsec_ ({error})") from error
    if len(key) < _MIN_SECRET_BYTES:
        raise ConfigError(f"webhook.secret: expected at least {_MIN_SECRET_BYTES} bytes, got {len(key)}")
    return key
