"""How each provider counts a call against its limit of tokens: what it sets aside, and what it settles for.

Sources, as of autumn 2026:

- OpenAI, "Rate limits": the larger of ``max_tokens`` and an estimate of the prompt by its characters.
- Microsoft Learn, "Manage Azure OpenAI quota": a request is counted when it is received, with its prompt and
  ``max_tokens``; what it used in the end does not matter.
- Claude API, "Rate limits": input and output have limits of their own, output counts as it is produced
  whatever ``max_tokens`` says, and what is read from the prompt cache does not count.
- Gemini API, "Rate limits": tokens a minute are input tokens.
- Amazon Bedrock User Guide, "How tokens are counted in Amazon Bedrock": the whole input and ``max_tokens``
  are set aside; in the end input without cached reads counts, and output times the model's burndown rate.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from firsttoken.model import Usage


class Charging(Struct, frozen=True):
    """The arithmetic of one provider; the defaults are those of a careful provider that settles."""

    output: Literal["added", "larger", "apart", "free"] = "added"
    """The answer's part: added to the prompt's, the larger of both, on a limit of its own, or none."""
    by_limit: bool = True
    """Whether ``max_tokens`` is what an answer is charged at first, or what it will probably have."""
    settles: bool = True
    """Whether the real usage counts in the end, where ``max_tokens`` was named."""
    cached: bool = True
    """Whether input tokens read from the provider's cache count."""
    burndown: float = 1.0
    """Tokens of quota for each token of an answer."""

    def set_aside(self, prompt: int, limit: int, likely: float) -> tuple[float, float]:
        """Return the tokens to set aside: of the limit of tokens, and of the one for answers.

        ``limit`` is what an answer may have at most, 0 when nobody said; ``likely`` what it has on average.
        """
        expected = min(likely, limit) if limit else likely
        answer = expected * self.burndown
        if self.by_limit:
            answer = max(answer, limit)
        return self._total(prompt, answer), answer if self.output == "apart" else 0.0

    def used(self, usage: Usage) -> tuple[float, float]:
        """Return what a finished call counts, as `set_aside` does."""
        prompt = usage.input if self.cached else max(0, usage.input - usage.cached)
        answer = usage.output * self.burndown
        return self._total(prompt, answer), answer if self.output == "apart" else 0.0

    def _total(self, prompt: float, answer: float) -> float:
        match self.output:
            case "added":
                return prompt + answer
            case "larger":
                return max(prompt, answer)
        return prompt


_CLAUDE = Charging("apart", by_limit=False, cached=False)
_PROVIDERS = {
    "openai": Charging("larger", settles=False),
    "azure": Charging(settles=False),
    "anthropic": _CLAUDE,
    "gemini": Charging("free"),
    "vertex": Charging("free"),
    "bedrock": Charging(cached=False),
    "simulated": Charging(settles=False),
}
_BURNDOWN = (
    ("claude-opus-4-8", 15.0),
    ("claude-sonnet-4-8", 15.0),
    ("claude-opus-5", 10.0),
    ("claude-sonnet-5", 10.0),
    ("claude-fable-5", 10.0),
    ("claude-3-7", 5.0),
    ("claude-opus-4", 5.0),
    ("claude-sonnet-4", 5.0),
    ("claude-haiku-4", 5.0),
)
"""Of models of Bedrock whose answers use up more than one token of quota for each of their own."""


def charging_of(kind: str, model: str, burndown: float = 0.0) -> Charging:
    """Return how a provider of this kind counts calls of this model; ``burndown`` overrides what is known."""
    known = _PROVIDERS.get(kind, Charging())
    if kind == "vertex" and "claude" in model:
        known = _CLAUDE
    if kind == "bedrock" and not burndown:
        burndown = next((rate for name, rate in _BURNDOWN if name in model), 1.0)
    if not burndown:
        return known
    return Charging(known.output, known.by_limit, known.settles, known.cached, burndown)
