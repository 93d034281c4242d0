"""Slides compared with each other as wholes, by mosaics of their patches (Kalra 2020)."""
