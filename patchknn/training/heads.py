"""Paper A's first phase (3.2): the new layers alone, on features of a backbone left as it is."""

from __future__ import annotations

import math

import numpy as np
import torch

from patchknn.errors import InputError, PatchknnError
from patchknn.training.batches import TaskBatches
from patchknn.training.codes import fit_codes
from patchknn.training.context import Context
from patchknn.training.extraction import extract_features
from patchknn.training.objectives import make_objective
from patchknn.training.schedule import rate_factor

# All features stay in memory meanwhile: 200,000 of 2,048 are 1.6 GB.
_MAX_ROWS = 200_000
# Batches of this phase must not be those of the second one.
_FIRST_EPOCH = 1_000_000


def train_heads(context: Context) -> float:
    """Train hash layer and classifiers for ``head_epochs``; return the mean loss of the last one.

    The backbone stands still, so its features are computed once and without augmentation. The
    hash layer starts as the ITQ map of the features: balanced, uncorrelated bits, where a random
    map of features that are all positive gives bits that are nearly constant. Every process does
    the same work here: it is small.
    """
    network, settings = context.network, context.settings
    features, numbers = _features(context)
    fit_codes(network, features, settings.seed)
    torch.manual_seed(settings.seed % 2**63)
    objective = make_objective(context)
    table = torch.from_numpy(features).to(context.device)
    labels = torch.from_numpy(context.labels[numbers]).to(context.device)
    place = {number: row for row, number in enumerate(numbers.tolist())}
    batches = TaskBatches(context, context.inputs.unreadable)
    parameters = [*network.hash_layer.parameters(), *network.classifiers.parameters()]
    rate = settings.lr or 0.0
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=settings.weight_decay or 0.0)
    epochs = settings.head_epochs or 0
    steps, step, mean = epochs * len(batches), 0, 0.0
    for epoch in range(epochs):
        total = torch.zeros((), device=context.device)
        for batch in batches.of_epoch(_FIRST_EPOCH + epoch):
            context.check()
            for group in optimizer.param_groups:
                group["lr"] = rate * rate_factor(settings, step, steps, len(batches))
            known = [place[number] for number in batch if number in place]
            rows = torch.tensor(known, dtype=torch.int64, device=context.device)
            terms = objective(network.heads(table[rows]), labels[rows], None)
            optimizer.zero_grad()
            terms.total.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += terms.total.detach()
            step += 1
        mean = total.item() / len(batches)
        if not math.isfinite(mean):
            message = (
                f"The loss of the new layers is no longer a number in epoch {epoch + 1} of "
                f"{epochs}: train again with a lower --lr."
            )
            raise PatchknnError(message)
    return mean


def _features(
    context: Context,
) -> tuple[
    np.ndarray[tuple[int, int], np.dtype[np.float32]], np.ndarray[tuple[int], np.dtype[np.int64]]
]:
    numbers = context.train_numbers
    if len(numbers) > _MAX_ROWS:
        generator = np.random.default_rng([context.settings.seed, 3])
        numbers = np.sort(generator.choice(numbers, _MAX_ROWS, replace=False)).tolist()
    features, found = extract_features(context, numbers, "features for the new layers")
    if not np.isfinite(features).all():
        message = (
            f"The backbone {context.settings.backbone} gives features that hold a NaN or an "
            "infinity; check its weights, --mean and --std."
        )
        raise InputError(message)
    return features, found
