"""Synthetic H&E-like slides with known tissue classes."""
