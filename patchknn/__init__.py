"""patchknn: index histopathology patches and answer queries by their nearest neighbours."""

__version__ = "0.1.0"
