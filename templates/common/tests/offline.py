"""The project as it is, with simulated models in the places of its providers: what the tests run."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CLOUD = next(path.name for path in (ROOT / "functions").iterdir() if path.is_dir())
PROVIDERS = tomllib.loads((ROOT / "firsttoken.toml").read_text("utf-8"))["providers"]
FAST = '{"kind": "simulated", "ttft_ms": 1, "itl_ms": 1}'
ENVIRONMENT = {
    "FIRSTTOKEN_AUTH": "off",
    "FIRSTTOKEN_CONFIG": str(ROOT / "firsttoken.toml"),
    **{f"FIRSTTOKEN_PROVIDERS__{name.upper()}": FAST for name in PROVIDERS},
}
