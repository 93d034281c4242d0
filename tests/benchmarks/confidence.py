"""What calibration, prediction sets and strangeness are worth on real images.

    python tests/benchmarks/confidence.py ARCHIVE
    python tests/benchmarks/confidence.py ARCHIVE --data held_out.csv --foreign chest_xray/train

Asks the archive's own rows, each without its patient, and labelled DATA of other patients: ECE and
Brier score before calibration and after, on patients not seen; coverage of prediction sets over
twenty random splits by patient, beside the promise; and how well the distance of the k-th and of
the nearest neighbour tells FOREIGN images from either.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from report import say

from patchknn.archive.snapshot import Snapshot, open_archive
from patchknn.datasets.listing import iter_patches
from patchknn.encoder.devices import choose_device
from patchknn.encoder.inference import FeatureExtractor
from patchknn.evaluation.calibration.calibrate import fit_and_judge, voting_of
from patchknn.evaluation.calibration.calibrating import (
    answered,
    class_shares,
    own_queries,
)
from patchknn.evaluation.calibration.conformal import coverage_over_splits
from patchknn.evaluation.calibration.strangers import foreign_auroc, limits_of
from patchknn.evaluation.figures.confidence import confidence_figures
from patchknn.evaluation.outcomes import Outcomes
from patchknn.evaluation.queries import labelled_queries, labelled_set, names_patients
from patchknn.search.class_scores import class_probabilities
from patchknn.search.settings import SearchSettings
from patchknn.search.strangeness import Distances, neighbour_distances

_PROMISES = (0.8, 0.9, 0.95)
_FIGURES = ("ece", "ece_bias", "brier", "log_loss", "auroc")


def main() -> int:
    """Ask, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("archive", type=Path)
    parser.add_argument("--data", action="append", default=[])
    parser.add_argument("--foreign", action="append", default=[])
    parser.add_argument("--sample", type=int, default=20_000, help="of the archive's own rows")
    parser.add_argument("--most", type=int, default=1_000_000, help="images of each of the others")
    asked = parser.parse_args()
    snapshot = open_archive(asked.archive)
    own = "patient" if names_patients(snapshot) else "slide"
    settings = SearchSettings(exclude_same=own)
    queries = own_queries(snapshot, asked.sample, by_slide=own == "slide")
    found = {"own rows": answered(snapshot, queries, settings, _skip)}
    if asked.data:
        found["data"] = _images(snapshot, asked.data, settings, asked.most)
    for name, outcomes in found.items():
        _say_figures(snapshot, name, outcomes)
    if asked.foreign:
        anywhere = settings._replace(exclude_same="none")
        foreign = _images(snapshot, asked.foreign, anywhere, asked.most)
        for name, outcomes in found.items():
            _say_strangers(name, _distances(outcomes), _distances(foreign))
    return 0


def _images(snapshot: Snapshot, data: list[str], settings: SearchSettings, most: int) -> Outcomes:
    stored = snapshot.settings
    listed = iter_patches(data, size=stored.patch_px, mpp=stored.mpp)
    items = labelled_set(listed, settings.exclude_same).items
    chosen = np.sort(np.random.default_rng(0).permutation(len(items))[:most])
    extractor = FeatureExtractor.from_bundle(
        snapshot.bundle(), choose_device(None), stored.precision, stored.orientations
    )
    queries = labelled_queries(snapshot, [items[place] for place in chosen.tolist()], extractor)
    return answered(snapshot, queries, settings, _skip)


def _say_figures(snapshot: Snapshot, name: str, outcomes: Outcomes) -> None:
    voting, correct = voting_of(outcomes), outcomes.correct
    priors = np.array(list(class_shares(snapshot).values()))
    fitted = fit_and_judge(voting, correct, priors, outcomes.groups)
    patients = len(np.unique(outcomes.groups))
    say(f"{name}: {len(outcomes)} queries of {patients} patients, {correct.mean():.4f} right")
    say(f"  {'on patients not seen':<22}" + "".join(f"{figure:>10}" for figure in _FIGURES))
    for method, figures in fitted.held_out.items():
        taken = "  taken" if method == fitted.mapping.method else ""
        say(f"  {method:<22}" + "".join(f"{figures[f]:10.4f}" for f in _FIGURES) + taken)
    for score, figures in confidence_figures(outcomes).items():
        pair = figures["batch_pearson"], figures["batch_spearman"]
        say(f"  {score}: in batches of 50 Pearson {pair[0]}, Spearman {pair[1]}")
    labels = np.where(outcomes.label < len(priors), outcomes.label, -1)
    probabilities = class_probabilities(voting, priors)
    for promise in _PROMISES:
        held, error, size = coverage_over_splits(probabilities, labels, outcomes.groups, promise)
        off = (held - promise) / error
        say(f"  sets for {promise}: {held:.4f} ± {error:.4f} ({off:+.1f} errors), size {size:.2f}")


def _say_strangers(name: str, own: Distances, foreign: Distances) -> None:
    limits = limits_of(own)
    kth, nearest = (
        foreign_auroc(*(np.nan_to_num(some, nan=np.inf) for some in pair))
        for pair in ((own.kth, foreign.kth), (own.nearest, foreign.nearest))
    )
    flagged = np.inf if limits.nearest is None else limits.nearest
    share = float((np.nan_to_num(foreign.nearest, nan=np.inf) > flagged).mean())
    say(f"foreign images ({len(foreign.kth)}) against {name}: AUROC {nearest:.4f} by the nearest")
    say(f"  neighbour, {kth:.4f} by the k-th; {share:.3f} beyond its 99th percentile;")
    short = float(np.isnan(foreign.kth).mean())
    say(f"  fewer than k neighbours: own {limits.short:.3f}, foreign {short:.3f}")


def _distances(outcomes: Outcomes) -> Distances:
    return neighbour_distances(voting_of(outcomes))


def _skip(failure: object) -> None:
    say(f"left out: {failure}")


if __name__ == "__main__":
    sys.exit(main())
