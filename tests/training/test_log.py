"""The line and the table that an epoch leaves behind."""

from __future__ import annotations

import csv

from patchknn.training.log import epoch_line, write_log


def test_a_line_says_what_the_row_has_and_nothing_else():
    row = {"epoch": 3, "loss": 1.25, "p_at_10": 0.5, "l2_p_at_10": 0.625, "stuck_bits": 0.1}
    assert epoch_line(row, 10) == "epoch 3/10: loss 1.2500, P@10 0.500 (L2 0.625), stuck 10%"
    assert epoch_line({"epoch": 0, "loss": 2.0}, 10) == "new layers: loss 2.0000"
    assert epoch_line({"epoch": 0, "bit_entropy": 1.0}, 10) == "as it comes: bit entropy 1.00"


def test_rows_with_different_columns_share_a_table(tmp_path):
    write_log(tmp_path / "log.csv", [{"epoch": 0, "a": 0.1 + 0.2}, {"epoch": 1, "b": 2.0}])
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"epoch": "0", "a": "0.30000000000000004", "b": ""},
        {"epoch": "1", "a": "", "b": "2.0"},
    ]
