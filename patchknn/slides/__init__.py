"""Slides and images: readers, tissue, tile grids, annotations and the tile-set file."""
