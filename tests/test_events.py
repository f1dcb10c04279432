"""The event files: real shapes, checked against the models that AWS's own toolkit publishes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from aws_lambda_powertools.utilities.parser.models import (
    APIGatewayProxyEventModel,
    APIGatewayProxyEventV2Model,
    EventBridgeModel,
    LambdaFunctionUrlModel,
    SqsModel,
)
from pydantic import BaseModel

EVENTS = Path(__file__).resolve().parents[1] / "events"
MODELS: dict[str, type[BaseModel]] = {
    "chat.nonstream": LambdaFunctionUrlModel,
    "chat.stream": LambdaFunctionUrlModel,
    "models": LambdaFunctionUrlModel,
    "chat.rest": APIGatewayProxyEventModel,
    "chat.httpapi": APIGatewayProxyEventV2Model,
    "recover.sqs": SqsModel,
    "scheduled.eventbridge": EventBridgeModel,
}


@pytest.mark.parametrize("file", sorted((EVENTS / "aws").glob("*.json")), ids=lambda file: file.stem)
def test_aws_events_have_the_published_shape(file: Path) -> None:
    """Each file is valid for the model of its source; a new file needs an entry here."""
    MODELS[file.stem].model_validate(json.loads(file.read_bytes()))


@pytest.mark.parametrize("cloud", ["aws", "azure", "gcp"])
def test_every_cloud_has_the_same_calls(cloud: str) -> None:
    """A whole and a streamed chat, the list of models, a queued call and a schedule."""
    kinds = {file.stem.partition(".")[0] for file in (EVENTS / cloud).glob("*.json")}
    assert kinds == {"chat", "models", "recover", "scheduled"}
    assert {"chat.stream", "chat.nonstream"} <= {file.stem for file in (EVENTS / cloud).glob("*.json")}
