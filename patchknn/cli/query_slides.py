"""``query --overlay`` and ``--geojson``: predictions put back on the slides that were asked."""

from __future__ import annotations

from pathlib import Path

from patchknn.archive.snapshot import Snapshot
from patchknn.cli import console
from patchknn.cli.query_asked import Asked
from patchknn.cli.query_output import AnswerWriter
from patchknn.evaluation.overlays.slide_answers import SlideAnswers
from patchknn.search.answers import Answer


class OnSlides:
    """Takes answers as they come, and says on stderr what became of them; as Beside."""

    def __init__(
        self,
        snapshot: Snapshot,
        overlay: Path | None,
        geojson: Path | None,
        default_mpp: float | None,
    ) -> None:
        from patchknn.evaluation.overlays import geojson as geojson_files
        from patchknn.evaluation.overlays import overlay as overlays

        self._failed = False
        self._folders = [folder for folder in (overlay, geojson) if folder is not None]
        self._told = 0
        for folder in self._folders:  # what cannot be made is better known now than in an hour
            folder.mkdir(parents=True, exist_ok=True)
        outputs = []
        if overlay is not None:
            outputs.append((overlay, overlays.SUFFIX, overlays.draw_overlay))
        if geojson is not None:
            outputs.append((geojson, geojson_files.SUFFIX, geojson_files.write_geojson))
        self._answers = SlideAnswers(snapshot, outputs, default_mpp=default_mpp)

    def add(self, asked: Asked, answer: Answer) -> None:
        """Take one answer."""
        self._answers.add(asked.patch, answer)
        self._tell()

    def finish(self, _: AnswerWriter) -> bool:
        """Write what is not written yet; whether all could be."""
        self._answers.finish()
        self._tell()
        if self._answers.ignored:
            console.warn(
                f"answers to what is no tile of a slide: {self._answers.ignored}; they are not in "
                f"{' or '.join(dict.fromkeys(map(str, self._folders)))}."
            )
        for folder in dict.fromkeys(self._folders):
            files = [path for path in self._answers.written if path.is_relative_to(folder)]
            console.message(f"{folder}: files of slides written: {len(files)}.")
        return not self._failed

    def _tell(self) -> None:
        for problem in self._answers.problems[self._told :]:
            self._failed = True
            console.fail(problem)
        self._told = len(self._answers.problems)
