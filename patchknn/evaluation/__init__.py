"""Metrics, baselines and pictures of what a search answers."""
