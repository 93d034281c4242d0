"""What a confidence means: fitted, judged, and as sets that keep a promise."""
