"""One self-contained page that shows what an evaluation or a set of queries came to."""
