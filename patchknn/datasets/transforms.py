"""From 8-bit images to what a network takes, in training as in use."""

from __future__ import annotations

from patchknn.encoder.inference import normalise

__all__ = ["normalise"]
