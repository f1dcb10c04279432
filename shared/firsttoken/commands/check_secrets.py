"""Rules of ``firsttoken check`` about secrets: none stands in the settings, and none in any other file.

What is found is never shown, only where it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

from firsttoken.commands.check_project import CONFIG, Project
from firsttoken.commands.check_result import Findings, fail, ok, unchecked

_SECRET = re.compile(r"(?:api_key|secret|encryption_key|connection|password|token|index_url|url)$")
_HEADERS = frozenset({"authorization", "x-api-key", "api-key", "x-goog-api-key"})
_KINDS = {
    "an OpenAI or Anthropic key": r"\bsk-(?:ant-|proj-|svcacct-)?[A-Za-z0-9_-]{20,}",
    "an AWS access key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "an AWS secret key": r"(?i:aws_?secret_?access_?key)['\"]?\s*[:=]\s*['\"]?[A-Za-z0-9/+]{40}\b",
    "a Google API key": r"\bAIza[0-9A-Za-z_-]{35}\b",
    "an Azure account key": r"AccountKey=[A-Za-z0-9+/]{86}==",
    "an Azure access key": r"SharedAccessKey=[A-Za-z0-9+/]{43}=",
    "a private key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\s*(?:\\n)?[A-Za-z0-9+/]{40,}",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{60,})",
    "a webhook secret": r"\bwhsec_[A-Za-z0-9+/]{32,}",
    "an API key of this gateway": r"\bft-[A-Za-z0-9_-]{43}\b",
}
_PATTERN = re.compile("|".join(f"(?P<k{i}>{pattern})" for i, pattern in enumerate(_KINDS.values())))
_HINT = re.compile(
    r"sk-|AKIA|ASIA|secret|whsec_|AIza|AccessKey=|AccountKey=|PRIVATE KEY|gh[pousr]_|github_pat_|ft-",
    re.IGNORECASE,
)
# The storage emulator's own, which is the same everywhere.
_KNOWN = ("Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq", "EXAMPLE")
_SHOWN = 5


def settings_have_no_secrets(project: Project) -> Findings:
    """Check that a secret is named by its environment variable, which the secret store fills."""
    found = 0
    for section, key, value in _leaves(project.tree):
        if _is_secret(section, key, value):
            found += 1
            yield fail(
                f"{project.at(section, key)} {section}.{key} is written down",
                f'{key} = "env:NAME", with NAME from the secret store of the cloud; and change the secret',
            )
    if not found and project.configured:
        yield ok(f"{CONFIG}: every secret is an env: reference")


def files_have_no_secrets(project: Project) -> Findings:
    """Check that no file has what looks like a key."""
    found = [where for name in project.files for where in _found(name, project.text(name))]
    for where in found[:_SHOWN]:
        yield fail(where, "take it out, and make a new one: it is in the history too")
    if len(found) > _SHOWN:
        yield fail(f"{len(found) - _SHOWN} more", "")
    if not found:
        yield ok(f"{len(project.files)} files, nothing that looks like a key")
    if project.cut:
        yield unchecked(f"only the first {len(project.files):,} files")


def _is_secret(section: str, key: str, value: Any) -> bool:
    if not isinstance(value, str) or not value or value.startswith("env:"):
        return False
    if section.endswith(".headers"):
        return key.lower() in _HEADERS
    if not _SECRET.search(key):
        return False
    if key.endswith("url"):  # an address is one only with a password in it
        try:
            return bool(urlsplit(value).password)
        except ValueError:
            return False
    return key != "connection" or "Key=" in value


def _leaves(node: Any, section: str = "") -> Iterator[tuple[str, str, Any]]:
    for key, value in node.items():
        path = f"{section}.{key}" if section else key
        if isinstance(value, dict):
            yield from _leaves(value, path)
        elif isinstance(value, list) and all(isinstance(one, dict) for one in value):
            for one in value:
                yield from _leaves(one, path)
        else:
            yield section, key, value


def _found(name: str, text: str) -> Iterator[str]:
    if not _HINT.search(text):
        return
    kinds = list(_KINDS)
    for found in _PATTERN.finditer(text):
        if not any(known in found[0] for known in _KNOWN) and _random(found[0]):
            line = text.count("\n", 0, found.start()) + 1
            yield f"{name}:{line} looks like {kinds[int((found.lastgroup or 'k0')[1:])]}"


def _random(text: str) -> bool:
    """Return whether a text looks drawn by lot: keys do, words and those made up for tests do not."""
    if "PRIVATE KEY" in text:
        return True
    body = re.sub(r"^[a-z]+[-_]", "", re.findall(r"[A-Za-z0-9+/_-]+", text)[-1])
    steps = sum(abs(ord(after) - ord(before)) <= 1 for before, after in pairwise(body))
    mixed = any(map(str.isdigit, body)) and any(map(str.isalpha, body))
    return mixed and len(set(body)) >= 10 and steps < len(body) / 3
