"""What a run is given where nothing was said: defaults that hang on loss, backbone and classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from patchknn.training.checks import check
from patchknn.training.settings import MAY_NORMALIZE, TrainingSettings

_MOST_CLASSES = 16
_BATCH = 64
# Paper A sums its parts as they are; paper B's losses stand alone. Cross-entropy needs no weight.
_USUAL_W_CE = {"multitask": 1.0, "deep-knn": 0.0, "triplet": 0.0}
# Retrieval still gained from 8 to 20 epochs of 5,000 images; large sets repeat themselves less.
_MOST_EPOCHS, _FEWEST_EPOCHS, _IMAGES_SEEN = 20, 5, 200_000


def resolve(
    settings: TrainingSettings, n_classes: Sequence[int], n_images: int
) -> TrainingSettings:
    """The same with every default filled in; raises UsageError.

    ``n_classes`` of each task, ``n_images`` to train on in all.
    """
    check(settings)
    sgd = settings.optimizer == "sgd"
    usual_lr, fine_tuned, decay = (0.01, 0.01, 1e-4) if sgd else (1e-3, 3e-4, 0.01)
    lr = usual_lr if settings.lr is None else settings.lr
    most = max(n_classes, default=1)
    classes = max(1, min(settings.classes_per_batch or _MOST_CLASSES, most))
    per_class = settings.per_class or max(8, _BATCH // (classes * max(1, len(n_classes))))
    # Deep kNN on raw features of a convolutional network shrinks them to a point unless α is
    # about as large as their distances; on the sphere it cannot.
    normalize = settings.loss == "deep-knn" if settings.normalize is None else settings.normalize
    usual_alpha = 0.2 if normalize else 2.0
    return replace(
        settings,
        normalize=normalize and settings.loss in MAY_NORMALIZE,
        alpha=usual_alpha if settings.alpha is None else settings.alpha,
        w_ce=_USUAL_W_CE.get(settings.loss) if settings.w_ce is None else settings.w_ce,
        epochs=_epochs(n_images) if settings.epochs is None else settings.epochs,
        head_epochs=_head_epochs(settings),
        lr=lr,
        backbone_lr=_backbone_lr(settings, lr, fine_tuned),
        weight_decay=decay if settings.weight_decay is None else settings.weight_decay,
        classes_per_batch=classes,
        per_class=per_class,
    )


def _epochs(n_images: int) -> int:
    return max(_FEWEST_EPOCHS, min(_MOST_EPOCHS, round(_IMAGES_SEEN / max(1, n_images))))


def _head_epochs(settings: TrainingSettings) -> int:
    # New layers exist only where the hash is learnt, and training them alone makes sense only
    # on a backbone that already sees something.
    if not (settings.learns_hash and settings.starts_from_weights):
        return 0
    return 5 if settings.head_epochs is None else settings.head_epochs


def _backbone_lr(settings: TrainingSettings, lr: float, fine_tuned: float) -> float:
    if settings.backbone_lr is not None:
        return settings.backbone_lr
    return min(lr, fine_tuned) if settings.starts_from_weights else lr
