"""How targets go on with an answer that broke off: who can be given its beginning, and who is asked.

A model that accepts a conversation ending with the assistant's turn goes on from there, to the letter
(``prefill``). Any other one is asked to, and may need its first words trimmed (``ask``). Only models that are
known to go on are given a prefill: many servers accept it and begin a new answer, or refuse it with a 400.
"""

from __future__ import annotations

import re
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from firsttoken.chat import ChatRequest
from firsttoken.policies.said import Said, estimate
from firsttoken.wire.continued import INSTRUCTION, continued

Method = Literal["prefill", "ask", "no"]

_CLAUDE = r"(?:^|[./])claude-(?:[23][.-].*|(?:opus|sonnet|haiku)-4(?:-[0-5])?(?:[-@]\d{8}.*)?)$"
"""Claude to 4.5. "Prefill removal: prefilling assistant messages returns a 400 error on Claude 4.6 models",
and on later ones (Claude documentation, "What's new in Claude 4.6" and the migration guides)."""
_GEMINI = r"(?:^|/)gemini-2\."
"""Gemini 2. From 3.5 Flash-Lite and 3.6 Flash on: "Requests ending with a model turn are not supported".
Those in between are asked, as their thoughts belong to the turn."""
_PREFILL = {
    "simulated": "",
    "anthropic": _CLAUDE,
    "bedrock": _CLAUDE,  # Converse passes the turn on; other vendors' models differ
    "gemini": _GEMINI,
    "vertex": f"{_CLAUDE}|{_GEMINI}",
}
"""By kind of provider, the models that go on from an assistant's turn.

Not among them: OpenAI and Azure take such a turn as said and answer anew; servers that speak OpenAI's format
want a switch of their own (vLLM ``continue_final_message``, Mistral and DeepSeek ``prefix``): configure
``continues = "prefill"`` for one whose chat template goes on without it.
"""


def method_of(wanted: str, kind: str, model: str) -> Method:
    """Return how a target goes on: as configured (``continues``), or what is known of its model.

    ``kind`` is that of its provider; the model ``*`` may be any.
    """
    match wanted:
        case "prefill" | "ask" | "no":
            return wanted
    known = _PREFILL.get(kind)
    return "prefill" if known is not None and re.search(known, model) else "ask"


class Asked(Struct, frozen=True):
    """What a model is asked for, and how that differs from the client's request."""

    request: ChatRequest
    withheld: str
    """White space at the end of what was said, which the request leaves out."""
    longer: int
    """About how many tokens longer the request is."""


def ask_for(request: ChatRequest, said: Said, method: Method) -> Asked:
    """Return what makes a model go on with ``said``.

    The thinking was done before the first words, so no more of it is wished for. Where tokens are limited, at
    least one is left.
    """
    text = said.text()
    ask = method == "ask"
    kept = text if ask else text.rstrip()  # Anthropic refuses a prefill that ends with space
    limit = request.max_tokens
    changed = replace(
        continued(request, kept, ask=ask),
        reasoning=None,
        max_tokens=None if limit is None else max(limit - said.tokens(), 1),
    )
    return Asked(changed, text[len(kept) :], estimate(kept) + ask * estimate(INSTRUCTION))
