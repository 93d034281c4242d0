"""Predictions put back on their slides."""
