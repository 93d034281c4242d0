"""Whole slides: compared with each other as wholes, by what their patches look like."""
