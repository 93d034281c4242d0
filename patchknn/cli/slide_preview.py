"""``patchknn slide preview``: grids as pictures, so that people can look at them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from patchknn.cli import console, options

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from patchknn.wholeslide.grids.preview import Colours

_COLUMNS = ("name", "status", "width", "height", "path")


class _Readable(NamedTuple):
    """A grid file that can be read, and the name of its slide."""

    name: str
    path: Path


class _Failure(NamedTuple):
    """A file or slide that cannot be drawn, and why."""

    name: str
    error: str


def preview(
    grids: Annotated[
        list[Path], typer.Argument(metavar="GRIDS...", help="Grids, or folders of them.")
    ],
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the pictures.")
    ],
    scale: Annotated[
        int, typer.Option("--scale", min=1, max=256, help="Pixels on a side of each patch.")
    ] = 8,
    seed: options.Seed = 0,
    format: options.Format = None,
) -> int:
    """Draw each grid as a PNG: like colours are like tissue, white is none.

    The first three principal components of the vectors of all given slides are red, green and
    blue, so that colours agree between the slides of one command.
    """
    from patchknn.slides.outputs import output_files
    from patchknn.wholeslide.grids.preview import fit_colours

    readable, samples, failures = _read(grids, seed)
    colours = fit_colours(samples, seed) if samples else None
    done = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal done
        outputs = zip(readable, output_files(readable, output, ".png"), strict=True)
        for one, place in console.progress(outputs, total=len(readable), label="preview"):
            if place.clash is not None:
                failures.append(_Failure(one.name, place.clash))
            elif colours is not None:
                result = _draw(one, colours, place.path, scale)
                if not isinstance(result, _Failure):
                    done += 1
                    yield result
                    continue
                failures.append(result)
        for failure in failures:
            console.fail(failure.error)
            yield {"name": failure.name, "status": "failed", "error": failure.error}

    style = console.output_format(format)
    console.write_rows(rows(), _COLUMNS, style, title=f"Previews in {output}")
    seen = "" if colours is None else f"; colours show {colours.explained:.0%} of the variance"
    console.message(f"slide preview: {done} done, {len(failures)} failed{seen}.")
    return (3 if done else 1) if failures else 0


def _read(
    grids: Sequence[Path], seed: int
) -> tuple[list[_Readable], list[NDArray[np.float32]], list[_Failure]]:
    """The grids that can be read, some vectors of each, and what is wrong with the others."""
    import numpy as np

    from patchknn.errors import PatchknnError
    from patchknn.wholeslide.grids.grid import list_grids, open_grid
    from patchknn.wholeslide.grids.preview import SAMPLE, sample_vectors

    readable: list[_Readable] = []
    samples: list[NDArray[np.float32]] = []
    failures: list[_Failure] = []
    paths: list[Path] = []
    for argument in grids:
        try:
            paths += list_grids(argument)
        except PatchknnError as error:
            failures.append(_Failure(str(argument), str(error)))
    rng = np.random.default_rng(seed)
    encoder: str | None = None
    for path in dict.fromkeys(paths):
        try:
            grid = open_grid(path)
        except PatchknnError as error:
            failures.append(_Failure(str(path), str(error)))
            continue
        encoder = encoder or grid.info.encoder
        if grid.info.encoder != encoder:
            message = (
                f"{path} is of another encoder than {readable[0].path}: draw the grids of one "
                "encoder at a time."
            )
            failures.append(_Failure(grid.info.name, message))
            continue
        readable.append(_Readable(grid.info.name, path))
        samples.append(sample_vectors(grid, max(SAMPLE // len(paths), 2), rng))
    return readable, samples, failures


def _draw(one: _Readable, colours: Colours, file: Path, scale: int) -> dict[str, Any] | _Failure:
    from PIL import Image

    from patchknn.errors import PatchknnError
    from patchknn.files import replaced_atomically
    from patchknn.wholeslide.grids.grid import open_grid
    from patchknn.wholeslide.grids.preview import preview as picture_of

    try:
        picture = picture_of(open_grid(one.path), colours, scale)
    except PatchknnError as error:
        return _Failure(one.name, str(error))
    file.parent.mkdir(parents=True, exist_ok=True)
    with replaced_atomically(file) as temporary:
        Image.fromarray(picture).save(temporary, "PNG")
    height, width, _ = picture.shape
    return {
        "name": one.name,
        "status": "done",
        "width": width,
        "height": height,
        "path": str(file),
    }
