"""Put together what a run trains: the network from where it starts, and its inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from patchknn.bundle import Bundle, load_bundle
from patchknn.datasets.patches import Problem
from patchknn.datasets.stored import StoredFeatures
from patchknn.encoder.backbones import Backbone, create_backbone
from patchknn.encoder.mlp import Chained, FeatureMLP
from patchknn.encoder.network import EncoderNetwork
from patchknn.encoder.saving import load_encoder
from patchknn.errors import ConflictError, InputError
from patchknn.training.checks import parse_max_bad
from patchknn.training.images import ImageStore
from patchknn.training.inputs import FeatureInputs, ImageInputs, Inputs
from patchknn.training.settings import TrainingSettings
from patchknn.training.stored import origin_encoder
from patchknn.training.tasks import Lesson


@dataclass(frozen=True)
class Parts:
    """What a run trains, and on what. ``source`` is None where stored features go in."""

    lesson: Lesson
    network: EncoderNetwork
    source: Backbone | None
    stored: StoredFeatures | None
    settings: TrainingSettings

    def make_inputs(self, on_problem: Callable[[Problem], None]) -> Inputs:
        """The inputs of the lesson; ``on_problem`` hears of each unreadable one."""
        settings, patches = self.settings, self.lesson.patches
        if self.stored is not None:
            rows = torch.tensor([patch.row for patch in patches], dtype=torch.int64)
            return FeatureInputs(torch.from_numpy(self.stored.features)[rows])
        assert self.source is not None
        store = ImageStore(
            patches,
            settings.size,
            settings.mpp,
            crop=settings.crop,
            read_size=settings.read_size,
            default_mpp=settings.default_mpp,
            workers=settings.workers,
            cache_bytes=settings.cache_bytes,
            max_bad=parse_max_bad(settings.max_bad, len(patches)),
            on_problem=on_problem,
        )
        return ImageInputs(
            store, settings.size, settings.augment, self.source.mean, self.source.std
        )

    def finished(self) -> tuple[EncoderNetwork, Backbone | None]:
        """The network as it is saved, and its backbone.

        An MLP on features that a known backbone made goes behind that backbone, so that images
        can be embedded at once.
        """
        origin = None if self.stored is None else origin_encoder(self.stored)
        if origin is None or not origin.has_backbone:
            return self.network, self.source
        before = load_encoder(origin)
        if not isinstance(self.network.backbone, FeatureMLP) or isinstance(
            before.backbone, Chained
        ):
            return self.network, self.source
        heads = self.network.hash_layer
        chained = Chained(before.backbone, self.network.backbone.cpu())
        normalized = self.network.normalized
        whole = EncoderNetwork(
            chained, heads.in_features, heads.out_features, (), normalized=normalized
        )
        whole.hash_layer, whole.classifiers = heads, self.network.classifiers
        return whole, _backbone_of(origin, before.backbone)


def assemble(lesson: Lesson, settings: TrainingSettings, stored: StoredFeatures | None) -> Parts:
    """The network that the settings ask for, with a classifier for every task of the lesson.

    Raises UsageError, InputError and ConflictError where it cannot be made.
    """
    source = None
    if stored is not None:
        mlp = _mlp(lesson, settings, stored)
        module: nn.Module = mlp
        width = mlp.output_dim
    else:
        source = _source(settings)
        module, width = source.module, source.feature_dim
    # A single class is nothing to tell apart.
    classes = [len(task.class_names) for task in lesson.tasks]
    classes = classes if all(count > 1 for count in classes) else []
    normalized = bool(settings.normalize)
    network = EncoderNetwork(module, width, settings.bits, classes, normalized=normalized)
    return Parts(lesson, network, source, stored, settings)


def read_origin(encoder: Path, *, features: bool = False) -> Bundle:
    """The bundle that ``--from`` names, for images or for stored features.

    Raises InputError where what it needs is missing, ConflictError where it has no MLP to go on
    from with features.
    """
    bundle = load_bundle(encoder)
    if not (bundle.has_network if features else bundle.has_backbone):
        part = "network" if features else "backbone"
        message = f"--from {encoder} has no {part} to go on from; name a bundle that has one."
        raise InputError(message)
    if features and bundle.description.projection is None:
        message = (
            f"--from {encoder} has no MLP to go on from: with --features, name an encoder that "
            "was trained with --features."
        )
        raise ConflictError(message)
    return bundle


def _source(settings: TrainingSettings) -> Backbone:
    if settings.from_encoder is not None:
        bundle = read_origin(settings.from_encoder)
        module = load_encoder(bundle).backbone
        if isinstance(module, Chained):
            message = (
                f"--from {settings.from_encoder} is an MLP behind a backbone; "
                "go on from an encoder that was trained on images."
            )
            raise ConflictError(message)
        return _backbone_of(bundle, module)
    return create_backbone(
        settings.backbone or "",
        input_size=settings.size,
        pretrained=settings.pretrained,
        weights=settings.weights,
        model_args=dict(settings.model_args),
        mean=settings.mean,
        std=settings.std,
    )


def _backbone_of(bundle: Bundle, module: nn.Module) -> Backbone:
    known = bundle.description
    return Backbone(
        module=module,
        name=known.backbone or "",
        feature_dim=known.feature_dim,
        mean=known.mean,
        std=known.std,
        input_size=known.input_size,
        model_args=dict(known.model_args),
        timm_version=known.timm_version or "",
    )


def _mlp(lesson: Lesson, settings: TrainingSettings, stored: StoredFeatures) -> FeatureMLP:
    if settings.from_encoder is not None:
        return _known_mlp(settings.from_encoder, stored)
    rows = [patch.row for patch in lesson.patches[: lesson.n_train]]
    features = stored.features[rows]
    mlp = FeatureMLP(features.shape[1], settings.hidden, settings.output_dim)
    mlp.fit_input(features)
    return mlp


def _known_mlp(encoder: Path, stored: StoredFeatures) -> FeatureMLP:
    """The MLP that ``--from`` names, with its standardisation, if these features are its input."""
    bundle = read_origin(encoder, features=True)
    module = load_encoder(bundle).backbone
    mlp = module.mlp if isinstance(module, Chained) else module
    assert isinstance(mlp, FeatureMLP)
    origin = origin_encoder(stored)
    known = bundle.description.backbone
    given = None if origin is None else origin.description.backbone
    if stored.features.shape[1] != mlp.input_dim or (known and given and known != given):
        message = (
            f"--from {encoder} takes {mlp.input_dim} features per patch"
            f"{f' of {known}' if known else ''}, and these are {stored.features.shape[1]}"
            f"{f' of {given}' if given else ''}; give features of its own backbone."
        )
        raise ConflictError(message)
    return mlp
