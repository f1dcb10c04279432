"""Write docs/conformance.md from behaviours, runtimes and reasons: the page that the tests hold true."""

from __future__ import annotations

import deferring  # noqa: F401 - registers its behaviours
from behaviours import BEHAVIOURS, CANNOT
from endpoints import ROOT, RUNTIMES

TITLES = {
    "local": "local server",
    "aws": "AWS Lambda, our streaming runtime",
    "aws-web-adapter": "AWS Lambda Web Adapter (app side)",
    "aws-rie": "AWS's own emulator (RIE)",
    "gcp": "Google functions-framework",
    "azure": "Azure Functions' Python runtime",
}
HEAD = """# Conformance

One list of behaviours, run by `make test` against the same endpoint in every runtime, with a simulated
upstream behind it (`tests/conformance`). The clients are the official `openai` SDK and a plain HTTP client
that looks at single packets. "Holds" means that the test passes in that runtime; a number leads to the
reason why a cell cannot hold, and the test then asserts what happens instead.

What is real: uvicorn, our Lambda runtime, AWS's Runtime Interface Emulator, Google's functions-framework,
Microsoft's `azure-functions-runtime` with its streaming web server. What is emulated, and why, stands in
[emulators.md](emulators.md).

"""


def page() -> str:
    """Return the page."""
    reasons = list(dict.fromkeys(CANNOT.values()))
    lines = [HEAD + "| behaviour | " + " | ".join(TITLES[runtime] for runtime in RUNTIMES) + " |"]
    lines.append("|---" * (len(RUNTIMES) + 1) + "|")
    for name in BEHAVIOURS:
        cells = [
            f"no ({reasons.index(CANNOT[r, name]) + 1})" if (r, name) in CANNOT else "holds" for r in RUNTIMES
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append("")
    lines.extend(f"{number}. {reason}." for number, reason in enumerate(reasons, 1))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (ROOT / "docs" / "conformance.md").write_text(page(), "utf-8")
