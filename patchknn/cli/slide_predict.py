"""``patchknn slide predict``: what a slide model says of slides, and where that comes from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from patchknn.cli import console, options

if TYPE_CHECKING:
    from patchknn.wholeslide.prediction.explaining import Explainer
    from patchknn.wholeslide.prediction.predicting import SlidePrediction

_COLUMNS = ("slide", "patient", "prediction", "probability", "saliency", "status")


def predict(
    grids: Annotated[
        list[Path], typer.Argument(metavar="GRIDS...", help="Grids, or folders of them.")
    ],
    *,
    model: Annotated[
        Path, typer.Option("--model", metavar="MODEL", help="A slide model ('slide train').")
    ],
    heatmap: Annotated[
        Path | None,
        typer.Option("--heatmap", metavar="DIR", help="A picture of each slide: where it looked."),
    ] = None,
    geojson: Annotated[
        Path | None,
        typer.Option("--geojson", metavar="DIR", help="The same for QuPath: a square a patch."),
    ] = None,
    slides: Annotated[
        Path | None,
        typer.Option(
            "--slides",
            metavar="DIR",
            exists=True,
            file_okay=False,
            help="Where the slides lie now, for --heatmap.",
        ),
    ] = None,
    archive: Annotated[
        Path | None,
        typer.Option("--archive", metavar="ARCHIVE", help="Explain by its nearest patches."),
    ] = None,
    top: Annotated[
        int, typer.Option("--top", metavar="N", min=0, help="Patches of each slide to name.")
    ] = 5,
    k: Annotated[int, typer.Option("--k", min=1, help="Archived patches beside each.")] = 5,
    alike: Annotated[
        int, typer.Option("--alike", metavar="N", min=0, help="Archived slides beside each.")
    ] = 3,
    device: options.Device = None,
    format: options.Format = None,
) -> int:
    """Predict what 'slide train' learnt, for each grid, and show where that comes from.

    NDJSON names the most salient patches (attention of mil, else gradient times input), and with
    --archive the archived patches nearest to each, and the slides that are alike; the own slide
    and patient are left out.
    """
    from patchknn.encoder.devices import choose_device, limit_threads
    from patchknn.wholeslide.learning.slide_model import load_slide_model

    limit_threads()
    asked = load_slide_model(model, choose_device(device))
    explainer = None if archive is None else _explainer(archive, k, alike)
    work = _Predictions(heatmap, geojson, slides, explainer)
    style = console.output_format(format)
    columns = _COLUMNS if asked.task.kind == "classification" else _without(_COLUMNS)
    console.write_rows(work.rows(grids, asked, top), columns, style, title=f"By {model}")
    console.message(f"slide predict: {work.done} done, {work.failed} failed.")
    return (3 if work.done else 1) if work.failed else 0


def _without(columns: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in columns if name != "probability")


def _explainer(archive: Path, k: int, alike: int) -> Explainer:
    from patchknn.archive.snapshot import open_archive
    from patchknn.jobs.cpus import available_cpus
    from patchknn.wholeslide.prediction.explaining import Explainer
    from patchknn.wholeslide.prediction.slides_alike import SlidesAlike

    snapshot, threads = open_archive(archive), available_cpus()
    slides = SlidesAlike(snapshot, alike, threads) if alike else None
    return Explainer(snapshot, k, slides=slides, threads=threads)


class _Predictions:
    """Goes through grids, writes what is asked for beside, and counts."""

    def __init__(
        self,
        heatmap: Path | None,
        geojson: Path | None,
        slides: Path | None,
        explainer: Explainer | None,
    ) -> None:
        self.done = self.failed = 0
        self._heatmap, self._geojson, self._slides = heatmap, geojson, slides
        self._explainer = explainer
        self._taken: dict[Path, Path] = {}
        for folder in (heatmap, geojson):  # what cannot be made is better known now
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)

    def rows(self, grids: list[Path], model: Any, top: int) -> Iterator[dict[str, Any]]:
        """One row for each grid, also of those that fail."""
        from patchknn.errors import PatchknnError
        from patchknn.wholeslide.grids.grid import list_grids, open_grid
        from patchknn.wholeslide.prediction.predicting import predict_slide

        paths: list[Path] = []
        for argument in grids:
            try:
                paths += list_grids(argument)
            except PatchknnError as error:
                yield self._failure(str(argument), error)
        unique = list(dict.fromkeys(paths))
        for path in console.progress(unique, total=len(unique), label="slides"):
            try:
                prediction = predict_slide(model, path, open_grid(path), top)
                if self._explainer is not None:
                    prediction = self._explainer.explained(prediction)
                self._write(prediction)
            except PatchknnError as error:
                yield self._failure(str(path), error)
                continue
            self.done += 1
            yield prediction.as_json()

    def _failure(self, name: str, error: Exception) -> dict[str, Any]:
        self.failed += 1
        console.fail(str(error))
        return {"slide": name, "status": "failed", "error": str(error)}

    def _write(self, prediction: SlidePrediction) -> None:
        from patchknn.wholeslide.prediction.heatmap import draw_heatmap, write_heatmap_geojson

        if self._heatmap is not None:
            draw_heatmap(
                self._file(self._heatmap, prediction, ".png"), prediction, self._slide(prediction)
            )
        if self._geojson is not None:
            write_heatmap_geojson(self._file(self._geojson, prediction, ".geojson"), prediction)

    def _file(self, folder: Path, prediction: SlidePrediction, suffix: str) -> Path:
        from patchknn.errors import ConflictError
        from patchknn.slides.outputs import output_files

        (output,) = output_files([prediction], folder, suffix)
        earlier = self._taken.setdefault(output.path, prediction.path)
        clash = output.clash
        if earlier != prediction.path:
            clash = f"{earlier} and {prediction.path} would both be {output.path}; ask one by one."
        if clash is not None:
            raise ConflictError(clash)
        output.path.parent.mkdir(parents=True, exist_ok=True)
        return output.path

    def _slide(self, prediction: SlidePrediction) -> Path | None:
        """The slide's file, where it can be found: below --slides, or where it was compressed."""
        if self._slides is not None and (self._slides / prediction.name).exists():
            return self._slides / prediction.name
        known = prediction.grid.info.slide
        return Path(known) if known is not None and Path(known).exists() else None
