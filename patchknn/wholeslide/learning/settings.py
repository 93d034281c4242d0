"""All settings of one run of slide training, frozen and serialisable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from patchknn.errors import UsageError
from patchknn.training.settings import PRECISIONS
from patchknn.wholeslide.models.making import SHAPES

_WITHOUT_EFFECT = ("device", "bootstrap", "tensorboard")
_USUAL_HIDDEN: Mapping[str, int] = {"cnn": 64, "mil": 128}
_STEPS, _FEWEST_EPOCHS, _MOST_EPOCHS = 1500, 30, 200
_BATCH, _SURVIVAL_BATCH = 8, 32
_USUAL_RATES: Mapping[str, float] = {"cnn": 3e-3}


@dataclass(frozen=True)
class SlideSettings:
    """Settings of one run.

    ``model`` is cnn, mil, mean or max; ``hidden`` the width of its layers (None: 64 of the
    CNN, 128 of attention), ``depth`` the CNN's convolutions, ``lr`` the rate (None: 0.003 and
    0.001). ``window`` is the side in places of what is cut by chance from larger grids in
    training. ``turn``: grids are turned and mirrored by chance.
    ``batch_size`` counts slides (None: 8, and 32 for survival, whose risk sets are those of the
    batch); ``epochs`` None are as many as 1500 steps need, 30 to 200, as
    rare tissue is found after so many steps, however few the slides are; ``patience`` the epochs
    without a smaller loss on held-out patients after which a training ends (0: never).
    ``accumulate`` are the batches of one step of the optimiser, ``precision`` is float32, bfloat16
    or float16 (None: by the device).
    ``bootstrap`` draws of patients give intervals.
    """

    model: str = "cnn"
    hidden: int | None = None
    depth: int = 2
    dropout: float = 0.25
    window: int = 256
    turn: bool = True
    epochs: int | None = None
    patience: int = 0
    batch_size: int | None = None
    lr: float | None = None
    weight_decay: float = 0.01
    schedule: Literal["cosine", "step"] = "cosine"
    step_epochs: int = 20
    step_factor: float = 0.5
    warmup: float = 0.05
    clip_norm: float = 5.0
    class_weights: Literal["none", "balanced"] = "none"
    folds: int = 5
    bootstrap: int = 1000
    accumulate: int = 1
    precision: str | None = None
    seed: int = 0
    device: str | None = None
    tensorboard: Path | None = None

    def check(self) -> None:
        """Raise UsageError for what cannot be."""
        if self.model not in SHAPES:
            message = f"--model {self.model} is none of {', '.join(SHAPES)}."
            raise UsageError(message)
        if self.precision not in (None, *PRECISIONS):
            message = f"--precision {self.precision} is none of {', '.join(PRECISIONS)}."
            raise UsageError(message)
        if self.folds == 1:
            message = "--folds 1 leaves nothing to train on; give 2 or more, or 0 for none."
            raise UsageError(message)

    def resolved(self, slides: int, kind: str) -> SlideSettings:
        """The same filled in for so many slides and the ``kind`` of task; raises UsageError."""
        self.check()
        usual_batch = _SURVIVAL_BATCH if kind == "survival" else _BATCH
        batch = usual_batch if self.batch_size is None else self.batch_size
        wanted = round(_STEPS * batch * self.accumulate / max(slides, 1))
        usual = min(max(wanted, _FEWEST_EPOCHS), _MOST_EPOCHS)
        epochs = usual if self.epochs is None else self.epochs
        return replace(self, epochs=epochs, batch_size=batch)

    @property
    def last_epoch(self) -> int:
        """How many epochs the rates are made for."""
        return self._resolved(self.epochs)

    @property
    def slides_of_a_batch(self) -> int:
        """How many slides a batch has at most."""
        return self._resolved(self.batch_size)

    @staticmethod
    def _resolved(value: int | None) -> int:
        if value is None:
            message = "epochs and batches are known once the settings are resolved"
            raise ValueError(message)
        return value

    @property
    def rate(self) -> float:
        """The highest rate of the optimiser."""
        return _USUAL_RATES.get(self.model, 1e-3) if self.lr is None else self.lr

    @property
    def shape(self) -> dict[str, Any]:
        """What makes the network, as ``make_network`` takes it."""
        usual = _USUAL_HIDDEN.get(self.model, 0)
        values = {
            "hidden": usual if self.hidden is None else self.hidden,
            "depth": self.depth,
            "dropout": self.dropout,
        }
        return {name: values[name] for name in SHAPES[self.model]}

    def as_json(self) -> dict[str, Any]:
        """All that can change the models, as plain values for JSON."""
        return {name: v for name, v in asdict(self).items() if name not in _WITHOUT_EFFECT}

    def digest(self) -> str:
        """A fingerprint of all that can change the models."""
        return hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()
