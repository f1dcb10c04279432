"""The simulated model behind the endpoint: limits, stops, tools, usage and cached prefixes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import virtual_time
from policies.models import make_call
from support import Answer, ask, chat, make_app, simulate

from firsttoken.embedding import EmbedCall, EmbedRequest
from firsttoken.providers.embed_simulated import SimulatedEmbedder
from firsttoken.providers.simulated import Simulated
from firsttoken.settings import SimulatedProvider


def run(body: Any, **options: Any) -> Answer:
    return asyncio.run(ask(make_app(), body, **options))


def content(answer: Answer) -> Any:
    return answer.json()["choices"][0]


@pytest.mark.parametrize(
    ("fields", "tokens", "finish"),
    [
        ({"max_tokens": 3}, 3, "length"),
        ({"max_completion_tokens": 2, "max_tokens": 9}, 2, "length"),
        ({"max_tokens": 4000}, 27, "stop"),
    ],
)
def test_output_limits(fields: dict[str, Any], tokens: int, finish: str) -> None:
    """The newer name of the limit wins; a limit that is reached is the finish reason."""
    answer = run(chat("Hello", **fields))
    assert answer.json()["usage"]["completion_tokens"] == tokens
    assert content(answer)["finish_reason"] == finish


@pytest.mark.parametrize("stop", ["Hello", ["absent", "Hello"]])
def test_stop_sequences(stop: Any) -> None:
    """The answer ends before the stop sequence."""
    answer = run(chat("Hello", stop=stop))
    assert content(answer)["message"]["content"] == "You said: "
    assert content(answer)["finish_reason"] == "stop"


def test_streamed_tool_calls_join_to_the_whole_one() -> None:
    """Fragments carry the id and name once, and the arguments in pieces."""
    tool = {
        "type": "function",
        "function": {"name": "f", "parameters": {"properties": {"q": {"type": "string"}}}},
    }
    body = chat("please call f with a long sentence", tools=[tool])
    whole = content(run(body))["message"]["tool_calls"][0]
    events = run({**body, "stream": True}).events()[:-1]
    parts = [part for event in events for part in event["choices"][0]["delta"].get("tool_calls", ())]
    assert len(parts) > 3
    assert "".join(part["function"]["arguments"] for part in parts) == whole["function"]["arguments"]
    assert [part["id"] for part in parts if "id" in part] == [whole["id"]]
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_known_prefix_counts_as_cached() -> None:
    """Whole messages that were seen before count as cached, from a minimum on; another prefix does not."""

    async def talk() -> list[int]:
        app = make_app(
            providers={"simulated": SimulatedProvider(profile="ttft_ms=0,itl_ms=0,context_window=9000")}
        )
        system = {"role": "system", "content": "rule " * 1500}
        counts = []
        for prefix, question in (
            (system, "one"),
            (system, "two"),
            ({**system, "content": "x " * 1500}, "two"),
        ):
            body = {"model": "m", "messages": [prefix, {"role": "user", "content": question}]}
            usage = (await ask(app, body)).json()["usage"]
            counts.append(usage["prompt_tokens_details"]["cached_tokens"])
        return counts

    assert asyncio.run(talk()) == [0, 1408, 0]


def test_text_parts_are_read_and_others_refused() -> None:
    """Content may be a list of parts; what is not text cannot be simulated."""
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    assert content(run(chat(parts)))["message"]["content"].startswith("You said: Hello")  # type: ignore[arg-type]
    refused = run(chat([{"type": "input_audio", "input_audio": {}}]))  # type: ignore[arg-type]
    assert (refused.status, refused.json()["error"]["param"]) == (400, "messages")


def test_faults_need_permission() -> None:
    """Without ``faults`` the header is just a header."""

    async def call() -> Answer:
        app = make_app(providers={"simulated": SimulatedProvider(profile="ttft_ms=0,itl_ms=0")})
        return await ask(app, chat(), headers=simulate("fault=status,status=503"))

    assert asyncio.run(call()).status == 200


def test_rate_limits_of_the_embedded_model() -> None:
    """A profile's limits hold without a simulator of its own, too; a header may set others for one call."""

    async def calls() -> list[Answer]:
        provider = SimulatedProvider(profile="ttft_ms=0,itl_ms=0,rpm=1", faults=True)
        app = make_app(providers={"simulated": provider})
        return [await ask(app, chat(), headers=headers) for headers in ({}, {}, simulate("rpm=100"))]

    answers = asyncio.run(calls())
    assert [answer.status for answer in answers] == [200, 429, 200]
    assert answers[1].json()["error"]["code"] == "rate_limit_exceeded"
    assert int(answers[1].headers["retry-after"]) <= 60


@pytest.mark.parametrize(
    ("status", "seen", "code"),
    [
        (400, 400, None),
        (401, 502, "upstream_auth"),
        (403, 502, "upstream_auth"),
        (529, 529, "upstream_error"),
    ],
)
def test_statuses_mean_what_they_mean_from_a_real_target(status: int, seen: int, code: str | None) -> None:
    """An endpoint whose target refuses its credentials does not blame the client."""
    answer = run(chat(), headers=simulate(f"fault=status,status={status}"))
    assert (answer.status, answer.json()["error"]["code"]) == (seen, code)


def test_a_share_of_the_calls_fails() -> None:
    """The share is drawn from the seed: none of them, all of them, or some."""

    async def failures(share: float) -> int:
        profile = f"ttft_ms=0,itl_ms=0,fault=status,share={share}"
        app = make_app(providers={"simulated": SimulatedProvider(profile=profile)})
        return sum([(await ask(app, chat())).status == 500 for _ in range(20)])

    none, some, every = (asyncio.run(failures(share)) for share in (0, 0.5, 1))
    assert (none, every) == (0, 20)
    assert 4 <= some <= 16


def test_tools_count_as_input() -> None:
    """What describes a tool is read by the model."""
    tool = {"type": "function", "function": {"name": "never_named", "parameters": {"type": "object"}}}
    with_tool, without = (
        run(chat("hi", **fields)).json()["usage"]["prompt_tokens"] for fields in ({"tools": [tool]}, {})
    )
    assert with_tool > without + 4


def test_a_slow_answer_begins_late_and_then_flows() -> None:
    """The first token comes after so many times the usual wait; those behind it at their usual pace."""

    async def times() -> list[float]:
        profile = "ttft_ms=100,itl_ms=10,tokens=3,fault=slow,slow_factor=20"
        model = Simulated(SimulatedProvider(profile=profile))
        chunks = model.stream(make_call())
        now = asyncio.get_running_loop().time
        return [round(now(), 6) async for chunk in chunks if chunk.text]

    assert virtual_time.run(times()) == [2.0, 2.01, 2.02]


def test_half_an_answer_is_gone_on_with() -> None:
    """The rest has no thoughts and calls no tools; it counts what it says, and ends as the whole one does."""
    question = {"role": "user", "content": "Say one two three"}
    whole = run(chat("Say one two three", stop="three", reasoning_effort="low")).json()
    text = whole["choices"][0]["message"]["content"]
    half = {"role": "assistant", "content": text[:15]}
    fields = {"stop": "three", "reasoning_effort": "low", "messages": [question, half]}
    rest = run({"model": "m", **fields}).json()
    message = rest["choices"][0]["message"]
    assert message["content"] == text[15:]
    assert "reasoning_content" not in message
    assert rest["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert rest["usage"]["completion_tokens"] < whole["usage"]["completion_tokens"]
    assert rest["usage"]["prompt_tokens"] > whole["usage"]["prompt_tokens"]


def test_the_simulated_accelerator_works_on_one_call_after_the_other() -> None:
    """A call costs its time and that of each text, and waits for those before it."""
    embedder = SimulatedEmbedder(SimulatedProvider(profile="ttft_ms=0,embed_call_ms=8,embed_text_ms=1"))

    async def scenario() -> float:
        requests = [EmbedRequest(model="m", inputs=("a",) * n) for n in (1, 2, 3)]
        calls = [EmbedCall(request=request, deadline=60) for request in requests]
        await asyncio.gather(*[embedder.embed(call) for call in calls])
        return asyncio.get_running_loop().time()

    assert virtual_time.run(scenario()) == pytest.approx(0.030)
