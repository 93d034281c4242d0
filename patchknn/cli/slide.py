"""``patchknn slide``: what is done with slides as wholes."""

from __future__ import annotations

import typer

from patchknn.cli import slide_search

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)
app.command(short_help="Find slides that are alike; judge it.")(slide_search.search)


@app.callback()
def _group() -> None:
    """Work with slides as wholes."""
