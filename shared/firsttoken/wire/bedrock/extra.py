"""``additionalModelRequestFields``: what Converse has no field for, as each family of models calls it.

Sources: "Model parameters" in the Amazon Bedrock User Guide (Claude: ``thinking``, ``top_k``; Amazon Nova:
``inferenceConfig.topK``, ``reasoningConfig``; gpt-oss: ``reasoning_effort``), "Extended thinking" in
Anthropic's documentation.
"""

from __future__ import annotations

import re
from typing import Any

from msgspec import Struct

from firsttoken.chat import ChatRequest, ReasoningWish
from firsttoken.wire import json_body
from firsttoken.wire.bedrock.content import WIRE

_BUDGETED = re.compile(r"claude-(3|[a-z]+-4-(20\d\d|[015]-))")
"""Claude models that want a budget of thinking tokens; later ones decide themselves, guided by an effort."""
_LEAST_BUDGET = 1024
_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 16384, "xhigh": 32768, "max": 32768}
_EFFORTS = ((1024, "low"), (8192, "medium"))
"""A budget of thinking tokens up to so many is the effort beside it; more is high."""


class Extra(Struct):
    """What was said beside Converse's own fields, in neutral words."""

    top_k: int | None = None
    effort: str = ""
    budget: int | None = None
    enabled: bool | None = None
    parallel: bool | None = None
    unknown: list[str] = []

    def wish(self) -> ReasoningWish | None:
        """Return what was asked of the model's thinking."""
        if not self.effort and self.budget is None and self.enabled is None:
            return None
        return ReasoningWish(self.effort, self.budget, self.enabled)


def read_extra(fields: dict[str, Any]) -> Extra:
    """Return the neutral meaning of ``fields``; ``unknown`` names those without one."""
    found = Extra(unknown=[])
    for name, value in fields.items():
        if value is not None and not _read_thinking(found, name, value):
            _read_other(found, name, value)
    return found


def _read_thinking(found: Extra, name: str, value: Any) -> bool:
    """Note what is asked of the model's thinking; return whether it is that."""
    match name, value:
        case "thinking" | "reasoning_config", {"type": "enabled", "budget_tokens": int(budget)}:
            found.budget, found.enabled = budget, True
        case "thinking" | "reasoning_config", {"type": "enabled" | "disabled" | "adaptive" as kind}:
            found.enabled = kind != "disabled"
        case "reasoningConfig", {"type": "enabled" as kind, "maxReasoningEffort": str(effort)}:
            found.enabled, found.effort = True, effort
        case "reasoningConfig", {"type": "enabled" | "disabled" as kind}:
            found.enabled = kind == "enabled"
        case "output_config", {"effort": str(effort)} if len(value) == 1:
            found.effort = effort
        case "reasoning_effort", str(effort):
            found.effort = effort
        case _:
            return False
    return True


def _read_other(found: Extra, name: str, value: Any) -> None:
    match name, value:
        case "top_k", int(top_k):
            found.top_k = top_k
        case "inferenceConfig", {"topK": int(top_k)} if len(value) == 1:
            found.top_k = top_k
        case "tool_choice", {"type": "auto", "disable_parallel_tool_use": bool(single)}:
            found.parallel = not single
        case _:
            found.unknown.append(f"additionalModelRequestFields.{name}")


def write_extra(request: ChatRequest, model: str) -> tuple[dict[str, Any], str]:
    """Return the additional fields, and the effort that Converse itself has a field for.

    Raises UnsupportedFieldError for what this family of models has no word for.
    """
    fields: dict[str, Any] = {}
    effort = ""
    if request.reasoning:
        fields, effort = _write_reasoning(request.reasoning, model)
    if request.top_k is not None:
        if is_claude(model):
            fields["top_k"] = request.top_k
        elif "amazon.nova" in model:
            fields["inferenceConfig"] = {"topK": request.top_k}
        else:
            raise json_body.unsupported("top_k", WIRE)
    if request.parallel_tool_calls is False and request.tools:
        if not is_claude(model) or (request.tool_choice and request.tool_choice.mode != "auto"):
            raise json_body.unsupported("parallel_tool_calls", WIRE)
        fields["tool_choice"] = {"type": "auto", "disable_parallel_tool_use": True}
    return fields, effort


def is_claude(model: str) -> bool:
    """Return whether the id of a model says that it is one of Anthropic's."""
    return "anthropic" in model or "claude" in model


def _write_reasoning(wish: ReasoningWish, model: str) -> tuple[dict[str, Any], str]:
    off = wish.enabled is False or wish.effort == "none" or wish.budget == 0
    effort = "low" if wish.effort == "minimal" else wish.effort
    budget = wish.budget if wish.budget and wish.budget > 0 else None
    if not is_claude(model):
        if budget is not None:
            effort = effort or next((word for limit, word in _EFFORTS if budget <= limit), "high")
        if off or not effort:
            raise json_body.unsupported("reasoning", WIRE)
        return {}, effort
    if off:
        return {"thinking": {"type": "disabled"}}, ""
    if _BUDGETED.search(model):
        budget, effort = budget or _BUDGETS.get(effort, _BUDGETS["medium"]), ""
    if budget is None:
        return {"thinking": {"type": "adaptive"}}, effort
    return {"thinking": {"type": "enabled", "budget_tokens": max(budget, _LEAST_BUDGET)}}, effort
