"""Where the queries of ``evaluate`` come from: labelled data, or the archive's own rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from patchknn.archive.snapshot import Snapshot
from patchknn.evaluation.queries import LabelledSet, labelled_set
from patchknn.search.answers import Failure
from patchknn.search.query import Query

if TYPE_CHECKING:
    from patchknn.jobs.cluster import Cluster


class Embedding(NamedTuple):
    """How queries are embedded; ``encoder`` where the archive's copy has no network."""

    encoder: Path | None = None
    device: str | None = None
    batch_size: int = 64
    workers: int = 0
    slide_mpp: float | None = None
    default_mpp: float | None = None


class Asking(NamedTuple):
    """What is asked: ``data``, or an archive's own rows where there are none.

    ``split`` picks rows of manifests, ``slides`` is where the slides of tile sets lie now,
    ``exclude_same`` says whether patients must be known.
    """

    data: Sequence[str]
    exclude_same: str
    split: str | None = None
    slides: Path | None = None

    def labelled(self, snapshot: Snapshot, embedding: Embedding) -> LabelledSet | None:
        """The data as patches for a snapshot; None where its own rows ask."""
        if not self.data:
            return None
        from patchknn.datasets.listing import iter_patches

        listed = iter_patches(
            self.data,
            size=snapshot.settings.patch_px,
            mpp=snapshot.settings.mpp,
            split=self.split,
            slides_dir=self.slides,
            slide_mpp=embedding.slide_mpp,
            default_mpp=embedding.default_mpp,
        )
        return labelled_set(listed, self.exclude_same)

    def queries(
        self,
        snapshot: Snapshot,
        asked: LabelledSet | None,
        embedding: Embedding,
        cluster: Cluster | None,
    ) -> tuple[Iterator[Query | Failure], int, int]:
        """The queries, how many there are, and how many were left out for want of a label.

        Raises InputError where rows of an archive are to leave out their patients, and have none.
        """
        if asked is None:
            from patchknn.evaluation.queries import archived_queries, check_archived, count_archived

            check_archived(snapshot, self.exclude_same)
            return archived_queries(snapshot), *count_archived(snapshot)
        if cluster is None:
            queries = _queries(snapshot, asked, embedding)
        else:
            queries = _queries_on(cluster, snapshot, asked, embedding)
        return queries, len(asked.items), asked.left_out


def _queries(
    snapshot: Snapshot, asked: LabelledSet, embedding: Embedding
) -> Iterator[Query | Failure]:
    from patchknn.encoder.devices import choose_device
    from patchknn.encoder.inference import FeatureExtractor
    from patchknn.evaluation.queries import archive_encoder, labelled_queries

    bundle = archive_encoder(snapshot, embedding.encoder)
    device, stored = choose_device(embedding.device), snapshot.settings
    return labelled_queries(
        snapshot,
        asked.items,
        FeatureExtractor.from_bundle(bundle, device, stored.precision, stored.orientations),
        batch_size=embedding.batch_size,
        workers=embedding.workers,
        default_mpp=embedding.default_mpp,
    )


def _queries_on(
    cluster: Cluster, snapshot: Snapshot, asked: LabelledSet, embedding: Embedding
) -> Iterator[Query | Failure]:
    from patchknn.cli.clusters import remote_encoder
    from patchknn.evaluation.queries import queries_of
    from patchknn.indexing.reading import ReadSettings
    from patchknn.indexing.remote import embed_patches_on

    stored = snapshot.settings
    return queries_of(
        embed_patches_on(
            cluster,
            asked.items,
            remote_encoder(snapshot, embedding.encoder, embedding.device),
            ReadSettings(stored.patch_px, stored.mpp, embedding.default_mpp),
            embedding.batch_size,
        )
    )
