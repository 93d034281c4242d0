"""What the figures are made of: plain arrays and outcomes in, numbers out."""
