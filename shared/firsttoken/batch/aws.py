"""Signature Version 4 for any method and service, with the credentials that botocore finds.

Source: AWS General Reference, "Create a signed AWS API request".
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from hashlib import sha256
from urllib.parse import quote, urlsplit

from firsttoken.batch.link import Headers
from firsttoken.providers.aws_auth import Credentials, Signer

_UNSIGNED = ("connection", "user-agent")


class AwsSigner(Signer):
    """Signs requests to one service in one region: a `firsttoken.batch.link.Sign`."""

    def __init__(self, service: str, region: str, wall: Callable[[], float] = time.time) -> None:
        super().__init__(service, region)
        self._service = service
        self._region = region
        self._wall = wall

    async def sign(self, method: str, url: str, headers: Headers, body: bytes) -> Headers:
        """Return ``headers`` with a signature. Raises UpstreamAuthError without credentials."""
        credentials = await self._credentials()
        return signed(credentials, self._service, self._region, method, url, headers, body, self._wall())


def signed(  # noqa: PLR0913, PLR0917 - what a signature is made of
    credentials: Credentials,
    service: str,
    region: str,
    method: str,
    url: str,
    headers: Headers,
    body: bytes,
    now: float,
) -> Headers:
    """Return the headers of a request with its signature at a time (Unix seconds)."""
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    digest = sha256(body).hexdigest()
    sent = [*headers, ("x-amz-date", moment)]
    if service == "s3":
        sent.append(("x-amz-content-sha256", digest))
    if credentials.token:
        sent.append(("x-amz-security-token", credentials.token))
    parts = urlsplit(url)
    by_name = {name.lower(): value.strip() for name, value in sent if name.lower() not in _UNSIGNED}
    by_name["host"] = parts.netloc
    names = ";".join(sorted(by_name))
    # S3 takes the path as it is sent, all others want it percent-encoded once more.
    path = parts.path or "/"
    canonical = [
        method,
        path if service == "s3" else quote(path, safe="/~"),
        "&".join(sorted(parts.query.split("&"))),
        *[f"{name}:{by_name[name]}" for name in sorted(by_name)],
        "",
        names,
        digest,
    ]
    scope = f"{moment[:8]}/{region}/{service}/aws4_request"
    request = sha256("\n".join(canonical).encode()).hexdigest()
    key = f"AWS4{credentials.secret_key}".encode()
    for word in scope.split("/"):
        key = hmac.digest(key, word.encode(), "sha256")
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{request}"
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    credential = f"Credential={credentials.access_key}/{scope}"
    value = f"AWS4-HMAC-SHA256 {credential}, SignedHeaders={names}, Signature={signature}"
    return [*sent, ("authorization", value)]
