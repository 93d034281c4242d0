"""Settings as the papers print them, by one name; whatever a user says himself goes before."""

from __future__ import annotations

from typing import Any

# What the papers leave open (FORMULAS: α, weights, epochs, momentum) keeps patchknn's defaults.
PRESETS: dict[str, dict[str, Any]] = {
    # Peng 2019: ImageNet weights, first the new layers alone, then the whole network (3.2); the
    # triplets of n·k samples (2.1), all weights 1 (2.3).
    "paper-a": {
        "backbone": "resnet18",
        "pretrained": True,
        "loss": "multitask",
        "head_epochs": 5,
        "augment": "light",
        "cauchy_distance": "euclidean",
        "quantization": "sound",
    },
    # Zhuang 2020, 3: resize to 256, random crop of 224, horizontal flip, centre crop in test;
    # SGD at 0.01, halved every 20 epochs; K = M = 5; nine classes of ten images.
    "paper-b": {
        "backbone": "resnet50",
        "pretrained": True,
        "loss": "deep-knn",
        "crop": 0.875,
        "augment": "flip",
        "optimizer": "sgd",
        "lr": 0.01,
        "backbone_lr": 0.01,
        "schedule": "step",
        "step_epochs": 20,
        "step_factor": 0.5,
        "warmup": 0.0,
        "positives": 5,
        "negatives": 5,
        "classes_per_batch": 9,
        "per_class": 10,
        "epochs": 60,
    },
}
