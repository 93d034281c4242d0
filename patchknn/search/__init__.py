"""Two-stage search, Hamming then L2: filters, votes and confidence."""
