"""``nic_cnn``: the small encoder of neural image compression (paper C), as a timm model.

Tellez et al. 2020, *Extending unsupervised neural image compression with supervised multitask
learning*: 64 × 64 px at 1.0 µm/px, RGB scaled to [−1, 1]; four convolutions of 128 filters, 3 × 3,
stride 2, without padding, each with batch norm and LeakyReLU(0.2); flatten; dense 128. Importing
this file makes timm know the name.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

_FILTERS, _DENSE, _LAYERS = 128, 128, 4
_SMALLEST = 31  # what four such convolutions leave one pixel of

default_cfgs = generate_default_cfgs(
    {
        "nic_cnn": {
            "url": "",
            "num_classes": 0,
            "input_size": (3, 64, 64),
            "fixed_input_size": True,
            "pool_size": None,
            "crop_pct": 1.0,
            "interpolation": "bilinear",
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "first_conv": "blocks.0.conv",
            "classifier": "head",
        }
    }
)


class NicCnn(nn.Module):
    """Images (B, 3, S, S) in [−1, 1] → features (B, 128), or (B, ``num_classes``) with a head.

    ``img_size`` S sizes the dense layer: 64 as printed gives it 3 × 3 × 128 inputs; from 31 px on
    any other works, and one network takes one size. The sources at hand name no layer between the
    dense one and what is learnt on it, so none is built: features are its plain output, negative
    ones included, and heads and hash layer follow at once. Batch norm shifts by itself, so the
    convolutions have no bias; the printed network's ones would be folded into its statistics.
    Raises ValueError for a smaller ``img_size``, and for images of another size than it.
    """

    def __init__(
        self, *, img_size: int | tuple[int, int] = 64, in_chans: int = 3, num_classes: int = 0
    ) -> None:
        super().__init__()
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        if min(height, width) < _SMALLEST:
            message = f"nic_cnn needs images of at least {_SMALLEST} px; change --size."
            raise ValueError(message)
        self.img_size = (height, width)
        self.num_features = self.head_hidden_size = _DENSE
        self.blocks = nn.Sequential(
            *(_block(in_chans if layer == 0 else _FILTERS) for layer in range(_LAYERS))
        )
        self.dense = nn.Linear(_FILTERS * _left(height) * _left(width), _DENSE)
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:  # noqa: ARG002 -- timm's own signature
        """Put another head on the features; 0 classes take it away."""
        self.num_classes = num_classes
        self.head = nn.Linear(_DENSE, num_classes) if num_classes > 0 else nn.Identity()

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def forward_features(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) → maps (B, 128, S', S'), S' = 3 for 64 px."""
        if tuple(images.shape[-2:]) != self.img_size:
            height, width = self.img_size
            message = f"this nic_cnn is built for images of {height} × {width} px"
            raise ValueError(message)
        maps: Tensor = self.blocks(images)
        return maps

    def forward_head(self, maps: Tensor, pre_logits: bool = False) -> Tensor:
        """Maps (B, 128, S', S') → features (B, 128) and, unless ``pre_logits``, the head's."""
        features: Tensor = self.dense(maps.flatten(1))
        return features if pre_logits else self.head(features)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) → (B, 128), or what the head makes of it."""
        return self.forward_head(self.forward_features(images))


def nic_cnn(pretrained: bool = False, **kwargs: Any) -> NicCnn:
    """The entry point that ``timm.create_model("nic_cnn")`` calls; there are no weights for it."""
    model: NicCnn = build_model_with_cfg(NicCnn, "nic_cnn", pretrained, **kwargs)
    return model


# As a call: timm is untyped, and a decorator would take nic_cnn's types away.
register_model(nic_cnn)


def _block(channels: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(channels, _FILTERS, 3, stride=2, bias=False),
            norm=nn.BatchNorm2d(_FILTERS),
            act=nn.LeakyReLU(0.2, inplace=True),
        )
    )


def _left(side: int) -> int:
    """How many pixels of a side are left after all convolutions."""
    for _ in range(_LAYERS):
        side = (side - 3) // 2 + 1
    return side
