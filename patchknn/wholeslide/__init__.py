"""Whole slides: as grids of vectors that models learn from (Tellez 2020), and beside each other."""
