"""Synthetic H&E-like slides with known tissue classes, and needles in haystacks."""
