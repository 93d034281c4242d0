"""The fit loop and all that watches it."""
