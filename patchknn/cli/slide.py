"""``patchknn slide``: whole slides; each command is a file of its own."""

from __future__ import annotations

import typer

from patchknn.cli import slide_compress, slide_predict, slide_preview, slide_search, slide_train

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Compress whole slides to grids of vectors; look at them, learn from them, search them."""


app.command("compress")(slide_compress.compress)
app.command("preview")(slide_preview.preview)
app.command("train")(slide_train.train)
app.command("predict")(slide_predict.predict)
app.command("search", short_help="Find slides that are alike; judge it.")(slide_search.search)
