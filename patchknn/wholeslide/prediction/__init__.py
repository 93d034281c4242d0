"""What a slide model says of slides, where it looked, and what in an archive is like that."""
