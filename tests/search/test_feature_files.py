"""Features in .npy files: what is one, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from patchknn.errors import InputError
from patchknn.search.feature_files import feature_queries


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32"])
def test_every_row_is_a_query_named_after_it(tmp_path, rng, dtype):
    file = tmp_path / "fé.npy"
    features = rng.integers(-5, 5, (3, 4)).astype(dtype)
    np.save(file, features)
    queries = list(feature_queries(file, 4))
    assert [query.name for query in queries] == [f"{file}#{row}" for row in range(3)]
    assert (np.stack([query.feature for query in queries]) == features).all()


def test_a_single_vector_is_one_row(tmp_path):
    np.save(tmp_path / "one.npy", np.arange(4.0))
    (query,) = feature_queries(tmp_path / "one.npy", 4)
    assert query.name.endswith("#0")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "does not exist."),
        (b"", "is not an array that NumPy can read"),
        (b"no array", "is not an array that NumPy can read: it is no .npy file of numbers."),
        (np.zeros((2, 5)), "holds features of shape (2, 5); this archive needs (N, 4)."),
        (np.array(["a"]), "does not hold numbers"),
        (np.zeros((2, 4))[:, :, None], "holds features of shape (2, 4, 1)"),
    ],
)
def test_what_is_no_feature_file_is_named(tmp_path, content, sentence):
    file = tmp_path / "x.npy"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        np.save(file, content)
    with pytest.raises(InputError) as caught:
        list(feature_queries(file, 4))
    assert str(caught.value).startswith(str(file))
    assert sentence in str(caught.value)


def test_a_pickle_and_a_truncated_file_are_refused(tmp_path):
    np.save(tmp_path / "pickle.npy", np.array([{}], object), allow_pickle=True)
    np.save(tmp_path / "short.npy", np.zeros((100, 4)))
    short = (tmp_path / "short.npy").read_bytes()
    (tmp_path / "short.npy").write_bytes(short[:-50])
    for name in ("pickle.npy", "short.npy"):
        with pytest.raises(InputError, match="is not an array that NumPy can read"):
            list(feature_queries(tmp_path / name, 4))
