"""Claims, seed by seed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import ttest_1samp


@pytest.fixture
def said(module, tmp_path):
    """The claims of runs of one data set: method → figures, a value a seed."""

    def claimed(figures):
        for method, named in figures.items():
            for seed, values in enumerate(zip(*named.values(), strict=True)):
                run = tmp_path / "cells" / method / f"seed{seed}"
                run.mkdir(parents=True)
                line = json.dumps(dict(zip(named, values, strict=True)))
                (run / "radius1.ndjson").write_text(line + "\n")
        claims = module("claims")
        return [str(claim) for _, claim in claims.claims(claims.read_runs(tmp_path))]

    return claimed


@pytest.mark.parametrize("seeds", [2, 3, 5, 14])
def test_a_difference_beyond_chance_is_one_that_a_t_test_finds(seeds, module):
    random = np.random.default_rng(seeds)
    claims, verdicts = module("claims"), set()
    for _ in range(200):
        values = random.normal(0.02, 0.02, seeds)
        found = claims.Difference(values.tolist()).beyond_chance
        p = ttest_1samp(values, 0, alternative="greater").pvalue
        if not 0.04 < p < 0.06:  # the table of critical values ends at nine degrees of freedom
            assert found == (p < 0.05)
            verdicts.add(found)
    assert verdicts == {True, False}
    assert not claims.Difference([0.5]).beyond_chance


def test_claims_compare_seed_by_seed_and_say_what_does_not_hold(said):
    lines = said(
        {
            "cross-entropy": {
                "accuracy": [0.80, 0.70, 0.75],
                "mean_class_recall": [0.70, 0.60, 0.65],
                "all_k_true": [0.50, 0.50, 0.50],
            },
            "multitask": {
                "accuracy": [0.81, 0.72, 0.76],
                "precision_at_k": [0.75, 0.75, 0.75],
                "l2_precision_at_k": [0.77, 0.77, 0.77],
                "all_k_true": [0.65, 0.65, 0.65],
            },
            "deep-knn-star": {
                "accuracy": [0.8, 0.8, 0.8],
                "mean_class_recall": [0.72, 0.63, 0.67],
                "precision_at_k": [0.8, 0.8, 0.8],
            },
            "peer-hard": {
                "accuracy": [0.8, 0.8, 0.8],
                "mean_class_recall": [0.9, 0.9, 0.9],
                "precision_at_k": [0.7, 0.7, 0.7],
            },
        },
    )
    assert lines == [
        "multitask: P@10 of two stages, r = 1, not 0.01 below that of L2: 0.750 against 0.770: "
        "**does not hold**.",
        "multitask: 20 % fewer queries with a wrong neighbour than cross-entropy: 35.0% against "
        "50.0% (two stages, r = 1), +30%: holds.",
        "multitask: accuracy not below cross-entropy's: +1.3 ± 0.6 points (3 seeds): holds.",
        "deep kNN*: MCR above that of cross-entropy, beyond chance: +2.3 ± 0.6 points (3 seeds): "
        "holds.",
        "best P@10, r = 1 is not a peer's: deep kNN* 0.800 against peer: cross-entropy + triplet, "
        "hard 0.700: holds.",
        "best MCR is not a peer's: deep kNN* 0.673 against peer: cross-entropy + triplet, hard "
        "0.900: **does not hold**.",
    ]


def _write_run(folder, recall, losses):
    (folder / "encoder").mkdir(parents=True)
    (folder / "radius1.ndjson").write_text(
        json.dumps({"accuracy": 0.8, "mean_class_recall": recall}) + "\n"
    )
    rows = [f"{epoch},{loss},1.0\n" for epoch, loss in enumerate(losses, 1)]
    log = "epoch,loss,train_seconds\n0,,\n" + "".join(rows)
    (folder / "encoder" / "training.csv").write_text(log)


@pytest.mark.parametrize(
    ("losses", "counts"), [([0.0, 0.0], False), ([0.3, 0.0], True), ([0.0, 1e-9], True)]
)
def test_a_run_whose_loss_was_0_throughout_is_named_and_bears_out_nothing(
    losses, counts, tmp_path, module
):
    claims = module("claims")
    for seed, recall in enumerate((0.5, 0.6)):
        _write_run(tmp_path / "cells" / "cross-entropy" / f"seed{seed}", recall, [0.5])
        _write_run(tmp_path / "cells" / "deep-knn-star" / f"seed{seed}", recall + 0.1, losses)
    runs = claims.read_runs(tmp_path)
    told = [str(claim) for _, claim in claims.claims(runs)]
    assert any("MCR above that of cross-entropy" in line for line in told) == counts
    left_out = [("cells", "deep kNN*: 2 runs are not counted: the loss is 0 in every epoch.")]
    assert list(claims.not_counted(runs)) == ([] if counts else left_out)
