"""What a run is known by."""

from __future__ import annotations

from dataclasses import replace


def test_the_digest_tells_results_apart_and_nothing_else(make_settings):
    settings = make_settings()
    assert settings.digest() == replace(settings, workers=7, device="cuda").digest()
    assert settings.digest() != replace(settings, alpha=1.0).digest()
    assert settings.digest() != replace(settings, seed=1).digest()
