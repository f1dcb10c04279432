"""Azure OpenAI / Foundry models, v1 API: OpenAI's formats, with Azure's credentials, lanes and limits.

Of each answer it is noted which deployment and region gave it, and whether it came from the spillover lane.
Sources: Microsoft Learn, "Azure OpenAI v1 API", "Manage traffic with spillover", "Azure OpenAI quota".
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from firsttoken.config import key_of
from firsttoken.errors import UpstreamError
from firsttoken.model import Call
from firsttoken.providers.azure_auth import entra, identity
from firsttoken.providers.http import Response
from firsttoken.providers.openai import CODECS
from firsttoken.providers.upstream import Authorize, Connection, Upstream, bearer
from firsttoken.settings import AzureProvider
from firsttoken.wire.codec import Codec

SPILLOVER = "x-ms-spillover-deployment"
NOTED = {
    "x-ms-region": "region",
    "x-ms-deployment-name": "deployment",
    "x-ms-spillover-from-deployment": "spillover_from",
    "x-ms-spillover-error": "spillover_error",
    "apim-request-id": "upstream_request_id",
}
"""Headers of an answer, and what they are called in the call's record."""
_LIMIT = "x-ratelimit-limit-tokens"
_MAX_DEPLOYMENTS = 256


class AzureModel(Upstream):
    """A deployment. Memory: the token limit of up to `_MAX_DEPLOYMENTS` deployments."""

    def __init__(  # noqa: PLR0913 - the parts of an Upstream, and one more
        self,
        model: str,
        codec: Codec,
        url: Callable[[str, bool], str],
        connection: Connection,
        authorize: Authorize,
        *,
        forget: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(model, codec, url, connection, authorize)
        self._forget = forget
        self._limits: dict[str, int] = {}
        """The highest limit of tokens a minute that each deployment told of."""

    def answered(self, call: Call, response: Response) -> None:
        """Note who answered, and the deployment's limit."""
        noted = {NOTED[name]: value for name, value in response.headers.items() if name in NOTED}
        call.record.notes.update(noted)
        if limit := _tokens(response.headers.get(_LIMIT)):
            if len(self._limits) >= _MAX_DEPLOYMENTS:
                self._limits.clear()
            name = self._deployment(call)
            self._limits[name] = max(limit, self._limits.get(name, 0))
        if response.status == 401:
            self._forget()

    def failed(self, call: Call, response: Response, error: UpstreamError) -> UpstreamError:
        """Tell apart the two kinds of 429 that only the limits show."""
        limit = _tokens(response.headers.get(_LIMIT))
        if error.code != "rate_limit_exceeded" or not limit:
            return error
        if (call.request.max_tokens or 0) > limit:
            error.code, error.retryable = "request_too_large", False
        elif limit < self._limits.get(self._deployment(call), 0):
            # Microsoft lowers a limit for some hours when the pool that it draws on is nearly used up.
            error.code = "temporary_rate_reduction"
        return error

    def _deployment(self, call: Call) -> str:
        return call.request.model if self._model == "*" else self._model


def _tokens(value: str | None) -> int:
    return int(value) if value and value.isdecimal() else 0


def chat(name: str, settings: AzureProvider, model: str, connection: Connection) -> AzureModel:
    """Return a deployment. Raises ConfigError when its key cannot be had."""
    where = f"providers.{name}.api_key"
    key = key_of(settings.api_key, where)
    codec, path = CODECS[settings.api]
    url = settings.base_url.rstrip("/") + path
    if settings.spillover:
        headers = [*connection.headers, (SPILLOVER, settings.spillover)]
        connection = msgspec.structs.replace(connection, headers=headers)
    if key:
        return AzureModel(model, codec(), lambda _model, _stream: url, connection, bearer(key, "api-key"))
    tokens = identity(settings.scope, where)
    return AzureModel(
        model, codec(), lambda _model, _stream: url, connection, entra(tokens), forget=tokens.forget
    )
