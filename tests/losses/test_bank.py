"""A bank whose parts do not fit together is refused."""

from __future__ import annotations

import pytest
import torch

from patchknn.losses.bank import FeatureBank


@pytest.mark.parametrize(
    ("features", "labels", "numbers"),
    [((3, 4), (2,), (3,)), ((3, 4), (3,), (4,)), ((3,), (3,), (3,)), ((3, 4), (3, 1), (3, 1))],
)
def test_shapes_that_do_not_fit_are_named(features, labels, numbers):
    with pytest.raises(ValueError, match="do not fit together") as raised:
        FeatureBank(torch.zeros(features), torch.zeros(labels), torch.zeros(numbers))
    assert str(features) in str(raised.value)


def test_features_with_a_graph_are_refused():
    with pytest.raises(ValueError, match="detach"):
        FeatureBank(torch.zeros(2, 3, requires_grad=True), torch.zeros(2), torch.zeros(2))
