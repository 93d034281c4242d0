"""What is wanted of ``query`` beside the search itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from patchknn.errors import UsageError
from patchknn.files import check_output


class Wanted(NamedTuple):
    """Where answers go, and what is wanted beside them.

    ``format`` None is a table on a terminal, NDJSON in a pipe; ``size`` in pixels must be the
    archive's; ``slides`` is where the slides of tile sets lie now; ``explain``: say in each answer
    what its search took; ``at`` a snapshot that is not the newest; ``dask`` a cluster that does it;
    ``fields`` of records are put beside each neighbour; ``calibrated``: with what the archive's
    calibration says, whose sets are to have the ``coverage``; ``report`` is a folder for a page
    that shows the ``report_queries`` least sure; ``overlay`` and ``geojson`` are folders of
    predictions that are put back on their slides.
    """

    format: str | None = None
    output: Path | None = None
    montage: Path | None = None
    slides: Path | None = None
    size: int | None = None
    explain: bool = False
    at: int | None = None
    dask: str | None = None
    fields: tuple[str, ...] = ()
    calibrated: bool = False
    coverage: float | None = None
    report: Path | None = None
    report_queries: int = 200
    overlay: Path | None = None
    geojson: Path | None = None

    def check(self, queries: Sequence[str], ids: Sequence[str]) -> None:
        """Raise UsageError or ConflictError for what cannot be asked or written so."""
        if not queries and not ids:
            message = "nothing to query: give images, slides, .npy features, '-', or --id."
            raise UsageError(message)
        if [*queries, *ids].count("-") > 1:
            message = "stdin ('-') can be read only once."
            raise UsageError(message)
        if self.output is not None and self.format not in {None, "ndjson"}:
            message = f"-o writes NDJSON, not {self.format}: leave --format away."
            raise UsageError(message)
        if (self.overlay or self.geojson) and self.output is not None:
            message = (
                "-o goes on where it stopped, but --overlay and --geojson need all tiles of a "
                "slide: send stdout to a file instead."
            )
            raise UsageError(message)
        if self.explain and self.format == "tsv":
            message = "TSV has no place for --explain: use --format ndjson or table."
            raise UsageError(message)
        if self.montage is not None:
            from patchknn.evaluation.montage import MONTAGE_SUFFIXES

            check_output(self.montage, "--montage", MONTAGE_SUFFIXES)
        if self.report is not None:
            from patchknn.cli.report import check_report

            check_report(self.report, self.report_queries)


def names_in(text: str | None) -> tuple[str, ...]:
    """The names in a list with commas; one with a comma in it stands in double quotes."""
    if text is None:
        return ()
    import csv

    try:
        names = [name.strip() for name in next(csv.reader([text], skipinitialspace=True), [])]
    except csv.Error:
        names = []
    if not names or not all(names):
        message = f"--fields {text}: give names with commas between them, as in --fields a,b."
        raise UsageError(message)
    return tuple(names)
