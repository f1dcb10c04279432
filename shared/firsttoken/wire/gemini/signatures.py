"""Signatures of reasoning in ``thoughtSignature``, a field of bytes: base64, in either alphabet.

Google's SDK decodes what it gets and sends it back in the URL-safe alphabet. A signature of another provider
must come back as it was, and encrypted reasoning must come back as such; so what plain base64 cannot carry is
wrapped: a mark of nine bytes (twelve characters of base64) and the text itself.
"""

from __future__ import annotations

from base64 import b64decode, b64encode

UNSIGNED = "skip_thought_signature_validator"
"""Stands where a call of another model, or one whose signature was lost, has none: Gemini 3 wants one.

Source: the Gemini API guide, "Thought signatures", questions and answers.
"""
_REDACTED = b64encode(b"redacted:").decode()
_VERBATIM = b64encode(b"verbatim:").decode()


def pack(signature: str) -> str:
    """Return a signature as a ``thoughtSignature``."""
    return signature if _survives(signature) else _wrapped(_VERBATIM, signature)


def pack_redacted(data: str) -> str:
    """Return encrypted reasoning as a ``thoughtSignature``."""
    return _wrapped(_REDACTED, data)


def unpack(value: str) -> tuple[str, str]:
    """Return the signature and the encrypted reasoning that a ``thoughtSignature`` holds, one of them."""
    if value == UNSIGNED:
        return "", ""
    plain = standard(value)
    if plain.startswith(_REDACTED):
        return "", _text(plain)
    return (_text(plain), "") if plain.startswith(_VERBATIM) else (plain, "")


def standard(data: str) -> str:
    """Return base64 in the standard alphabet."""
    return data.replace("-", "+").replace("_", "/") if "-" in data or "_" in data else data


def _survives(signature: str) -> bool:
    try:
        return b64encode(b64decode(signature, validate=True)).decode() == signature
    except ValueError:
        return False


def _wrapped(mark: str, text: str) -> str:
    return mark + b64encode(text.encode()).decode()


def _text(value: str) -> str:
    try:
        return b64decode(value[len(_REDACTED) :], validate=True).decode()
    except ValueError:
        return value


__all__ = ["UNSIGNED", "pack", "pack_redacted", "standard", "unpack"]
