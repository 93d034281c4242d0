"""The orientations of an image over which features may be averaged.

Tissue has no top: a patch and its mirror image show the same, and a network that was trained with
flips and turns by chance still answers a little differently for each. The mean over all eight
does not hang on how the glass lay on the stage.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

# As it is; and mirrored; as it is and turned by 90, 180, 270°; these and their mirror images.
ORIENTATIONS = (1, 2, 4, 8)


def orientations(images: Tensor, count: int) -> Iterator[Tensor]:
    """``count`` (one of ``ORIENTATIONS``) views of images (B, C, S, S), as they are first.

    Each set is closed: an image that lies in another of its orientations has the same views, in
    another order.
    """
    for turns in range(4 if count >= 4 else 1):
        turned = images.rot90(turns, (2, 3))
        yield turned
        if count in (2, 8):
            yield turned.flip(3)
