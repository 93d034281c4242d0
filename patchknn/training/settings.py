"""Everything a training run can be told, checked, with defaults that hang on loss and backbone."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from patchknn.errors import UsageError
from patchknn.hamming.packing import check_bits

LOSSES = ("multitask", "deep-knn", "cross-entropy", "triplet", "none")
# These train the hash layer and the classifier; the others get both fitted afterwards.
LEARNT_HASH = frozenset({"multitask", "cross-entropy"})
OPTIMIZERS = ("adamw", "sgd")
PRECISIONS = ("float32", "bfloat16", "float16")

# What does not change the result of a run: it may differ when the run is taken up again.
_WITHOUT_EFFECT = ("workers", "device", "cache_bytes")


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of one run; ``None`` is filled in by ``resolved``.

    ``size`` in pixels, ``mpp`` in µm/px, rates per step, ``batch`` is classes × images of each.
    The losses' own settings carry the papers' names: ``alpha``, ``positives`` (K) and
    ``negatives`` (M) of deep kNN, ``margin`` (None: soft) and ``mining`` of the triplet loss,
    ``normalize`` of both (distances in the loss are those of features on the unit sphere), the
    weights ``w_t``, ``w_c``, ``w_q``, ``w_ce``, ``gamma`` (None: bits/2), ``cauchy_distance`` and
    ``quantization`` of multitask.
    """

    backbone: str
    loss: str = "multitask"
    pretrained: bool = False
    weights: Path | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    size: int = 224
    mpp: float | None = None
    default_mpp: float | None = None
    bits: int = 48
    epochs: int = 10
    head_epochs: int | None = None
    classes_per_batch: int | None = None
    per_class: int | None = None
    optimizer: str = "adamw"
    lr: float | None = None
    backbone_lr: float | None = None
    weight_decay: float | None = None
    warmup: float = 0.05
    clip_norm: float = 5.0
    freeze_batch_norm: Literal["auto", "yes", "no"] = "auto"
    augment: bool = True
    precision: str | None = None
    device: str | None = None
    alpha: float | None = None
    positives: int = 5
    negatives: int = 5
    normalize: bool | None = None
    margin: float | None = None
    mining: Literal["semi-hard", "batch-hard"] = "semi-hard"
    w_t: float = 1.0
    w_c: float = 1.0
    w_q: float = 1.0
    w_ce: float = 1.0
    gamma: float | None = None
    cauchy_distance: Literal["euclidean", "cosine"] = "euclidean"
    quantization: Literal["sound", "literal"] = "sound"
    monitor_rows: int = 2000
    seed: int = 0
    workers: int | None = None
    cache_bytes: int = 2 << 30

    @property
    def starts_from_weights(self) -> bool:
        """Whether the backbone comes with weights, rather than from scratch."""
        return self.pretrained or self.weights is not None or ":" in self.backbone

    @property
    def learns_hash(self) -> bool:
        """Whether the hash layer and the classifier are trained, rather than fitted afterwards."""
        return self.loss in LEARNT_HASH

    @property
    def frozen_batch_norm(self) -> bool:
        """Whether batch norm keeps its statistics while the backbone is trained."""
        if self.freeze_batch_norm == "auto":
            return self.starts_from_weights
        return self.freeze_batch_norm == "yes"

    @property
    def batch_shape(self) -> tuple[int, int]:
        """Classes per batch and images of each."""
        if self.classes_per_batch is None or self.per_class is None:
            message = "the batch shape is known once the settings are resolved"
            raise ValueError(message)
        return self.classes_per_batch, self.per_class

    def resolved(self, n_classes: int) -> TrainingSettings:
        """The same with every default filled in; raises UsageError for what cannot be."""
        check(self)
        sgd = self.optimizer == "sgd"
        usual_lr, fine_tuned, decay = (0.01, 0.01, 1e-4) if sgd else (1e-3, 3e-4, 0.01)
        lr = usual_lr if self.lr is None else self.lr
        classes = max(1, min(self.classes_per_batch or 16, n_classes))
        # Deep kNN on raw features of a convolutional network shrinks them to a point unless α is
        # about as large as their distances; on the sphere it cannot.
        normalize = self.loss == "deep-knn" if self.normalize is None else self.normalize
        usual_alpha = 0.5 if normalize else 2.0
        return replace(
            self,
            normalize=normalize,
            alpha=usual_alpha if self.alpha is None else self.alpha,
            head_epochs=self._head_epochs(),
            lr=lr,
            backbone_lr=self._backbone_lr(lr, fine_tuned),
            weight_decay=decay if self.weight_decay is None else self.weight_decay,
            classes_per_batch=classes,
            per_class=self.per_class or max(8, 64 // classes),
        )

    def _head_epochs(self) -> int:
        # New layers exist only where the hash is learnt, and training them alone makes sense only
        # on a backbone that already sees something.
        if not (self.learns_hash and self.starts_from_weights):
            return 0
        return 5 if self.head_epochs is None else self.head_epochs

    def _backbone_lr(self, lr: float, fine_tuned: float) -> float:
        if self.backbone_lr is not None:
            return self.backbone_lr
        return min(lr, fine_tuned) if self.starts_from_weights else lr

    def as_json(self) -> dict[str, Any]:
        """All that can change the result, as plain values for JSON; of weights the file's name."""
        values = {name: v for name, v in asdict(self).items() if name not in _WITHOUT_EFFECT}
        values["weights"] = None if self.weights is None else self.weights.name
        values["model_args"] = dict(self.model_args)
        return values

    def digest(self) -> str:
        """A fingerprint of all that can change the result."""
        text = json.dumps(self.as_json(), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


def check(settings: TrainingSettings) -> None:
    """Raise UsageError, naming option and remedy, for settings that cannot be."""
    _one_of("--loss", settings.loss, LOSSES)
    _one_of("--optimizer", settings.optimizer, OPTIMIZERS)
    if settings.precision is not None:
        _one_of("--precision", settings.precision, PRECISIONS)
    check_bits(settings.bits)
    numbers = {
        "--epochs": settings.epochs,
        "--head-epochs": settings.head_epochs,
        "--lr": settings.lr,
        "--backbone-lr": settings.backbone_lr,
        "--weight-decay": settings.weight_decay,
        "--clip-norm": settings.clip_norm,
        "--alpha": settings.alpha,
        "--margin": settings.margin,
    }
    for option, value in numbers.items():
        if value is not None and not (math.isfinite(value) and value >= 0):
            message = f"{option} {value} must not be negative."
            raise UsageError(message)
    if settings.gamma is not None and not settings.gamma > 0:
        message = f"--gamma {settings.gamma} must be above 0."
        raise UsageError(message)
    if settings.per_class is not None and settings.per_class < 2 and settings.loss != "none":
        message = f"--per-class {settings.per_class} leaves no pair of one class; use 2 or more."
        raise UsageError(message)
    if min(settings.positives, settings.negatives) < 1:
        message = "--positives and --negatives must be 1 or more."
        raise UsageError(message)


def _one_of(option: str, value: str, known: tuple[str, ...]) -> None:
    if value in known:
        return
    close = difflib.get_close_matches(value, known, n=2, cutoff=0.4)
    hint = f"did you mean {' or '.join(close)}?" if close else f"use one of {', '.join(known)}."
    message = f"{option} {value} is unknown; {hint}"
    raise UsageError(message)
