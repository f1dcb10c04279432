"""A taken-over answer as the official SDKs put it together: no repeats, nothing lost, and an end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import boto3
import httpx2
import openai
import pytest
from botocore.awsrequest import AWSResponse
from google import genai
from wire.test_takeover import ANSWERS, passed_on, rest_of, taken_over

from firsttoken.wire import codec_of

Heard = tuple[str, list[tuple[str, Any]]]
"""The text, and the tools with their arguments."""


def transport(wire: str, body: bytes) -> httpx2.MockTransport:
    headers = {"content-type": codec_of(wire).STREAM_TYPE}
    return httpx2.MockTransport(lambda _request: httpx2.Response(200, headers=headers, content=body))


def chat(body: bytes) -> Heard:
    with (
        httpx2.Client(transport=transport("openai_chat", body)) as http,
        openai.OpenAI(api_key="k", base_url="http://sim/v1", http_client=http) as client,
        client.chat.completions.stream(model="m", messages=[{"role": "user", "content": "Hi"}]) as stream,
    ):
        message = stream.get_final_completion().choices[0].message
    tools: Any = message.tool_calls or ()
    return message.content or "", [(t.function.name, json.loads(t.function.arguments)) for t in tools]


def responses(body: bytes) -> Heard:
    with (
        httpx2.Client(transport=transport("openai_responses", body)) as http,
        openai.OpenAI(api_key="k", base_url="http://sim/v1", http_client=http) as client,
        client.responses.stream(model="m", input="Hi") as stream,
    ):
        text = "".join([event.delta for event in stream if event.type == "response.output_text.delta"])
        final = stream.get_final_response()
    assert final.output_text == text
    calls = [item for item in final.output if item.type == "function_call"]
    return text, [(call.name, json.loads(call.arguments)) for call in calls]


def messages(body: bytes) -> Heard:
    with (
        httpx2.Client(transport=transport("anthropic", body)) as http,
        anthropic.Anthropic(api_key="k", base_url="http://sim", http_client=http) as client,
        client.messages.stream(
            model="m", max_tokens=9, messages=[{"role": "user", "content": "Hi"}]
        ) as stream,
    ):
        final = stream.get_final_message()
    text = "".join([block.text for block in final.content if block.type == "text"])
    return text, [(block.name, block.input) for block in final.content if block.type == "tool_use"]


def gemini(body: bytes) -> Heard:
    options: Any = {"base_url": "http://sim", "client_args": {"transport": transport("gemini", body)}}
    client = genai.Client(api_key="k", http_options=options)
    text, tools = "", []
    for chunk in client.models.generate_content_stream(model="m", contents="Hi"):
        candidates: Any = chunk.candidates
        for part in candidates[0].content.parts:
            text += "" if part.thought else part.text or ""
            if part.function_call:
                tools.append((part.function_call.name, part.function_call.args))
    client.close()
    return text, tools


class _Body:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self) -> Iterator[bytes]:
        yield self._body

    def close(self) -> None:
        self._body = b""


def converse(body: bytes) -> Heard:
    client = boto3.client(
        "bedrock-runtime", region_name="eu-west-1", aws_access_key_id="k", aws_secret_access_key="s"
    )
    headers = {"content-type": "application/vnd.amazon.eventstream"}
    answer = AWSResponse("http://sim", 200, headers, _Body(body))
    client.meta.events.register("before-send.bedrock-runtime.*", lambda **_: answer)
    turn = {"role": "user", "content": [{"text": "Hi"}]}
    text = ""
    tools: dict[int, list[str]] = {}
    for event in client.converse_stream(modelId="m", messages=[turn])["stream"]:
        if "contentBlockStart" in event:
            start = event["contentBlockStart"]
            tools[start["contentBlockIndex"]] = [start["start"]["toolUse"]["name"], ""]
        delta = event.get("contentBlockDelta", {}).get("delta", {})
        text += delta.get("text", "")
        if "toolUse" in delta:
            tools[event["contentBlockDelta"]["contentBlockIndex"]][1] += delta["toolUse"]["input"]
    client.close()
    return text, [(name, json.loads(arguments)) for name, arguments in tools.values()]


SDKS: dict[str, Callable[[bytes], Heard]] = {
    "openai_chat": chat,
    "openai_responses": responses,
    "anthropic": messages,
    "gemini": gemini,
    "bedrock": converse,
}


@pytest.mark.parametrize("name", list(ANSWERS))
@pytest.mark.parametrize("wire", list(SDKS))
def test_official_sdks_read_one_answer(wire: str, name: str) -> None:
    """Wherever the first target stops, the SDK hears the same as from an answer that did not break."""
    chunks = ANSWERS[name]
    text = "".join([chunk.text for chunk in chunks])
    tools = [("lookup", {"city": "Rome"}), ("search", {"days": 1})] if "tools" in name else []
    for cut in range(1, len(chunks)):
        first = passed_on(wire, chunks[:cut])
        if any(chunk.has_content() for chunk in first):
            assert SDKS[wire](taken_over(wire, first, rest_of(wire, chunks, cut))) == (text, tools)
