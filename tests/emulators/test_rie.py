import asyncio
import json
import sys
from pathlib import Path

import pytest

from firsttoken.emulators.aws import Options
from firsttoken.emulators.rie import RieEmulator, find_rie
from firsttoken.errors import ConfigError

ROOT = Path(__file__).parent / "aws_app"
EVENTS = Path(__file__).parents[2] / "events" / "aws"
LIMIT = 30.0


def event(name, path):
    """Return an event file with another path."""
    tree = json.loads((EVENTS / f"{name}.json").read_text())
    return tree | {"rawPath" if "rawPath" in tree else "path": path}


def invoke(*events, handler="app.app", **arguments):
    """Invoke a function under AWS's emulator with all events at once; return the answers."""

    async def scenario():
        async with asyncio.timeout(LIMIT), RieEmulator(root=ROOT, handler=handler, **arguments) as rie:
            return await asyncio.gather(*(rie.invoke(payload) for payload in events))

    return asyncio.run(scenario())


def test_our_runtime_streams_through_it():
    """The streamed answer is accepted: prelude, NULs and body arrive, if only at the end."""
    events = [event(name, "/metadata") for name in ("chat.stream", "chat.rest")]
    for answer in invoke(*events, *events):
        prelude, body = answer.split(b"\0" * 8)
        assert json.loads(prelude) == {
            "statusCode": 201,
            "headers": {"x-one": "1"},
            "cookies": ["a=1", "b=2"],
        }
        assert body == b"made"


def test_our_runtime_answers_an_http_api_in_it():
    """The buffered answer is accepted and is the proxy response of the gateway."""
    (answer,) = invoke(event("chat.httpapi", "/prod/metadata"))
    assert json.loads(answer)["body"] == "made"
    assert json.loads(answer)["statusCode"] == 201


def test_our_runtime_reports_errors_to_it():
    """An error before the first byte is the invocation's error, and the next invocation is served."""
    failed, served = invoke(event("chat.stream", "/error"), event("chat.stream", "/metadata"))
    assert json.loads(failed)["errorType"] == "ValueError"
    assert served.endswith(b"made")


def test_error_trailers_are_accepted_by_it(tmp_path):
    """A stream that ends in error trailers is accepted; AWS's emulator drops them."""
    (tmp_path / "gate").touch()
    late = event("chat.stream", "/late") | {"rawQueryString": f"gate={tmp_path}/gate"}
    broken, served = invoke(late, event("chat.stream", "/metadata"))
    assert b"good" in broken
    assert served.endswith(b"made")


def test_our_runtime_reports_to_it_that_it_cannot_start():
    """An init error is the answer to the first invocation."""
    (answer,) = invoke(event("chat.stream", "/metadata"), handler="app.missing")
    assert "no callable" in json.loads(answer)["errorMessage"]


def test_an_unknown_event_is_ignored_in_it():
    """A queue's batch in the HTTP function gets a small answer."""
    (answer,) = invoke((EVENTS / "recover.sqs.json").read_bytes())
    assert json.loads(answer)["ignored"] is True


def test_the_deadline_is_its_own():
    """The app's deadline is the time that AWS's emulator grants, less the reserve."""
    (answer,) = invoke(event("chat.httpapi", "/prod/echo"), options=Options(timeout=60))
    assert 0 < json.loads(json.loads(answer)["body"])["left"] < 60


def test_awslambdaric_runs_in_it():
    """AWS's own runtime client passes the same emulator, as a check of the check."""
    command = [sys.executable, "-m", "awslambdaric", "plain.handler"]
    (answer,) = invoke({"do": "json"}, handler="plain.handler", command=command)
    assert json.loads(answer)["do"] == "json"


def test_a_missing_binary_says_how_to_get_it(monkeypatch, tmp_path):
    """The error names the path that was tried and the command that installs it."""
    monkeypatch.setenv("FIRSTTOKEN_RIE", f"{tmp_path}/none")
    with pytest.raises(ConfigError, match=r"FIRSTTOKEN_RIE: .*none.*make test"):
        find_rie()


def test_the_binary_is_found_beside_the_environment(monkeypatch, tmp_path):
    """Without the variable it is looked for where `make test` puts it."""
    monkeypatch.delenv("FIRSTTOKEN_RIE", raising=False)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    binary = tmp_path / "share" / "firsttoken" / "aws-lambda-rie"
    binary.parent.mkdir(parents=True)
    binary.touch(mode=0o755)
    assert find_rie() == binary
