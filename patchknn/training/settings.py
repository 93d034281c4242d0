"""Everything a training run can be told; ``None`` is filled in by ``defaults``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

LOSSES = ("multitask", "deep-knn", "cross-entropy", "triplet", "none")
# Losses of hash vectors and logits: they always classify.
LEARNT_HASH = frozenset({"multitask", "cross-entropy"})
# Losses of features: they may have a classification beside them.
METRIC = frozenset({"deep-knn", "triplet"})
# Features, and those of no loss at all, may be on the unit sphere.
MAY_NORMALIZE = METRIC | {"none"}
OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "step")
PRECISIONS = ("float32", "bfloat16", "float16")

# What does not change the result of a run: it may differ when the run is taken up again.
_WITHOUT_EFFECT = ("workers", "device", "cache_bytes", "tensorboard", "max_bad")


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of one run.

    ``backbone`` a timm name, None where ``from_encoder`` brings one or ``features`` are stored;
    ``size`` in pixels, ``mpp`` in µm/px, ``crop`` the share of a plain image's short side that is
    looked at, rates per step, ``batch`` is classes × images of each, of every task. ``hidden``
    and ``output_dim`` are widths of the MLP on stored features. The losses' own settings carry
    the papers' names: ``alpha``, ``positives`` (K) and ``negatives`` (M) of deep kNN, ``bank``
    the steps after which its bank of the whole training set is renewed (None: neighbours come
    from the batch), ``margin`` (None: soft) and ``mining`` of the triplet loss, ``normalize`` of
    both and of no loss (features are of unit length, in training and ever after), the weights
    ``w_t``, ``w_c``, ``w_q``, ``gamma`` (None: bits/2), ``cauchy_distance`` and ``quantization``
    of multitask, ``w_ce`` the weight of the classification in multitask, or beside the metric
    losses (where it is 0 unless given). ``ema`` is the decay per step of averaged weights (0:
    none), ``accumulate`` the batches of one optimiser step, ``patience`` the epochs without a
    better validation P@10 after which a run ends (None: never), ``max_bad`` a number or a
    percentage of unreadable images.
    """

    backbone: str | None = None
    loss: str = "multitask"
    preset: str | None = None
    from_encoder: Path | None = None
    pretrained: bool = False
    weights: Path | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    features: bool = False
    hidden: int = 512
    output_dim: int = 256
    size: int = 224
    crop: float = 1.0
    mpp: float | None = None
    default_mpp: float | None = None
    bits: int = 48
    epochs: int | None = None
    head_epochs: int | None = None
    classes_per_batch: int | None = None
    per_class: int | None = None
    task_weights: Mapping[str, float] = field(default_factory=dict)
    class_weights: Literal["none", "balanced"] = "none"
    label_smoothing: float = 0.0
    optimizer: str = "adamw"
    momentum: float = 0.9
    lr: float | None = None
    backbone_lr: float | None = None
    weight_decay: float | None = None
    schedule: str = "cosine"
    step_epochs: int = 20
    step_factor: float = 0.5
    warmup: float = 0.05
    clip_norm: float = 5.0
    accumulate: int = 1
    ema: float = 0.0
    patience: int | None = None
    freeze_batch_norm: Literal["auto", "yes", "no"] = "auto"
    augment: str = "tissue"
    precision: str | None = None
    compile: bool = False
    device: str | None = None
    alpha: float | None = None
    positives: int = 5
    negatives: int = 5
    bank: int | None = None
    normalize: bool | None = None
    margin: float | None = None
    mining: Literal["semi-hard", "batch-hard", "easy-positive", "all"] = "semi-hard"
    w_t: float = 1.0
    w_c: float = 1.0
    w_q: float = 1.0
    w_ce: float | None = None
    gamma: float | None = None
    cauchy_distance: Literal["euclidean", "cosine"] = "euclidean"
    quantization: Literal["sound", "literal"] = "sound"
    monitor_rows: int = 2000
    max_bad: str = "5%"
    seed: int = 0
    workers: int | None = None
    cache_bytes: int = 2 << 30
    tensorboard: Path | None = None

    @property
    def starts_from_weights(self) -> bool:
        """Whether the backbone comes with weights, rather than from scratch."""
        given = self.weights is not None or self.from_encoder is not None
        return self.pretrained or given or ":" in (self.backbone or "")

    @property
    def learns_hash(self) -> bool:
        """Whether the hash layer and the classifiers are trained, rather than fitted afterwards."""
        return self.loss in LEARNT_HASH or (self.loss in METRIC and bool(self.w_ce))

    @property
    def frozen_batch_norm(self) -> bool:
        """Whether batch norm keeps its statistics while the backbone is trained."""
        if self.freeze_batch_norm == "auto":
            return self.starts_from_weights
        return self.freeze_batch_norm == "yes"

    @property
    def read_size(self) -> int:
        """Side in pixels at which plain images are held, so that crops can be cut from them."""
        return round(self.size / self.crop)

    @property
    def last_epoch(self) -> int:
        """How many epochs the whole network is trained for."""
        if self.epochs is None:
            message = "the epochs are known once the settings are resolved"
            raise ValueError(message)
        return self.epochs

    @property
    def batch_shape(self) -> tuple[int, int]:
        """Classes per batch and images of each."""
        if self.classes_per_batch is None or self.per_class is None:
            message = "the batch shape is known once the settings are resolved"
            raise ValueError(message)
        return self.classes_per_batch, self.per_class

    def as_json(self) -> dict[str, Any]:
        """All that can change the result, as plain values for JSON; of files the names."""
        values = {name: v for name, v in asdict(self).items() if name not in _WITHOUT_EFFECT}
        for name in ("weights", "from_encoder"):
            values[name] = None if values[name] is None else values[name].name
        for name in ("model_args", "task_weights"):
            values[name] = dict(values[name])
        return values

    def digest(self) -> str:
        """A fingerprint of all that can change the result."""
        text = json.dumps(self.as_json(), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()
