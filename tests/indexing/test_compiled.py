"""``embed --compile``: the same rows but for rounding, and queries at the archive's precision."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import torch

from patchknn.archive.snapshot import open_archive

# Making C++ of a network may take minutes: here it is traced, and run as it is.
_compile = partial(torch.compile, backend="eager")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_rows_and_precision_are_those_of_the_network_as_it_is(  # noqa: PLR0917
    embed, image_folder, patchknn, tmp_path, rows_of, monkeypatch, precision
):
    folder = image_folder(9)
    embed(folder, "--precision", precision, archive="plain")
    traced = []

    def compiled(function):
        traced.append(function)
        return _compile(function)

    monkeypatch.setattr(torch, "compile", compiled)
    result, summary = embed(folder, "--precision", precision, "--compile", archive="compiled")
    assert (result.code, summary["rows"], len(traced)) == (0, 9, 1)
    settings = [open_archive(tmp_path / name).settings for name in ("plain", "compiled")]
    assert [one.precision for one in settings] == [precision] * 2
    plain, made = rows_of("plain"), rows_of("compiled")
    assert plain.keys() == made.keys()
    for key, (feature, *_) in plain.items():
        expected, found = (
            np.frombuffer(f, np.float16).astype(float) for f in (feature, made[key][0])
        )
        np.testing.assert_allclose(found, expected, rtol=2**-10, atol=1e-4)
    answer = patchknn(
        "query", tmp_path / "compiled", folder, "--k", 1, "--exclude-same", "none",
        "--device", "cpu", "--workers", 0,
    )  # fmt: skip
    nearest = [json.loads(line)["neighbours"][0] for line in answer.out.splitlines()]
    # Each finds itself at its own precision: another one would leave a distance.
    assert all(neighbour["l2"] < 1e-2 for neighbour in nearest)
