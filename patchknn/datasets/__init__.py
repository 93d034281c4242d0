"""Patches to train on or to embed: lists, pixels, transforms and balanced batches."""
