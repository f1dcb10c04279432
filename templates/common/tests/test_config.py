"""firsttoken.toml says what it should."""

from __future__ import annotations

import offline

from firsttoken import config


def test_settings_load():
    """Every key is known, every target has a provider, and clients find the model `chat`."""
    settings = config.load(offline.ROOT / "firsttoken.toml", {})
    assert settings.models["chat"].all_targets()
    assert settings.cache.mode == "on"


def test_no_secret_is_written_down():
    """A key is named by its environment variable, never written into the file."""
    settings = [setting for provider in offline.PROVIDERS.values() for setting in provider.items()]
    assert all(value.startswith("env:") for name, value in settings if "key" in name)
