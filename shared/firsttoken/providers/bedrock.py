"""Amazon Bedrock: ``Converse`` and ``ConverseStream``, or its OpenAI-compatible endpoint.

Sources: AWS's service model ``bedrock-runtime`` (2023-09-30), and the Amazon Bedrock User Guide ("Use an
Amazon Bedrock API key", "Invoke a model with the OpenAI Chat Completions API", "Use a guardrail").
"""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import quote

import msgspec

from firsttoken.config import key_of
from firsttoken.errors import ConfigError
from firsttoken.model import Call
from firsttoken.providers.upstream import Authorize, Connection, Upstream, bearer
from firsttoken.settings import BedrockProvider
from firsttoken.wire import codec_of, json_body
from firsttoken.wire.codec import Codec

SERVICE = "bedrock"
"""The name that requests are signed for; that of the host is bedrock-runtime."""


def chat(name: str, settings: BedrockProvider, model: str, connection: Connection) -> Upstream:
    """Return a model of Bedrock. Raises ConfigError when its key cannot be had."""
    authorize = authorizer(name, settings)
    base = base_url(settings)
    if settings.api == "converse":
        return Upstream(model, _converse(settings), _converse_url(base), connection, authorize)
    if settings.latency:
        raise ConfigError(
            f'providers.{name}.latency: expected none with api = "openai", which has no such field'
        )
    fields = {"service_tier": settings.service_tier} if settings.service_tier else {}
    guardrail = {
        "x-amzn-bedrock-guardrailidentifier": settings.guardrail,
        "x-amzn-bedrock-guardrailversion": settings.guardrail_version,
    }
    if settings.guardrail:
        connection = msgspec.structs.replace(connection, headers=[*connection.headers, *guardrail.items()])
    url = f"{base}/openai/v1/chat/completions"
    codec = _with_fields(codec_of("openai_chat"), fields, {})
    return Upstream(model, codec, lambda _model, _stream: url, connection, authorize)


def base_url(settings: BedrockProvider) -> str:
    """Return the address of the service in the configured region, without a slash at its end."""
    return settings.base_url.rstrip("/") or f"https://bedrock-runtime.{settings.region}.amazonaws.com"


def authorizer(name: str, settings: BedrockProvider) -> Authorize:
    """Return what authorizes requests: an API key, or signatures. Raises ConfigError if neither is there."""
    key = key_of(settings.api_key, f"providers.{name}.api_key")
    if key:
        return bearer(key)
    from importlib.util import find_spec

    if find_spec("botocore") is None:
        raise ConfigError(
            f"providers.{name}.api_key: expected a Bedrock API key, or botocore to sign requests with AWS"
            " credentials: pip install 'firsttoken[aws]'"
        )
    from firsttoken.providers.aws_auth import Signer

    return Signer(SERVICE, settings.region)


def _converse_url(base: str) -> Any:
    def url(model: str, stream: bool) -> str:  # noqa: FBT001 - as Upstream calls it
        return f"{base}/model/{quote(model, safe='')}/{'converse-stream' if stream else 'converse'}"

    return url


def _converse(settings: BedrockProvider) -> Codec:
    defaults: dict[str, Any] = {}
    fixed: dict[str, Any] = {}
    if settings.latency:
        defaults["performanceConfig"] = {"latency": settings.latency}
    if settings.service_tier:
        defaults["serviceTier"] = {"type": settings.service_tier}
    if settings.guardrail:
        fixed["guardrailConfig"] = {
            "guardrailIdentifier": settings.guardrail,
            "guardrailVersion": settings.guardrail_version,
        }
    return _with_fields(codec_of(SERVICE), defaults, fixed)


class _Configured:
    """A codec whose requests carry what the operator configured: ``fixed`` always wins over the client."""

    def __init__(self, codec: Codec, defaults: dict[str, Any], fixed: dict[str, Any]) -> None:
        self._codec = codec
        self._defaults = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in defaults.items()}
        self._fixed = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in fixed.items()}

    def __getattr__(self, name: str) -> Any:
        """Leave everything else to the codec."""
        return getattr(self._codec, name)

    def write_request(self, call: Call, model: str) -> bytes:
        """Return the body to send, with the configured fields added."""
        said = json_body.fields(self._codec.write_request(call, model))
        return msgspec.json.encode({**self._defaults, **said, **self._fixed})


def _with_fields(codec: Codec, defaults: dict[str, Any], fixed: dict[str, Any]) -> Codec:
    return cast("Codec", _Configured(codec, defaults, fixed)) if defaults or fixed else codec
