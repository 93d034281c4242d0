"""Embedding on a cluster: a worker reads and embeds a unit, and its rows come back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from threading import Lock

from patchknn.archive.rows import Rows
from patchknn.bundle import Bundle, load_bundle
from patchknn.datasets.patches import Patch, Problem
from patchknn.encoder.devices import choose_device, limit_threads
from patchknn.encoder.inference import FeatureExtractor
from patchknn.errors import ConflictError
from patchknn.indexing.collect import UnitRows
from patchknn.indexing.features import Embedded, embed_batches
from patchknn.indexing.prepare import Looked, open_unit
from patchknn.indexing.reading import ReadSettings
from patchknn.indexing.signals import signals_deferred
from patchknn.indexing.units import WorkUnit
from patchknn.indexing.work import EmbeddingSettings, Work
from patchknn.jobs.cluster import Cluster
from patchknn.jobs.units import Outcome, Unit

_loading = Lock()
DEFAULT_READERS = 4  # that mostly wait, for a disk or for Pillow and OpenSlide outside of Python


@dataclass(frozen=True)
class RemoteEncoder:
    """An encoder that workers load by themselves: its folder, and what it must be."""

    folder: Path
    fingerprint: str
    device: str | None
    precision: str
    averaged: int
    compiled: bool = False
    apart: bool = False

    def load(self) -> tuple[Bundle, FeatureExtractor]:
        """The encoder, loaded once a process.

        Raises ConflictError where the folder holds another one here.
        """
        with _loading:  # threads of one worker share it
            return _load(self)


@dataclass(frozen=True)
class _Task:
    unit: WorkUnit
    looked: Looked
    encoder: RemoteEncoder
    settings: EmbeddingSettings


@dataclass(frozen=True)
class _Result:
    rows: Rows | None = None
    problems: list[Problem] = field(default_factory=list)
    empty: int = 0
    patches: int = 0


class ClusterEmbedding:
    """As Embedding, on the workers of a cluster; they must see the same files under their paths."""

    def __init__(
        self, cluster: Cluster, encoder: RemoteEncoder, settings: EmbeddingSettings
    ) -> None:
        self._cluster, self._encoder, self._settings = cluster, encoder, settings

    def run(
        self,
        works: Iterable[Work],
        finished: Callable[[Work], None],
        after: Callable[[int], None],
    ) -> None:
        """As Embedding; works are drawn ahead by as many as the workers have use for."""
        in_hand: dict[str, Work] = {}
        with self._cluster.engine(embed_unit) as engine:

            def take_some() -> None:
                done = engine.finished()
                if not done:
                    after(0)
                for unit, outcome in done:
                    work = in_hand.pop(unit.name)
                    patches = _fill(work, outcome)
                    with signals_deferred():
                        finished(work)
                    after(patches)

            for work in works:
                in_hand[work.unit.name] = work
                task = _Task(work.unit, work.looked, self._encoder, self._settings)
                engine.give(Unit(work.unit.name, task))
                while len(in_hand) >= engine.capacity:
                    take_some()
            while in_hand:
                take_some()

    def keep_complete_images(self, finished: Callable[[Work], None]) -> None:
        """As Embedding: what the workers have is given up."""


@dataclass(frozen=True)
class _Block:
    items: tuple[Patch | Problem, ...]
    encoder: RemoteEncoder
    reading: ReadSettings


def embed_patches_on(
    cluster: Cluster,
    items: Iterable[Patch | Problem],
    encoder: RemoteEncoder,
    reading: ReadSettings,
    batch_size: int,
) -> Iterator[Embedded]:
    """``embed_patches`` on the workers of a cluster, batch by batch, in order."""
    stream = iter(items)
    batches = iter(lambda: tuple(islice(stream, batch_size)), ())
    for results in cluster.map(embed_block, (_Block(one, encoder, reading) for one in batches)):
        yield from results


def embed_block(block: _Block) -> list[Embedded]:
    """Read and embed patches, on a worker."""
    _, extractor = block.encoder.load()
    batches = embed_batches([block.items], extractor, _threaded(block.reading))
    return [one for batch in batches for one in batch]


def embed_unit(unit: Unit[_Task]) -> Outcome:
    """Read and embed a unit, on a worker; the outcome's ``result`` is all that came of it."""
    task, settings = unit.payload, unit.payload.settings
    opened = open_unit(task.looked, settings.patches)
    if not opened.patches:
        result = _Result(problems=opened.problems, empty=opened.empty)
        return Outcome(unit.name, "done", result=result)
    bundle, extractor = task.encoder.load()
    rows = UnitRows(
        *(task.unit, opened.sources, bundle, settings.feature_dtype), expected=len(opened.patches)
    )
    batches = (
        opened.patches[start : start + settings.batch_size]
        for start in range(0, len(opened.patches), settings.batch_size)
    )
    for batch in embed_batches(batches, extractor, _threaded(settings.reading)):
        rows.add(batch)
    problems = [*opened.problems, *rows.failures()]
    result = _Result(rows.rows(), problems, opened.empty, len(opened.patches))
    return Outcome(unit.name, "done", result=result)


def _threaded(reading: ReadSettings) -> ReadSettings:
    """Dask's workers may not start processes: threads read beside the encoder."""
    return replace(reading, threads=True, workers=reading.workers or DEFAULT_READERS)


def _fill(work: Work, outcome: Outcome) -> int:
    """Put into a work what came of it; how many patches were embedded."""
    if not isinstance(outcome.result, _Result):
        work.problems.append(Problem(work.unit.name, outcome.detail, outcome.final))
        return 0
    work.rows, work.empty = outcome.result.rows, outcome.result.empty
    work.problems += outcome.result.problems
    return outcome.result.patches


@lru_cache(maxsize=1)
def _load(encoder: RemoteEncoder) -> tuple[Bundle, FeatureExtractor]:
    bundle = load_bundle(encoder.folder)
    if bundle.fingerprint != encoder.fingerprint:
        message = (
            f"{encoder.folder} holds another encoder where this worker runs: workers must see the "
            "same files under the same paths."
        )
        raise ConflictError(message)
    limit_threads()
    device = choose_device(encoder.device)
    extractor = FeatureExtractor.from_bundle(
        *(bundle, device, encoder.precision, encoder.averaged),
        apart=encoder.apart,
        compiled=encoder.compiled,
    )
    return bundle, extractor
