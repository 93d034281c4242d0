"""The index over an archive's rows: derived, memory-mapped, deleted and built again at will."""
