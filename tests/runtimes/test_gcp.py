"""The envelopes in which Google Cloud hands over a Pub/Sub message."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from firsttoken.errors import FirstTokenError, RequestError, UpstreamTimeoutError
from firsttoken.runtimes.gcp import answer_push, read_message, request_timeout
from tests.virtual_time import run

EVENTS = Path(__file__).parents[2] / "events" / "gcp"
CE = {"ce-id": "e-1", "ce-source": "//s", "ce-type": "t", "ce-specversion": "1.0"}
STRUCTURED = {"content-type": "application/cloudevents+json"}
EVENT = {"specversion": "1.0", "id": "e-1", "source": "//s", "type": "t"}


def message(headers: dict[str, str], body: object) -> Any:
    return read_message(headers, body if isinstance(body, bytes) else json.dumps(body).encode())


@pytest.mark.parametrize("path", sorted(EVENTS.glob("recover.*.json")), ids=lambda path: path.stem)
def test_every_form_carries_the_same_message(path: Path) -> None:
    """Each event file gives the queued call, whatever it is wrapped in."""
    event = json.loads(path.read_text())
    assert json.loads(message(event["headers"], event["body"]).data)["id"] == "job_01JD3Q8Z5T7W"


def test_a_wrapped_push_carries_its_metadata() -> None:
    """Attributes, id, subscription and delivery attempt come out of a wrapped push."""
    event = json.loads((EVENTS / "recover.push-wrapped.json").read_text())
    read = message(event["headers"], event["body"])
    assert (read.id, read.attributes, read.attempt) == (
        "12345678901234567",
        {"id": "job_01JD3Q8Z5T7W", "tenant": "acme"},
        2,
    )
    assert read.subscription == "projects/my-project/subscriptions/firsttoken-jobs"


def test_eventarc_names_the_topic() -> None:
    """A push inside a CloudEvent keeps the event's source."""
    event = json.loads((EVENTS / "recover.eventarc.json").read_text())
    read = message(event["headers"], event["body"])
    assert read.source == "//pubsub.googleapis.com/projects/my-project/topics/firsttoken-jobs"


@pytest.mark.parametrize(
    ("headers", "body", "data"),
    [
        ({}, {"message": {"messageId": "1", "attributes": {"a": "b"}}}, b""),
        ({}, {"message": {"messageId": "1", "@type": "x", "data": ""}, "more": 1}, b""),
        (CE, b"\xff\x00", b"\xff\x00"),
        (STRUCTURED, {**EVENT, "data": {"a": 1}}, b'{"a": 1}'),
        (STRUCTURED, {**EVENT, "data": "text"}, b"text"),
        (STRUCTURED, {**EVENT, "data_base64": base64.b64encode(b"\x00").decode()}, b"\x00"),
        (STRUCTURED, EVENT, b""),
        ({"x-goog-pubsub-message-id": "1"}, b"raw", b"raw"),
    ],
)
def test_data_is_taken_as_sent(headers: dict[str, str], body: object, data: bytes) -> None:
    """The data are the sender's bytes; a message may have none, and unknown keys are no error."""
    assert message(headers, body).data == data


@pytest.mark.parametrize(
    ("headers", "body", "named"),
    [
        ({}, b"", "push request"),
        ({}, b"[]", "push request"),
        ({}, {"message": {"data": "aGk="}}, "messageId"),
        ({}, {"message": {"messageId": "1", "data": "not base64"}}, "data"),
        ({"ce-id": "1", "ce-source": "s"}, b"{}", "ce-type, ce-specversion"),
        (STRUCTURED, {"specversion": "1.0"}, "structured CloudEvent"),
        (STRUCTURED, b"{", "structured CloudEvent"),
    ],
)
def test_a_bad_envelope_names_what_was_expected(headers: dict[str, str], body: object, named: str) -> None:
    """A body that is none of the forms is a client's error which lists the forms."""
    with pytest.raises(RequestError, match=named) as raised:
        message(headers, body)
    assert "x-goog-pubsub-message-id" in str(raised.value)
    assert "application/cloudevents+json" in str(raised.value)


@pytest.mark.parametrize(
    ("body", "error", "status"),
    [
        ({"message": {"messageId": "1", "data": "aGk="}}, None, 200),
        ({"message": {"messageId": "1", "data": "aGk="}}, UpstreamTimeoutError("too slow"), 504),
        ({}, None, 400),
    ],
)
def test_only_an_answered_message_is_acknowledged(
    body: object, error: FirstTokenError | None, status: int
) -> None:
    """200 acknowledges; a bad envelope and an error that asks for another delivery do not."""

    async def payload() -> bytes:
        return json.dumps(body).encode()

    async def answer(data: bytes, **_: Any) -> dict[str, Any]:
        if error is not None:
            raise error
        return {"data": data.decode()}

    request: Any = SimpleNamespace(headers={}, body=payload)
    content, answered = asyncio.run(answer_push(request, answer))
    assert answered == status
    assert content == {"data": "hi"} if status == 200 else content["error"]["message"]


@pytest.mark.parametrize(
    ("timeout", "attempt", "delivered", "seconds"),
    [(None, None, 1, 600), ("300", 3, 3, 300), ("3600", 1, 1, 600)],
)
def test_an_answer_knows_its_time_and_how_often_the_message_came(
    monkeypatch: pytest.MonkeyPatch, timeout: str | None, attempt: int | None, delivered: int, seconds: float
) -> None:
    """The deadline is the sooner of Cloud Run's and a push's; deliveries count from one."""
    if timeout is not None:
        monkeypatch.setenv("CLOUD_RUN_TIMEOUT_SECONDS", timeout)
    seen: dict[str, Any] = {}

    async def answer(data: bytes, **given: Any) -> dict[str, Any]:
        seen.update(given, now=asyncio.get_running_loop().time())
        return {"data": data.decode()}

    async def payload() -> bytes:
        push = {"message": {"messageId": "1", "data": "aGk="}}
        return json.dumps(push if attempt is None else {**push, "deliveryAttempt": attempt}).encode()

    request: Any = SimpleNamespace(headers={}, body=payload)
    run(answer_push(request, answer))
    assert (seen["delivered"], seen["deadline"] - seen["now"]) == (delivered, seconds)


@pytest.mark.parametrize(("value", "expected"), [("300", 300.0), ("0", None), ("", None), (None, None)])
def test_request_timeout_is_what_the_deployment_says(value: str | None, expected: float | None) -> None:
    """Without the variable, or with 0, no deadline is known."""
    assert request_timeout({} if value is None else {"CLOUD_RUN_TIMEOUT_SECONDS": value}) == expected
