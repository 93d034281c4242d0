"""``patchknn archive``."""

import typer

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def _group() -> None:
    """(being written)."""
