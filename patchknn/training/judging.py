"""What an epoch is worth: retrieval on the validation images, and the health of the codes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from patchknn.encoder.network import EncoderNetwork
from patchknn.errors import PatchknnError
from patchknn.training.codes import fit_codes
from patchknn.training.context import Context
from patchknn.training.extraction import extract_features
from patchknn.training.monitors import bit_statistics, collapse_warning
from patchknn.training.neighbours import Embedding, validate

_QUICK_ITERATIONS = 20


@dataclass(frozen=True)
class Judge:
    """Compares up to ``monitor_rows`` validation images with as many training images."""

    gallery: tuple[int, ...]
    queries: tuple[int, ...]

    @staticmethod
    def choose(context: Context) -> Judge:
        """Draw the images once, so that all epochs are judged by the same."""
        generator = np.random.default_rng([context.settings.seed, 1])
        limit = context.settings.monitor_rows

        def some(numbers: list[int]) -> tuple[int, ...]:
            if len(numbers) <= limit:
                return tuple(numbers)
            return tuple(sorted(generator.choice(numbers, limit, replace=False).tolist()))

        return Judge(some(context.train_numbers), some(context.validation_numbers))

    def epoch(self, context: Context) -> tuple[dict[str, float], str | None]:
        """An epoch's figures and a warning, if any; fits codes first where none are learnt.

        Raises PatchknnError where features are not finite.
        """
        gallery, numbers = extract_features(context, self.gallery, "judging, training images")
        if not np.isfinite(gallery).all():
            message = (
                "The features hold a NaN or an infinity; the last good state is kept: "
                "train again with a lower --lr and --backbone-lr."
            )
            raise PatchknnError(message)
        if not context.settings.learns_hash:
            fit_codes(context.network, gallery, context.settings.seed, _QUICK_ITERATIONS)
        figures = self.figures(context, gallery, numbers)
        return figures, collapse_warning(figures, len(gallery))

    def figures(
        self,
        context: Context,
        gallery: npt.NDArray[np.float32],
        numbers: npt.NDArray[np.int64],
    ) -> dict[str, float]:
        """The figures against given training features (N, D) of numbered images."""
        codes = hash_codes(context.network, gallery)
        figures = bit_statistics(codes)
        labelled = context.labels[numbers] >= 0
        if not self.queries or not labelled.any():
            return figures
        queries, of_queries = extract_features(context, self.queries, "judging, validation images")
        known = context.labels[of_queries] >= 0
        if known.any():
            labels = context.labels
            queries, of_queries = queries[known], of_queries[known]
            figures |= validate(
                Embedding(gallery[labelled], codes[labelled], labels[numbers[labelled]]),
                Embedding(queries, hash_codes(context.network, queries), labels[of_queries]),
                context.n_classes,
            )
        return figures


def hash_codes(network: EncoderNetwork, features: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Packed codes (N, K/8) of features (N, D) by the network's hash layer, as a bundle does it."""
    weight = network.hash_layer.weight.detach().cpu().double().numpy()
    bias = network.hash_layer.bias.detach().cpu().double().numpy()
    return np.packbits(features.astype(np.float64) @ weight.T + bias > 0, axis=1)
