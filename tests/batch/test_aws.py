"""Our signatures of requests to AWS, against those of AWS's own library."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from firsttoken.batch.aws import signed

NOW = 1_800_000_000.0
ARN = "arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Amodel-invocation-job%2F0123456789ab"


class _Frozen(dt.datetime):
    @classmethod
    def now(cls, tz: Any = None) -> dt.datetime:
        return dt.datetime.fromtimestamp(NOW, tz)

    @classmethod
    def utcnow(cls) -> dt.datetime:
        return dt.datetime.fromtimestamp(NOW, dt.UTC).replace(tzinfo=None)


@pytest.mark.parametrize("token", [None, "session"])
@pytest.mark.parametrize(
    ("service", "method", "url", "body"),
    [
        ("s3", "PUT", "https://s3.eu-central-1.amazonaws.com/bucket/a/b_c-d/input.jsonl", b"{}\n"),
        ("s3", "GET", "https://s3.eu-central-1.amazonaws.com/bucket/a/input.jsonl.out", b""),
        ("bedrock", "POST", "https://bedrock.eu-central-1.amazonaws.com/model-invocation-job", b"{}"),
        ("bedrock", "GET", f"https://bedrock.eu-central-1.amazonaws.com/model-invocation-job/{ARN}", b""),
        (
            "bedrock",
            "POST",
            f"https://bedrock.eu-central-1.amazonaws.com/model-invocation-job/{ARN}/stop",
            b"",
        ),
        (
            "bedrock",
            "GET",
            "https://bedrock.eu-central-1.amazonaws.com/model-invocation-jobs?maxResults=10&nameContains=a-b",
            b"",
        ),
    ],
)
def test_signatures(  # noqa: PLR0913, PLR0917 - what a request is made of
    service: str, method: str, url: str, body: bytes, token: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any method, path and query of both services is signed as botocore signs it."""
    monkeypatch.setattr(
        "botocore.auth.datetime", type("m", (), {"datetime": _Frozen, "timezone": dt.timezone})
    )
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda **_: _Frozen.utcnow(), raising=False)
    credentials = Credentials("AKIDEXAMPLE", "secret", token)
    headers = [("content-type", "application/json")]
    request = AWSRequest(method, url, headers=dict(headers), data=body)
    signer = S3SigV4Auth if service == "s3" else SigV4Auth
    request.context["payload_signing_enabled"] = True
    signer(credentials, service, "eu-central-1").add_auth(request)
    ours = dict(signed(credentials, service, "eu-central-1", method, url, headers, body, NOW))
    assert ours["authorization"] == request.headers["Authorization"]
