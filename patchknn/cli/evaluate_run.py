"""What ``evaluate`` does once its command line is read: ask, judge, compare, print."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from patchknn.archive.snapshot import Snapshot, open_archive
from patchknn.cli import console
from patchknn.cli.evaluate_answers import AnswersFile, answers_file
from patchknn.cli.evaluate_baselines import BaselineChoice, PictureSource, asked_of, baselines
from patchknn.cli.evaluate_diagnosis import Diagnosis
from patchknn.cli.evaluate_methods import (
    compared_contestant,
    method_contestants,
    sweep_contestants,
    sweep_section,
)
from patchknn.cli.evaluate_output import say_how_sure, say_what_is_missing, write_figures
from patchknn.cli.evaluate_queries import Asking, Embedding
from patchknn.cli.report import Sampling, check_report, write_evaluation_report
from patchknn.errors import UsageError
from patchknn.evaluation.comparison.abstention import abstention_section
from patchknn.evaluation.comparison.by_fields import (
    COLUMNS,
    QueryFields,
    field_rows,
    manifest_columns,
)
from patchknn.evaluation.comparison.compare import with_intervals
from patchknn.evaluation.comparison.csv_files import (
    check_folder,
    figure_tables,
    section_tables,
    write_csv,
)
from patchknn.evaluation.comparison.sweeps import read_sweep
from patchknn.evaluation.evaluate import Contestant, evaluate_all
from patchknn.evaluation.evaluation import Evaluation
from patchknn.evaluation.queries import LabelledSet
from patchknn.evaluation.sections import Section
from patchknn.search.answers import Answer, Failure
from patchknn.search.fields import NeighbourFields
from patchknn.search.query import Query
from patchknn.search.settings import SearchSettings

if TYPE_CHECKING:
    from patchknn.archive.calibration import Calibration
    from patchknn.jobs.cluster import Cluster

Sink = Callable[[Query, Sequence[Answer]], None]


class Wanted(NamedTuple):
    """What is wanted beside the figures, and how they are printed.

    ``split`` picks rows of manifests, ``slides`` is where the slides of tile sets lie now, ``at`` a
    snapshot that is not the newest, ``dask`` a cluster that does it. ``bootstrap`` draws of
    patients by ``seed`` say how sure the figures are. ``methods`` are first stages beside the
    main one, ``compare`` other archives, ``sweeps`` as ``read_sweep`` takes them, ``by`` fields
    that queries are told apart by; ``answers`` and ``csv`` are where these go. ``report`` is a
    folder for a page that shows ``report_queries`` of the queries; ``baselines`` says what else is
    judged, ``diagnosis`` what else is looked for; ``calibrated``: figures
    of the archive's calibration too; ``fields`` of the archive's records are put beside neighbours
    in ``answers`` and ``report``.
    """

    format: str | None = None
    split: str | None = None
    slides: Path | None = None
    at: int | None = None
    dask: str | None = None
    bootstrap: int = 0
    seed: int = 0
    report: Path | None = None
    report_queries: int = 200
    diagnosis: Diagnosis = Diagnosis()
    baselines: BaselineChoice = BaselineChoice()
    methods: Sequence[str] = ()
    compare: Sequence[Path] = ()
    sweeps: Sequence[str] = ()
    by: Sequence[str] = ()
    answers: Path | None = None
    csv: Path | None = None
    calibrated: bool = False
    fields: Sequence[str] = ()

    def check(self, snapshot: Snapshot, *, own_rows: bool) -> None:
        """Raise UsageError or ConflictError for what could not be made or written."""
        if self.report is not None:
            check_report(self.report, self.report_queries)
        if self.csv is not None:
            check_folder(self.csv)
        if self.fields and self.report is None and self.answers is None:
            message = "--fields shows in answers and reports: give --answers or --report too."
            raise UsageError(message)
        self.diagnosis.check(snapshot, own_rows=own_rows)


def run_evaluate(
    archive: Path,
    data: Sequence[str],
    settings: SearchSettings,
    embedding: Embedding,
    wanted: Wanted,
) -> int:
    """Judge an archive by labelled data, or by its own rows where there are none; the exit code."""
    snapshot = open_archive(archive, wanted.at)
    others = [open_archive(path) for path in dict.fromkeys(wanted.compare)]
    asking = Asking(data, settings.exclude_same, wanted.split, wanted.slides)
    # All that can be refused is refused before hours are spent.
    wanted.check(snapshot, own_rows=not data)
    run = _Run(snapshot, settings, asking, embedding, wanted)
    with ExitStack() as stack:
        if wanted.dask is not None:
            from patchknn.jobs.connecting import connected

            run.cluster = stack.enter_context(connected(wanted.dask, console.warn))
        if wanted.answers is not None:
            several = bool(wanted.methods or others)
            run.answers = stack.enter_context(
                answers_file(wanted.answers, several=several, fields=run.fields)
            )
        rivals = [compared_contestant(other, settings, run.cluster) for other in others]
        run.judge()
        for other, rival in zip(others, rivals, strict=True):
            run.judge_beside(other, rival)
        run.judge_baselines()
    return run.tell()


class _Run:
    """One call of ``evaluate``: what came of it so far, and what it is to be told by."""

    def __init__(
        self,
        snapshot: Snapshot,
        settings: SearchSettings,
        asking: Asking,
        embedding: Embedding,
        wanted: Wanted,
    ) -> None:
        self.cluster: Cluster | None = None
        self.answers: AnswersFile | None = None
        self._snapshot, self._settings, self._wanted = snapshot, settings, wanted
        self._asking, self._embedding = asking, embedding
        self._sweeps = [read_sweep(text) for text in wanted.sweeps]
        self.fields = NeighbourFields(snapshot, wanted.fields) if wanted.fields else None
        self._by = None
        if wanted.by:
            columns = manifest_columns(asking.data, wanted.by)
            self._by = QueryFields(snapshot, wanted.by, columns)
        own = not asking.data
        self._calibration = _calibrated(snapshot, settings, own=own) if wanted.calibrated else None
        self._asked = asking.labelled(snapshot, embedding)
        self._sampling = Sampling(wanted.report_queries)
        self._evaluations: list[Evaluation] = []
        self._sections: list[Section] = []

    def judge(self) -> None:
        """Have the queries answered by the archive, its other first stages, and what is swept."""
        snapshot, settings, wanted = self._snapshot, self._settings, self._wanted
        methods = method_contestants(snapshot, settings, wanted.methods, self.cluster)
        swept = sweep_contestants(snapshot, settings, self._sweeps, self.cluster)
        sinks: list[Sink] = [self._sampling] if wanted.report is not None else []
        if (by := self._by) is not None:
            sinks.append(lambda query, _: by.add(query))
        entered = [*methods, *swept]
        judged = self._answered(snapshot, self._asked, entered, sinks, seen=len(methods))
        self._evaluations += judged[: len(methods)]
        if self._calibration is not None:
            from patchknn.evaluation.calibration.calibrated_figures import calibrated_figures

            first = self._evaluations[0]
            figures = calibrated_figures(self._calibration, first.outcomes, snapshot.classes)
            self._evaluations[0] = replace(first, calibrated=figures)
        self._sections += sweep_section(
            *(self._sweeps, judged[len(methods) :], wanted.bootstrap, wanted.seed)
        )

    def judge_beside(self, other: Snapshot, rival: Contestant) -> None:
        """Have them answered by another archive too, with its own encoder."""
        asked = self._asking.labelled(other, self._embedding)
        sinks: list[Sink] = []
        if self._wanted.report is not None:
            keep = self._sampling.elsewhere(rival.method, other)
            sinks.append(lambda query, answers: keep(query, answers[0]))
        self._evaluations += self._answered(other, asked, [rival], sinks, seen=1)

    def judge_baselines(self) -> None:
        """Have them answered by what keeps one honest."""
        snapshot, given, first = self._snapshot, self._embedding, self._evaluations[0]
        pictures = len(snapshot) + (0 if self._asked is None else len(first.outcomes))
        wanted = self._wanted
        shown = wanted.report is not None or console.output_format(wanted.format) == "table"
        choice = wanted.baselines.chosen(pictures, shown=shown)
        where = PictureSource(wanted.slides, given.default_mpp, given.workers, given.device)
        with baselines(snapshot, self._settings, choice, where) as found:
            if found is not None:
                self._evaluations += found.evaluate(asked_of(snapshot, self._asked, first))

    def tell(self) -> int:
        """Print and write what came of it; the exit code."""
        wanted = self._wanted
        evaluations = with_intervals(self._evaluations, wanted.bootstrap, wanted.seed)
        found = wanted.diagnosis.make(self._snapshot, self._asked, evaluations[0])
        say_what_is_missing(evaluations)
        if wanted.bootstrap:
            say_how_sure(evaluations)
        style = console.output_format(wanted.format)
        if self._by is not None:
            rows = field_rows(self._by, evaluations, wanted.bootstrap, wanted.seed)
            self._sections.append(Section("by_field", "By field", COLUMNS, rows))
        sections = [*self._sections, abstention_section(evaluations)]
        # In JSON it stands among the figures of confidence.
        write_figures(evaluations, style, self._sections if style == "ndjson" else sections)
        if wanted.csv is not None:
            write_csv(wanted.csv, figure_tables(evaluations) | section_tables(sections))
        if wanted.report is not None:
            from patchknn.evaluation.report.added import table_section

            patches = [] if self._asked is None else self._asked.patches
            shown = self._sampling.shown(patches, self.fields)
            page = (wanted.report, self._snapshot, evaluations, self._settings, shown)
            added = [*map(table_section, sections), *found]
            write_evaluation_report(*page, wanted.slides, added)
        return 3 if any(one.failed for one in evaluations) else 0

    def _answered(
        self,
        snapshot: Snapshot,
        asked: LabelledSet | None,
        contestants: Sequence[Contestant],
        sinks: list[Sink],
        *,
        seen: int,
    ) -> list[Evaluation]:
        """What came of the queries; ``sinks`` see the answers of the first ``seen``."""
        answers_file = self.answers
        if answers_file is not None:
            sinks.append(answers_file.sink([one.method for one in contestants[:seen]]))
        embedding = self._embedding
        if snapshot is not self._snapshot:  # an encoder kept elsewhere is that of the first
            embedding = embedding._replace(encoder=None)
        queries, total, left_out = self._asking.queries(snapshot, asked, embedding, self.cluster)

        def on_answered(query: Query, answers: Sequence[Answer]) -> None:
            for sink in sinks:
                sink(query, answers[:seen])

        def on_failure(failure: Failure) -> None:
            console.fail(failure.error)
            if answers_file is not None:
                answers_file.fail(failure)

        return evaluate_all(
            snapshot,
            console.progress(queries, total=total, label="queries"),
            contestants,
            on_failure=on_failure,
            left_out=left_out,
            on_answered=on_answered,
        )


def _calibrated(snapshot: Snapshot, settings: SearchSettings, *, own: bool) -> Calibration:
    from patchknn.search.calibrated import Calibrated

    calibrated = Calibrated(snapshot, settings)
    if calibrated.warning is not None:
        console.warn(calibrated.warning)
    if own and calibrated.calibration.own:
        console.warn(
            "the calibration was made of the same rows, which praise it: judge it by DATA of "
            "other patients."
        )
    return calibrated.calibration
