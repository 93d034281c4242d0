"""Slide models: trained on grids, kept as directories, asked about slides."""
