"""Networks that take a slide as a grid of vectors and give one answer for all of it."""
