"""What every case is given: where to note, how long to measure, and the data, made once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import data
import numpy as np
from archives import Wanted, archive
from exact import Codebook, Neighbourhood
from report import Log, Setting
from timing import Budget, Contender, take_turns

from patchknn.archive.snapshot import Snapshot, open_archive
from patchknn.hamming.packing import sort_order


@dataclass(frozen=True)
class Bench:
    """One run: ``scale`` divides every number of rows, for a quick look.

    ``targets_only``: 64 bits and the largest archives, which the targets are about.
    """

    log: Log
    cache: Path
    threads: int
    budget: Budget
    scale: int = 1
    n_queries: int = 1000
    k: int = 10
    targets_only: bool = False
    asked_bits: tuple[int, ...] = (64, 48)

    @property
    def quick(self) -> bool:
        """Whether this is only a look at whether all works."""
        return self.scale > 1

    @property
    def trial_s(self) -> float:
        """How long one setting of a method is tried."""
        return self.budget.seconds / 3

    def sizes(self, *sizes: int) -> Iterator[int]:
        """Numbers of rows to measure at; the first alone where the targets are about it."""
        for n in sizes[:1] if self.targets_only else sizes:
            yield n // self.scale

    @property
    def bits(self) -> tuple[int, ...]:
        """Lengths of codes to measure at."""
        return (64,) if self.targets_only else self.asked_bits

    def measure(self, setting: Setting, contenders: list[Contender]) -> None:
        """Let contenders take turns, and note what comes out."""
        self.log.add(setting, take_turns(contenders, self.n_queries, self.budget))

    def book(self, kind: str, n: int, bits: int) -> Codebook:
        """Sorted codes without features, and their queries."""
        rows = data.coded_rows(kind, n, bits).codes
        queries = data.coded_rows(kind, self.n_queries, bits, part="queries").codes
        return Codebook(rows[sort_order(rows)], queries)

    def open(self, wanted: Wanted) -> Snapshot:
        """An archive with features."""
        return open_archive(archive(wanted, self.cache))

    def stored(self, snapshot: Snapshot, wanted: Wanted) -> tuple[Codebook, Neighbourhood]:
        """Codes and features in the order of an archive's rows, and queries of the same kind."""
        queries = data.coded_rows(wanted.codes, self.n_queries, wanted.bits, part="queries")
        asked = data.features_of(wanted.features, queries, part="queries")
        shards = snapshot.shards
        codes = np.concatenate([shard.codes for shard in shards])
        several = len(shards) > 1
        features = np.concatenate([s.features for s in shards]) if several else shards[0].features
        return Codebook(codes, queries.codes), Neighbourhood(features, asked)


def default_cache() -> Path:
    """Where the archives are kept from run to run."""
    return Path.home() / ".cache" / "patchknn-benchmarks"
