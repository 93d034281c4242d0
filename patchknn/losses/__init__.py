"""The losses of the papers, one per file, with the distances and miners they share."""
