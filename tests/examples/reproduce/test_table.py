"""Means and deviations over seeds."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pytest


def test_a_table_gives_mean_and_deviation_over_seeds(tmp_path, module):
    table = module("table")
    for seed, accuracy in enumerate((0.90, 0.94)):
        run = tmp_path / "runs" / "cells" / "multitask" / f"seed{seed}"
        (run / "encoder").mkdir(parents=True)
        figures = {
            "accuracy": accuracy,
            "mean_ball": 25.0,
            "all_k_true": 0.8,
            "ece": None,
            "settings": {"rows": 100},
        }
        (run / "radius1.ndjson").write_text(json.dumps(figures) + "\n")
        training = {"class_counts": {"a": 10, "b": 30}}
        described = {"metrics": {"bit_entropy": 0.5}, "training": training}
        (run / "encoder" / "encoder.json").write_text(json.dumps(described))
        log = "epoch,loss,train_seconds\n0,,\n1,0.3,2.0\n2,0.2,4.0\n"
        (run / "encoder" / "training.csv").write_text(log)
    (tmp_path / "runs" / "cells" / "multitask" / "seed2").mkdir()  # not there yet
    several = tmp_path / "runs" / "cells" / "two-tasks" / "seed0"
    (several / "encoder").mkdir(parents=True)
    (several / "radius1.ndjson").write_text(json.dumps({"accuracy": 0.5}) + "\n")
    training = {"class_counts": {"types": {"a": 10, "b": 30}, "extra": {"c": 1, "d": 1}}}
    described = {"metrics": {"bit_entropy": 0.5}, "training": training}
    (several / "encoder" / "encoder.json").write_text(json.dumps(described))
    rows = table._rows(table.read_runs(tmp_path / "runs"), table.COLUMNS)
    line, other = [
        text for text in table.markdown(rows, table.COLUMNS).splitlines() if "multitask" in text
    ]
    assert other.startswith("| multitask, two tasks | 50.0 |")
    titles = ["method", *(column.title for column in table.COLUMNS)]
    cells = dict(zip(titles, line.strip("| ").split(" | "), strict=True))
    assert cells["Acc"] == "92.0 ± 2.8"
    assert cells["mean ball"] == "25.0 ± 0.0"
    needed = -0.25 * math.log2(0.25) - 0.75 * math.log2(0.75)
    assert cells["of needed"] == f"{0.5 / needed:.2f} ± 0.00"
    assert cells["s/epoch"] == "3.0 ± 0.0"
    assert cells["ECE"] == cells["P@10, r = 2"] == "–"
    written, _ = csv.DictReader(io.StringIO(table.as_csv(rows, table.COLUMNS)))
    assert float(written["Acc sd"]) == pytest.approx(np.std([0.90, 0.94], ddof=1))
