"""What an epoch is worth: retrieval on the validation images, and the health of the codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from patchknn.encoder.network import EncoderNetwork
from patchknn.errors import PatchknnError
from patchknn.training.codes import fit_codes
from patchknn.training.context import Context
from patchknn.training.extraction import extract_features
from patchknn.training.monitors import bit_statistics, feature_spread, health_warning
from patchknn.training.neighbours import Embedding, validate
from patchknn.training.tasks import Task

_QUICK_ITERATIONS = 20
# A spread this small is what float32 leaves of features that are the same.
_COLLAPSED = 1e-5


@dataclass(frozen=True)
class Judge:
    """Compares up to ``monitor_rows`` validation inputs with as many training inputs.

    ``gallery`` and ``queries`` hold numbers per task.
    """

    gallery: tuple[tuple[int, ...], ...]
    queries: tuple[tuple[int, ...], ...]

    @staticmethod
    def choose(context: Context) -> Judge:
        """Draw the inputs once, so that all epochs are judged by the same."""
        generator = np.random.default_rng([context.settings.seed, 1])
        limit = max(1, context.settings.monitor_rows // max(1, len(context.tasks)))

        def some(numbers: list[int]) -> tuple[int, ...]:
            if len(numbers) <= limit:
                return tuple(numbers)
            return tuple(sorted(generator.choice(numbers, limit, replace=False).tolist()))

        # Without labels there is one nameless heap, whose codes can be looked at.
        labelled = [context.of_task(task, context.train_numbers) for task in context.tasks]
        gallery = labelled if any(labelled) else [context.train_numbers]
        queries = [context.of_task(task, context.validation_numbers) for task in context.tasks]
        return Judge(tuple(map(some, gallery)), tuple(map(some, queries)))

    def epoch(
        self, context: Context, means: Mapping[str, float]
    ) -> tuple[dict[str, float], str | None]:
        """An epoch's figures and a warning, if any; fits codes first where none are learnt.

        ``means`` are those of its steps, with the number of the ``epoch``. Raises PatchknnError
        where features are not finite or all the same but for rounding.
        """
        rows = [n for numbers in self.gallery for n in numbers]
        gallery, numbers = extract_features(context, rows, "judging, training images")
        when = f" after epoch {means['epoch']:.0f}" if means.get("epoch") else ""
        if not np.isfinite(gallery).all():
            message = (
                f"The features hold a NaN or an infinity{when}; the last good state is kept: "
                "train again with a lower --lr and --backbone-lr."
            )
            raise PatchknnError(message)
        if when and len(gallery) > 1 and feature_spread(gallery) < _COLLAPSED:
            # Such features have no gradient towards anything else: nothing would change any more.
            message = (
                f"The network collapsed{when}: the features of all {len(gallery)} training images "
                "looked at are the same; the last good state is kept: train again with "
                "--mining semi-hard, from a trained encoder (--from), or with lower rates."
            )
            raise PatchknnError(message)
        if not context.settings.learns_hash:
            fit_codes(context.network, gallery, context.settings.seed, _QUICK_ITERATIONS)
        figures = self.figures(context, gallery, numbers)
        warning = health_warning(
            {**means, **figures},
            len(gallery),
            loss=context.settings.loss,
            learnt=context.settings.learns_hash,
        )
        return figures, warning

    def figures(
        self,
        context: Context,
        gallery: npt.NDArray[np.float32],
        numbers: npt.NDArray[np.int64],
    ) -> dict[str, float]:
        """The figures against given training features (N, D) of numbered inputs.

        With several tasks they are means over the tasks, and ``p_at_10:NAME`` is each one's.
        """
        codes = hash_codes(context.network, gallery)
        figures = bit_statistics(codes) | {"feature_spread": feature_spread(gallery)}
        rows = [n for queries in self.queries for n in queries]
        labels = context.labels[numbers]
        if not rows or not (labels >= 0).any():
            return figures
        features, found = extract_features(context, rows, "judging, validation images")
        database = Embedding(gallery, codes, labels)
        asked = Embedding(features, hash_codes(context.network, features), context.labels[found])
        parts = {
            task.name: validate(mine, theirs, len(task.class_names))
            for task in context.tasks
            if len((mine := _of_task(database, task)).labels)
            and len((theirs := _of_task(asked, task)).labels)
        }
        if len(parts) > 1:
            figures |= {f"p_at_10:{name}": part["p_at_10"] for name, part in parts.items()}
        for key in next(iter(parts.values()), {}):
            figures[key] = float(np.mean([part[key] for part in parts.values()]))
        return figures


def _of_task(rows: Embedding, task: Task) -> Embedding:
    own = (rows.labels >= task.first) & (rows.labels < task.last)
    return Embedding(rows.features[own], rows.codes[own], rows.labels[own] - task.first)


def hash_codes(network: EncoderNetwork, features: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Packed codes (N, K/8) of features (N, D) by the network's hash layer, as a bundle does it."""
    weight = network.hash_layer.weight.detach().cpu().double().numpy()
    bias = network.hash_layer.bias.detach().cpu().double().numpy()
    return np.packbits(features.astype(np.float64) @ weight.T + bias > 0, axis=1)
