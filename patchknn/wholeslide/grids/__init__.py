"""Slides as small grids of vectors: made, kept as files, looked at."""
