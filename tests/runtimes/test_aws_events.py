import base64
import json
from pathlib import Path

import pytest

from firsttoken.runtimes.aws_events import (
    UnknownEventError,
    http_request,
    ignored,
    prelude,
    proxy_response,
)

EVENTS = Path(__file__).parents[2] / "events" / "aws"


def event(name, **changes):
    """Return an event file with some of its fields replaced; two underscores lead into a field."""
    tree = json.loads((EVENTS / f"{name}.json").read_text())
    for path, value in changes.items():
        node = tree
        *parents, last = path.split("__")
        for key in parents:
            node = node[key]
        node[last] = value
    return json.dumps(tree).encode()


def _headers(request):
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.scope["headers"]]


@pytest.mark.parametrize(
    ("name", "method", "path", "streams"),
    [
        ("chat.nonstream", "POST", "/v1/chat/completions", True),
        ("chat.stream", "POST", "/v1/chat/completions", True),
        ("chat.rest", "POST", "/v1/chat/completions", True),
        ("chat.httpapi", "POST", "/v1/chat/completions", False),
        ("models", "GET", "/v1/models", True),
    ],
)
def test_every_shape_becomes_the_same_request(name, method, path, streams):
    """Events of all shapes become ASGI requests; only the HTTP API's answer is buffered."""
    request = http_request(event(name))
    scope = request.scope
    assert (scope["type"], scope["method"], scope["path"]) == ("http", method, path)
    assert scope["raw_path"] == path.encode()
    assert scope["scheme"] == "https"
    assert scope["client"] == ("203.0.113.10", 0)
    assert dict(_headers(request))["user-agent"] == "OpenAI/Python 3.54.0"
    assert request.streams is streams
    assert (json.loads(request.body)["model"] == "simulated") if method == "POST" else request.body == b""


@pytest.mark.parametrize(("mode", "streams"), [("stream", True), ("buffered", False)])
@pytest.mark.parametrize("name", ["chat.stream", "chat.rest", "chat.httpapi"])
def test_the_configured_mode_wins(name, mode, streams):
    """A mode other than auto holds for every shape."""
    assert http_request(event(name), mode).streams is streams


@pytest.mark.parametrize(
    ("raw_path", "stage", "path"),
    [
        ("/prod/v1/models", "prod", "/v1/models"),
        ("/prod", "prod", "/"),
        ("/production/v1", "prod", "/production/v1"),
        ("/v1/models", "prod", "/v1/models"),
        ("/v1/models", "$default", "/v1/models"),
    ],
)
def test_the_stage_is_not_part_of_the_path(raw_path, stage, path):
    """An HTTP API puts the name of its stage before the path; the app does not see it."""
    request = http_request(event("chat.httpapi", rawPath=raw_path, requestContext__stage=stage))
    assert request.scope["path"] == path


def test_escapes_in_a_path_are_decoded_once():
    """``path`` is decoded, ``raw_path`` is what the client sent."""
    scope = http_request(event("models", rawPath="/v1/models/a%2Fb%20c")).scope
    assert (scope["path"], scope["raw_path"]) == ("/v1/models/a/b c", b"/v1/models/a%2Fb%20c")


def test_query_strings_keep_repeats():
    """Repeated parameters survive: as they are in format 2.0, encoded again in 1.0."""
    v2 = http_request(event("models", rawQueryString="a=1&a=2&b=%20")).scope
    assert v2["query_string"] == b"a=1&a=2&b=%20"
    v1 = http_request(
        event("chat.rest", multiValueQueryStringParameters={"a": ["1", "2"], "b": ["x y&"]})
    ).scope
    assert v1["query_string"] == b"a=1&a=2&b=x+y%26"
    single = http_request(event("chat.rest", queryStringParameters={"a": "ü"})).scope
    assert single["query_string"] == b"a=%C3%BC"


def test_headers_and_cookies_keep_repeats():
    """Format 1.0 lists repeated headers; format 2.0 has its cookies apart: the app sees ordinary headers."""
    v1 = http_request(event("chat.rest", multiValueHeaders={"X-Tag": ["one", "two"], "Accept": ["é"]}))
    assert _headers(v1) == [("x-tag", "one"), ("x-tag", "two"), ("accept", "é")]
    v2 = _headers(http_request(event("chat.stream", headers={"Cookie": "theme=dark", "X-One": "1"})))
    assert v2 == [("x-one", "1"), ("cookie", "theme=dark; visits=2")]


def test_a_binary_body_arrives_as_it_was():
    """A base64 body is decoded, any other is the text as UTF-8."""
    raw = bytes(range(256))
    encoded = event("chat.stream", body=base64.b64encode(raw).decode(), isBase64Encoded=True)
    assert http_request(encoded).body == raw
    assert http_request(event("chat.stream", body="東京")).body == "東京".encode()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"null",
        b'"text"',
        b"{}",
        b"not json",
        b'{"requestContext": {}}',
        b'{"requestContext": "text", "secret": "value"}',
        b'{"requestContext": {"http": {"method": 7}}}',
        b'{"requestContext": {"eventType": "COMPLETION"}, "secret": "value"}',
        event("recover.sqs"),
        event("scheduled.eventbridge"),
        event("chat.stream", body="%%%", isBase64Encoded=True),
        event("chat.stream", headers=["list"]),
        event("chat.rest", requestContext={"elb": {"targetGroupArn": "arn"}}),
    ],
)
def test_what_is_not_http_is_named_without_its_values(raw):
    """Any other event is refused by the names of its keys: its values may be private."""
    with pytest.raises(UnknownEventError) as caught:
        http_request(raw)
    assert "value" not in str(caught.value)
    assert json.loads(ignored(str(caught.value)))["ignored"] is True


HEADERS = [
    (b"Content-Type", b"text/plain"),
    (b"vary", b"a"),
    (b"Vary", b"b"),
    (b"set-cookie", b"a=1"),
    (b"set-cookie", b"b=2"),
]


def test_a_prelude_is_json_and_eight_nul_bytes():
    """A streamed answer starts with its metadata; repeated headers are folded, cookies listed."""
    start = prelude(201, HEADERS)
    assert start.endswith(b"\0" * 8)
    assert start.count(b"\0") == 8
    assert json.loads(start[:-8]) == {
        "statusCode": 201,
        "headers": {"content-type": "text/plain", "vary": "a, b"},
        "cookies": ["a=1", "b=2"],
    }


def test_a_buffered_answer_is_a_proxy_response():
    """A buffered answer has the shape of its gateway's payload format."""
    v2 = json.loads(proxy_response(200, HEADERS, "東京".encode(), multi_value=False))
    assert v2["cookies"] == ["a=1", "b=2"]
    assert (v2["body"], v2["isBase64Encoded"]) == ("東京", False)
    v1 = json.loads(proxy_response(200, HEADERS, b"", multi_value=True))
    assert v1["multiValueHeaders"] == {"set-cookie": ["a=1", "b=2"]}
    assert "cookies" not in v1


@pytest.mark.parametrize(
    ("extra", "body"), [([], b"\xff\x00"), ([(b"content-encoding", b"gzip")], b"pretend this is compressed")]
)
def test_a_binary_answer_is_base64(extra, body):
    """What is not text, or is compressed, travels as base64."""
    answer = json.loads(proxy_response(200, [*HEADERS, *extra], body, multi_value=False))
    assert answer["isBase64Encoded"] is True
    assert base64.b64decode(answer["body"]) == body
