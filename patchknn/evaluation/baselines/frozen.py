"""Features of a backbone as ImageNet left it: what the training of an encoder must add to."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from patchknn.archive.snapshot import Snapshot
from patchknn.datasets.images import fit
from patchknn.errors import InputError
from patchknn.evaluation.pictures import Picture

_HASH_BITS = 8  # a network has a hash layer, which is not asked here


class FrozenFeatures:
    """Makes features of pictures by a timm backbone that was never trained on patches.

    ``backbone`` None is that of the archive's encoder, with its mean and standard deviation;
    pictures have the size of the archive's patches. ``weights`` None are timm's own pretrained
    ones, from a warm cache or, with ``download``, from the hub. Raises InputError where there is
    no backbone, or no weights can be had, and as ``create_backbone`` does for an unknown name and
    for weights that do not fit.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        backbone: str | None = None,
        weights: Path | None = None,
        device: str | None = None,
        *,
        download: bool = True,
    ) -> None:
        from patchknn.encoder.backbones import create_backbone
        from patchknn.encoder.devices import choose_device
        from patchknn.encoder.hub import offline
        from patchknn.encoder.inference import FeatureExtractor
        from patchknn.encoder.names import resolve
        from patchknn.encoder.network import EncoderNetwork

        own = snapshot.bundle().description
        name = backbone or own.backbone
        if name is None:
            message = "the archive's encoder has no backbone: name one by --frozen-backbone."
            raise InputError(message)
        self.size = snapshot.settings.patch_px or own.input_size
        as_trained: dict[str, Any] = {}
        if name == own.backbone:
            as_trained = {"model_args": own.model_args, "mean": own.mean, "std": own.std}
        if weights is None and ":" not in name and not resolve(name, "").place:
            message = (
                f"there are no pretrained weights of {name}: give --frozen-weights FILE, or name "
                "another --frozen-backbone."
            )
            raise InputError(message)
        try:
            with nullcontext() if download else offline():
                made = create_backbone(
                    name,
                    input_size=self.size,
                    pretrained=weights is None,
                    weights=weights,
                    **as_trained,
                )
        except InputError as error:
            if weights is not None:
                raise
            if download:
                message = (
                    f"no pretrained weights of {name} can be had here: get them by 'patchknn "
                    f"weights fetch {name} DIR' where there is internet and give --frozen-weights "
                    "FILE, or name another --frozen-backbone."
                )
            else:
                message = (
                    f"the pretrained weights of {name} were not downloaded yet: --baseline all "
                    "does it, or give --frozen-weights FILE."
                )
            raise InputError(message) from error
        self.backbone, self.dim = made.name, made.feature_dim
        network = EncoderNetwork(made.module, made.feature_dim, _HASH_BITS, ())
        chosen = choose_device(device)
        self.on_cpu = chosen.type == "cpu"
        self._extractor = FeatureExtractor(network, made.mean, made.std, chosen)

    def __call__(self, pictures: Sequence[Picture]) -> npt.NDArray[np.float32]:
        """Features (n, D) float32 of pictures (H, W, 3) uint8, brought to the network's size."""
        if not pictures:
            return np.zeros((0, self.dim), np.float32)
        return self._extractor.features(np.stack([fit(one, self.size) for one in pictures]))
