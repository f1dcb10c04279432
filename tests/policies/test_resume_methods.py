"""Which models are known to go on from an assistant's turn."""

from __future__ import annotations

import pytest

from firsttoken.policies.continuation import method_of


@pytest.mark.parametrize(
    ("kind", "model", "method"),
    [
        ("simulated", "any", "prefill"),
        ("simulated", "*", "prefill"),
        ("anthropic", "claude-sonnet-4-5-20250929", "prefill"),
        ("anthropic", "claude-sonnet-4-5", "prefill"),
        ("anthropic", "claude-opus-4-20250514", "prefill"),
        ("anthropic", "claude-opus-4-1", "prefill"),
        ("anthropic", "claude-3-5-haiku-20241022", "prefill"),
        ("anthropic", "claude-opus-4-6", "ask"),
        ("anthropic", "claude-sonnet-4-6-20260217", "ask"),
        ("anthropic", "claude-opus-5-5", "ask"),
        ("anthropic", "*", "ask"),
        ("bedrock", "eu.anthropic.claude-sonnet-4-5-20250929-v1:0", "prefill"),
        ("bedrock", "us.anthropic.claude-opus-4-6-v1", "ask"),
        ("bedrock", "amazon.nova-pro-v1:0", "ask"),
        ("bedrock", "arn:aws:bedrock:eu-west-1:1:application-inference-profile/x", "ask"),
        ("vertex", "claude-sonnet-4-5@20250929", "prefill"),
        ("vertex", "gemini-2.5-flash", "prefill"),
        ("gemini", "gemini-2.5-pro", "prefill"),
        ("gemini", "gemini-3.6-flash", "ask"),
        ("openai", "gpt-5.5", "ask"),
        ("azure", "gpt-4o", "ask"),
    ],
)
def test_what_is_known_of_models(kind: str, model: str, method: str) -> None:
    """Only models that are known to take a prefill get one; whoever is unknown is asked."""
    assert method_of("auto", kind, model) == method
    assert method_of("no", kind, model) == "no"
    assert method_of("prefill", kind, model) == "prefill"
